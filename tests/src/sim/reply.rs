//! A strict parser of replies, written from RFC 9110 and 9112 and not from the server's code.
//!
//! It takes what a client has read and gives one head at a time. Where the RFC lets a server
//! choose, it knows what Pelton promises: a `Date` on every reply, a `Content-Length` on every
//! reply that may have a body, no header twice, no transfer codings.

use std::fmt::Write as _;

/// No head of a reply is longer.
const HEAD_SIZE_MAX: usize = 1024;

/// The head of a reply, as far as a client acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// 100 to 599.
    pub status: u16,
    /// Absent on 1xx and 304.
    pub content_length: Option<usize>,
    /// The server closes after this reply.
    pub close: bool,
    /// As it came, with its quotes.
    pub etag: Option<String>,
    /// As it came.
    pub content_type: Option<String>,
    /// Seconds.
    pub age: Option<u64>,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
    /// Methods, on 405.
    pub allow: Option<String>,
}

/// Parses the head at the beginning of `bytes`: the head and its size, or `None` while it is not
/// complete.
///
/// # Errors
/// What rule it breaks.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_SIZE_MAX {
            Err(format!("a head longer than {HEAD_SIZE_MAX} bytes: {}", show(bytes)))
        } else {
            Ok(None)
        };
    };
    let head = &bytes[..end + 2];
    let text = std::str::from_utf8(head).map_err(|_| format!("not ASCII: {}", show(head)))?;
    let parsed = parse_text(text).map_err(|rule| format!("{rule}: {}", show(head)))?;
    Ok(Some((parsed, end + 4)))
}

fn parse_text(text: &str) -> Result<Head, &'static str> {
    if !text.is_ascii() {
        return Err("not ASCII");
    }
    let mut lines = text.split_inclusive('\n');
    let status = parse_status(line(lines.next().ok_or("no status line")?)?)?;
    let mut head = Head {
        status,
        content_length: None,
        close: false,
        etag: None,
        content_type: None,
        age: None,
        retry_after: None,
        allow: None,
    };
    let mut seen: Vec<String> = Vec::new();
    for raw in lines {
        let (name, value) = line(raw)?.split_once(':').ok_or("a field without a colon")?;
        let value = value.strip_prefix(' ').ok_or("no single space after the colon")?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("a field name that is no token");
        }
        if value.is_empty() || value.trim() != value || value.bytes().any(|b| b < b' ') {
            return Err("a field value that is empty, padded or holds control characters");
        }
        let name = name.to_ascii_lowercase();
        if seen.contains(&name) {
            return Err("a field twice");
        }
        field(&mut head, &name, value)?;
        seen.push(name);
    }
    finish(&head, &seen)?;
    Ok(head)
}

fn line(raw: &str) -> Result<&str, &'static str> {
    let line = raw.strip_suffix("\r\n").ok_or("a line that does not end with CRLF")?;
    if line.contains(['\r', '\n', '\0']) { Err("a bare CR, LF or NUL") } else { Ok(line) }
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

fn field(head: &mut Head, name: &str, value: &str) -> Result<(), &'static str> {
    match name {
        "content-length" => {
            head.content_length =
                Some(usize::try_from(number(value)?).map_err(|_| "a huge Content-Length")?);
        }
        "connection" => match value {
            "close" => head.close = true,
            "keep-alive" => {}
            _ => return Err("an unknown Connection option"),
        },
        "etag" => {
            let tag = value.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let tag = tag.ok_or("an ETag without quotes")?;
            if tag.len() != 16 || !tag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err("an ETag that is not 16 lower-case hex digits");
            }
            head.etag = Some(value.to_owned());
        }
        "content-type" => head.content_type = Some(value.to_owned()),
        "age" => head.age = Some(number(value)?),
        "retry-after" => head.retry_after = Some(number(value)?),
        "allow" => head.allow = Some(value.to_owned()),
        "date" => check_date(value)?,
        "transfer-encoding" => return Err("a transfer coding, which Pelton never uses"),
        _ => {}
    }
    Ok(())
}

/// RFC 9110 8.6 and 6.6.1: which fields must and must not be there.
fn finish(head: &Head, seen: &[String]) -> Result<(), &'static str> {
    let has = |name: &str| seen.iter().any(|field| field == name);
    match head.status {
        100..=199 if head.content_length.is_some() => return Err("a Content-Length on 1xx"),
        100..=199 => {}
        204 => return Err("a status that Pelton never uses"),
        304 if head.content_length.is_some() => return Err("a Content-Length on 304"),
        304 if head.etag.is_none() => return Err("304 without its ETag"),
        304 => {}
        _ if head.content_length.is_none() => return Err("no Content-Length"),
        405 if head.allow.is_none() => return Err("405 without Allow"),
        503 if head.retry_after.is_none() => return Err("503 without Retry-After"),
        _ => {}
    }
    if head.status >= 200 && !has("date") {
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
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
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
            (&*format!("HTTP/1.1 200 OK\r\n{DATE}{length}X : y\r\n"), "no token"),
            (&*format!("HTTP/1.1 200 OK\nX: y\r\n{length}"), "CRLF"),
            ("HTTP/1.1 200 OK\r\nDate: yesterday\r\n", "IMF-fixdate"),
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
