//! Requests as clients write them, and what a correct reply to each looks like.

use super::badge::{Badge, Standing};
use super::batch::{self, Batch, Batches};
use super::reply::Head;
use super::write::{self, Framing, write_body};
use crate::model::{Content, Edition, Held, KeyNumber, Model, Tag, Version, WriteId};
use crate::prng::Prng;
use shard_cache::time::Instant;
use std::fmt::Write as _;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A key, if the client does not hold it already.
    Lookup { key: KeyNumber, held: Held },
    /// That a key is something else.
    Write { key: KeyNumber, id: WriteId },
    /// Many keys.
    Batch(Box<Batch>),
    /// `/healthz`.
    Health,
    /// A path that is not there.
    Nowhere,
    /// A method that the path does not have, with a body of so many bytes.
    Method { body_size: usize },
    /// Something malformed.
    Broken,
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
#[derive(Clone, Debug)]
pub struct Owed {
    /// What it asks for.
    pub ask: Ask,
    /// The reply has no body.
    pub head_only: bool,
    /// It asks the server to close after the reply.
    pub last: bool,
    /// When its last byte was written, or it was composed.
    pub asked: Instant,
    /// Its last byte was written.
    pub is_asked: bool,
    /// What it shows.
    pub badge: Option<Badge>,
    /// When it was composed: nothing of it was written before.
    pub composed: Instant,
    /// Where it begins among all that the client writes.
    pub begin: u64,
    /// Where it ends.
    pub end: u64,
    /// The oldest version that a write before it on the connection allows; a batch has one for each
    /// item.
    pub floor: Version,
    /// Whether the server is to say 100 before the client sends the body.
    pub interim: Interim,
}

/// What a client waits for before it sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interim {
    /// For nothing.
    Unasked,
    /// For a 100 that has not come.
    Asked,
    /// It has come.
    Given,
}

impl Owed {
    const fn new(ask: Ask, now: Instant) -> Self {
        Self {
            ask,
            head_only: false,
            last: false,
            asked: now,
            is_asked: false,
            badge: None,
            composed: now,
            begin: 0,
            end: 0,
            floor: 0,
            interim: Interim::Unasked,
        }
    }

    /// What may be said to it because of who asks.
    #[must_use]
    pub fn standing(&self, model: &Model) -> Standing {
        self.badge.map_or(Standing::Free, |badge| badge.standing(&self.ask, model))
    }

    /// A write before it made the key this version.
    pub fn raise_floor(&mut self, key: KeyNumber, version: Version) {
        match &mut self.ask {
            Ask::Lookup { key: own, .. } | Ask::Write { key: own, .. } if *own == key => {
                self.floor = self.floor.max(version);
            }
            Ask::Batch(batch) => {
                for item in batch.items.iter_mut().filter(|item| item.key == key) {
                    item.floor = item.floor.max(version);
                }
            }
            Ask::Lookup { .. } | Ask::Write { .. } => {}
            Ask::Health | Ask::Nowhere | Ask::Method { .. } | Ask::Broken => {}
        }
    }
}

/// What a reply must be, and what it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its body.
    pub body: Body,
    /// What the client knows when it has read it.
    pub told: Told,
}

/// What a client knows by a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing of any key.
    Nothing,
    /// The key had one of these versions, oldest first; a value has this ETag.
    Versions { key: KeyNumber, tag: Option<Tag>, versions: Vec<Version> },
    /// What became of a write.
    Write { key: KeyNumber, id: WriteId },
}

/// What the body of a reply must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none, whatever the head says.
    None,
    /// The value of one of the versions that it tells of.
    Value,
    /// Exactly this.
    Text(&'static str),
    /// A JSON object with one field, `error`.
    Error,
    /// The items of a batch.
    Items,
}

/// Malformed requests, and writes that are refused. After most of them the server cannot know where
/// the next one begins.
const BROKEN: [&[u8]; 19] = [
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
    b"PUT /lookup/key-0 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nevil",
    b"DELETE /lookup/key-0 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a-token-of-the-sin\r\n\r\n",
    b"PUT /lookup/key-0 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a-token-of-the-sim\r\n\
      Content-Length: 4000000\r\n\r\nevil",
    b"PUT /lookup/key-0 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a-token-of-the-sim\r\n\
      Transfer-Encoding: chunked\r\n\r\n4\r\nevil",
    b"PUT /lookup/key-0 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a-token-of-the-sim\r\n\
      Transfer-Encoding: chunked\r\n\r\n4\r\nevil4\r\nevil",
];

/// Beginnings of requests that never end: of nothing, of a head, of a body.
pub(super) const HALVES: [&[u8]; 5] = [
    b"",
    b"GET /lookup/key-0 HTTP/1.1\r\nHos",
    b"PUT /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf",
    b"PUT /healthz HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
    b"PUT /lookup/key-0 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer a-token-of-the-sim\r\n\
      Content-Length: 100\r\n\r\nhalf",
];

/// How a client draws its requests.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The key, where it asks for one.
    pub key: KeyNumber,
    /// It is the last of its connection.
    pub last: bool,
    /// It writes, per mille.
    pub writes: u32,
    /// How it asks for many keys at once.
    pub batches: Batches,
    /// What it shows.
    pub badge: Option<Badge>,
}

/// Writes a request. Returns what it is owed, and where its body begins if the client waits to be
/// told to send it.
pub fn compose(
    out: &mut Vec<u8>,
    model: &mut Model,
    prng: &mut Prng,
    wish: Wish,
    now: Instant,
) -> (Owed, Option<usize>) {
    let Wish { key, last, writes, batches, badge } = wish;
    let old = last && prng.coin();
    if prng.chance(writes) {
        // The others bear the operator's token.
        let badge = badge.filter(|_| prng.coin());
        let (id, body_at) = write::compose(out, model, prng, key, Framing { old, last }, badge);
        let interim = if body_at.is_some() { Interim::Asked } else { Interim::Unasked };
        let owed = Owed { last, interim, badge, ..Owed::new(Ask::Write { key, id }, now) };
        return (owed, body_at);
    }
    if prng.chance(batches.share) {
        let framing = Framing { old, last };
        let (batch, body_at) = batch::compose(out, model, prng, &batches, framing, badge);
        let interim = if body_at.is_some() { Interim::Asked } else { Interim::Unasked };
        let ask = Ask::Batch(Box::new(batch));
        return (Owed { last, interim, badge, ..Owed::new(ask, now) }, body_at);
    }
    let head_only = prng.chance(120);
    let method: &[u8] = if head_only { b"HEAD " } else { b"GET " };
    let ask = match prng.below(100) {
        0..=3 => Ask::Health,
        4 | 5 => Ask::Nowhere,
        6..=8 => Ask::Method { body_size: prng.size(0, 300) },
        _ => Ask::Lookup { key, held: held(model, prng, key) },
    };
    match &ask {
        Ask::Lookup { key, .. } => {
            out.extend(method);
            model.write_target(*key, prng, out);
        }
        Ask::Health => out.extend([method, b"/healthz"].concat()),
        Ask::Nowhere => out.extend([method, b"/nowhere?x=1"].concat()),
        Ask::Method { .. } => out.extend(prng.pick(&[b"PUT /healthz", b"PUT /lookup?"])),
        Ask::Write { .. } | Ask::Batch(_) | Ask::Broken => {
            unreachable!("they are composed elsewhere")
        }
    }
    out.extend(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    out.extend(b"Host: sim.example\r\n");
    badge.iter().for_each(|badge| badge.write(out));
    if let Ask::Lookup { held, .. } = ask {
        write_tags(out, "If-None-Match", held, "W/");
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
        let is_chunked = !old && prng.coin();
        out.extend(if is_chunked {
            b"Transfer-Encoding: chunked\r\n\r\n".to_vec()
        } else {
            format!("Content-Length: {body_size}\r\n\r\n").into_bytes()
        });
        write_body(out, prng, &vec![b'b'; body_size], is_chunked);
    } else {
        out.extend(b"\r\n");
    }
    let head_only = head_only && !matches!(ask, Ask::Method { .. });
    (Owed { head_only, last, badge, ..Owed::new(ask, now) }, None)
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

/// Writes a line that names ETags, the second of them with this prefix.
pub(super) fn write_tags(out: &mut Vec<u8>, name: &str, held: Held, prefix: &str) {
    let tags = match held {
        Held::Nothing => return,
        Held::Any => "*".to_owned(),
        Held::Tags(tags) => {
            let mut text = String::new();
            for tag in tags.into_iter().flatten() {
                let before = if text.is_empty() { "" } else { ", " };
                let prefix = if text.is_empty() { "" } else { prefix };
                write!(text, "{before}{prefix}\"{tag:016x}\"").expect("a string takes it");
            }
            text
        }
    };
    out.extend(format!("{name}: {tags}\r\n").bytes());
}

/// Writes something malformed.
pub fn compose_broken(out: &mut Vec<u8>, prng: &mut Prng, now: Instant) -> Owed {
    match prng.below(22) {
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
    Owed::new(Ask::Broken, now)
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
) -> Result<Expected, String> {
    if owed.last && !head.close {
        return Err("the last reply does not say Connection: close".to_owned());
    }
    let mut told = Told::Nothing;
    let standing = owed.standing(model);
    let refusal = standing.refusal().filter(|(status, _)| head.status == *status);
    if let (&Ask::Write { key, id }, true) = (&owed.ask, refusal.is_some()) {
        told = write::check_refused(key, id, model)?;
    }
    let body = match (&owed.ask, head.status) {
        _ if let Some((_, text)) = refusal => Body::Text(text),
        (Ask::Batch(batch), 413) if batch.may_be_last() => batch::check(batch, head)?,
        (ask, status) if matches!(standing, Standing::Refused(_)) => {
            return Err(format!("{status} is said to {ask:?} of who may not ask that"));
        }
        (&Ask::Lookup { key, held }, status) => {
            let allowed = allowed(key, owed.asked, owed.floor, model);
            let (body, of_key) = check_lookup(key, held, head, model, &allowed, excuses)
                .ok_or_else(|| {
                    format!("{status} is no answer: {}", describe(model, key, &allowed))
                })?;
            told = of_key;
            body
        }
        (&Ask::Write { key, id }, _) => {
            told = Told::Write { key, id };
            write::check(id, head, model, excuses)?
        }
        (Ask::Batch(batch), _) => batch::check(batch, head)?,
        (Ask::Health, 200) => Body::Text(r#"{"ok":true}"#),
        (Ask::Nowhere, 404) => Body::Text(r#"{"error":"not_found"}"#),
        (Ask::Method { .. }, 405) => Body::Error,
        (Ask::Broken, 400 | 401 | 403 | 413 | 414 | 417 | 431 | 501 | 505) => Body::Error,
        (ask, status) => return Err(format!("{status} is no answer to {ask:?}")),
    };
    match body {
        Body::Text(text) if head.content_length.unwrap_or(0) != text.len() => {
            Err(format!("the body should be {text}"))
        }
        _ if owed.head_only => Ok(Expected { body: Body::None, told }),
        Body::None | Body::Value | Body::Text(_) | Body::Error | Body::Items => {
            Ok(Expected { body, told })
        }
    }
}

/// The versions that a reply may have to who asked then, and what they are.
pub(super) fn allowed(
    key: KeyNumber,
    asked: Instant,
    floor: Version,
    model: &Model,
) -> Vec<(Version, Content)> {
    let versions = model.allowed(key, asked);
    let versions = (*versions.start()).max(floor)..=*versions.end();
    versions.map(|version| (version, model.at(key, version))).collect()
}

/// What the body must be and what it tells; none if it is no answer.
fn check_lookup(
    key: KeyNumber,
    held: Held,
    head: &Head<'_>,
    model: &Model,
    allowed: &[(Version, Content)],
    excuses: Excuses,
) -> Option<(Body, Told)> {
    let those = |is_it: &dyn Fn(Content) -> bool| -> Option<Vec<Version>> {
        let those = allowed.iter().filter(|(_, content)| is_it(*content));
        let versions: Vec<Version> = those.map(|(version, _)| *version).collect();
        (!versions.is_empty()).then_some(versions)
    };
    let value = |is_it: &dyn Fn(Edition) -> bool| {
        those(&|content| matches!(content, Content::Value(edition) if is_it(edition)))
    };
    match head.status {
        200 => {
            let (tag, size) = (head.etag?, head.content_length?);
            let versions = value(&|edition| {
                head.content_type == Some(model.content_type(key, edition))
                    && model.value_size(key, edition) == size
                    && model.may_have(key, edition, tag)
            })?;
            let told = Told::Versions { key, tag: Some(tag), versions };
            (!held.has(tag)).then_some((Body::Value, told))
        }
        304 => {
            let tag = head.etag?;
            let versions = value(&|edition| model.may_have(key, edition, tag))?;
            let told = Told::Versions { key, tag: None, versions };
            held.has(tag).then_some((Body::None, told))
        }
        status => {
            let body = Body::Text(lack(status, allowed, excuses)?);
            let absent = those(&|content| status == 404 && content == Content::Absent);
            let told = absent.map(|versions| Told::Versions { key, tag: None, versions });
            Some((body, told.unwrap_or(Told::Nothing)))
        }
    }
}

/// What is said instead of a value with this status; none if that is no answer.
pub(super) fn lack(
    status: u16,
    allowed: &[(Version, Content)],
    excuses: Excuses,
) -> Option<&'static str> {
    let (may_fail, may_shed) = (excuses == Excuses::All, excuses != Excuses::None);
    let has = |content: Content| allowed.iter().any(|(_, other)| *other == content);
    match status {
        404 if has(Content::Absent) => Some(r#"{"error":"not_found"}"#),
        502 | 504 if may_fail || has(Content::Failing) => Some(r#"{"error":"origin_unavailable"}"#),
        502 if has(Content::TooLarge) => Some(r#"{"error":"origin_unavailable"}"#),
        503 if may_shed => Some(r#"{"error":"overloaded_try_again"}"#),
        _ => None,
    }
}

/// What a key may be, and what it was before, for a failure's message.
fn describe(model: &Model, key: KeyNumber, allowed: &[(Version, Content)]) -> String {
    let mut text = format!("key {key}");
    let first = allowed.first().map_or(0, |(version, _)| *version);
    for version in 0..=model.newest(key) {
        let (content, cause) = (model.at(key, version), model.cause(key, version));
        let size = match content {
            Content::Value(edition) => model.value_size(key, edition),
            Content::Absent | Content::TooLarge | Content::Failing => 0,
        };
        let may = if version < first { "was" } else { "may be" };
        write!(text, " {may} {version} = {content:?} of {size} by {cause:?},")
            .expect("it takes it");
    }
    text
}
