//! Writes as clients send them, and what a correct answer to each is.

use super::badge::Badge;
use super::reply::Head;
use super::request::{Body, Excuses, Told, write_tags};
use crate::model::{Change, Content, Fate, KeyNumber, Model, WriteId};
use crate::prng::Prng;
use pelton::error::FetchFailure;

/// What a write must bear.
pub(super) const TOKEN: &str = "a-token-of-the-sim";

/// How a request is framed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    /// HTTP/1.0.
    pub(super) old: bool,
    /// It asks the server to close after the reply.
    pub(super) last: bool,
}

/// Notes a write of the key and sends it. Returns which it is, and where its body begins if the
/// client waits to be told to send it.
pub(super) fn compose(
    out: &mut Vec<u8>,
    model: &mut Model,
    prng: &mut Prng,
    key: KeyNumber,
    framing: Framing,
    badge: Option<Badge>,
) -> (WriteId, Option<usize>) {
    let puts = prng.chance(700);
    let id = model.write(key, puts, prng);
    let (_, change, condition) = model.written(id);
    out.extend(if puts { b"PUT ".as_slice() } else { b"DELETE " });
    model.write_target(key, prng, out);
    out.extend(if framing.old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    out.extend(b"Host: sim.example\r\n");
    match badge {
        Some(badge) => badge.write(out),
        None => out.extend(format!("Authorization: Bearer {TOKEN}\r\n").bytes()),
    }
    write_tags(out, "If-Match", condition.if_match, "");
    write_tags(out, "If-None-Match", condition.if_none_match, "W/");
    if framing.last && !framing.old {
        out.extend(b"Connection: close\r\n");
    }
    let Change::Put(edition) = change else {
        out.extend(if prng.coin() { b"Content-Length: 0\r\n\r\n".as_slice() } else { b"\r\n" });
        return (id, None);
    };
    let content_type = model.content_type(key, edition);
    // What is not said is JSON.
    if content_type != "application/json" || prng.coin() {
        out.extend(format!("Content-Type: {content_type}\r\n").bytes());
    }
    if prng.chance(100) {
        out.extend(b"Cache-Control: max-age=0\r\n");
    }
    let body = model.value(key, edition);
    (id, end_head(out, prng, framing.old, 200, &body))
}

/// Writes the end of a head, which says how the body is framed, and the body. Returns where that
/// begins if the client waits to be told to send it, as it does `waits` per mille of the time.
pub(super) fn end_head(
    out: &mut Vec<u8>,
    prng: &mut Prng,
    old: bool,
    waits: u32,
    body: &[u8],
) -> Option<usize> {
    let waits = !old && prng.chance(waits);
    if waits {
        out.extend(b"Expect: 100-continue\r\n");
    }
    let is_chunked = !old && prng.coin();
    out.extend(if is_chunked {
        b"Transfer-Encoding: chunked\r\n\r\n".to_vec()
    } else {
        format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes()
    });
    let body_at = out.len();
    write_body(out, prng, body, is_chunked);
    (waits && out.len() > body_at).then_some(body_at)
}

/// Writes a body, in any chunks or as it is.
pub(super) fn write_body(out: &mut Vec<u8>, prng: &mut Prng, mut body: &[u8], is_chunked: bool) {
    if !is_chunked {
        out.extend(body);
        return;
    }
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(prng.size(1, body.len()));
        out.extend(format!("{:x}\r\n", chunk.len()).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
        body = rest;
    }
    out.extend(b"0\r\n\r\n");
}

/// Whether `head` is a correct answer to a write, and what its body must be.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(
    id: WriteId,
    head: &Head<'_>,
    model: &Model,
    excuses: Excuses,
) -> Result<Body, String> {
    let (key, change, _) = model.written(id);
    let fate = model.fate(id);
    let unavailable = Body::Text(r#"{"error":"origin_unavailable"}"#);
    let body = match (fate, head.status) {
        (Fate::Stored { is_new, .. }, 201 | 204) if is_new == (head.status == 201) => {
            let content = match change {
                Change::Put(edition) => Content::Value(edition),
                Change::Delete => return Err("a deletion stores nothing".to_owned()),
            };
            if head.etag != model.tag(key, content) {
                return Err("the ETag is not that of what was put".to_owned());
            }
            Body::Text("")
        }
        (Fate::Deleted(_), 204) => Body::Text(""),
        (Fate::Absent(_), 404) => Body::Text(r#"{"error":"not_found"}"#),
        (Fate::Refused(_), 412) => Body::Text(r#"{"error":"precondition_failed"}"#),
        (Fate::Failed(FetchFailure::Unavailable | FetchFailure::TooLarge), 502) => unavailable,
        (Fate::Failed(FetchFailure::Timeout) | Fate::Unknown(_), 504) => unavailable,
        (Fate::Sent | Fate::Failed(FetchFailure::NoRoom), 503) if excuses != Excuses::None => {
            Body::Text(r#"{"error":"overloaded_try_again"}"#)
        }
        _ => return Err(format!("{} is no answer to {change:?}, which {fate:?}", head.status)),
    };
    Ok(body)
}

/// What a client knows whose write was refused because of who it is.
///
/// # Errors
/// If the write was ordered all the same.
pub(super) fn check_refused(key: KeyNumber, id: WriteId, model: &Model) -> Result<Told, String> {
    let fate = model.fate(id);
    if fate == Fate::Sent {
        Ok(Told::Write { key, id })
    } else {
        Err(format!("what {fate:?} was refused because of who asks"))
    }
}
