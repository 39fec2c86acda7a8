//! The load generator's reader of replies beside one that has the whole stream at once.
//!
//! The input is a list of replies, written out one after the other, then damaged, followed by any
//! bytes, and cut. Heads are left to `httparse`, here and there; where bodies end, what a head says
//! about the connection, and that no cut changes anything, is what is tried.

use super::stream::Fate;
use arbitrary::{Arbitrary, Result, Unstructured};
use httparse::{EMPTY_HEADER, Status};
use pelton_bench::replies::Replies;
use std::str;

/// Most fields of a head.
const HEADERS_COUNT_MAX: usize = 64;

#[derive(Arbitrary, Debug)]
struct Sent {
    status: u8,
    version_1_0: bool,
    /// An interim reply before it.
    interim: bool,
    option: Option<u8>,
    body: Body,
}

#[derive(Arbitrary, Debug)]
enum Body {
    /// Ends with the connection.
    Endless,
    Length(u8),
    /// Chunks of these sizes, and whether they have extensions and a trailer.
    Chunked(Vec<u8>, bool, bool),
}

impl Sent {
    fn write(&self, out: &mut Vec<u8>) {
        const STATUSES: [&str; 5] = ["200 OK", "204 No Content", "304 Not Modified", "404 ", "503"];
        const OPTIONS: [&str; 4] = ["close", "Keep-Alive", "keep-alive, Close", "upgrade"];
        if self.interim {
            out.extend(b"HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\n");
        }
        let version = if self.version_1_0 { "1.0" } else { "1.1" };
        let status = STATUSES[usize::from(self.status) % STATUSES.len()];
        out.extend(format!("HTTP/{version} {status}\r\n").bytes());
        if let Some(option) = self.option {
            let option = OPTIONS[usize::from(option) % OPTIONS.len()];
            out.extend(format!("Connection: {option}\r\n").bytes());
        }
        match &self.body {
            Body::Endless => out.extend(b"\r\n"),
            Body::Length(size) => {
                out.extend(format!("content-length: {size}\r\n\r\n").bytes());
                out.resize(out.len() + usize::from(*size), b'H');
            }
            Body::Chunked(sizes, extensions, trailer) => {
                let extension = if *extensions { " ; a=\"b\"" } else { "" };
                out.extend(b"Transfer-Encoding: Chunked\r\n\r\n");
                for size in sizes.iter().filter(|size| **size > 0) {
                    out.extend(format!("{size:X}{extension}\r\n").bytes());
                    out.resize(out.len() + usize::from(*size), b'\n');
                    out.extend(b"\r\n");
                }
                out.extend(if *trailer { &b"0\r\nX: y\r\n\r\n"[..] } else { b"0\r\n\r\n" });
            }
        }
    }
}

/// A reply: status, body, whether the connection ends.
type Seen = (u16, Vec<u8>, bool);

/// What a stream holds, and how it ends: with nothing cut off, in the middle of a reply, or with
/// something that is none.
type Reading = (Vec<Seen>, std::result::Result<bool, ()>);

/// The reader that is tried.
fn feed(parts: &[&[u8]], bodiless: bool) -> Reading {
    let mut replies = Replies::new(bodiless, true);
    let mut seen = Vec::new();
    for part in parts {
        let note = |reply: &pelton_bench::replies::Reply<'_>| {
            seen.push((reply.status, reply.body.to_vec(), reply.closes));
        };
        if replies.read(part, note).is_err() {
            return (seen, Err(()));
        }
    }
    let is_whole =
        replies.end(|reply| seen.push((reply.status, reply.body.to_vec(), reply.closes)));
    (seen, Ok(is_whole))
}

/// The slow one.
fn read(mut stream: &[u8], bodiless: bool) -> Reading {
    let mut seen = Vec::new();
    while !stream.is_empty() {
        let mut headers = [EMPTY_HEADER; HEADERS_COUNT_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let size = match head.parse(stream) {
            Ok(Status::Complete(size)) => size,
            Ok(Status::Partial) => return (seen, Ok(false)),
            Err(_) => return (seen, Err(())),
        };
        stream = &stream[size..];
        let status = head.code.expect("complete");
        let Ok(fields) = Fields::read(head.headers) else { return (seen, Err(())) };
        if status < 100 || status == 101 {
            return (seen, Err(()));
        }
        if status < 200 {
            continue;
        }
        let is_old = head.version == Some(0);
        let closes = fields.has_close || (is_old && !fields.has_keep_alive);
        let body = match fields {
            _ if bodiless || [204, 304].contains(&status) => Ok(Some((Vec::new(), 0))),
            Fields { last_coding: Some(coding), .. } if coding == "chunked" => chunks(stream),
            Fields { last_coding: None, length: Some(length), .. } => {
                Ok(take(stream, length).map(|body| (body.to_vec(), body.len())))
            }
            Fields { .. } => Ok(Some((stream.to_vec(), stream.len()))),
        };
        match body {
            Ok(Some((body, size))) => {
                seen.push((status, body, closes));
                stream = &stream[size..];
            }
            Ok(None) => return (seen, Ok(false)),
            Err(()) => return (seen, Err(())),
        }
    }
    (seen, Ok(true))
}

/// What the fields of a head say: RFC 9112 6.3 and 9.3.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    last_coding: Option<String>,
    has_close: bool,
    has_keep_alive: bool,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> std::result::Result<Self, ()> {
        let mut fields = Self::default();
        for header in headers {
            let value: String = header.value.iter().map(|byte| char::from(*byte)).collect();
            let value = value.to_ascii_lowercase();
            let mut list = value.split(',').map(|one| one.trim_matches([' ', '\t']));
            match header.name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    let length = number(value.trim_matches([' ', '\t']), 10).ok_or(())?;
                    if fields.length.is_some_and(|other| other != length) {
                        return Err(());
                    }
                    fields.length = Some(length);
                }
                "transfer-encoding" => fields.last_coding = list.next_back().map(str::to_owned),
                "connection" => {
                    fields.has_close |= list.clone().any(|option| option == "close");
                    fields.has_keep_alive |= list.any(|option| option == "keep-alive");
                }
                _ => {}
            }
        }
        Ok(fields)
    }
}

/// The body that is framed by the chunks at the front, and their size; `None` if they are not
/// whole. RFC 9112 7.1.
fn chunks(stream: &[u8]) -> std::result::Result<Option<(Vec<u8>, usize)>, ()> {
    let (mut body, mut at) = (Vec::new(), 0);
    let line = |at: usize| match stream[at..].iter().position(|byte| *byte == b'\n') {
        None => Ok(None),
        Some(end) if stream[at..at + end].ends_with(b"\r") => Ok(Some(&stream[at..at + end - 1])),
        Some(_) => Err(()),
    };
    loop {
        let Some(text) = line(at)? else { return Ok(None) };
        at += text.len() + 2;
        let digits = text.split(|byte| *byte == b';').next().expect("a split has a part");
        let digits = str::from_utf8(digits).map_err(|_| ())?.trim_matches([' ', '\t']);
        let size = number(digits, 16).filter(|size| *size <= u64::MAX / 2).ok_or(())?;
        if size == 0 {
            break;
        }
        let Some(data) = take(&stream[at..], size) else { return Ok(None) };
        body.extend(data);
        at += data.len();
        match line(at)? {
            Some([]) => at += 2,
            None => return Ok(None),
            Some(_) => return Err(()),
        }
    }
    loop {
        let Some(text) = line(at)? else { return Ok(None) };
        at += text.len() + 2;
        if text.is_empty() {
            return Ok(Some((body, at)));
        }
    }
}

fn take(stream: &[u8], size: u64) -> Option<&[u8]> {
    stream.get(..usize::try_from(size).ok()?)
}

/// Digits and nothing else.
fn number(text: &str, radix: u32) -> Option<u64> {
    let is_digits = text.chars().all(|digit| digit.is_digit(radix));
    is_digits.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

fn draw(input: &[u8]) -> Result<(bool, Vec<Sent>, Fate)> {
    let mut source = Unstructured::new(input);
    let bodiless = source.arbitrary()?;
    let mut replies: Vec<Sent> = source.arbitrary()?;
    // More of them would only be slower.
    replies.truncate(8);
    Ok((bodiless, replies, Fate::draw(source)?))
}

/// The input is drawn from as the head of this file says.
///
/// # Panics
/// If the two readers disagree.
pub fn replies(input: &[u8]) {
    let Ok((bodiless, replies, fate)) = draw(input) else { return };
    let mut bytes = Vec::new();
    for reply in &replies {
        reply.write(&mut bytes);
    }
    fate.befall(&mut bytes);
    let expected = read(&bytes, bodiless);
    for parts in [vec![&bytes[..]], fate.cut(&bytes), bytes.chunks(1).collect()] {
        assert_eq!(feed(&parts, bodiless), expected, "{}", bytes.escape_ascii());
    }
}
