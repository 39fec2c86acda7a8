//! What travels between two shards: a read goes out and its answer comes back in the same parcel.
//!
//! A parcel belongs to the shard that reads. It is made at start, holds the key on its way out and
//! the value on its way back, and returns to its owner's pool when the reply has been written. So
//! memory is bounded by the pools, and no byte is shared between two threads at any time.

use super::origin::ContentType;
use crate::error::FetchFailure;
use crate::http::{KEY_SIZE_MAX, Source, Term};
use shard_cache::hash::{Etag, KeyHash};

/// Names a reply that a connection is owed: its place in the shard's table, and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyRef {
    /// Index in the table of replies.
    pub index: u32,
    /// Which life of that place.
    pub generation: u32,
}

/// The facts of a value that the reply's head needs.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// Hash of value and content type.
    pub etag: Etag,
    /// Its content type.
    pub content_type: ContentType,
    /// How long it lives.
    pub term: Term,
    /// Bytes in the parcel.
    pub size: u32,
}

/// What the owner says to a read.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Not answered yet: the parcel is on its way out.
    Pending,
    /// The value lies in the parcel.
    Value(Value, Source),
    /// The origin does not have the key.
    Absent(Term, Source),
    /// The value has this many bytes: ask again with a parcel that holds them.
    TooBig(u32, Source),
    /// The origin failed.
    Failed(FetchFailure),
    /// The owner had no room to wait in.
    Shed,
}

/// One remote read.
#[derive(Debug)]
pub struct Parcel {
    /// Which reply of the reader it is for.
    pub reply: ReplyRef,
    /// The key's hash.
    pub hash: KeyHash,
    /// What the owner said.
    pub answer: Answer,
    /// Whether a fetch was waited for before this parcel, which asks again for a big value.
    pub source: Source,
    key_size: u16,
    /// The key on the way out; the value on the way back.
    bytes: Box<[u8]>,
}

impl Parcel {
    /// A parcel that holds values of up to `size` bytes.
    #[must_use]
    pub fn with_size(size: u32) -> Box<Self> {
        let size = (size as usize).max(KEY_SIZE_MAX);
        Box::new(Self {
            reply: ReplyRef { index: 0, generation: 0 },
            hash: KeyHash::from_bits(0),
            answer: Answer::Pending,
            source: Source::Hit,
            key_size: 0,
            bytes: vec![0; size].into_boxed_slice(),
        })
    }

    /// Addresses it: the key to read, and the reply it is for.
    pub fn address(&mut self, reply: ReplyRef, hash: KeyHash, key: &[u8]) {
        self.reply = reply;
        self.hash = hash;
        self.answer = Answer::Pending;
        self.source = Source::Hit;
        self.key_size = u16::try_from(key.len()).expect("keys are at most 512 bytes");
        self.bytes[..key.len()].copy_from_slice(key);
    }

    /// The key that is read.
    ///
    /// # Panics
    /// If it was answered with a value: that lies where the key lay.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        assert!(!matches!(self.answer, Answer::Value(..)), "the value took the key's place");
        &self.bytes[..usize::from(self.key_size)]
    }

    /// The largest value it holds, bytes.
    #[must_use]
    pub fn size_max(&self) -> usize {
        self.bytes.len()
    }

    /// Answers with a value.
    ///
    /// # Panics
    /// If the value does not fit: ask [`Parcel::size_max`] first.
    pub fn fill(&mut self, value: Value, source: Source, bytes: &[u8]) {
        assert_eq!(bytes.len(), value.size as usize, "the value's facts speak of its bytes");
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.answer = Answer::Value(value, source);
    }

    /// The value it was answered with.
    ///
    /// # Panics
    /// If it was answered otherwise.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        let Answer::Value(value, _) = &self.answer else {
            panic!("only a parcel with a value is asked for one");
        };
        &self.bytes[..value.size as usize]
    }
}
