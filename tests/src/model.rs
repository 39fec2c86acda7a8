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
    /// For each key, when each version but the newest was replaced.
    replaced: Vec<Vec<Instant>>,
    /// ETags that clients have met, by key and version.
    etags: BTreeMap<(KeyNumber, usize), String>,
}

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
        let replaced = (0..keys_count).map(|_| Vec::new()).collect();
        Self { seed, value_size_max, large_share, ages, replaced, etags: BTreeMap::new() }
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys_count(&self) -> u32 {
        u32::try_from(self.replaced.len()).expect("keys are counted in 32 bits")
    }

    fn draw(&self, key: KeyNumber, what: u64) -> u64 {
        mix(self.seed ^ mix(u64::from(key) << 8 | what))
    }

    /// The key's bytes, at most 512. Some hold bytes that must be escaped, some are long.
    #[must_use]
    pub fn key(&self, key: KeyNumber) -> Vec<u8> {
        let mut bytes = format!("key-{key}").into_bytes();
        match self.draw(key, 0) % 8 {
            0 => bytes.extend(b" /?%#\xff\x00\r\n"),
            1 => bytes.resize(512, b'x'),
            2 => bytes.extend("-\u{fc}ber".bytes()),
            _ => {}
        }
        bytes
    }

    /// The number of a key.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<KeyNumber> {
        let digits = bytes.strip_prefix(b"key-")?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
        let key = std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?;
        (key < self.keys_count() && self.key(key) == bytes).then_some(key)
    }

    /// A target that asks for the key: what must be escaped is, anything else may be.
    #[must_use]
    pub fn target(&self, key: KeyNumber, prng: &mut Prng) -> Vec<u8> {
        let mut target = b"/lookup/".to_vec();
        for byte in self.key(key) {
            let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if unreserved && !prng.chance(20) {
                target.push(byte);
            } else if prng.coin() {
                target.extend(format!("%{byte:02x}").bytes());
            } else {
                target.extend(format!("%{byte:02X}").bytes());
            }
        }
        target
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
        self.replaced[key as usize].len()
    }

    /// Replaces the key's value, if values change at all.
    pub fn replace(&mut self, key: KeyNumber, now: Instant) {
        if self.ages != Ages::Never {
            self.replaced[key as usize].push(now);
        }
    }

    /// Whether a reply to a request of `asked` may still have this version.
    #[must_use]
    pub fn may_serve(&self, key: KeyNumber, version: usize, asked: Instant) -> bool {
        match (self.ages, self.replaced[key as usize].get(version)) {
            (_, None) | (Ages::Never, _) => true,
            (Ages::Within(age), Some(replaced)) => *replaced + age >= asked,
        }
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
            2..=10 => below(200),
            _ => below(5_000),
        };
        size.min(self.value_size_max)
    }

    fn word(&self, key: KeyNumber, version: usize, index: usize) -> [u8; 8] {
        let base = self.draw(key, 4 + version as u64 * 2);
        mix(base.wrapping_add(index as u64)).to_le_bytes()
    }

    /// A version of the key's value.
    #[must_use]
    pub fn value(&self, key: KeyNumber, version: usize) -> Box<[u8]> {
        let size = self.value_size(key, version);
        let words = (0..size.div_ceil(8)).flat_map(|index| self.word(key, version, index));
        words.take(size).collect()
    }

    /// Whether `bytes` lie at `offset` of this version of the key's value.
    #[must_use]
    pub fn agrees(&self, key: KeyNumber, version: usize, offset: usize, bytes: &[u8]) -> bool {
        let mut word = (usize::MAX, [0; 8]);
        (offset..).zip(bytes).all(|(at, byte)| {
            if word.0 != at / 8 {
                word = (at / 8, self.word(key, version, at / 8));
            }
            word.1[at % 8] == *byte
        })
    }

    /// Remembers the ETag of a version; tells whether it fits what was seen before: one for each
    /// version, and another for each.
    pub fn learn_etag(&mut self, key: KeyNumber, version: usize, etag: &str) -> bool {
        let known = self.etags.entry((key, version)).or_insert_with(|| etag.to_owned());
        *known == etag
    }

    /// An ETag of the key that some client has met.
    #[must_use]
    pub fn known_etag(&self, key: KeyNumber, prng: &mut Prng) -> Option<String> {
        let known: Vec<&String> =
            self.etags.range((key, 0)..=(key, usize::MAX)).map(|(_, etag)| etag).collect();
        (!known.is_empty()).then(|| known[prng.index(known.len())].clone())
    }

    /// The versions of the key that have this ETag: those it was met with, and those with the same
    /// value.
    #[must_use]
    pub fn versions_of(&self, key: KeyNumber, etag: &str) -> Vec<usize> {
        let known = self.etags.range((key, 0)..=(key, usize::MAX));
        let mut known = known.filter(|(_, known)| *known == etag).map(|((_, version), _)| *version);
        let Some(first) = known.next() else { return Vec::new() };
        let value = self.value(key, first);
        let same = |version: &usize| {
            self.value_size(key, *version) == value.len() && self.agrees(key, *version, 0, &value)
        };
        (0..=self.newest(key)).filter(same).collect()
    }
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
            assert_eq!(model.find(&model.key(key)), Some(key));
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
