//! Reads replies out of a stream of bytes, and tells good ones from bad ones.

/// Most header fields of a reply.
const HEADERS_COUNT_MAX: usize = 32;

/// One connection's incoming bytes, in pieces of any size.
#[derive(Default)]
pub(crate) struct Replies {
    /// The beginning of a reply whose end has not come yet.
    carry: Vec<u8>,
}

/// A whole reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// Bytes that are no reply; says why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl Replies {
    /// Hands every reply that is now whole to `sink`, in order.
    pub(crate) fn read(
        &mut self,
        piece: &[u8],
        mut sink: impl FnMut(&Reply<'_>),
    ) -> Result<(), Malformed> {
        if self.carry.is_empty() {
            let consumed = read_whole(piece, &mut sink)?;
            self.carry.extend_from_slice(&piece[consumed..]);
        } else {
            self.carry.extend_from_slice(piece);
            let consumed = read_whole(&self.carry, &mut sink)?;
            self.carry.drain(..consumed);
        }
        Ok(())
    }
}

/// Reads whole replies from the front; returns how many bytes they had.
fn read_whole(bytes: &[u8], sink: &mut impl FnMut(&Reply<'_>)) -> Result<usize, Malformed> {
    let mut at = 0;
    while let Some((reply, size)) = parse(&bytes[at..])? {
        sink(&reply);
        at += size;
    }
    Ok(at)
}

/// The reply at the front and its size, or `None` if it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_COUNT_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let status = head.parse(bytes).map_err(|error| Malformed(format!("head: {error}")))?;
    let httparse::Status::Complete(head_size) = status else { return Ok(None) };
    let mut lengths = head
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("content-length"))
        .map(|header| std::str::from_utf8(header.value).unwrap_or("").parse::<usize>());
    let (Some(Ok(body_size)), None) = (lengths.next(), lengths.next()) else {
        return Err(Malformed("not exactly one valid Content-Length".to_owned()));
    };
    let size = head_size + body_size;
    let Some(body) = bytes.get(head_size..size) else { return Ok(None) };
    let status = head.code.expect("a complete head has a status");
    Ok(Some((Reply { status, body }, size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
                            HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

    fn read_in_pieces(stream: &[u8], piece_size: usize) -> Vec<(u16, Vec<u8>)> {
        let mut replies = Replies::default();
        let mut seen = Vec::new();
        for piece in stream.chunks(piece_size) {
            replies.read(piece, |reply| seen.push((reply.status, reply.body.to_vec()))).unwrap();
        }
        seen
    }

    #[test]
    fn replies_are_read_however_the_stream_is_cut() {
        for piece_size in 1..=STREAM.len() {
            let seen = read_in_pieces(STREAM, piece_size);
            assert_eq!(seen, [(200, b"abc".to_vec()), (404, Vec::new())], "by {piece_size}");
        }
    }

    #[test]
    fn a_reply_that_is_not_whole_is_not_reported() {
        assert_eq!(read_in_pieces(&STREAM[..STREAM.len() - 1], 1000).len(), 1);
    }

    #[test]
    fn what_does_not_give_its_length_is_refused() {
        let refused = |bytes: &[u8]| Replies::default().read(bytes, |_| ()).is_err();
        assert!(refused(b"HTTP/1.1 200 OK\r\n\r\n"));
        assert!(refused(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"));
        assert!(refused(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"));
        assert!(refused(b"hello\r\n\r\n"));
    }
}
