//! Requests as clients write them, and what a correct reply to each looks like.

use super::reply::Head;
use crate::model::{KeyNumber, Model, Nature, Tag};
use crate::prng::Prng;
use shard_cache::time::Instant;
use std::io::Write as _;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A key, if the client does not hold it already.
    Lookup { key: KeyNumber, held: Held },
    /// `/healthz`.
    Health,
    /// A path that is not there.
    Nowhere,
    /// A method that the path does not have, with a body of so many bytes.
    Method { body_size: usize },
    /// Something malformed.
    Broken,
}

/// What `If-None-Match` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing: there is no such line.
    Nothing,
    /// Any value.
    Any,
    /// Values with these ETags.
    Tags([Option<Tag>; 2]),
}

impl Held {
    fn has(self, tag: Tag) -> bool {
        match self {
            Self::Nothing => false,
            Self::Any => true,
            Self::Tags(tags) => tags.contains(&Some(tag)),
        }
    }
}

/// What a server may fail to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excuses {
    /// The origin may fail, and bounds may be reached.
    #[default]
    All,
    /// Bounds may be reached.
    Overload,
    /// Nothing.
    None,
}

/// A request that was written, or is about to be, and has no complete reply yet.
#[derive(Clone, Copy, Debug)]
pub struct Owed {
    /// What it asks for.
    pub ask: Ask,
    /// The reply has no body.
    pub head_only: bool,
    /// It asks the server to close after the reply.
    pub last: bool,
    /// When it was written.
    pub asked: Instant,
}

/// What the body of a reply must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, whatever the head says.
    None,
    /// A value of the key with this ETag: one of these versions.
    Value { key: KeyNumber, tag: Tag, versions: Vec<usize> },
    /// Exactly this.
    Text(&'static str),
    /// A JSON object with one field, `error`.
    Error,
}

/// Malformed requests. After most of them the server cannot know where the next one begins.
const BROKEN: [&[u8]; 14] = [
    b"GET /lookup/key-0 HTTP/1.1\nHost: h\n\n",
    b"GET  /lookup/key-0 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"BREW /lookup/key-0 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /lookup/key-0 HTTP/2.0\r\nHost: h\r\n\r\n",
    b"GET /lookup/key-0 HTTP/1.1\r\n\r\n",
    b"GET /lookup/key-0 HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
    b"GET /lookup/key-0 HTTP/1.1\r\nHost : h\r\n\r\n",
    b"GET /lookup/key-0 HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
    b"GET /lookup/key-0 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nevil",
    b"POST /lookup HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\
      Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /lookup HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"POST /lookup HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"GET /lookup/%zz HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
];

/// Beginnings of requests that never end: of nothing, of a head, of a body.
pub(super) const HALVES: [&[u8]; 4] = [
    b"",
    b"GET /lookup/key-0 HTTP/1.1\r\nHos",
    b"PUT /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf",
    b"PUT /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
];

/// Writes a request; returns what it is owed.
pub fn compose(
    out: &mut Vec<u8>,
    model: &Model,
    prng: &mut Prng,
    key: KeyNumber,
    last: bool,
    now: Instant,
) -> Owed {
    let head_only = prng.chance(120);
    let method: &[u8] = if head_only { b"HEAD " } else { b"GET " };
    let ask = match prng.below(100) {
        0..=3 => Ask::Health,
        4 | 5 => Ask::Nowhere,
        6..=8 => Ask::Method { body_size: prng.size(0, 300) },
        _ => Ask::Lookup { key, held: held(model, prng, key) },
    };
    let old = last && prng.coin();
    match &ask {
        Ask::Lookup { key, .. } => {
            out.extend(method);
            model.write_target(*key, prng, out);
        }
        Ask::Health => out.extend([method, b"/healthz"].concat()),
        Ask::Nowhere => out.extend([method, b"/nowhere?x=1"].concat()),
        Ask::Method { .. } => out.extend(b"PUT /healthz"),
        Ask::Broken => unreachable!("broken requests are composed elsewhere"),
    }
    out.extend(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    out.extend(b"Host: sim.example\r\n");
    if let Ask::Lookup { held, .. } = ask {
        write_held(out, held);
    }
    if prng.chance(100) {
        out.extend(b"X-Padding: ");
        out.resize(out.len() + prng.size(1, 300), b'p');
        out.extend(b"\r\n");
    }
    if last && !old {
        out.extend(b"Connection: close\r\n");
    }
    if let Ask::Method { body_size } = ask {
        write_body(out, prng, body_size, old);
    } else {
        out.extend(b"\r\n");
    }
    let head_only = head_only && !matches!(ask, Ask::Method { .. });
    Owed { ask, head_only, last, asked: now }
}

fn held(model: &Model, prng: &mut Prng, key: KeyNumber) -> Held {
    if !prng.chance(250) {
        return Held::Nothing;
    }
    let known = model.known_etag(key, prng);
    match prng.below(100) {
        0..=9 => Held::Any,
        10..=27 => Held::Tags([known, Some(1)]),
        _ if known.is_none() => Held::Nothing,
        _ => Held::Tags([known, None]),
    }
}

fn write_held(out: &mut Vec<u8>, held: Held) {
    match held {
        Held::Nothing => {}
        Held::Any => out.extend(b"If-None-Match: *\r\n"),
        Held::Tags(tags) => {
            out.extend(b"If-None-Match: ");
            for (index, tag) in tags.iter().flatten().enumerate() {
                out.extend(if index == 0 { &b""[..] } else { b", W/" });
                write!(out, "\"{tag:016x}\"").expect("a vector takes what is written");
            }
            out.extend(b"\r\n");
        }
    }
}

fn write_body(out: &mut Vec<u8>, prng: &mut Prng, size: usize, old: bool) {
    if old || prng.coin() {
        out.extend(format!("Content-Length: {size}\r\n\r\n").bytes());
        out.resize(out.len() + size, b'b');
        return;
    }
    out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
    let mut left = size;
    while left > 0 {
        let chunk = prng.size(1, left);
        out.extend(format!("{chunk:x}\r\n").bytes());
        out.resize(out.len() + chunk, b'c');
        out.extend(b"\r\n");
        left -= chunk;
    }
    out.extend(b"0\r\n\r\n");
}

/// Writes something malformed.
pub fn compose_broken(out: &mut Vec<u8>, prng: &mut Prng, now: Instant) -> Owed {
    match prng.below(17) {
        0 => {
            out.extend(b"GET /lookup/key-0 HTTP/1.1\r\nHost: h\r\nX: ");
            out.extend(vec![b'x'; 20_000]);
            out.extend(b"\r\n\r\n");
        }
        1 => {
            out.extend(b"GET /lookup/");
            out.extend(vec![b'x'; 20_000]);
            out.extend(b" HTTP/1.1\r\nHost: h\r\n\r\n");
        }
        2 => {
            out.extend(b"GET /healthz HTTP/1.1\r\nHost: h\r\n");
            out.extend(b"X: y\r\n".repeat(500));
            out.extend(b"\r\n");
        }
        _ => out.extend(prng.pick(&BROKEN)),
    }
    Owed { ask: Ask::Broken, head_only: false, last: false, asked: now }
}

/// Whether `head` is a correct reply's, and what its body must be.
///
/// # Errors
/// What is wrong with it.
pub fn check(
    owed: &Owed,
    head: &Head<'_>,
    model: &Model,
    excuses: Excuses,
) -> Result<Body, String> {
    if owed.last && !head.close {
        return Err("the last reply does not say Connection: close".to_owned());
    }
    let may_fail = excuses == Excuses::All;
    let may_shed = excuses != Excuses::None;
    let asked = owed.asked;
    let body = match (owed.ask, head.status) {
        (Ask::Lookup { key, held }, 200) => check_found(key, held, head, model, asked)?,
        (Ask::Lookup { key, held }, 304) => check_not_modified(key, held, head, model, asked)?,
        (Ask::Lookup { key, .. }, 404) if model.nature(key) == Nature::Absent => {
            Body::Text(r#"{"error":"not_found"}"#)
        }
        (Ask::Lookup { key, .. }, 502 | 504) if model.nature(key) == Nature::Failing => {
            Body::Text(r#"{"error":"origin_unavailable"}"#)
        }
        (Ask::Lookup { key, .. }, 502) if model.nature(key) == Nature::TooLarge => {
            Body::Text(r#"{"error":"origin_unavailable"}"#)
        }
        (Ask::Lookup { .. }, 502 | 504) if may_fail => {
            Body::Text(r#"{"error":"origin_unavailable"}"#)
        }
        (Ask::Lookup { .. }, 503) if may_shed => Body::Text(r#"{"error":"overloaded_try_again"}"#),
        (Ask::Health, 200) => Body::Text(r#"{"ok":true}"#),
        (Ask::Nowhere, 404) => Body::Text(r#"{"error":"not_found"}"#),
        (Ask::Method { .. }, 405) => Body::Error,
        (Ask::Broken, 400 | 413 | 414 | 417 | 431 | 501 | 505) => Body::Error,
        (ask, status) => return Err(format!("{status} is no answer to {ask:?}")),
    };
    match body {
        Body::Text(text) if head.content_length != Some(text.len()) => {
            Err(format!("the body should be {text}"))
        }
        _ if owed.head_only => Ok(Body::None),
        Body::None | Body::Value { .. } | Body::Text(_) | Body::Error => Ok(body),
    }
}

fn check_found(
    key: KeyNumber,
    held: Held,
    head: &Head<'_>,
    model: &Model,
    asked: Instant,
) -> Result<Body, String> {
    if model.nature(key) != Nature::Present {
        return Err("a value of a key that has none".to_owned());
    }
    let tag = head.etag.ok_or("200 without an ETag")?;
    if held.has(tag) {
        return Err("200 although the client holds the value".to_owned());
    }
    if head.content_type != Some(model.content_type(key)) {
        return Err(format!("the content type should be {}", model.content_type(key)));
    }
    let size = head.content_length.ok_or("200 without its length")?;
    let versions: Vec<usize> = (model.oldest(key, asked)..=model.newest(key))
        .filter(|version| model.value_size(key, *version) == size)
        .collect();
    if versions.is_empty() {
        return Err(format!("key {key} has no value of {size} bytes that is young enough"));
    }
    Ok(Body::Value { key, tag, versions })
}

fn check_not_modified(
    key: KeyNumber,
    held: Held,
    head: &Head<'_>,
    model: &Model,
    asked: Instant,
) -> Result<Body, String> {
    let tag = head.etag.ok_or("304 without an ETag")?;
    if !held.has(tag) {
        return Err("304 with an ETag that the client does not hold".to_owned());
    }
    if held != Held::Any && !model.may_have(key, model.oldest(key, asked), tag) {
        return Err("304 for a value that is older than allowed".to_owned());
    }
    Ok(Body::None)
}
