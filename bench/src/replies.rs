//! Reads replies out of a stream of bytes that comes in pieces of any size.
//!
//! Bodies end by `Content-Length`, by chunks, or with the connection (RFC 9112 section 6.3).
//! Interim replies (1xx) are skipped. A reply that lies whole in one piece is not copied.

use std::mem::take;

/// Most header fields of a reply.
const HEADERS_COUNT_MAX: usize = 64;
/// Most bytes of a head, or of a line that gives a chunk's size.
const HEAD_SIZE_MAX: usize = 64 << 10;

/// A whole reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Status code.
    pub status: u16,
    /// Empty where bodies are not kept.
    pub body: &'a [u8],
    /// The server says that it closes the connection.
    pub closes: bool,
}

/// Bytes that are no reply; says why.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// One connection's incoming bytes.
#[derive(Debug, Default)]
pub struct Replies {
    /// Replies have no body: the requests are HEAD.
    bodiless: bool,
    keeps_bodies: bool,
    head: Head,
    rest: Rest,
    /// A head, or a chunk's size, whose end has not come yet.
    carry: Vec<u8>,
    /// What has come of a body that came in several pieces.
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    status: u16,
    closes: bool,
}

/// What comes next of the reply under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    #[default]
    Head,
    /// So many bytes of the body.
    Body(u64),
    /// Everything until the connection ends.
    All,
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
    /// Fields after the last chunk, up to an empty line.
    Trailer,
}

impl Replies {
    /// Those of a new connection; `bodiless` if the requests are HEAD.
    #[must_use]
    pub fn new(bodiless: bool, keeps_bodies: bool) -> Self {
        Self { bodiless, keeps_bodies, ..Self::default() }
    }

    /// Forgets what was under way: a new connection begins.
    pub fn reset(&mut self) {
        *self = Self::new(self.bodiless, self.keeps_bodies);
    }

    /// Hands every reply that is now whole to `sink`, in order.
    ///
    /// # Errors
    /// The bytes are no reply.
    pub fn read(
        &mut self,
        mut piece: &[u8],
        mut sink: impl FnMut(&Reply<'_>),
    ) -> Result<(), Malformed> {
        while !piece.is_empty() {
            piece = match self.rest {
                Rest::Head => self.read_head(piece, &mut sink)?,
                Rest::Body(left) => self.read_body(piece, left, &mut sink),
                Rest::All => {
                    self.keep(piece);
                    &[]
                }
                Rest::ChunkSize => self.read_chunk_size(piece)?,
                Rest::Chunk(left) => self.read_chunk(piece, left),
                Rest::ChunkEnd => self.read_chunk_end(piece)?,
                Rest::Trailer => self.read_trailer(piece, &mut sink)?,
            };
        }
        Ok(())
    }

    /// The connection has ended: a body that had no other end is whole now. Returns whether
    /// nothing was cut off.
    pub fn end(&mut self, sink: impl FnOnce(&Reply<'_>)) -> bool {
        let is_whole = match self.rest {
            Rest::All => {
                let body = take(&mut self.body);
                sink(&self.reply(&body));
                true
            }
            Rest::Head => self.carry.is_empty(),
            Rest::Body(_) | Rest::ChunkSize | Rest::Chunk(_) | Rest::ChunkEnd | Rest::Trailer => {
                false
            }
        };
        self.reset();
        is_whole
    }

    fn reply<'a>(&self, body: &'a [u8]) -> Reply<'a> {
        let Head { status, closes } = self.head;
        Reply { status, body: if self.keeps_bodies { body } else { &[] }, closes }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.keeps_bodies {
            self.body.extend_from_slice(bytes);
        }
    }

    fn read_head<'a>(
        &mut self,
        piece: &'a [u8],
        sink: &mut impl FnMut(&Reply<'_>),
    ) -> Result<&'a [u8], Malformed> {
        let carried = self.carry.len();
        let parsed = if carried == 0 {
            self.parse(piece)?
        } else {
            self.carry.extend_from_slice(piece);
            let carry = take(&mut self.carry);
            let parsed = self.parse(&carry)?;
            self.carry = carry;
            parsed
        };
        let Some(head_size) = parsed else {
            if carried == 0 {
                self.carry.extend_from_slice(piece);
            }
            if self.carry.len() > HEAD_SIZE_MAX {
                return Err(Malformed(format!("a head of more than {HEAD_SIZE_MAX} bytes")));
            }
            return Ok(&[]);
        };
        self.carry.clear();
        let piece = &piece[head_size - carried..];
        if self.rest == Rest::Body(0) {
            // An empty body needs no further byte.
            return Ok(self.read_body(piece, 0, sink));
        }
        Ok(piece)
    }

    /// The size of the head at the front, if it is whole; then `rest` says what follows it.
    fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_COUNT_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let status = head.parse(bytes).map_err(|error| Malformed(format!("head: {error}")))?;
        let httparse::Status::Complete(size) = status else { return Ok(None) };
        let status = head.code.expect("a complete head has a status");
        let mut framing = Framing::default();
        for header in head.headers.iter() {
            framing.note(header)?;
        }
        self.head = Head { status, closes: framing.closes(head.version == Some(0)) };
        self.rest = match (status, framing.coding, framing.length) {
            (..100, ..) => return Err(Malformed(format!("status {status} is none"))),
            (101, ..) => return Err(Malformed("the server switches protocols".to_owned())),
            (100..=199, ..) => Rest::Head,
            (204 | 304, ..) => Rest::Body(0),
            _ if self.bodiless => Rest::Body(0),
            (_, Some(Coding::Chunked), _) => Rest::ChunkSize,
            (_, Some(Coding::Other), _) | (_, None, None) => Rest::All,
            (_, None, Some(length)) => Rest::Body(length),
        };
        Ok(Some(size))
    }

    fn read_body<'a>(
        &mut self,
        piece: &'a [u8],
        left: u64,
        sink: &mut impl FnMut(&Reply<'_>),
    ) -> &'a [u8] {
        let (bytes, after) = split(piece, left);
        let left = left - bytes.len() as u64;
        if left > 0 {
            self.rest = Rest::Body(left);
            self.keep(bytes);
            return after;
        }
        self.rest = Rest::Head;
        if self.body.is_empty() {
            sink(&self.reply(bytes));
        } else {
            self.keep(bytes);
            self.finish(sink);
        }
        after
    }

    fn finish(&mut self, sink: &mut impl FnMut(&Reply<'_>)) {
        self.rest = Rest::Head;
        let body = take(&mut self.body);
        sink(&self.reply(&body));
        self.body = body;
        self.body.clear();
    }

    fn read_chunk_size<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let Some((line, after)) = self.read_line(piece)? else { return Ok(&[]) };
        let digits = line.split(|byte| *byte == b';').next().unwrap_or(&[]);
        let size = number(digits, 16)
            .filter(|&size| size <= u64::MAX / 2)
            .ok_or_else(|| Malformed("a chunk has no size".to_owned()))?;
        self.rest = if size == 0 { Rest::Trailer } else { Rest::Chunk(size) };
        Ok(after)
    }

    fn read_chunk<'a>(&mut self, piece: &'a [u8], left: u64) -> &'a [u8] {
        let (bytes, after) = split(piece, left);
        self.keep(bytes);
        let left = left - bytes.len() as u64;
        self.rest = if left == 0 { Rest::ChunkEnd } else { Rest::Chunk(left) };
        after
    }

    fn read_chunk_end<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let Some((line, after)) = self.read_line(piece)? else { return Ok(&[]) };
        if !line.is_empty() {
            return Err(Malformed("a chunk is longer than its size".to_owned()));
        }
        self.rest = Rest::ChunkSize;
        Ok(after)
    }

    fn read_trailer<'a>(
        &mut self,
        piece: &'a [u8],
        sink: &mut impl FnMut(&Reply<'_>),
    ) -> Result<&'a [u8], Malformed> {
        let Some((line, after)) = self.read_line(piece)? else { return Ok(&[]) };
        if line.is_empty() {
            self.finish(sink);
        }
        Ok(after)
    }

    /// The line at the front without its end, once it is whole, and what follows it.
    fn read_line<'a>(&mut self, piece: &'a [u8]) -> Result<Option<Line<'a>>, Malformed> {
        let end = piece.iter().position(|byte| *byte == b'\n');
        let (line, after) = piece.split_at(end.map_or(piece.len(), |end| end + 1));
        self.carry.extend_from_slice(line);
        if self.carry.len() > HEAD_SIZE_MAX {
            return Err(Malformed(format!("a line of more than {HEAD_SIZE_MAX} bytes")));
        }
        if end.is_none() {
            return Ok(None);
        }
        let mut line = take(&mut self.carry);
        if !line.ends_with(b"\r\n") {
            return Err(Malformed("a line ends without CR".to_owned()));
        }
        line.truncate(line.len() - 2);
        Ok(Some((line, after)))
    }
}

/// A line without its end, and what follows it.
type Line<'a> = (Vec<u8>, &'a [u8]);

/// The last transfer coding of a head.
enum Coding {
    Chunked,
    /// The body ends with the connection.
    Other,
}

/// What the fields of a head say about the body and the connection.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    coding: Option<Coding>,
    has_close: bool,
    has_keep_alive: bool,
}

impl Framing {
    fn note(&mut self, header: &httparse::Header<'_>) -> Result<(), Malformed> {
        let mut list = header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let length =
                number(header.value, 10).ok_or_else(|| Malformed("Content-Length".to_owned()))?;
            if self.length.replace(length).is_some_and(|other| other != length) {
                return Err(Malformed("two values of Content-Length".to_owned()));
            }
        } else if is("transfer-encoding") {
            let is_chunked =
                list.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
            self.coding = Some(if is_chunked { Coding::Chunked } else { Coding::Other });
        } else if is("connection") {
            for option in list {
                self.has_close |= option.eq_ignore_ascii_case(b"close");
                self.has_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        Ok(())
    }

    /// Whether the connection ends with the reply (RFC 9112 section 9.3).
    const fn closes(&self, version_1_0: bool) -> bool {
        self.has_close || (version_1_0 && !self.has_keep_alive)
    }
}

/// Digits and nothing else, such as a sign, but for optional space around them.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let is_number = digits.chars().all(|digit| digit.is_digit(radix));
    if is_number { u64::from_str_radix(digits, radix).ok() } else { None }
}

/// The first `count` bytes, or all there are, and the others.
fn split(bytes: &[u8], count: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
        HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nConnection: Close\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        4;x=1\r\nde\r\n\r\n1\r\nf\r\n0\r\nA: b\r\n\r\n\
        HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n\
        HTTP/1.0 200 OK\r\n\r\nghi";

    /// Status, body, and whether the server closes.
    type Seen = (u16, Vec<u8>, bool);

    fn read_in_pieces(stream: &[u8], piece_size: usize) -> Result<(Vec<Seen>, bool), Malformed> {
        let mut replies = Replies::new(false, true);
        let mut seen = Vec::new();
        let mut note = |reply: &Reply<'_>| {
            seen.push((reply.status, reply.body.to_vec(), reply.closes));
        };
        for piece in stream.chunks(piece_size) {
            replies.read(piece, &mut note)?;
        }
        let is_whole = replies.end(note);
        Ok((seen, is_whole))
    }

    #[test]
    fn replies_are_read_however_the_stream_is_cut() {
        for piece_size in 1..=STREAM.len() {
            let (seen, is_whole) = read_in_pieces(STREAM, piece_size).unwrap();
            let expected = [
                (200, b"abc".to_vec(), false),
                (404, Vec::new(), true),
                (200, b"de\r\nf".to_vec(), false),
                (304, Vec::new(), false),
                (200, b"ghi".to_vec(), true),
            ];
            assert_eq!(seen, expected, "by {piece_size}");
            assert!(is_whole);
        }
    }

    #[test]
    fn a_reply_that_is_not_whole_is_neither_reported_nor_forgotten() {
        let one = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        for whole in [&one[..], chunked] {
            for size in 1..whole.len() {
                assert_eq!(read_in_pieces(&whole[..size], 9), Ok((Vec::new(), false)), "{size}");
            }
            assert_eq!(read_in_pieces(whole, 9).unwrap().0.len(), 1);
        }
    }

    #[test]
    fn replies_to_head_have_no_body_whatever_their_length_says() {
        let mut replies = Replies::new(true, true);
        let mut count = 0;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n".repeat(2);
        replies.read(&head, |_| count += 1).unwrap();
        assert_eq!(count, 2);
    }

    #[test]
    fn bodies_that_are_not_kept_are_counted_off() {
        let mut replies = Replies::default();
        let mut sizes = Vec::new();
        for piece in STREAM.chunks(7) {
            replies.read(piece, |reply| sizes.push(reply.body.len())).unwrap();
        }
        assert_eq!(sizes, [0; 4]);
        assert!(replies.body.is_empty());
    }

    #[test]
    fn only_the_last_coding_frames_a_body_and_it_wins_over_a_length() {
        let read = |lines: &str| {
            let reply = format!("HTTP/1.1 200 OK\r\n{lines}\r\n1\r\na\r\n0\r\n\r\n");
            read_in_pieces(reply.as_bytes(), 5).unwrap().0.swap_remove(0).1
        };
        assert_eq!(read("Transfer-Encoding: gzip, Chunked\r\n"), b"a");
        assert_eq!(read("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n"), b"a");
        assert_eq!(read("Transfer-Encoding: xchunked\r\n"), b"1\r\na\r\n0\r\n\r\n");
        assert_eq!(read("Transfer-Encoding: gzip\r\nContent-Length: 2\r\n").len(), 11);
    }

    #[test]
    fn options_of_the_connection_are_a_list_in_which_close_wins() {
        let closes = |version: &str, options: &str| {
            let reply =
                format!("HTTP/{version} 204 -\r\nConnection: {options}\r\nConnection: x\r\n\r\n");
            read_in_pieces(reply.as_bytes(), 5).unwrap().0[0].2
        };
        assert!(closes("1.1", "x, Close"));
        assert!(closes("1.0", "keep-alive, close"));
        assert!(closes("1.0", "x"));
        assert!(!closes("1.0", "Keep-Alive, x"));
        assert!(!closes("1.1", "keep-alive"));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let refused = |bytes: &[u8]| read_in_pieces(bytes, 1000).is_err();
        assert!(refused(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"));
        assert!(refused(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na"));
        assert!(refused(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\n"));
        assert!(refused(b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na"));
        let chunked =
            |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert!(refused(chunked("1\r\nab\r\n0\r\n\r\n").as_bytes()), "longer than its size");
        assert!(refused(chunked("1\na\r\n0\r\n\r\n").as_bytes()), "a bare line feed");
        assert!(refused(b"HTTP/1.1 099 -\r\n\r\n"), "the least status is 100");
        assert!(refused(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"));
        assert!(refused(b"hello\r\n\r\n"));
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; HEAD_SIZE_MAX]].concat();
        assert!(refused(&endless));
    }
}
