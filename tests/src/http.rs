//! A small client: writes requests, reads replies, trusts nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header lines as they came: name, value.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header, by any case of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Speaks over `stream`, whatever its family: what is done to it here any stream socket knows.
    #[must_use]
    pub fn new(stream: impl Into<OwnedFd>) -> Self {
        Self { stream: BufReader::new(TcpStream::from(stream.into())) }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// As the socket has them.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Reads one reply; `is_head` if the request was HEAD.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof` in the middle of a reply, `InvalidData` if it is malformed.
    pub fn receive(&mut self, is_head: bool) -> io::Result<Reply> {
        let mut reply = self.head()?;
        let length = reply.header("Content-Length").map(str::parse::<usize>);
        match length {
            _ if is_head || matches!(reply.status, 100..=199 | 204 | 304) => {}
            Some(Ok(length)) => {
                reply.body = vec![0; length];
                self.stream.read_exact(&mut reply.body)?;
            }
            None if reply.header("Transfer-Encoding") == Some("chunked") => {
                reply.body = self.chunks()?;
            }
            Some(Err(_)) | None => return Err(malformed("a reply without a length")),
        }
        Ok(reply)
    }

    /// Reads the head of a reply.
    fn head(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| malformed(&line))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| malformed(&line))?;
            headers.push((name.to_owned(), value.to_owned()));
        }
        Ok(Reply { status, headers, body: Vec::new() })
    }

    /// Reads one reply that ends with the connection.
    ///
    /// # Errors
    /// The socket's, and `InvalidData` if the head is malformed.
    pub fn receive_to_end(&mut self) -> io::Result<Reply> {
        let mut reply = self.head()?;
        self.stream.read_to_end(&mut reply.body)?;
        Ok(reply)
    }

    /// A chunked body.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| malformed(&line))?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            let end = self.line()?;
            match (end.is_empty(), size) {
                (true, 0) => return Ok(body),
                (true, _) => {}
                (false, _) => return Err(malformed(&end)),
            }
        }
    }

    /// A GET and its reply.
    ///
    /// # Panics
    /// If there is no reply.
    pub fn get(&mut self, path: &str) -> Reply {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.send(request.as_bytes()).expect("the server reads");
        self.receive(false).expect("the server replies")
    }

    /// Whether the server has ended the connection, with nothing before that.
    ///
    /// # Panics
    /// If more bytes come.
    pub fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(_) => return false,
        }
        assert!(rest.is_empty(), "unexpected: {}", String::from_utf8_lossy(&rest));
        true
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
