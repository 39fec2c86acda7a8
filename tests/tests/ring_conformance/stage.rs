//! What a script needs of the world around a ring.

use pelton::ring::{
    Clock, Completion, Completions, Event, Fault, Fd, Kind, Memory, Op, Region, Ring, Span, Spans,
    Token,
};
use shard_cache::time::Instant;
use std::time::Duration;

/// Receive buffers of each ring, and bytes in each.
pub(crate) const BUFFERS_COUNT: u16 = 4;
pub(crate) const BUFFER_SIZE: u32 = 256;

/// Operations pushed in one turn.
pub(crate) const PUSHES_MAX: usize = 64;

/// Turns within which what a script waits for must happen.
const TURNS_MAX: u32 = 20_000;

/// The longest wait of a turn. It bounds how long a failing script takes, and no other.
const WAIT: Duration = Duration::from_millis(2);

/// What a peer can read at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There may be more.
    Open,
    /// The server sends no more.
    Ended,
    /// The connection was reset.
    Reset,
}

/// Two rings in a world with one listener, peers and one eventfd.
pub(crate) trait Stage {
    type R: Ring;

    /// More bytes than the socket's buffers hold.
    const LARGE_SIZE: u32;

    /// One of the rings, 0 or 1.
    fn ring(&mut self, index: usize) -> &mut Self::R;

    /// A turn of a ring; the world goes on meanwhile.
    fn turn(
        &mut self,
        index: usize,
        memory: Memory<'_>,
        deadline: Instant,
        batch: &mut Completions,
    ) -> Clock {
        self.ring(index).turn(memory, deadline, batch)
    }

    fn listener(&self) -> Fd;

    fn eventfd(&self) -> Fd;

    /// Writes the eventfd.
    fn signal(&mut self);

    /// Connects a peer; peers are numbered from 0.
    fn connect(&mut self) -> usize;

    /// The peer writes bytes for which there is room. It may learn that the connection was reset,
    /// here or where it reads, but once.
    fn write(&mut self, peer: usize, bytes: &[u8]) -> End;

    /// The peer reads what there is.
    fn read(&mut self, peer: usize, into: &mut Vec<u8>) -> End;

    /// The peer sends no more.
    fn finish(&mut self, peer: usize);

    /// The peer closes; if it has not read all it was sent, that resets the connection.
    fn close(&mut self, peer: usize);
}

/// Runs a script: its rings' memory, its time, what it has seen.
pub(crate) struct Player<'a, S: Stage> {
    pub(crate) stage: &'a mut S,
    pub(crate) output: Vec<u8>,
    pub(crate) arena: Vec<u8>,
    pub(crate) batch_max: usize,
    /// When the last turn of each ring woke.
    woke: [Instant; 2],
}

impl<'a, S: Stage> Player<'a, S> {
    pub(crate) fn new(stage: &'a mut S) -> Self {
        Self {
            stage,
            output: vec![0; 4096],
            arena: Vec::new(),
            batch_max: 64,
            woke: [Instant::ZERO; 2],
        }
    }

    pub(crate) fn push(&mut self, token: Token, op: Op) {
        self.stage.ring(0).push(token, op);
    }

    /// One turn of a ring.
    pub(crate) fn turn(&mut self, index: usize) -> Vec<Completion> {
        let mut batch = Completions::with_capacity(self.batch_max);
        let memory = Memory { output: &self.output, arena: &self.arena };
        let clock = self.stage.turn(index, memory, self.woke[index] + WAIT, &mut batch);
        assert!(clock.entered >= self.woke[index], "time does not go back");
        assert!(clock.woke >= clock.entered, "time does not go back");
        self.woke[index] = clock.woke;
        batch.drain().collect()
    }

    /// Turns of ring 0 until `done` says so of what was seen; returns all of it.
    pub(crate) fn turn_until(
        &mut self,
        mut done: impl FnMut(&mut Self, &[Completion]) -> bool,
    ) -> Vec<Completion> {
        let mut seen = Vec::new();
        for _ in 0..TURNS_MAX {
            if done(self, &seen) {
                return seen;
            }
            seen.extend(self.turn(0));
        }
        panic!("it did not happen; seen: {seen:?}");
    }

    /// Turns until the submission has completed for the last time.
    pub(crate) fn finish(&mut self, token: Token) -> Vec<Completion> {
        self.turn_until(|_, seen| is_over(seen, token))
    }

    /// Some turns in which nothing must happen.
    pub(crate) fn quiet(&mut self) {
        for _ in 0..20 {
            let seen = self.turn(0);
            assert!(seen.is_empty(), "nothing was to happen: {seen:?}");
        }
    }

    /// Connects a peer and accepts it. The accept is cancelled, so that nothing is in flight.
    pub(crate) fn connection(&mut self) -> (usize, Fd) {
        let peer = self.stage.connect();
        let accept = Token::new(Kind::Accept, 0, 0);
        let listener = self.stage.listener();
        let mut accepted = None;
        while accepted.is_none() {
            self.push(accept, Op::Accept { listener });
            let mut over = false;
            let seen = self.turn_until(|_, seen| {
                over = is_over(seen, accept);
                over || seen.iter().any(|done| matches!(done.event, Event::Accepted(_)))
            });
            accepted = seen.iter().find_map(|done| {
                if let Event::Accepted(fd) = done.event { Some(fd) } else { None }
            });
            if !over {
                let cancel = Token::new(Kind::Cancel, 0, 0);
                self.push(cancel, Op::Cancel { target: accept });
                self.turn_until(|_, seen| is_over(seen, cancel) && is_over(seen, accept));
            }
        }
        (peer, accepted.expect("the loop ends with a connection"))
    }

    /// Takes the bytes out of what a receive has brought, and gives the buffers back.
    pub(crate) fn take_bytes(&mut self, seen: Vec<Completion>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for done in seen {
            if let Event::Received { buffer, len } = done.event {
                bytes.extend(self.stage.ring(0).bytes(&buffer, len));
                self.stage.ring(0).recycle(buffer);
            }
        }
        bytes
    }

    /// Receives exactly `size` bytes, arming as often as it takes. Returns them, and whether the
    /// receive is still armed.
    pub(crate) fn receive(&mut self, fd: Fd, size: usize) -> (Vec<u8>, bool) {
        let (mut bytes, mut armed) = (Vec::new(), false);
        while bytes.len() < size {
            if !armed {
                self.push(RECV, Op::Recv { fd });
            }
            let seen = self.turn_until(|_, seen| !seen.is_empty());
            armed = !is_over(&seen, RECV);
            for done in &seen {
                let expected =
                    matches!(done.event, Event::Received { .. } | Event::Failed(Fault::NoBuffers));
                assert!(expected, "{done:?}");
            }
            bytes.extend(self.take_bytes(seen));
        }
        (bytes, armed)
    }

    /// Sends these spans to their end, as many submissions as it takes. Returns what failed.
    pub(crate) fn send(&mut self, fd: Fd, mut spans: Spans) -> Result<(), Fault> {
        while spans.size() > 0 {
            self.push(SEND, Op::Send { fd, spans });
            let done = self.finish(SEND).pop().expect("it has completed");
            if let Event::Failed(fault) = done.event {
                return Err(fault);
            }
            let Event::Sent { len } = done.event else { panic!("{done:?}") };
            spans.advance(len);
        }
        Ok(())
    }

    /// The peer reads until it has `size` bytes or there will be no more, while the ring turns.
    pub(crate) fn peer_reads(&mut self, peer: usize, size: usize) -> (Vec<u8>, End) {
        let (mut bytes, mut end) = (Vec::new(), End::Open);
        self.turn_until(|player, _| {
            end = player.stage.read(peer, &mut bytes);
            end != End::Open || bytes.len() >= size
        });
        (bytes, end)
    }
}

pub(crate) const RECV: Token = Token::new(Kind::Recv, 3, 7);
pub(crate) const SEND: Token = Token::new(Kind::Send, 3, 7);
pub(crate) const CANCEL: Token = Token::new(Kind::Cancel, 3, 7);
pub(crate) const CLOSE: Token = Token::new(Kind::Close, 3, 7);

/// Whether the submission has completed for the last time.
pub(crate) fn is_over(seen: &[Completion], token: Token) -> bool {
    seen.iter().any(|done| done.token == token && !done.more)
}

/// How the submission ended.
pub(crate) fn last_event(seen: &[Completion], token: Token) -> &Event {
    let last = seen.iter().find(|done| done.token == token && !done.more);
    &last.expect("it has completed for the last time").event
}

/// A span of output memory.
pub(crate) fn output(offset: u64, len: u32) -> Span {
    Span { offset, len, region: Region::Output }
}

/// These spans, in order.
pub(crate) fn spans(list: &[Span]) -> Spans {
    let mut spans = Spans::new();
    list.iter().for_each(|span| spans.push(*span));
    spans
}
