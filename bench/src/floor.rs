//! The floor: a server that answers every request with the same bytes.
//!
//! What it costs is what the kernel costs, with the best use of io_uring that is known; what
//! another server costs above it is that server's own work. It counts requests by the blank line
//! that ends a head and looks at nothing else, so it is no HTTP server: bodies are not understood.
//!
//! The replies of a turn on a connection are one send: consecutive bytes of one block that holds
//! the reply many times over.

use crate::address::Address;
use crate::ring::{BufferSizes, Completion, Event, Kind, Ring};
use socket2::Socket;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;

/// How often the block holds the reply: the most replies that one send carries.
const REPLIES_PER_SEND_MAX: usize = 64;

/// As many receive buffers, and as large, as a shard of the server works in: they stay in the
/// core's cache.
const BUFFERS: BufferSizes = BufferSizes { count: 256, size: 4096 };

/// What ends a head.
const BLANK_LINE: &[u8; 4] = b"\r\n\r\n";

/// Answers on `listen` until it is killed; closes a connection after `close_after` replies.
pub(crate) fn serve(listen: &Address, reply: &[u8], close_after: Option<u32>) -> io::Result<()> {
    assert!(!reply.is_empty(), "a reply has a head");
    let block: &'static [u8] = Box::leak(reply.repeat(REPLIES_PER_SEND_MAX).into_boxed_slice());
    let listener = listen.listen()?;
    let mut floor = Floor {
        ring: Ring::new(BUFFERS)?,
        replies: Replies { block, reply_size: reply.len() },
        close_after: close_after.map_or(usize::MAX, |count| count as usize),
        nodelay: !listen.is_unix(),
        connections: Vec::new(),
        free: Vec::new(),
        ready: Vec::new(),
    };
    floor.ring.accept(listener.as_fd())?;
    let mut completions = Vec::new();
    loop {
        floor.ring.turn(None, &mut completions)?;
        for completion in completions.drain(..) {
            floor.dispatch(completion, &listener)?;
        }
        floor.answer()?;
    }
}

/// A reply with a body of `body_size` bytes, and with the fields and field sizes of Pelton's own
/// replies to hits in its head.
pub(crate) fn reply(body_size: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\n\
         Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         Content-Type: application/json\r\n\
         ETag: \"0123456789abcdef\"\r\n\
         Age: 0\r\n\
         Cache-Status: pelton; hit; ttl=60\r\n\
         Cache-Control: max-age=60, stale-while-revalidate=30\r\n\
         Content-Length: {body_size}\r\n\
         \r\n"
    );
    [head.into_bytes(), vec![b'x'; body_size]].concat()
}

/// A reply laid out back to back.
#[derive(Clone, Copy)]
struct Replies {
    block: &'static [u8],
    reply_size: usize,
}

impl Replies {
    /// The bytes to send next to a connection that is owed `owed` bytes and has been sent a
    /// multiple of the reply and `phase` bytes more.
    fn next(self, owed: usize, phase: usize) -> &'static [u8] {
        &self.block[phase..self.block.len().min(phase + owed)]
    }
}

struct Floor {
    ring: Ring,
    replies: Replies,
    /// Replies after which a connection is closed.
    close_after: usize,
    /// Connections are TCP.
    nodelay: bool,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// Connections that got requests in this turn.
    ready: Vec<u32>,
}

struct Connection {
    stream: Socket,
    heads: Heads,
    /// Requests that may still come.
    left: usize,
    /// Bytes of replies not yet taken by the kernel.
    owed: usize,
    /// Bytes sent so far, modulo the reply's size.
    phase: usize,
    sending: bool,
    ended: bool,
}

impl Floor {
    fn dispatch(&mut self, completion: Completion, listener: &Socket) -> io::Result<()> {
        let Completion { token, event, more } = completion;
        let id = token.connection;
        if token.kind == Kind::Accept && !more {
            self.ring.accept(listener.as_fd())?;
        }
        match event {
            Event::Accepted(fd) => self.open(Socket::from(fd))?,
            Event::Received(buffer) => {
                let connection = existing(&mut self.connections, id);
                let count = connection.heads.count(self.ring.bytes(&buffer));
                self.ring.recycle(buffer);
                let count = count.min(connection.left);
                connection.left -= count;
                connection.owed += count * self.replies.reply_size;
                if !more {
                    self.ring.receive(connection.stream.as_fd(), id)?;
                }
                if count > 0 {
                    self.ready.push(id);
                }
            }
            Event::Sent(size) => {
                let connection = existing(&mut self.connections, id);
                connection.sending = false;
                connection.owed -= size;
                connection.phase = (connection.phase + size) % self.replies.reply_size;
                if connection.left == 0 && connection.owed == 0 {
                    // The peer closes then, which ends the receive.
                    drop(connection.stream.shutdown(Shutdown::Write));
                }
                self.ready.push(id);
            }
            Event::Failed(_) if token.kind == Kind::Send => {
                let connection = existing(&mut self.connections, id);
                connection.sending = false;
                connection.owed = 0;
                self.ready.push(id);
            }
            Event::Failed(_) | Event::Ended => {
                existing(&mut self.connections, id).ended = true;
                self.ready.push(id);
            }
            Event::Lapsed if token.kind == Kind::Receive => {
                let connection = existing(&mut self.connections, id);
                self.ring.receive(connection.stream.as_fd(), id)?;
            }
            Event::Lapsed => {}
            Event::Connected => unreachable!("a server connects to nobody"),
        }
        Ok(())
    }

    fn open(&mut self, stream: Socket) -> io::Result<()> {
        if self.nodelay {
            stream.set_tcp_nodelay(true)?;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            u32::try_from(self.connections.len() - 1).expect("descriptors are fewer")
        });
        self.ring.receive(stream.as_fd(), id)?;
        self.connections[id as usize] = Some(Connection {
            stream,
            heads: Heads::default(),
            left: self.close_after,
            owed: 0,
            phase: 0,
            sending: false,
            ended: false,
        });
        Ok(())
    }

    /// Starts one send on every connection that is owed replies and has none under way.
    fn answer(&mut self) -> io::Result<()> {
        for id in self.ready.drain(..) {
            let Some(connection) = &mut self.connections[id as usize] else { continue };
            if connection.sending {
                continue;
            }
            if connection.ended {
                self.connections[id as usize] = None;
                self.free.push(id);
            } else if connection.owed > 0 {
                let bytes = self.replies.next(connection.owed, connection.phase);
                self.ring.send(connection.stream.as_fd(), bytes, id)?;
                connection.sending = true;
            }
        }
        Ok(())
    }
}

fn existing(connections: &mut [Option<Connection>], id: u32) -> &mut Connection {
    connections[id as usize].as_mut().expect("a slot is freed after its last completion")
}

/// Counts the heads in a stream of bytes that comes in pieces of any size.
#[derive(Default)]
struct Heads {
    /// The last bytes of the stream so far: a blank line may go on from here.
    tail: [u8; BLANK_LINE.len() - 1],
}

impl Heads {
    fn count(&mut self, piece: &[u8]) -> usize {
        let tail_size = self.tail.len();
        let begun = piece.len().min(tail_size);
        let mut seam = [0; 2 * (BLANK_LINE.len() - 1)];
        seam[..tail_size].copy_from_slice(&self.tail);
        seam[tail_size..tail_size + begun].copy_from_slice(&piece[..begun]);
        let seam = &seam[..tail_size + begun];
        let count = count_blank_lines(seam) + count_blank_lines(piece);
        let end = if piece.len() >= tail_size { piece } else { seam };
        self.tail.copy_from_slice(&end[end.len() - tail_size..]);
        count
    }
}

/// How many blank lines lie whole within `bytes`. Without a branch, so that it is vectorised.
fn count_blank_lines(bytes: &[u8]) -> usize {
    let [first, second, third, fourth] = BLANK_LINE;
    let from = |offset| bytes.get(offset..).unwrap_or(&[]);
    let windows = bytes.iter().zip(from(1)).zip(from(2)).zip(from(3));
    windows
        .map(|(((a, b), c), d)| {
            usize::from((a == first) & (b == second) & (c == third) & (d == fourth))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n\r\r\n\r\nG\r\n\r";

    #[test]
    fn heads_are_counted_in_one_piece() {
        assert_eq!(Heads::default().count(STREAM), 3);
    }

    #[test]
    fn heads_are_counted_the_same_however_the_stream_is_cut() {
        for first in 0..STREAM.len() {
            for second in first..STREAM.len() {
                let mut heads = Heads::default();
                let count = heads.count(&STREAM[..first])
                    + heads.count(&STREAM[first..second])
                    + heads.count(&STREAM[second..]);
                assert_eq!(count, 3, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn heads_are_counted_byte_by_byte() {
        let mut heads = Heads::default();
        assert_eq!(STREAM.chunks(1).map(|byte| heads.count(byte)).sum::<usize>(), 3);
    }

    #[test]
    fn a_send_goes_on_where_the_last_one_was_cut() {
        let replies = Replies { block: b"abcabcabc", reply_size: 3 };
        assert_eq!(replies.next(6, 0), b"abcabc");
        assert_eq!(replies.next(5, 1), b"bcabc");
        assert_eq!(replies.next(100, 2), b"cabcabc");
    }
}
