//! The requests of one turn: parsed in the pump's first pass, served in its second.
//!
//! Keys are copied here while they are decoded, so that receive buffers go back at once and the
//! second pass needs nothing of the first but this table. Between the passes the index buckets of
//! all keys are on their way into the processor's cache.

use super::replies::{Ask, Plain};
use crate::http::{KEY_SIZE_MAX, RawKey, Refusal};
use crate::mesh::TenantIndex;
use shard_cache::hash::KeyHash;

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Look the key up, which shard `owner` has, for a tenant; it lies in the turn's key bytes.
    Lookup { hash: KeyHash, owner: u16, by: TenantIndex, start: u32, size: u16 },
    /// The write whose upload the connection holds.
    Write,
    /// Answered without a lookup.
    Plain(Plain),
}

impl What {
    /// Whether nothing more is read on the connection whatever its client asked for.
    pub(super) const fn is_last(&self) -> bool {
        matches!(self, Self::Plain(Plain::Refused(Refusal::TooManyConnections)))
    }
}

/// One parsed request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) slot: u32,
    pub(super) what: What,
    pub(super) ask: Ask,
}

/// All requests parsed in this turn and not yet served.
#[derive(Debug)]
pub(super) struct Requests {
    list: Vec<Request>,
    keys: Box<[u8]>,
    keys_used: usize,
    /// Lookups of keys that other shards own: each will need a parcel.
    pub(super) remote: usize,
}

/// Bytes kept for an average key; a turn of longer ones parses fewer requests.
const KEY_SIZE_TYPICAL: usize = 64;

impl Requests {
    pub(super) fn new(count_max: usize) -> Self {
        let keys_size = count_max * KEY_SIZE_TYPICAL + KEY_SIZE_MAX;
        Self {
            list: Vec::with_capacity(count_max),
            keys: vec![0; keys_size].into_boxed_slice(),
            keys_used: 0,
            remote: 0,
        }
    }

    /// Whether another request and the longest key fit.
    pub(super) fn has_room(&self) -> bool {
        self.list.len() < self.list.capacity() && self.keys.len() - self.keys_used >= KEY_SIZE_MAX
    }

    /// Where the next key may be decoded to.
    pub(super) fn key_room(&mut self) -> &mut [u8; KEY_SIZE_MAX] {
        self.keys[self.keys_used..][..KEY_SIZE_MAX].as_mut_array().expect("has_room was asked")
    }

    /// Decodes a key, and keeps it.
    #[inline]
    pub(super) fn keep(&mut self, key: &RawKey<'_>) -> (u32, u16) {
        let size = key.copy_to(self.key_room());
        self.keep_key(size)
    }

    /// Keeps the first `size` bytes of the room as a key.
    pub(super) fn keep_key(&mut self, size: usize) -> (u32, u16) {
        assert!(size <= KEY_SIZE_MAX, "a decoded key is bounded");
        let start = u32::try_from(self.keys_used).expect("keys of a turn are a few kilobytes");
        self.keys_used += size;
        (start, u16::try_from(size).expect("a decoded key is bounded"))
    }

    /// The bytes of a kept key.
    pub(super) fn key(&self, start: u32, size: u16) -> &[u8] {
        &self.keys[start as usize..][..usize::from(size)]
    }

    pub(super) fn push(&mut self, request: Request) {
        assert!(self.list.len() < self.list.capacity(), "has_room was asked");
        self.list.push(request);
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Request> {
        self.list.get(index)
    }

    /// All are served.
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.keys_used = 0;
        self.remote = 0;
    }
}
