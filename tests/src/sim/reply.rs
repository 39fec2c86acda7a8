//! A strict parser of replies, written from RFC 9110 and 9112 and not from the server's code.
//!
//! It takes what a client has read and gives one head at a time. Where the RFC lets a server
//! choose, it knows what Pelton promises: a `Date` on every reply, a `Content-Length` on every
//! reply that may have a body and comes neither in chunks nor, of a batch, until the connection
//! ends, no header twice, no other codings.

use crate::model::Tag;
use std::fmt::Write as _;

/// No head of a reply is longer.
const HEAD_SIZE_MAX: usize = 1024;

/// No head of a reply has more lines.
const FIELDS_MAX: usize = 16;

/// The head of a reply, as far as a client acts on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head<'a> {
    /// 100 to 599.
    pub status: u16,
    /// Absent on 1xx, 204 and 304.
    pub content_length: Option<usize>,
    /// The body comes in chunks.
    pub is_chunked: bool,
    /// The server closes after this reply.
    pub close: bool,
    /// Its 16 digits.
    pub etag: Option<Tag>,
    /// As it came.
    pub content_type: Option<&'a str>,
    /// Seconds.
    pub age: Option<u64>,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
    /// Methods, on 405.
    pub allow: Option<&'a str>,
    /// `Cache-Control: no-store`.
    pub no_store: bool,
    /// There is a `Date`.
    pub date: bool,
    /// There is a `WWW-Authenticate`.
    pub challenge: bool,
}

/// Parses the head at the beginning of `bytes`: the head and its size, or `None` while it is not
/// complete.
///
/// # Errors
/// What rule it breaks.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head<'_>, usize)>, String> {
    let mut lines = Lines { bytes: &bytes[..bytes.len().min(HEAD_SIZE_MAX)], at: 0 };
    match parse_lines(&mut lines) {
        Ok(Some(head)) => Ok(Some((head, lines.at))),
        Ok(None) if bytes.len() < HEAD_SIZE_MAX => Ok(None),
        Ok(None) => Err(format!("a head longer than {HEAD_SIZE_MAX} bytes: {}", show(bytes))),
        Err(rule) => Err(format!("{rule}: {}", show(bytes))),
    }
}

fn parse_lines<'a>(lines: &mut Lines<'a>) -> Result<Option<Head<'a>>, &'static str> {
    let Some(first) = lines.rest_of_line()? else { return Ok(None) };
    let mut head = Head { status: parse_status(first)?, ..Head::default() };
    let mut seen = [""; FIELDS_MAX];
    for count in 0.. {
        let Some(name) = lines.name() else { return Ok(None) };
        let Some(value) = lines.rest_of_line()? else { return Ok(None) };
        if name.is_empty() {
            return if value.is_empty() { finish(&head).map(|()| Some(head)) } else { Err(NAME) };
        }
        let value =
            value.strip_prefix(": ").ok_or("a field name that no colon and space follow")?;
        if value.is_empty() || value.starts_with(' ') || value.ends_with(' ') {
            return Err("a field value that is empty or padded");
        }
        let before = seen.get_mut(..=count).ok_or("more fields than Pelton writes")?;
        if before.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err("a field twice");
        }
        before[count] = name;
        field(&mut head, name, value)?;
    }
    Ok(None)
}

/// What a line must not begin with.
const NAME: &str = "a line that begins with no token";

/// Goes over a head once, byte by byte.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The characters of a token; `None` if there may be more.
    fn name(&mut self) -> Option<&'a str> {
        let start = self.at;
        while is_token(*self.bytes.get(self.at)?) {
            self.at += 1;
        }
        Some(self.text(start))
    }

    /// Up to the line's end, and past it; `None` if that has not come.
    fn rest_of_line(&mut self) -> Result<Option<&'a str>, &'static str> {
        let start = self.at;
        loop {
            match self.bytes.get(self.at..) {
                Some([b' '..=b'~', ..]) => self.at += 1,
                Some([b'\r', b'\n', ..]) => break,
                None | Some([] | [b'\r']) => return Ok(None),
                Some(_) => return Err("a byte that is neither visible nor part of CRLF"),
            }
        }
        let text = self.text(start);
        self.at += 2;
        Ok(Some(text))
    }

    fn text(&self, start: usize) -> &'a str {
        std::str::from_utf8(&self.bytes[start..self.at]).expect("only ASCII was gone over")
    }
}

fn parse_status(line: &str) -> Result<u16, &'static str> {
    let rest = line.strip_prefix("HTTP/1.1 ").ok_or("no HTTP/1.1 status line")?;
    let (code, reason) = rest.split_once(' ').ok_or("no space after the status code")?;
    let status = number(code)?;
    let known = (100..600).contains(&status) && code.len() == 3 && !reason.is_empty();
    if !known {
        return Err("no status code and reason");
    }
    u16::try_from(status).map_err(|_| "no status code")
}

fn field<'a>(head: &mut Head<'a>, name: &str, value: &'a str) -> Result<(), &'static str> {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    if is("content-length") {
        let size = usize::try_from(number(value)?).map_err(|_| "a huge Content-Length")?;
        head.content_length = Some(size);
    } else if is("connection") {
        match value {
            "close" => head.close = true,
            "keep-alive" => {}
            _ => return Err("an unknown Connection option"),
        }
    } else if is("etag") {
        head.etag = Some(parse_tag(value)?);
    } else if is("content-type") {
        head.content_type = Some(value);
    } else if is("age") {
        head.age = Some(number(value)?);
    } else if is("retry-after") {
        head.retry_after = Some(number(value)?);
    } else if is("allow") {
        head.allow = Some(value);
    } else if is("cache-control") {
        head.no_store = value == "no-store";
    } else if is("www-authenticate") {
        head.challenge = true;
    } else if is("date") {
        check_date(value)?;
        head.date = true;
    } else if is("transfer-encoding") {
        if value != "chunked" {
            return Err("a transfer coding that Pelton never uses");
        }
        head.is_chunked = true;
    }
    Ok(())
}

fn parse_tag(value: &str) -> Result<Tag, &'static str> {
    let tag = value.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let tag = tag.ok_or("an ETag without quotes")?;
    if tag.len() != 16 || !tag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("an ETag that is not 16 lower-case hex digits");
    }
    Tag::from_str_radix(tag, 16).map_err(|_| "an ETag that is no number")
}

/// RFC 9110 8.6 and 6.6.1: which fields must and must not be there.
const fn finish(head: &Head<'_>) -> Result<(), &'static str> {
    if head.is_chunked && (head.content_length.is_some() || head.status != 200) {
        return Err("chunks where Pelton has none");
    }
    match head.status {
        100..=199 if head.content_length.is_some() => return Err("a Content-Length on 1xx"),
        100..=199 => {}
        204 if head.content_length.is_some() => return Err("a Content-Length on 204"),
        304 if head.content_length.is_some() => return Err("a Content-Length on 304"),
        304 if head.etag.is_none() => return Err("304 without its ETag"),
        204 | 304 => {}
        200 if head.no_store && head.close => {}
        _ if head.content_length.is_none() && !head.is_chunked => return Err("no Content-Length"),
        401 if !head.challenge => return Err("401 without WWW-Authenticate"),
        405 if head.allow.is_none() => return Err("405 without Allow"),
        503 if head.retry_after.is_none() => return Err("503 without Retry-After"),
        _ => {}
    }
    if head.status >= 200 && !head.date {
        return Err("no Date");
    }
    Ok(())
}

fn number(text: &str) -> Result<u64, &'static str> {
    let canonical = text == "0" || !text.starts_with('0');
    if text.is_empty() || !canonical || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("no canonical number");
    }
    text.parse().map_err(|_| "a number beyond 64 bits")
}

/// RFC 9110 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn check_date(value: &str) -> Result<(), &'static str> {
    let shape = "Aaa, 00 Aaa 0000 00:00:00 GMT";
    let fits = |(is, want): (u8, u8)| match want {
        b'0' => is.is_ascii_digit(),
        b'A' => is.is_ascii_uppercase(),
        b'a' => is.is_ascii_lowercase(),
        _ => is == want,
    };
    let same = value.len() == shape.len() && value.bytes().zip(shape.bytes()).all(fits);
    if same { Ok(()) } else { Err("a Date that is no IMF-fixdate") }
}

/// RFC 9110 5.6.2.
const fn is_token(byte: u8) -> bool {
    const TOKENS: [bool; 256] = {
        let mut tokens = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            tokens[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut marks: &[u8] = b"!#$%&'*+-.^_`|~";
        while let [mark, rest @ ..] = marks {
            tokens[*mark as usize] = true;
            marks = rest;
        }
        tokens
    };
    TOKENS[byte as usize]
}

/// Bytes for a failure's message, cut to a readable length.
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    let mut shown = bytes[..bytes.len().min(400)].escape_ascii().to_string();
    if bytes.len() > 400 {
        write!(shown, "... ({} bytes)", bytes.len()).expect("a string takes what is written");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Mon, 23 Nov 2026 08:00:00 GMT\r\n";

    #[test]
    fn a_whole_head_is_parsed_and_a_partial_one_waits() {
        let text = format!(
            "HTTP/1.1 200 OK\r\n{DATE}ETag: \"0123456789abcdef\"\r\nAge: 3\r\n\
             Connection: close\r\nContent-Length: 12\r\n\r\nbody"
        );
        let (head, size) = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(size, text.len() - 4);
        assert_eq!((head.status, head.content_length, head.age), (200, Some(12), Some(3)));
        assert!(head.close);
        for cut in 0..size {
            assert_eq!(parse(&text.as_bytes()[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn each_broken_rule_is_named() {
        let length = "Content-Length: 0\r\n";
        let heads = [
            ("HTTP/1.0 200 OK\r\n", "no HTTP/1.1 status line"),
            (&*format!("HTTP/1.1 200 OK\r\n{length}"), "no Date"),
            (&*format!("HTTP/1.1 200 OK\r\n{DATE}"), "no Content-Length"),
            (&*format!("HTTP/1.1 304 Not Modified\r\n{DATE}{length}"), "a Content-Length on 304"),
            (&*format!("HTTP/1.1 200 OK\r\n{DATE}{length}{length}"), "a field twice"),
            (&*format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: 007\r\n"), "no canonical number"),
            (&*format!("HTTP/1.1 503 No\r\n{DATE}{length}"), "503 without Retry-After"),
            (&*format!("HTTP/1.1 405 No\r\n{DATE}{length}"), "405 without Allow"),
            (&*format!("HTTP/1.1 200 OK\r\n{DATE}{length}X : y\r\n"), "no colon"),
            (&*format!("HTTP/1.1 200 OK\nX: y\r\n{length}"), "CRLF"),
            ("HTTP/1.1 200 OK\r\nDate: yesterday\r\n", "IMF-fixdate"),
            (&*format!("HTTP/1.1 204 No\r\n{DATE}{length}"), "a Content-Length on 204"),
            (&*format!("HTTP/1.1 401 No\r\n{DATE}{length}"), "401 without WWW-Authenticate"),
        ];
        for (head, rule) in heads {
            let error = parse(format!("{head}\r\n").as_bytes()).unwrap_err();
            assert!(error.contains(rule), "{head:?} gives {error:?}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_an_error_and_not_a_wait() {
        assert!(parse(&[b'a'; HEAD_SIZE_MAX + 1]).is_err());
    }
}
