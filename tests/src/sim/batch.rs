//! Batches as clients send them. What a correct reply to each is checks `items`.
//!
//! Keys come again, as they do from clients that gather them; any character may be escaped, and any
//! white space stand between two tokens. Some batches are none, or have too many keys or bytes.

use super::badge::Badge;
use super::items;
use super::marks::{Mark, Marks};
use super::reply::Head;
use super::request::Body;
use super::write::{Framing, end_head};
use crate::model::{KeyNumber, Model, Version};
use crate::prng::Prng;
use pelton::http::BatchLimits;

/// How a client draws its batches, and what the server takes.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// It sends some, per mille of its requests.
    pub share: u32,
    /// Keys that it asks for.
    pub keys_count: u32,
    /// Of a batch.
    pub limits: BatchLimits,
    /// Bytes of values in a reply.
    pub bytes_max: usize,
}

/// A batch that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What it asks for, in order.
    pub items: Vec<Item>,
    /// What is answered instead of items: a status and a body.
    pub refusal: Option<(u16, &'static str)>,
    /// The reply ends with the connection (HTTP/1.0).
    pub is_old: bool,
    /// Bytes of values that the reply may have.
    pub bytes_max: usize,
}

/// A key of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub key: KeyNumber,
    /// As it was written, its quotes included.
    pub token: String,
    /// The oldest version that a write before it on the connection allows.
    pub floor: Version,
}

impl Batch {
    /// Its body may be refused before its end; the server closes then.
    #[must_use]
    pub fn may_be_last(&self) -> bool {
        self.refusal == Some(TOO_LARGE)
    }
}

/// Bytes of the longest token that is written: with all that may stand around it, it fits into the
/// smallest block of a simulated shard.
const TOKEN_SIZE_MAX: usize = 700;

/// Bodies that are no batch.
const BROKEN: [&[u8]; 8] = [
    b"",
    b"[]",
    b"{\"keys\":[\"key-0\",]}",
    b"{\"keys\":[1]}",
    b"{\"keys\":[\"\"]}",
    b"{\"keys\":[\"key-0\"],\"keys\":[]}",
    b"{\"keys\":[\"\\ud800\"]}",
    b"{\"keys\":[\"key-0\"]} {}",
];

/// Writes a batch. Returns what it is, and where its body begins if the client waits to be told to
/// send it.
pub(super) fn compose(
    out: &mut Vec<u8>,
    model: &Model,
    prng: &mut Prng,
    batches: &Batches,
    framing: Framing,
    badge: Option<Badge>,
) -> (Batch, Option<usize>) {
    let Framing { old, last } = framing;
    let (items, body, refusal) = draw(model, prng, batches);
    let batch = Batch { items, refusal, is_old: old, bytes_max: batches.bytes_max };
    out.extend(if prng.chance(900) { b"POST /lookup".as_slice() } else { b"POST /lookup?a=/b" });
    out.extend(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    out.extend(b"Host: sim.example\r\n");
    badge.iter().for_each(|badge| badge.write(out));
    if prng.coin() {
        out.extend(b"Content-Type: application/x-www-form-urlencoded\r\n");
    }
    if last && !old {
        out.extend(b"Connection: close\r\n");
    }
    (batch, end_head(out, prng, old, 100, &body))
}

/// What a batch asks for, its body, and whether it is refused.
fn draw(
    model: &Model,
    prng: &mut Prng,
    batches: &Batches,
) -> (Vec<Item>, Vec<u8>, Option<(u16, &'static str)>) {
    let Batches { limits, .. } = batches;
    let keys_max = usize::from(limits.keys_max);
    let (is_broken, is_many) = (prng.chance(60), prng.chance(40));
    let mut count =
        if prng.coin() { prng.size(0, keys_max.min(4)) } else { prng.size(0, keys_max) };
    if is_many {
        count = keys_max + prng.size(1, 2);
    }
    let items = draw_items(model, prng, batches, count);
    let mut body = write(prng, &items);
    let mut refusal = (items.len() > keys_max).then_some(TOO_MANY);
    if is_broken {
        refusal = Some((400, r#"{"error":"bad_batch"}"#));
        match prng.below(3) {
            0 => body.truncate(prng.index(body.len())),
            1 => body.insert(prng.index(body.len()), 0xff),
            _ => body = prng.pick(&BROKEN).to_vec(),
        }
    }
    let size_max = limits.body_size_max as usize;
    if prng.chance(50) {
        // As long as it may be, or a byte longer; a body that is cut off stays so.
        let size = size_max + usize::from(prng.coin());
        body.splice(0..0, vec![b' '; size.saturating_sub(body.len())]);
    }
    if body.len() > size_max {
        refusal = Some(TOO_LARGE);
    }
    (items, body, refusal)
}

const TOO_LARGE: (u16, &str) = (413, r#"{"error":"content_too_large"}"#);
const TOO_MANY: (u16, &str) = (413, r#"{"error":"too_many_keys"}"#);

fn draw_items(model: &Model, prng: &mut Prng, batches: &Batches, count: usize) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..count {
        let again = prng.chance(150) && !items.is_empty();
        let key = if again {
            items[prng.index(items.len())].key
        } else {
            u32::try_from(prng.below(batches.keys_count.into())).expect("it is below a u32")
        };
        // What is no UTF-8 cannot stand in JSON.
        if let Ok(text) = std::str::from_utf8(model.key(key)) {
            let mut token = String::new();
            let escapes = prng.pick(&[0, 0, 100, 1000]);
            write_string(&mut token, prng, text, escapes);
            items.push(Item { key, token, floor: 0 });
        }
    }
    items
}

/// The body that asks for these keys. It ends with its brace.
fn write(prng: &mut Prng, items: &[Item]) -> Vec<u8> {
    let mut body = Vec::new();
    let spaces = prng.pick(&[0, 0, 300]);
    space(&mut body, prng, spaces);
    body.push(b'{');
    space(&mut body, prng, spaces);
    let escapes = prng.pick(&[0, 0, 500]);
    let mut member = String::new();
    write_string(&mut member, prng, "keys", escapes);
    body.extend(member.bytes());
    space(&mut body, prng, spaces);
    body.push(b':');
    space(&mut body, prng, spaces);
    body.push(b'[');
    for (index, item) in items.iter().enumerate() {
        body.extend(if index == 0 { b"".as_slice() } else { b"," });
        space(&mut body, prng, spaces);
        body.extend(item.token.bytes());
        space(&mut body, prng, spaces);
    }
    space(&mut body, prng, spaces);
    body.push(b']');
    space(&mut body, prng, spaces);
    body.push(b'}');
    body
}

fn space(out: &mut Vec<u8>, prng: &mut Prng, per_mille: u32) {
    while prng.chance(per_mille) {
        out.push(prng.pick(b" \t\r\n"));
    }
}

/// Writes a string with what must be escaped, and of the rest some (RFC 8259 section 7).
fn write_string(out: &mut String, prng: &mut Prng, text: &str, escapes: u32) {
    let mut left = TOKEN_SIZE_MAX - text.len();
    out.push('"');
    for char in text.chars() {
        let must = matches!(char, '"' | '\\' | '\0'..='\x1f');
        if !must && (left < 12 || !prng.chance(escapes)) {
            out.push(char);
            continue;
        }
        let begin = out.len();
        match char {
            '"' | '\\' | '/' if prng.coin() => out.extend(['\\', char]),
            '\n' if prng.coin() => out.push_str("\\n"),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let upper = prng.coin();
                    let unit = if upper { format!("{unit:04X}") } else { format!("{unit:04x}") };
                    out.extend(["\\u", &unit]);
                }
            }
        }
        left = left.saturating_sub(out.len() - begin);
    }
    out.push('"');
}

/// Whether `head` is that of a correct reply, and what its body must be.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(batch: &Batch, head: &Head<'_>) -> Result<Body, String> {
    match batch.refusal {
        Some((status, text)) if head.status == status => Ok(Body::Text(text)),
        None if head.status == 200 => items::check_head(batch, head).map(|()| Body::Items),
        _ => Err(format!("{} is no answer to this batch", head.status)),
    }
}

/// Notes what is rare of a batch that was answered.
pub(super) fn note(batch: &Batch, model: &Model, marks: &mut Marks) {
    let owners = || batch.items.iter().map(|item| model.owners.get(item.key as usize));
    let is_of_many = owners().any(|owner| Some(owner) != owners().next());
    let is_served = batch.refusal.is_none();
    marks.hit_if(!is_served, Mark::BatchRefused);
    marks.hit_if(batch.refusal == Some(TOO_MANY), Mark::BatchTooManyKeys);
    marks.hit_if(is_served && batch.is_old, Mark::BatchWithoutChunks);
    marks.hit_if(is_served && is_of_many, Mark::BatchOfShards);
}
