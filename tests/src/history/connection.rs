//! A connection that waits for nothing: it writes and reads as far as the socket lets it. One
//! request at a time.

use crate::http::Reply;
use nix::poll::PollFlags;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes that one read takes.
const READ_SIZE: usize = 64 << 10;

/// Header lines of a reply.
const LINES_MAX: usize = 32;

/// A keep-alive connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    outgoing: Vec<u8>,
    /// Bytes of it that are sent.
    sent: usize,
    incoming: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The socket's.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, outgoing: Vec::new(), sent: 0, incoming: Vec::new() })
    }

    /// Begins to send a request; the reply to the one before is here.
    ///
    /// # Errors
    /// The socket's.
    ///
    /// # Panics
    /// If more came than that reply.
    pub fn ask(&mut self, request: Vec<u8>) -> io::Result<()> {
        assert!(self.incoming.is_empty(), "a reply that nobody asked for");
        self.outgoing = request;
        self.sent = 0;
        self.send()
    }

    /// What the socket has to be ready for.
    #[must_use]
    pub fn interest(&self) -> PollFlags {
        let is_sent = self.sent == self.outgoing.len();
        if is_sent { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
    }

    /// Sends and receives what goes without waiting. Returns the reply once it is whole.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof` where the server ends the connection, `InvalidData` where
    /// the reply is malformed.
    pub fn advance(&mut self) -> io::Result<Option<Reply>> {
        self.send()?;
        let mut chunk = [0; READ_SIZE];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.incoming.extend(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.take_reply()
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match self.stream.write(&self.outgoing[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_reply(&mut self) -> io::Result<Option<Reply>> {
        let malformed = |what: String| io::Error::new(ErrorKind::InvalidData, what);
        let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
        let mut head = httparse::Response::new(&mut lines);
        let parsed = head.parse(&self.incoming).map_err(|error| malformed(error.to_string()))?;
        let httparse::Status::Complete(head_size) = parsed else { return Ok(None) };
        let status = head.code.ok_or_else(|| malformed("a reply without a status".into()))?;
        let line = |line: &httparse::Header<'_>| {
            (line.name.to_owned(), String::from_utf8_lossy(line.value).into_owned())
        };
        let headers = head.headers.iter().map(line).collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        let size = match (status, reply.header("Content-Length")) {
            (204 | 304, _) => 0,
            (_, Some(size)) => size.parse().map_err(|_| malformed(format!("a size of {size}")))?,
            (_, None) => return Err(malformed("a reply without a size".into())),
        };
        let end = head_size + size;
        if self.incoming.len() < end {
            return Ok(None);
        }
        reply.body = self.incoming[head_size..end].to_vec();
        self.incoming.drain(..end);
        Ok(Some(reply))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
