//! Checks the reply to a batch byte by byte as it comes, written from `docs/batch.md`.
//!
//! At each place only so many texts may follow, one for each status and type that the item may
//! have; a byte that none of them has is wrong. Behind the text of a value come its bytes, which
//! must be those of a version that the item may have.
//!
//! ```text
//! {"items":[  {"key":"a","status":200,"content_type":"application/json","value":  1  }
//!             ,{"key":"b","status":404}  ]}
//! ```
//!
//! Invariant: of the texts and versions that may be, one is left at least.

use super::badge::Standing;
use super::batch::{Batch, Item};
use super::marks::{Mark, Marks};
use super::reply::{self, Head};
use super::request::{self, Excuses, Owed};
use crate::model::{Content, Model, Version};

/// A reply to a batch whose head was read.
#[derive(Debug)]
pub(super) struct Items {
    chunks: Chunks,
    /// The beginning, the items and the end, as far as they were read.
    parts_count: usize,
    part: Part,
    /// Bytes of values that the items to come may have.
    bytes_left: usize,
    /// Items that were beyond the rate.
    pub(super) limited_count: usize,
}

/// What comes next.
#[derive(Debug)]
enum Part {
    /// Nothing of it has come yet: what it may be is known when it begins.
    Unknown,
    /// A text, of which so many bytes were read.
    Text(Vec<May>, usize),
    /// The bytes of a value.
    Value(Value),
}

/// A text that may follow.
#[derive(Debug)]
struct May {
    text: Vec<u8>,
    /// What the item shows.
    versions: Vec<Version>,
    /// A value follows, in this form.
    form: Option<Form>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Base64,
}

/// A value, as much of it as was read.
#[derive(Debug)]
struct Value {
    form: Form,
    /// What it may be.
    versions: Vec<Version>,
    /// Its bytes so far.
    size: usize,
    /// Digits of base64 that wait for others.
    digits: Vec<u8>,
    /// In which chunk it began.
    begun_in: u32,
}

/// What a reader learns.
#[derive(Debug)]
pub(super) enum Shown {
    /// The item of this index has one of these versions, or none is known.
    Item(usize, Vec<Version>),
    /// The reply is complete.
    End,
}

/// What decides about what an item may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) owed: &'a Owed,
    pub(super) batch: &'a Batch,
    pub(super) model: &'a Model,
    pub(super) excuses: Excuses,
}

/// Whether `head` is that of a reply with items.
pub(super) fn check_head(batch: &Batch, head: &Head<'_>) -> Result<(), String> {
    let is_framed = head.is_chunked != batch.is_old && head.content_length.is_none();
    let is_json = head.content_type == Some("application/json");
    if is_framed && is_json && head.no_store && (head.close || !batch.is_old) {
        Ok(())
    } else {
        Err("a batch is answered with JSON in chunks that nobody keeps".to_owned())
    }
}

impl Items {
    pub(super) fn new(batch: &Batch) -> Self {
        let chunks = Chunks { is_framed: !batch.is_old, ..Chunks::default() };
        Self {
            chunks,
            parts_count: 0,
            part: Part::Unknown,
            bytes_left: batch.bytes_max,
            limited_count: 0,
        }
    }

    /// Takes what was read, up to the end of an item or of the reply. Returns how much that is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        terms: Terms<'_>,
        marks: &mut Marks,
    ) -> Result<(usize, Option<Shown>), String> {
        let mut at = 0;
        loop {
            let parts_left = terms.batch.items.len() + 2 - self.parts_count;
            if self.chunks.is_over || (parts_left == 0 && !self.chunks.is_framed) {
                return match parts_left {
                    0 => Ok((at, Some(Shown::End))),
                    _ => Err(format!("the last chunk with {parts_left} parts to come")),
                };
            }
            let Some(byte) = bytes.get(at) else { return Ok((at, None)) };
            if self.chunks.is_framed && self.chunks.left == 0 {
                self.chunks.push(*byte)?;
                at += 1;
                continue;
            }
            if parts_left == 0 {
                return Err(format!("bytes behind the items: {}", reply::show(&bytes[at..])));
            }
            let data = &bytes[at..];
            let data = if self.chunks.is_framed {
                &data[..data.len().min(self.chunks.left)]
            } else {
                data
            };
            let (size, versions) = self.take_data(data, terms, marks)?;
            at += size;
            self.chunks.left = self.chunks.left.saturating_sub(size);
            if let Some(versions) = versions {
                self.parts_count += 1;
                self.part = Part::Unknown;
                if (2..terms.batch.items.len() + 2).contains(&self.parts_count) {
                    return Ok((at, Some(Shown::Item(self.parts_count - 2, versions))));
                }
            }
        }
    }

    /// Takes data of one part; with its end, what it shows.
    fn take_data(
        &mut self,
        data: &[u8],
        terms: Terms<'_>,
        marks: &mut Marks,
    ) -> Result<(usize, Option<Vec<Version>>), String> {
        let wrong = |what: &dyn std::fmt::Debug| {
            Err(format!("wrong items: {}\nafter {what:?}", reply::show(data)))
        };
        match &mut self.part {
            Part::Unknown => {
                self.part = Part::Text(self.next_texts(terms), 0);
                Ok((0, None))
            }
            Part::Text(may, at) => {
                may.retain(|may| may.text[*at] == data[0]);
                *at += 1;
                match may.as_slice() {
                    [] => wrong(&self),
                    [one] if one.text.len() == *at => {
                        marks.hit_if(one.text.ends_with(TOO_LARGE), Mark::BatchItemTooLarge);
                        marks.hit_if(one.text.ends_with(FORBIDDEN), Mark::BatchItemForbidden);
                        let is_limited = one.text.ends_with(RATE_LIMITED);
                        marks.hit_if(is_limited, Mark::BatchItemRateLimited);
                        self.limited_count += usize::from(is_limited);
                        let versions = std::mem::take(&mut may[0].versions);
                        let Some(form) = may[0].form else { return Ok((1, Some(versions))) };
                        self.part = Part::Value(Value {
                            form,
                            versions,
                            size: 0,
                            digits: Vec::new(),
                            begun_in: self.chunks.count,
                        });
                        Ok((1, None))
                    }
                    _ => Ok((1, None)),
                }
            }
            Part::Value(value) => {
                let item = &terms.batch.items[self.parts_count - 1];
                let Some((taken, is_end)) = value.take(data, item, terms.model) else {
                    return wrong(&self);
                };
                if !is_end {
                    return Ok((taken, None));
                }
                marks.hit_if(value.begun_in != self.chunks.count, Mark::BatchValueInPieces);
                self.bytes_left -= value.size;
                Ok((taken, Some(std::mem::take(&mut value.versions))))
            }
        }
    }

    /// All that may come next.
    fn next_texts(&self, terms: Terms<'_>) -> Vec<May> {
        let plain = |text: &[u8]| May { text: text.to_vec(), versions: Vec::new(), form: None };
        match self.parts_count {
            0 => vec![plain(br#"{"items":["#)],
            end if end > terms.batch.items.len() => vec![plain(b"]}")],
            number => self.item_texts(&terms.batch.items[number - 1], number == 1, terms),
        }
    }

    fn item_texts(&self, item: &Item, is_first: bool, terms: Terms<'_>) -> Vec<May> {
        let Terms { owed, model, excuses, .. } = terms;
        let Item { key, floor, .. } = *item;
        let before = if is_first { "" } else { "," };
        let begin =
            [before.as_bytes(), br#"{"key":"#, item.token.as_bytes(), br#","status":"#].concat();
        let text = |rest: String| [&begin, rest.as_bytes()].concat();
        let standing =
            owed.badge.map_or(Standing::Free, |badge| badge.standing_of_item(key, model));
        let mut texts: Vec<May> = Vec::new();
        if let Some((status, body)) = standing.refusal() {
            let text = text(format!("{status},{}", &body[1..]));
            texts.push(May { text, versions: Vec::new(), form: None });
        }
        if matches!(standing, Standing::Refused(_)) {
            return texts;
        }
        let allowed = request::allowed(key, owed.asked, floor, model);
        for status in [404, 502, 503, 504] {
            let Some(body) = request::lack(status, &allowed, excuses) else { continue };
            let is_absent =
                |(_, content): &&(_, Content)| status == 404 && *content == Content::Absent;
            let versions = allowed.iter().filter(is_absent).map(|(version, _)| *version).collect();
            let rest = if status == 404 { "}" } else { &body[1..] };
            let comma = if status == 404 { "" } else { "," };
            texts.push(May { text: text(format!("{status}{comma}{rest}")), versions, form: None });
        }
        for (version, content) in allowed {
            let Content::Value(edition) = content else { continue };
            let (text, form) = if model.value_size(key, edition) > self.bytes_left {
                (text(format!("413{}", str::from_utf8(TOO_LARGE).expect("it is ASCII"))), None)
            } else {
                let content_type = model.content_type(key, edition);
                let is_json = model.is_json(key, edition);
                let name = if is_json { r#""value":"# } else { r#""value_base64":""# };
                let form = if is_json { Form::Json } else { Form::Base64 };
                (text(format!(r#"200,"content_type":"{content_type}",{name}"#)), Some(form))
            };
            match texts.iter_mut().find(|may| may.text == text) {
                Some(may) => may.versions.extend(form.map(|_| version)),
                None => {
                    texts.push(May {
                        text,
                        versions: form.map(|_| version).into_iter().collect(),
                        form,
                    });
                }
            }
        }
        texts
    }
}

/// The rest of an item whose value exceeds what is left.
const TOO_LARGE: &[u8] = br#","error":"batch_too_large"}"#;

/// The rests of items that are refused because of who asks.
const FORBIDDEN: &[u8] = br#","error":"forbidden"}"#;
const RATE_LIMITED: &[u8] = br#","error":"rate_limited"}"#;

impl Value {
    /// Takes bytes of it. Returns how many, and whether its item is complete; nothing if no version
    /// of the key has them.
    fn take(&mut self, data: &[u8], item: &Item, model: &Model) -> Option<(usize, bool)> {
        let (taken, bytes, is_end) = match self.form {
            // No JSON of the model has a brace.
            Form::Json => {
                let end = data.iter().position(|byte| *byte == b'}');
                let size = end.unwrap_or(data.len());
                (size + usize::from(end.is_some()), data[..size].to_vec(), end.is_some())
            }
            Form::Base64 => self.take_digits(data)?,
        };
        let (offset, size) = (self.size, self.size + bytes.len());
        self.size = size;
        self.versions.retain(|version| {
            matches!(model.at(item.key, *version), Content::Value(edition)
                if model.agrees(item.key, edition, offset, &bytes)
                    && (!is_end || model.value_size(item.key, edition) == size))
        });
        (!self.versions.is_empty()).then_some((taken, is_end))
    }

    /// Takes digits up to the quote and the brace behind them, four at a time, and decodes them.
    fn take_digits(&mut self, data: &[u8]) -> Option<(usize, Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        for (at, byte) in data.iter().enumerate() {
            self.digits.push(*byte);
            match self.digits.as_slice() {
                [b'"', b'}'] => return Some((at + 1, bytes, true)),
                [b'"'] => {}
                [b'"', ..] => return None,
                [one, two, three, four] => {
                    // What is filled up is the last.
                    let is_open = self.size.checked_add(bytes.len())?.is_multiple_of(3);
                    bytes.extend(decode([*one, *two, *three, *four]).filter(|_| is_open)?);
                    self.digits.clear();
                }
                _ => {}
            }
        }
        Some((data.len(), bytes, false))
    }
}

/// Bytes of four digits (RFC 4648 section 4).
fn decode(digits: [u8; 4]) -> Option<Vec<u8>> {
    let filled = digits.iter().rev().take_while(|digit| **digit == b'=').count();
    let mut bits = 0_u32;
    for digit in &digits[..4 - filled] {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
    }
    bits <<= 6 * filled;
    let [_, bytes @ ..] = bits.to_be_bytes();
    let (bytes, rest) = bytes.split_at(3_usize.checked_sub(filled).filter(|size| *size > 0)?);
    rest.iter().all(|byte| *byte == 0).then(|| bytes.to_vec())
}

/// The chunks of a reply (RFC 9112 section 7.1), without extensions and trailers.
#[derive(Debug, Default)]
struct Chunks {
    /// There are any.
    is_framed: bool,
    /// How many have begun.
    count: u32,
    /// Bytes of data to come of this one.
    left: usize,
    /// What was read since the last byte of data.
    frame: Vec<u8>,
    /// The last has come.
    is_over: bool,
}

impl Chunks {
    /// Takes a byte that is not data.
    fn push(&mut self, byte: u8) -> Result<(), String> {
        self.frame.push(byte);
        let before = if self.count > 0 { b"\r\n".as_slice() } else { b"" };
        let (start, line) = self.frame.split_at(before.len().min(self.frame.len()));
        let digits_count = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, end) = line.split_at(digits_count);
        let size = str::from_utf8(digits).map(|digits| usize::from_str_radix(digits, 16));
        let size = size.expect("they are ASCII").unwrap_or(0);
        let line_end = if size == 0 { b"\r\n\r\n".as_slice() } else { b"\r\n" };
        let has_size = (1..=4).contains(&digits_count) || line.is_empty();
        if !before.starts_with(start) || !has_size || !line_end.starts_with(end) {
            return Err(format!("a chunk that begins with {}", reply::show(&self.frame)));
        }
        if end == line_end {
            (self.left, self.is_over) = (size, size == 0);
            self.count += 1;
            self.frame.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_decoded_only_as_they_are_encoded() {
        assert_eq!(decode(*b"AAEC"), Some(vec![0, 1, 2]));
        assert_eq!(decode(*b"+/8="), Some(vec![0xfb, 0xff]));
        assert_eq!(decode(*b"eA=="), Some(vec![b'x']));
        for wrong in [b"eB==", b"e===", b"====", b"e=A=", b"eA-_", b"eA\r\n"] {
            assert_eq!(decode(*wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn chunks_are_framed_strictly() {
        let feed = |text: &[u8]| {
            let mut chunks = Chunks { is_framed: true, ..Chunks::default() };
            for byte in text {
                if chunks.left > 0 {
                    chunks.left -= 1;
                } else {
                    chunks.push(*byte)?;
                }
            }
            Ok::<_, String>((chunks.count, chunks.is_over))
        };
        assert_eq!(feed(b"0003\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"), Ok((3, true)));
        assert_eq!(feed(b"0003\r\nabc\r\n0"), Ok((1, false)));
        for wrong in ["\r\n1", "1\n", "1;x\r\n", "3\r\nabc0", "3\r\nabc\n", "00001\r\n", "0\r\nx"] {
            assert!(feed(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
