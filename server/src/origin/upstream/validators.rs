//! By what an HTTP server knows the values again that are in memory: it is asked whether they have
//! changed, and need not send them once more (RFC 9110 section 13, RFC 9111 section 4.3).
//!
//! A table of fixed size, in sets that are found by the key's hash. In each, what was said last
//! stands first, and what was said longest ago gives way. It holds for the value with that tag of
//! ours, and for no other.
#![expect(clippy::disallowed_types, reason = "one thread: fetches share the table")]

use super::freshness::Words;
use crate::limits::VALIDATOR_SIZE_MAX;
use hyper::header::{
    DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use shard_cache::hash::Etag;
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

/// Places of a set.
const WAYS: usize = 8;

/// Bytes of an ETag that is remembered, at most.
const TEXT_SIZE_MAX: usize = 128;

/// Bytes that two allocations take beside what was asked for, at most.
const ALLOCATIONS_SIZE: usize = 32;

const _: () = {
    let size = size_of::<Place>() + size_of::<Record>() + TEXT_SIZE_MAX + ALLOCATIONS_SIZE;
    assert!(size <= VALIDATOR_SIZE_MAX as usize, "the bill says so");
};

/// What the server has said of its values.
#[derive(Debug)]
pub(super) struct Validators {
    hashes: RandomState,
    /// One set after the other; in each, the places in use come first.
    places: RefCell<Box<[Place]>>,
}

type Place = Option<Box<Record>>;

#[derive(Debug)]
struct Record {
    hash: u64,
    known: Known,
}

/// What the server has said of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Our tag of the value.
    pub(super) etag: Etag,
    pub(super) validator: Validator,
    /// How long the value is good.
    pub(super) words: Words,
}

impl Validators {
    /// A table for so many values, or a few more.
    pub(super) fn new(count: u32) -> Self {
        let count = (count as usize).next_multiple_of(WAYS);
        let places = (0..count).map(|_| None).collect();
        Self { hashes: RandomState::new(), places: RefCell::new(places) }
    }

    /// What the server has said of the value of `key` that has this tag of ours.
    pub(super) fn get(&self, key: &[u8], etag: Etag) -> Option<Known> {
        self.in_set(key, |set, hash| {
            let record = set.iter().flatten().find(|record| record.hash == hash)?;
            (record.known.etag == etag).then(|| record.known.clone())
        })?
    }

    /// Remembers what the server has said of the value of `key`.
    pub(super) fn put(&self, key: &[u8], known: Known) {
        self.in_set(key, |set, hash| {
            let place = place_of(set, hash).unwrap_or(WAYS - 1);
            set[..=place].rotate_right(1);
            set[0] = Some(Box::new(Record { hash, known }));
        });
    }

    /// Forgets what the server has said of `key`.
    pub(super) fn forget(&self, key: &[u8]) {
        self.in_set(key, |set, hash| {
            if let Some(place) = place_of(set, hash) {
                set[place..].rotate_left(1);
                set[WAYS - 1] = None;
            }
        });
    }

    /// Does something with the set of a key, if there are sets, and the key's hash.
    fn in_set<T>(&self, key: &[u8], act: impl FnOnce(&mut [Place], u64) -> T) -> Option<T> {
        let hash = self.hashes.hash_one(key);
        let mut places = self.places.borrow_mut();
        let (sets, _) = places.as_chunks_mut::<WAYS>();
        let index = hash.checked_rem(sets.len() as u64)?;
        Some(act(&mut sets[usize::try_from(index).expect("below a count of sets")], hash))
    }
}

/// Where in its set what is known of a key stands.
fn place_of(set: &[Place], hash: u64) -> Option<usize> {
    set.iter().position(|place| place.as_ref().is_some_and(|record| record.hash == hash))
}

/// By what the server knows a value again, as it said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Validator {
    /// Its ETag.
    Tag(Box<[u8]>),
    /// When it was modified.
    Modified(Box<[u8]>),
}

impl Validator {
    /// That of a value with this head. It is copied: what hyper read lies in its buffer.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(ETAG).map(HeaderValue::as_bytes) {
            Some(tag) if opaque(tag).is_some() && tag.len() <= TEXT_SIZE_MAX => {
                Some(Self::Tag(tag.into()))
            }
            // What has a tag is not known by a weaker sign: RFC 9111 section 4.3.1.
            Some(_) => None,
            None => modified(headers).map(|time| Self::Modified(time.into())),
        }
    }

    /// The line of a request for the value unless it is still the one (RFC 9110 section 13.1).
    pub(super) fn condition(&self) -> (HeaderName, &[u8]) {
        match self {
            Self::Tag(tag) => (IF_NONE_MATCH, tag),
            Self::Modified(time) => (IF_MODIFIED_SINCE, time),
        }
    }

    /// Whether a 304 with this head speaks of the value: a tag that it has must be the one, but
    /// for its strength (RFC 9111 section 4.3.4).
    pub(super) fn is_of(&self, headers: &HeaderMap) -> bool {
        match (self, headers.get(ETAG)) {
            (Self::Tag(tag), Some(other)) => opaque(tag) == opaque(other.as_bytes()),
            (Self::Tag(_), None) | (Self::Modified(_), _) => true,
        }
    }
}

/// What stands in the quotes of a tag, weak or strong; `None` if it is no tag (RFC 9110 section
/// 8.8.3). What a server sends that is none could mean anything in If-None-Match, also `*`.
fn opaque(tag: &[u8]) -> Option<&[u8]> {
    let quoted = tag.strip_prefix(b"W/").unwrap_or(tag);
    let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!inner.contains(&b'"')).then_some(inner)
}

/// When the value was modified, if that is at least a second before the answer: within that second
/// it may have changed again (RFC 9110 section 8.8.2.2).
fn modified(headers: &HeaderMap) -> Option<&[u8]> {
    let time = |name: HeaderName| -> Option<SystemTime> {
        httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
    };
    let age = time(DATE)?.duration_since(time(LAST_MODIFIED)?).ok()?;
    let text = headers.get(LAST_MODIFIED)?.as_bytes();
    (age >= Duration::from_secs(1) && text.len() <= TEXT_SIZE_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn known(number: u64) -> Known {
        let validator = Validator::Tag(format!("\"{number}\"").into_bytes().into());
        Known { etag: Etag::from_bits(number), validator, words: Words::default() }
    }

    #[test]
    fn what_was_said_holds_for_the_value_that_it_was_said_of() {
        let table = Validators::new(8);
        table.put(b"k", known(1));
        assert_eq!(table.get(b"k", Etag::from_bits(1)), Some(known(1)));
        assert_eq!(table.get(b"k", Etag::from_bits(2)), None);
        assert_eq!(table.get(b"l", Etag::from_bits(1)), None);
        table.put(b"k", known(2));
        let two = [1, 2].map(|number| table.get(b"k", Etag::from_bits(number)));
        assert_eq!(two, [None, Some(known(2))]);
        table.forget(b"k");
        assert_eq!(table.get(b"k", Etag::from_bits(2)), None);
        let none = Validators::new(0);
        none.put(b"k", known(1));
        none.forget(b"k");
        assert_eq!(none.get(b"k", Etag::from_bits(1)), None);
    }

    #[test]
    fn of_a_full_set_what_was_said_longest_ago_gives_way() {
        let table = Validators::new(8);
        let has = |key: u8| table.get(&[key], Etag::from_bits(key.into())).is_some();
        (0..8).for_each(|key| table.put(&[key], known(key.into())));
        table.put(&[0], known(0));
        table.put(&[8], known(8));
        assert_eq!((0..9).filter(|key| !has(*key)).collect::<Vec<_>>(), [1]);
        table.forget(&[5]);
        table.put(&[9], known(9));
        assert_eq!((0..10).filter(|key| !has(*key)).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn a_tag_is_sent_as_it_came_and_a_time_only_where_there_is_none() {
        const TIME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
        let long: &str = "\"0123456789012345678901234567890123456789012345678901234567890123\
                          4567890123456789012345678901234567890123456789012345678901234567\"";
        for (lines, condition) in [
            (&[][..], None),
            (&[(ETAG, "\"a, b\"")], Some((IF_NONE_MATCH, "\"a, b\""))),
            (&[(ETAG, "W/\"\"")], Some((IF_NONE_MATCH, "W/\"\""))),
            (&[(ETAG, "*")], None),
            (&[(ETAG, "\"a\", \"b\"")], None),
            (&[(ETAG, "\"")], None),
            (&[(ETAG, long)], None),
            (&[(ETAG, "a"), (LAST_MODIFIED, TIME), (DATE, LATER)], None),
            (&[(LAST_MODIFIED, TIME), (DATE, LATER)], Some((IF_MODIFIED_SINCE, TIME))),
            (&[(LAST_MODIFIED, TIME), (DATE, TIME)], None),
            (&[(LAST_MODIFIED, LATER), (DATE, TIME)], None),
            (&[(LAST_MODIFIED, TIME)], None),
            (&[(LAST_MODIFIED, "yesterday"), (DATE, TIME)], None),
        ] {
            let validator = Validator::of(&head(lines));
            let said = validator.as_ref().map(Validator::condition);
            let condition = condition.map(|(name, text)| (name, text.as_bytes()));
            assert_eq!(said, condition, "{lines:?}");
        }
    }

    #[test]
    fn a_304_with_the_tag_of_another_value_is_none_of_this_one() {
        let of = |tag: &'static str, lines: &[(HeaderName, &'static str)]| {
            let validator = Validator::of(&head(&[(ETAG, tag)])).expect("a tag");
            validator.is_of(&head(lines))
        };
        assert!(of("\"a\"", &[]) && of("\"a\"", &[(ETAG, "\"a\"")]));
        assert!(of("\"a\"", &[(ETAG, "W/\"a\"")]) && of("W/\"a\"", &[(ETAG, "\"a\"")]));
        assert!(!of("\"a\"", &[(ETAG, "\"b\"")]) && !of("W/\"a\"", &[(ETAG, "a")]));
    }
}
