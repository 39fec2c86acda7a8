//! Between one shard and the origin plane: orders out, landings back.
//!
//! Both queues are bounded by the same number of flights. A shard sends an order only while it
//! holds one of its flight slots, and each order is answered by exactly one landing, so neither
//! queue can be full when the plane or the shard pushes: room is kept, not checked for.

use super::explain::Explanation;
use super::purge::PurgeOrder;
use super::upload::{Stale, Upload};
use crate::error::FetchFailure;
use crate::http::{CONTENT_TYPE_SIZE_MAX, KEY_SIZE_MAX};
use shard_cache::hash::Etag;
use std::fmt;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// A key by value, for messages that outlive the buffer it was read from.
#[derive(Clone)]
pub struct Key {
    len: u16,
    bytes: [u8; KEY_SIZE_MAX],
}

impl Key {
    /// No key: the place of one in a table.
    pub const EMPTY: Self = Self { len: 0, bytes: [0; KEY_SIZE_MAX] };

    /// A copy of `bytes`; `None` if they are empty or more than [`KEY_SIZE_MAX`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > KEY_SIZE_MAX {
            return None;
        }
        let len = u16::try_from(bytes.len()).expect("KEY_SIZE_MAX fits");
        let mut key = Self { len, bytes: [0; KEY_SIZE_MAX] };
        key.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(key)
    }

    /// The key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(\"{}\")", self.as_bytes().escape_ascii())
    }
}

/// A content type by value: 1 to 63 visible ASCII characters or spaces. It says besides whether the
/// value is known to be JSON, and is another one then: only such values can be put into JSON as
/// they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentType {
    len: u8,
    is_checked_json: bool,
    bytes: [u8; CONTENT_TYPE_SIZE_MAX],
}

impl ContentType {
    /// What a value is unless something else was said.
    pub const JSON: Self = Self::literal("application/json");

    /// Bytes of which nothing is known.
    pub const BYTES: Self = Self::literal("application/octet-stream");

    /// A copy of `text`; `None` if it breaks the rule of the type. Bytes that could end a header
    /// line are refused here, so that no reply head has to check again.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let sized = (1..=CONTENT_TYPE_SIZE_MAX).contains(&text.len());
        // A space at either end would not survive the way to the client: RFC 9110, 5.5.
        let framed = text.trim_ascii().len() == text.len();
        (visible && sized && framed).then(|| Self::literal(text))
    }

    /// Copies a text that is known to follow the rule.
    #[expect(clippy::cast_possible_truncation, reason = "asserted in the line above")]
    const fn literal(text: &str) -> Self {
        assert!(!text.is_empty() && text.len() <= CONTENT_TYPE_SIZE_MAX);
        let len = text.len() as u8;
        let mut bytes = [0; CONTENT_TYPE_SIZE_MAX];
        bytes.split_at_mut(text.len()).0.copy_from_slice(text.as_bytes());
        Self { len, is_checked_json: false, bytes }
    }

    /// The same type of a value that was read through and is JSON text.
    #[must_use]
    pub const fn checked_json(mut self) -> Self {
        self.is_checked_json = true;
        self
    }

    /// Whether the value is known to be JSON text.
    #[must_use]
    pub const fn is_checked_json(&self) -> bool {
        self.is_checked_json
    }

    /// Whether values of this type are to be JSON text: `application/json` or `+json`, RFC 6838
    /// section 4.2.8.
    #[must_use]
    pub fn names_json(&self) -> bool {
        let media_type = self.as_str().split(';').next().unwrap_or_default().trim_end().as_bytes();
        let suffix = media_type.last_chunk();
        media_type.eq_ignore_ascii_case(b"application/json")
            || suffix.is_some_and(|suffix: &[u8; 5]| suffix.eq_ignore_ascii_case(b"+json"))
    }

    /// The content type.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("checked to be ASCII")
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentType({:?})", self.as_str())
    }
}

/// Names a flight of a shard: its slot in the shard's table, and which life of that slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightId {
    /// Index in the shard's table of flights.
    pub slot: u32,
    /// Which life of that slot.
    pub generation: u32,
}

/// From a shard to the origin plane.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box for the key would be allocated by a shard")]
pub enum Order {
    /// Fetch this key, whose value with the tag `known` the shard has; answered by exactly one
    /// landing.
    Fetch { flight: FlightId, key: Key, known: Option<Etag> },
    /// A landed value that the shard has stored: its memory is freed by the plane.
    Spent(Found),
    /// Write this; answered by the same box.
    Write(Box<Upload>),
    /// A purge is in force in this shard, or was refused.
    Purged(Box<PurgeOrder>),
    /// A key is dropped, as it was asked to be.
    Forgotten(Box<Key>),
    /// A key is explained, as it was asked to be.
    Explained(Box<Explanation>),
}

/// From the origin plane to a shard: what became of a fetch.
#[derive(Debug)]
pub struct Landing {
    /// The flight it answers.
    pub flight: FlightId,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a fetch.
#[derive(Debug)]
pub enum Outcome {
    /// The origin has the key.
    Found(Found),
    /// The origin does not have the key.
    Absent,
    /// The value is still the one that was known when the origin was asked.
    Unchanged(Unchanged),
    /// Neither a value nor a clear absence.
    Failed(FetchFailure),
}

impl From<Result<Option<Found>, FetchFailure>> for Outcome {
    fn from(fetched: Result<Option<Found>, FetchFailure>) -> Self {
        match fetched {
            Ok(Some(found)) => Self::Found(found),
            Ok(None) => Self::Absent,
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// A fetched value.
#[derive(Debug)]
pub struct Found {
    /// The value, at most `value_size_max` bytes.
    pub value: Box<[u8]>,
    /// Its content type.
    pub content_type: ContentType,
    /// Hash of value and content type, the same everywhere and for ever.
    pub etag: Etag,
    /// How long it is fresh.
    pub lifetime: Lifetime,
    /// How long it may be served after that.
    pub stale: Stale,
    /// The room that it takes on its way.
    pub held: Held,
}

/// A value that the origin need not bring again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unchanged {
    /// The tag by which it was known.
    pub etag: Etag,
    /// How long it is fresh from now on.
    pub lifetime: Lifetime,
    /// How long it may be served after that.
    pub stale: Stale,
}

/// Room that a value takes on its way, or none; it comes back when this is dropped.
#[derive(Debug, Default)]
pub struct Held {
    _permit: Option<OwnedSemaphorePermit>,
}

impl From<OwnedSemaphorePermit> for Held {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: Some(permit) }
    }
}

/// How long a fetched value is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is replaced: the origin is the embedded store, its own truth.
    Unlimited,
    /// As long as `cache.ttl` says.
    Default,
    /// This long.
    For(Duration),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_any_bytes_up_to_its_bound() {
        assert_eq!(Key::new(b"\x00k\xff").expect("short").as_bytes(), b"\x00k\xff");
        assert!(Key::new(&[7; KEY_SIZE_MAX]).is_some());
        assert!(Key::new(&[7; KEY_SIZE_MAX + 1]).is_none());
        assert!(Key::new(b"").is_none());
    }

    #[test]
    fn a_value_that_was_checked_has_another_type_of_the_same_name() {
        let (plain, checked) = (ContentType::JSON, ContentType::JSON.checked_json());
        assert!(!plain.is_checked_json() && checked.is_checked_json() && plain != checked);
        assert_eq!(plain.as_str(), checked.as_str());
        for json in ["application/json", "Application/JSON ; a=b", "application/geo+Json;a=b"] {
            assert!(ContentType::new(json).expect("a type").names_json(), "{json}");
        }
        for other in ["text/plain", "application/jsonl", "application/xml; a=+json", "json"] {
            assert!(!ContentType::new(other).expect("a type").names_json(), "{other}");
        }
    }

    #[test]
    fn a_content_type_cannot_carry_a_header_line() {
        assert_eq!(ContentType::new("text/plain").expect("plain").as_str(), "text/plain");
        assert_eq!(ContentType::new("application/json"), Some(ContentType::JSON));
        for bad in ["", "a\r\nb", " a", "a ", "t\u{e9}xt", &"x".repeat(64)] {
            assert!(ContentType::new(bad).is_none(), "{bad:?}");
        }
    }
}
