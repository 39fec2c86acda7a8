//! What a client sends with a body: a write on its way to the key's owner, to the origin, and back.
//!
//! An upload belongs to the shard that has the connection. It is made at start and holds key and
//! body while the write is under way; the origin's answer comes back in it, and it returns to its
//! pool when the reply is written. So memory is bounded by the pools, and no byte is shared between
//! two threads at any time.

use super::origin::{ContentType, Key, Lifetime};
use super::parcel::ReplyRef;
use crate::error::FetchFailure;
use crate::http::EtagSet;
use shard_cache::hash::{Etag, KeyHash};
use std::time::Duration;

/// What a write does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The body becomes the key's value.
    Put {
        /// What the value is.
        content_type: ContentType,
        /// How long it is fresh once fetched.
        lifetime: Lifetime,
        /// How long it may be served after that.
        stale: Stale,
    },
    /// The key goes.
    Delete,
}

/// How long a written value may be served beyond its freshness, where the client says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// While it is fetched again.
    pub while_revalidate: Option<Duration>,
    /// While the origin fails.
    pub if_error: Option<Duration>,
}

/// What must hold of the key for a write to be done (RFC 9110 section 13.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// If-Match: the key has one of these tags, or any for `*`.
    pub if_match: Option<EtagSet>,
    /// If-None-Match: the key has none of these tags, or is not there for `*`.
    pub if_none_match: EtagSet,
}

impl Precondition {
    /// The key is not there.
    pub const ABSENT: Self = Self { if_match: None, if_none_match: EtagSet::ANY };

    /// Whether it holds where the key's value has the tag `current`, or is not there.
    #[must_use]
    pub fn holds(&self, current: Option<Etag>) -> bool {
        let is_in = |set: &EtagSet| current.is_some_and(|etag| set.matches(etag));
        self.if_match.as_ref().is_none_or(is_in) && !is_in(&self.if_none_match)
    }
}

/// A value that a write has left at the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it is, as a fetch of it says.
    pub content_type: ContentType,
    /// Its tag.
    pub etag: Etag,
    /// The key was not there before.
    pub is_new: bool,
    /// How long it is fresh.
    pub lifetime: Lifetime,
    /// How long it may be served after that.
    pub stale: Stale,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing yet.
    Pending,
    /// The origin has the value.
    Stored(Stored),
    /// The key is gone.
    Deleted,
    /// There was nothing to delete.
    Absent,
    /// The precondition did not hold: nothing was changed.
    PreconditionFailed,
    /// It was not done, and will not be.
    Failed(FetchFailure),
    /// Nobody knows: it may be done, or be done later.
    Unknown,
}

/// One request with a body.
#[derive(Debug)]
pub struct Upload {
    /// The shard whose client sent it.
    pub home: u16,
    /// Which reply of that shard it is for.
    pub reply: ReplyRef,
    /// The key's hash.
    pub hash: KeyHash,
    /// What it does.
    pub change: Change,
    /// When it is done.
    pub precondition: Precondition,
    /// What became of it.
    pub outcome: Written,
    key: Key,
    size: u32,
    bytes: Box<[u8]>,
}

impl Upload {
    /// An upload of the shard `home` with room for bodies of up to `size_max` bytes.
    #[must_use]
    pub fn new(home: u16, size_max: u32) -> Box<Self> {
        Box::new(Self {
            home,
            reply: ReplyRef::NONE,
            hash: KeyHash::from_bits(0),
            change: Change::Delete,
            precondition: Precondition::default(),
            outcome: Written::Pending,
            key: Key::EMPTY,
            size: 0,
            bytes: vec![0; size_max as usize].into_boxed_slice(),
        })
    }

    /// Addresses it: the key, and the reply it is for.
    ///
    /// # Panics
    /// If the key is empty or exceeds its bound.
    pub fn address(&mut self, reply: ReplyRef, hash: KeyHash, key: &[u8]) {
        self.reply = reply;
        self.hash = hash;
        self.outcome = Written::Pending;
        self.key = Key::new(key).expect("the parser bounds keys");
    }

    /// The key that is written.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The body, as much of it as has come.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[..self.size as usize]
    }

    /// Forgets the body.
    pub const fn clear(&mut self) {
        self.size = 0;
    }

    /// Appends to the body. Returns whether there was room.
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let at = self.size as usize;
        let Some(room) = self.bytes.get_mut(at..at + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.size = u32::try_from(at + bytes.len()).expect("an upload's room has 32 bits");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precondition_speaks_of_what_is_there() {
        let etag = Etag::from_bits(7);
        let set = |text: &str| {
            let mut set = EtagSet::EMPTY;
            set.read(text.as_bytes());
            set
        };
        let holds = |if_match: Option<&str>, if_none_match: &str, current| {
            let precondition =
                Precondition { if_match: if_match.map(set), if_none_match: set(if_none_match) };
            precondition.holds(current)
        };
        let tag = "\"0000000000000007\"";
        for current in [None, Some(etag)] {
            assert!(holds(None, "", current));
            assert_eq!(holds(Some("*"), "", current), current.is_some());
            assert_eq!(holds(Some(tag), "", current), current.is_some());
            assert!(!holds(Some("\"0000000000000008\""), "", current));
            assert_eq!(holds(None, "*", current), current.is_none());
            assert_eq!(holds(None, tag, current), current.is_none());
            assert!(holds(None, "\"0000000000000008\"", current));
        }
    }

    #[test]
    fn a_body_grows_up_to_its_room() {
        let mut upload = Upload::new(0, 4);
        assert!(upload.append(b"abc") && !upload.append(b"de") && upload.append(b"d"));
        assert_eq!(upload.body(), b"abcd");
        upload.clear();
        assert_eq!(upload.body(), b"");
    }
}
