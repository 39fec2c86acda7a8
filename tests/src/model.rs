//! What the origin holds, and so what clients are owed: keys, and the values they had over time.
//!
//! Everything follows from a seed. A value's bytes depend on its key and version, so a body that
//! belongs to another key, an older version or another place of the same value is recognised by
//! any eight of its bytes. The origin answers from here, and the clients check against it.

use crate::prng::{Prng, mix};
use shard_cache::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// A key, by number.
pub type KeyNumber = u32;

/// What the origin says to a key, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// It has a value.
    Present,
    /// There is no such key.
    Absent,
    /// It fails.
    Failing,
    /// The value is larger than a server may take.
    TooLarge,
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
    seed: u64,
    value_size_max: usize,
    large_share: u64,
    ages: Ages,
    keys: Vec<Key>,
}

/// A key and what happened to its value.
#[derive(Debug)]
struct Key {
    bytes: Box<[u8]>,
    /// A target that asks for it, with no more escapes than it takes.
    target: Box<[u8]>,
    /// When each version but the newest was replaced.
    replaced: Vec<Instant>,
    /// From when on no older version than this may be served.
    forgotten: Vec<(Instant, usize)>,
    /// ETags that clients have met, by version.
    etags: BTreeMap<usize, Tag>,
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
        let mut model = Self { seed, value_size_max, large_share, ages, keys: Vec::new() };
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
            let (target, etags) = (target.into_boxed_slice(), BTreeMap::new());
            let (replaced, forgotten) = (Vec::new(), Vec::new());
            model.keys.push(Key { bytes, target, replaced, forgotten, etags });
        }
        model
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys_count(&self) -> u32 {
        u32::try_from(self.keys.len()).expect("keys are counted in 32 bits")
    }

    fn draw(&self, key: KeyNumber, what: u64) -> u64 {
        mix(self.seed ^ mix(u64::from(key) << 8 | what))
    }

    /// At most 512 bytes. Some keys hold bytes that must be escaped, some are long.
    fn draw_key(&self, key: KeyNumber) -> Vec<u8> {
        let mut bytes = format!("key-{key}").into_bytes();
        match self.draw(key, 0) % 8 {
            0 => bytes.extend(b" /?%#\xff\x00\r\n"),
            1 if key.is_multiple_of(4) => bytes.resize(512, b'x'),
            2 => bytes.extend("-\u{fc}ber".bytes()),
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

    /// What the origin says to the key.
    #[must_use]
    pub fn nature(&self, key: KeyNumber) -> Nature {
        match self.draw(key, 1) % 16 {
            0 | 1 => Nature::Absent,
            2 => Nature::Failing,
            3 => Nature::TooLarge,
            _ => Nature::Present,
        }
    }

    /// The key's content type.
    #[must_use]
    pub fn content_type(&self, key: KeyNumber) -> &'static str {
        ["application/json", "text/plain; charset=utf-8", "image/png"]
            [usize::try_from(self.draw(key, 2) % 3).expect("it is below 3")]
    }

    /// The newest version of the key's value; versions are numbered from 0.
    #[must_use]
    pub fn newest(&self, key: KeyNumber) -> usize {
        self.keys[key as usize].replaced.len()
    }

    /// Replaces the key's value, if values change at all.
    pub fn replace(&mut self, key: KeyNumber, now: Instant) {
        if self.ages != Ages::Never {
            self.keys[key as usize].replaced.push(now);
        }
    }

    /// No reply to a request of later than now may have a version before this one.
    pub fn forget_before(&mut self, key: KeyNumber, version: usize, now: Instant) {
        let forgotten = &mut self.keys[key as usize].forgotten;
        if forgotten.last().is_none_or(|(_, last)| *last < version) {
            forgotten.push((now, version));
        }
    }

    /// Whether a reply to a request of `asked` may still have this version.
    #[must_use]
    pub fn may_serve(&self, key: KeyNumber, version: usize, asked: Instant) -> bool {
        version >= self.oldest(key, asked)
    }

    /// The oldest version that a reply to a request of `asked` may still have.
    #[must_use]
    pub fn oldest(&self, key: KeyNumber, asked: Instant) -> usize {
        let Key { replaced, forgotten, .. } = &self.keys[key as usize];
        let aged = match self.ages {
            Ages::Never => 0,
            Ages::Within(age) => replaced.partition_point(|at| *at + age < asked),
        };
        let before = forgotten.partition_point(|(at, _)| *at < asked);
        forgotten[..before].last().map_or(aged, |(_, version)| aged.max(*version))
    }

    /// Bytes of a version of the key's value: none, few, some, or as many as there may be.
    #[must_use]
    pub fn value_size(&self, key: KeyNumber, version: usize) -> usize {
        let draw = self.draw(key, 3 + version as u64 * 2);
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

    /// A version of the key's value.
    #[must_use]
    pub fn value(&self, key: KeyNumber, version: usize) -> Box<[u8]> {
        let size = self.value_size(key, version);
        let base = self.base(key, version);
        let mut value = vec![0; size.next_multiple_of(8)];
        for (index, bytes) in value.as_chunks_mut().0.iter_mut().enumerate() {
            *bytes = word(base, index).to_le_bytes();
        }
        value.truncate(size);
        value.into_boxed_slice()
    }

    /// Whether `bytes` lie at `offset` of this version of the key's value.
    #[must_use]
    pub fn agrees(&self, key: KeyNumber, version: usize, offset: usize, bytes: &[u8]) -> bool {
        let base = self.base(key, version);
        let skip = offset % 8;
        let (first, rest) = bytes.split_at(bytes.len().min((8 - skip) % 8));
        let (words, last) = rest.as_chunks();
        let mut index = offset.div_ceil(8);
        if !word(base, offset / 8).to_le_bytes()[skip..].starts_with(first) {
            return false;
        }
        for bytes in words {
            if word(base, index) != u64::from_le_bytes(*bytes) {
                return false;
            }
            index += 1;
        }
        word(base, index).to_le_bytes().starts_with(last)
    }

    fn base(&self, key: KeyNumber, version: usize) -> u64 {
        self.draw(key, 4 + version as u64 * 2)
    }

    /// Remembers the ETag of a version; tells whether it fits what was seen before: one for each
    /// version, and another for each.
    pub fn learn_etag(&mut self, key: KeyNumber, version: usize, etag: Tag) -> bool {
        *self.keys[key as usize].etags.entry(version).or_insert(etag) == etag
    }

    /// An ETag of the key that some client has met.
    #[must_use]
    pub fn known_etag(&self, key: KeyNumber, prng: &mut Prng) -> Option<Tag> {
        let known = &self.keys[key as usize].etags;
        let newest = *known.last_key_value()?.0;
        // The newest that was met is the one that most clients would hold.
        let version = if prng.coin() { newest } else { prng.size(0, newest) };
        known.range(..=version).next_back().map(|(_, etag)| *etag)
    }

    /// Whether this ETag is that of a version from `oldest` on: of one that it was met with, or of
    /// one with the same value.
    #[must_use]
    pub fn may_have(&self, key: KeyNumber, oldest: usize, etag: Tag) -> bool {
        let known = &self.keys[key as usize].etags;
        if known.range(oldest..).any(|(_, known)| *known == etag) {
            return true;
        }
        let Some((first, _)) = known.iter().find(|(_, known)| **known == etag) else {
            return false;
        };
        let value = self.value(key, *first);
        (oldest..=self.newest(key)).any(|version| {
            self.value_size(key, version) == value.len() && self.agrees(key, version, 0, &value)
        })
    }
}

/// Eight bytes of a value.
const fn word(base: u64, index: usize) -> u64 {
    mix(base.wrapping_add(index as u64))
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
    fn keys_are_found_again_and_natures_and_sizes_are_mixed() {
        let model = model();
        for key in 0..200 {
            assert_eq!(model.find(model.key(key)), Some(key));
            assert!(model.key(key).len() <= 512);
        }
        for nature in [Nature::Present, Nature::Absent, Nature::Failing, Nature::TooLarge] {
            assert!((0..200).any(|key| model.nature(key) == nature), "{nature:?}");
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

    #[test]
    fn a_replaced_version_may_be_served_for_a_while() {
        let mut model = model();
        let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
        model.replace(7, at(500));
        assert_eq!(model.newest(7), 1);
        assert!(model.may_serve(7, 0, at(1500)));
        assert!(!model.may_serve(7, 0, at(1501)));
        assert!(model.may_serve(7, 1, at(9999)));
    }
}
