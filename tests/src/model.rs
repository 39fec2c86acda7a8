//! What the origin holds, and so what clients are owed: keys, and what they were over time.
//!
//! Everything follows from a seed. A value's bytes depend on its key and its *edition*, a number
//! that no other value of the key has, so a body that belongs to another key, another edition or
//! another place of the same value is recognised by any eight of its bytes. An edition is made
//! before anybody knows whether the origin will ever hold it. What it has held, in order, are the
//! *versions* of a key: editions and absences. The origin answers from here, and the clients check
//! against it: a reply has a version that was there, and none older than its *floor*, which rises
//! with each write that was acknowledged, each version that somebody was shown, and each purge.
//! `writes` is what clients write, and what became of it.

mod writes;

pub use writes::{Change, Condition, Fate, Held, WriteId};

use crate::prng::{Prng, mix};
use shard_cache::time::Instant;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use writes::Writes;

/// A key, by number.
pub type KeyNumber = u32;

/// A value of a key, by number.
pub type Edition = usize;

/// A place in a key's history, from 0.
pub type Version = usize;

/// What the origin says to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It has this value.
    Value(Edition),
    /// There is no such key.
    Absent,
    /// The value is larger than a server may take.
    TooLarge,
    /// It fails, always.
    Failing,
}

/// Why a version came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The origin has changed by itself: nobody tells the server.
    Itself,
    /// A client has written, and the server knows when it is done.
    Write,
    /// A client has written, and the server had given up on it: it is told later.
    LateWrite,
}

/// What a key was from some time on.
#[derive(Clone, Copy, Debug)]
struct State {
    content: Content,
    since: Instant,
    cause: Cause,
}

/// How long values are fresh, as the origin says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ages {
    /// They never change.
    Never,
    /// They change, and a server may know it as late as this.
    Within(Duration),
}

/// The origin's data.
#[derive(Debug)]
pub struct Model {
    /// What was shown somewhere is known everywhere.
    pub is_strict: bool,
    /// Which shard each key belongs to, where somebody asks.
    pub owners: Vec<u16>,
    seed: u64,
    value_size_max: usize,
    large_share: u64,
    ages: Ages,
    keys: Vec<Key>,
    writes: Writes,
}

/// A key and what happened to its value.
#[derive(Debug)]
struct Key {
    bytes: Box<[u8]>,
    /// A target that asks for it, with no more escapes than it takes.
    target: Box<[u8]>,
    /// All versions.
    history: Vec<State>,
    /// Editions made so far.
    editions_count: Edition,
    /// From when on no older version than this may be served.
    floors: Vec<(Instant, Version)>,
    /// ETags that clients have met, by edition.
    etags: BTreeMap<Edition, Tag>,
}

/// An ETag without its quotes: 16 hex digits.
pub type Tag = u64;

impl Model {
    /// A model of `keys_count` keys, the values of which have at most `value_size_max` bytes;
    /// `large_share` of 16 are of about that size.
    #[must_use]
    pub fn new(
        seed: u64,
        keys_count: u32,
        value_size_max: usize,
        large_share: u64,
        ages: Ages,
    ) -> Self {
        let mut model = Self {
            is_strict: false,
            owners: Vec::new(),
            seed,
            value_size_max,
            large_share,
            ages,
            keys: Vec::new(),
            writes: Writes::default(),
        };
        for key in 0..keys_count {
            let bytes = model.draw_key(key).into_boxed_slice();
            let mut target = b"/lookup/".to_vec();
            for byte in &bytes {
                if is_unreserved(*byte) {
                    target.push(*byte);
                } else {
                    escape(&mut target, *byte, UPPER);
                }
            }
            let content = model.draw_content(key);
            let first = State { content, since: Instant::ZERO, cause: Cause::Itself };
            model.keys.push(Key {
                bytes,
                target: target.into_boxed_slice(),
                history: vec![first],
                editions_count: 1,
                floors: Vec::new(),
                etags: BTreeMap::new(),
            });
        }
        model
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys_count(&self) -> u32 {
        u32::try_from(self.keys.len()).expect("keys are counted in 32 bits")
    }

    fn draw(&self, key: KeyNumber, what: u64) -> u64 {
        mix(self.seed ^ mix(u64::from(key) << 32 | what))
    }

    /// At most 512 bytes. Some keys hold bytes that must be escaped, some are long.
    fn draw_key(&self, key: KeyNumber) -> Vec<u8> {
        let mut bytes = format!("key-{key}").into_bytes();
        match self.draw(key, 0) % 8 {
            0 => bytes.extend(b" /?%#\xff\x00\r\n"),
            1 if key.is_multiple_of(4) => bytes.resize(512, b'x'),
            2 => bytes.extend("-\u{fc}ber".bytes()),
            3 => bytes.extend(" \"\\/\n\u{7}\u{1f600}".bytes()),
            _ => {}
        }
        bytes
    }

    /// The key's bytes.
    #[must_use]
    pub fn key(&self, key: KeyNumber) -> &[u8] {
        &self.keys[key as usize].bytes
    }

    /// The number of a key.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<KeyNumber> {
        let digits = bytes.strip_prefix(b"key-")?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
        let key = std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?;
        (key < self.keys_count() && self.key(key) == bytes).then_some(key)
    }

    /// Writes a target that asks for the key: what must be escaped is, anything else may be.
    pub fn write_target(&self, key: KeyNumber, prng: &mut Prng, out: &mut Vec<u8>) {
        if prng.chance(800) {
            out.extend(&self.keys[key as usize].target);
            return;
        }
        out.extend(b"/lookup/");
        for byte in self.key(key) {
            if is_unreserved(*byte) && !prng.chance(20) {
                out.push(*byte);
            } else {
                escape(out, *byte, if prng.coin() { LOWER } else { UPPER });
            }
        }
    }

    /// What the key is at first.
    fn draw_content(&self, key: KeyNumber) -> Content {
        match self.draw(key, 1) % 16 {
            0 | 1 => Content::Absent,
            2 => Content::Failing,
            3 => Content::TooLarge,
            _ => Content::Value(0),
        }
    }

    /// What the key is now.
    #[must_use]
    pub fn content(&self, key: KeyNumber) -> Content {
        self.at(key, self.newest(key))
    }

    /// What a version of the key was.
    #[must_use]
    pub fn at(&self, key: KeyNumber, version: Version) -> Content {
        self.keys[key as usize].history[version].content
    }

    /// The content type of a value.
    #[must_use]
    pub fn content_type(&self, key: KeyNumber, edition: Edition) -> &'static str {
        let draw = self.draw(key, 2) % 3 + (self.base(key, edition) >> 60) % 2;
        CONTENT_TYPES[usize::try_from(draw % 3).expect("it is below 3")]
    }

    /// Whether a value is JSON: a number of many digits.
    #[must_use]
    pub fn is_json(&self, key: KeyNumber, edition: Edition) -> bool {
        self.bytes(key, edition).are_digits && self.value_size(key, edition) > 0
    }

    /// The newest version of the key.
    #[must_use]
    pub fn newest(&self, key: KeyNumber) -> Version {
        self.keys[key as usize].history.len() - 1
    }

    /// A value of the key that nobody has seen yet.
    pub fn make_edition(&mut self, key: KeyNumber) -> Edition {
        let count = &mut self.keys[key as usize].editions_count;
        *count += 1;
        *count - 1
    }

    /// The key is something else from now on. Returns the version.
    pub fn change(
        &mut self,
        key: KeyNumber,
        content: Content,
        cause: Cause,
        now: Instant,
    ) -> Version {
        self.keys[key as usize].history.push(State { content, since: now, cause });
        self.newest(key)
    }

    /// Lets the origin change the key by itself, if keys change at all: its value, or whether it
    /// has one.
    pub fn replace(&mut self, key: KeyNumber, now: Instant) {
        let content = match self.content(key) {
            _ if self.ages == Ages::Never => return,
            Content::TooLarge | Content::Failing => return,
            Content::Value(edition) if edition % 8 == 5 => Content::Absent,
            Content::Value(_) | Content::Absent => Content::Value(self.make_edition(key)),
        };
        self.change(key, content, Cause::Itself, now);
    }

    /// No reply to a request of later than now may have a version before this one.
    pub fn forget_before(&mut self, key: KeyNumber, version: Version, now: Instant) {
        let floors = &mut self.keys[key as usize].floors;
        if floors.last().is_none_or(|(_, last)| *last < version) {
            floors.push((now, version));
        }
    }

    /// Somebody was shown this version, or a later one: nobody who asks from now on may be shown
    /// what a write that he knows of had replaced.
    ///
    /// What the origin becomes by itself, or after the server has given up on it, may be fetched
    /// before the answer to a write that came first, and be replaced by what that has left. Where
    /// nobody writes (`is_strict`), nobody is shown the older of two.
    pub fn show(&mut self, key: KeyNumber, version: Version, now: Instant) {
        let history = &self.keys[key as usize].history[..=version];
        if self.is_strict {
            self.forget_before(key, version, now);
        } else if let Some(version) = history.iter().rposition(|state| state.cause == Cause::Write)
        {
            self.forget_before(key, version, now);
        }
    }

    /// Why a version of the key came to be.
    #[must_use]
    pub fn cause(&self, key: KeyNumber, version: Version) -> Cause {
        self.keys[key as usize].history[version].cause
    }

    /// The versions that a reply to a request of `asked` may have.
    #[must_use]
    pub fn allowed(&self, key: KeyNumber, asked: Instant) -> RangeInclusive<Version> {
        let Key { history, floors, .. } = &self.keys[key as usize];
        let aged = match self.ages {
            Ages::Never => 0,
            Ages::Within(age) => history[1..].partition_point(|state| state.since + age < asked),
        };
        let before = floors.partition_point(|(at, _)| *at < asked);
        let floor = floors[..before].last().map_or(0, |(_, version)| *version);
        aged.max(floor)..=history.len() - 1
    }

    /// Bytes of a value of the key: none, few, some, or as many as there may be.
    #[must_use]
    pub fn value_size(&self, key: KeyNumber, edition: Edition) -> usize {
        let draw = self.draw(key, 3 + edition as u64 * 2);
        let below = |bound: usize| Prng::new(draw).size(0, bound);
        if draw % 16 < self.large_share {
            return if draw % 32 < 16 { self.value_size_max } else { below(self.value_size_max) };
        }
        let size = match draw / 32 % 16 {
            0 => 0,
            1 => 1,
            2..=13 => below(200),
            _ => below(5_000),
        };
        size.min(self.value_size_max)
    }

    /// A value of the key.
    #[must_use]
    pub fn value(&self, key: KeyNumber, edition: Edition) -> Box<[u8]> {
        let size = self.value_size(key, edition);
        let all = self.bytes(key, edition);
        let mut value = vec![0; size.next_multiple_of(8)];
        for (index, bytes) in value.as_chunks_mut().0.iter_mut().enumerate() {
            *bytes = all.word(index);
        }
        value.truncate(size);
        value.into_boxed_slice()
    }

    /// Whether `bytes` lie at `offset` of this value of the key.
    #[must_use]
    pub fn agrees(&self, key: KeyNumber, edition: Edition, offset: usize, bytes: &[u8]) -> bool {
        let all = self.bytes(key, edition);
        let skip = offset % 8;
        let (first, rest) = bytes.split_at(bytes.len().min((8 - skip) % 8));
        let (words, last) = rest.as_chunks();
        let mut index = offset.div_ceil(8);
        if !all.word(offset / 8)[skip..].starts_with(first) {
            return false;
        }
        for bytes in words {
            if all.word(index) != *bytes {
                return false;
            }
            index += 1;
        }
        all.word(index).starts_with(last)
    }

    fn bytes(&self, key: KeyNumber, edition: Edition) -> Bytes {
        let base = self.base(key, edition);
        let are_digits = self.content_type(key, edition) == CONTENT_TYPES[0] && base & 1 << 59 != 0;
        Bytes { base, are_digits }
    }

    fn base(&self, key: KeyNumber, edition: Edition) -> u64 {
        self.draw(key, 4 + edition as u64 * 2)
    }

    /// Whether both values have the same bytes and type.
    #[must_use]
    pub fn are_alike(&self, key: KeyNumber, one: Edition, other: Edition) -> bool {
        self.content_type(key, one) == self.content_type(key, other)
            && self.is_value(key, one, &self.value(key, other))
    }

    /// Whether the value is this.
    fn is_value(&self, key: KeyNumber, edition: Edition, bytes: &[u8]) -> bool {
        self.value_size(key, edition) == bytes.len() && self.agrees(key, edition, 0, bytes)
    }

    /// Remembers the ETag of a value; tells whether it fits what was seen before: one for each.
    pub fn learn_etag(&mut self, key: KeyNumber, edition: Edition, etag: Tag) -> bool {
        *self.keys[key as usize].etags.entry(edition).or_insert(etag) == etag
    }

    /// An ETag of the key that some client has met.
    #[must_use]
    pub fn known_etag(&self, key: KeyNumber, prng: &mut Prng) -> Option<Tag> {
        let known = &self.keys[key as usize].etags;
        let newest = *known.last_key_value()?.0;
        // The newest that was met is the one that most clients would hold.
        let edition = if prng.coin() { newest } else { prng.size(0, newest) };
        known.range(..=edition).next_back().map(|(_, etag)| *etag)
    }

    /// Whether this may be the ETag of the value: one that it was met with, or that one with the
    /// same bytes was met with, or one that nobody has met yet.
    #[must_use]
    pub fn may_have(&self, key: KeyNumber, edition: Edition, etag: Tag) -> bool {
        let known = &self.keys[key as usize].etags;
        if let Some(known) = known.get(&edition) {
            return *known == etag;
        }
        let mut met = known.iter().filter(|(_, known)| **known == etag).peekable();
        met.peek().is_none() || met.any(|(other, _)| self.are_alike(key, *other, edition))
    }
}

/// What values may be.
const CONTENT_TYPES: [&str; 3] = ["application/json", "text/plain; charset=utf-8", "image/png"];

/// The bytes of a value, however many it has.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    base: u64,
    /// All are digits from 1 to 8.
    are_digits: bool,
}

impl Bytes {
    /// Eight of them.
    const fn word(self, index: usize) -> [u8; 8] {
        let word = mix(self.base.wrapping_add(index as u64));
        let digits = (word & 0x0707_0707_0707_0707) + 0x3131_3131_3131_3131;
        if self.are_digits { digits.to_le_bytes() } else { word.to_le_bytes() }
    }
}

/// RFC 3986 2.3: escaped or not, it is the same.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn escape(out: &mut Vec<u8>, byte: u8, digits: &[u8; 16]) {
    let digit = |value: u8| digits[usize::from(value)];
    out.extend([b'%', digit(byte >> 4), digit(byte & 0xf)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        Model::new(5, 200, 10_000, 3, Ages::Within(Duration::from_secs(1)))
    }

    #[test]
    fn keys_are_found_again_and_contents_and_sizes_are_mixed() {
        let model = model();
        for key in 0..200 {
            assert_eq!(model.find(model.key(key)), Some(key));
            assert!(model.key(key).len() <= 512);
        }
        for content in [Content::Value(0), Content::Absent, Content::Failing, Content::TooLarge] {
            assert!((0..200).any(|key| model.content(key) == content), "{content:?}");
        }
        for size in [0, 1, 10_000] {
            assert!((0..200).any(|key| model.value_size(key, 0) == size), "{size}");
        }
    }

    #[test]
    fn a_value_agrees_with_itself_and_with_nothing_else() {
        let model = model();
        let long = (0..200).find(|key| model.value_size(*key, 0) > 100).unwrap();
        let value = model.value(long, 0);
        assert!(model.agrees(long, 0, 3, &value[3..99]));
        assert!(!model.agrees(long, 0, 4, &value[3..99]));
        assert!(!model.agrees(long, 1, 3, &value[3..99]));
        assert!(!model.agrees(long + 1, 0, 3, &value[3..99]));
    }

    const fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    /// A key that has a value.
    fn present(model: &Model) -> KeyNumber {
        (0..200).find(|key| model.content(*key) == Content::Value(0)).unwrap()
    }

    #[test]
    fn a_replaced_version_may_be_served_for_a_while() {
        let mut model = model();
        let key = present(&model);
        model.replace(key, at(500));
        assert_eq!(model.allowed(key, at(1500)), 0..=1);
        assert_eq!(model.allowed(key, at(1501)), 1..=1);
    }

    #[test]
    fn what_was_shown_of_a_write_is_never_unseen_and_of_a_change_that_nobody_tells_it_is() {
        let mut model = model();
        let key = present(&model);
        model.change(key, Content::Absent, Cause::Write, at(100));
        assert_eq!(model.allowed(key, at(200)), 0..=1);
        model.change(key, Content::Value(7), Cause::Itself, at(110));
        model.show(key, 2, at(120));
        assert_eq!(model.allowed(key, at(120)), 0..=2);
        assert_eq!(model.allowed(key, at(121)), 1..=2);
        model.forget_before(key, 2, at(130));
        assert_eq!(model.allowed(key, at(131)), 2..=2);
    }
}
