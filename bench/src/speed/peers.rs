//! The caches whose speed is compared, with the same keys, values and hash.
//!
//! Libraries own their keys and values on the heap, as their users have them; the cache of a shard
//! copies both into its log. A value is read at both ends, so that it must be in the CPU's cache.

use super::KEY_SIZE;
use quick_cache::unsync;
use shard_cache::hash::{Etag, KeyHash, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{Cache, FreshFor, Kind, Layout, NewValue, StaleWindows};
use std::hash::{BuildHasher, Hasher};
use std::io;

/// A key.
pub(super) type Key = [u8; KEY_SIZE];

const HASHER: KeyHasher = KeyHasher::new([1, 2]);

/// Bytes of a value.
const VALUE_SIZE: usize = 100;

/// Every value: what it is made of is never looked at.
const VALUE: [u8; VALUE_SIZE] = [1; VALUE_SIZE];

/// Room for this much more than the entries that are read, so that none of them leaves.
const ROOM_PERCENT: usize = 130;

/// Keys that are looked up together, where they are.
const BATCH: usize = 16;

/// A cache that is timed.
pub(super) trait Peer {
    /// The sum of the first and the last byte of the key's value.
    fn read(&mut self, key: &Key) -> Option<u32>;

    /// Stores a value, and lets another go where there is no room.
    fn store(&mut self, key: &Key);

    /// Reads all keys; how many are there.
    fn read_all(&mut self, keys: &[Key]) -> usize {
        keys.iter().filter(|key| self.read(key) == Some(2)).count()
    }

    /// Stores all keys.
    fn store_all(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| self.store(key));
    }
}

fn ends(value: &[u8]) -> u32 {
    u32::from(value[0]) + u32::from(value[VALUE_SIZE - 1])
}

/// The cache of a shard, looked up key by key.
pub(super) struct Ours {
    cache: Cache<'static>,
    now: Instant,
}

impl Ours {
    /// With memory as a server has it.
    pub(super) fn new(entries: usize) -> io::Result<Self> {
        let size = shard_cache::entry_size(KEY_SIZE, VALUE_SIZE);
        // Index and ghost take less than a tenth, and what is kept free the rest.
        let budget = entries * ROOM_PERCENT / 100 * size * 110 / 100 + (16 << 20);
        let layout = Layout::new(budget, 1 << 20).map_err(io::Error::other)?;
        let memory = pelton::sys::memory::map(layout.memory_bytes())?.bytes;
        let windows = [StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 }];
        let mut cache = Cache::new(layout, memory, HASHER, &windows);
        cache.set_segments_ready(layout.segments_count());
        Ok(Self { cache, now: Instant::from_ns(1) })
    }

    fn read_hashed(&mut self, hash: KeyHash, key: &Key) -> Option<u32> {
        let hit = self.cache.lookup(hash, key, self.now)?;
        Some(ends(self.cache.entry(hit.entry).value()))
    }
}

impl Peer for Ours {
    fn read(&mut self, key: &Key) -> Option<u32> {
        self.read_hashed(HASHER.hash(key), key)
    }

    fn store(&mut self, key: &Key) {
        let value = NewValue {
            etag: Etag::from_bits(1),
            kind: Kind { content_type: 0, windows: 0 },
            group: 0,
            fresh_for: FreshFor::Ever,
            negative: false,
            bytes: &VALUE,
        };
        self.cache.step(self.now);
        self.cache.store(HASHER.hash(key), key, &value, self.now).expect("a step makes room");
    }
}

/// The same, looked up as a shard does it that has several requests: buckets, then entries, then
/// values.
pub(super) struct Batched(pub(super) Ours);

impl Peer for Batched {
    fn read(&mut self, key: &Key) -> Option<u32> {
        self.0.read(key)
    }

    fn store(&mut self, key: &Key) {
        self.0.store(key);
    }

    fn read_all(&mut self, keys: &[Key]) -> usize {
        let mut hashes = [KeyHash::from_bits(0); BATCH];
        let mut found = 0;
        for keys in keys.chunks(BATCH) {
            let batch = || keys.iter().zip(0..);
            for (key, place) in batch() {
                let place: usize = place;
                hashes[place] = HASHER.hash(key);
                self.0.cache.prefetch(hashes[place]);
            }
            hashes[..keys.len()].iter().for_each(|hash| self.0.cache.prefetch_entry(*hash));
            let read = |(key, place): (&Key, usize)| self.0.read_hashed(hashes[place], key);
            found += batch().map(read).filter(|ends| *ends == Some(2)).count();
        }
        found
    }
}

/// Hashes a key's bytes, and nothing else of it.
#[derive(Clone, Default)]
pub(super) struct SameHash(u64);

impl BuildHasher for SameHash {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for SameHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = HASHER.hash(bytes).bits();
    }

    /// The length that precedes a slice.
    fn write_usize(&mut self, _: usize) {}
}

type Map = hashbrown::HashMap<Box<[u8]>, Box<[u8]>, SameHash>;

/// A map that never lets go.
pub(super) struct Plain(Map);

impl Plain {
    pub(super) fn new(entries: usize) -> Self {
        Self(Map::with_capacity_and_hasher(entries, SameHash::default()))
    }
}

impl Peer for Plain {
    fn read(&mut self, key: &Key) -> Option<u32> {
        self.0.get(&key[..]).map(|value| ends(value))
    }

    fn store(&mut self, key: &Key) {
        self.0.insert(key[..].into(), VALUE[..].into());
    }
}

type QuickCache = unsync::Cache<Box<[u8]>, Box<[u8]>, quick_cache::UnitWeighter, SameHash>;

/// `quick_cache`, for one thread, counting entries.
pub(super) struct Quick(QuickCache);

impl Quick {
    pub(super) fn new(entries: usize) -> Self {
        let capacity = entries * ROOM_PERCENT / 100;
        let lifecycle = unsync::DefaultLifecycle::default();
        let weighter = quick_cache::UnitWeighter;
        Self(QuickCache::with(capacity, capacity as u64, weighter, SameHash::default(), lifecycle))
    }
}

impl Peer for Quick {
    fn read(&mut self, key: &Key) -> Option<u32> {
        self.0.get(&key[..]).map(|value| ends(value))
    }

    fn store(&mut self, key: &Key) {
        self.0.insert(key[..].into(), VALUE[..].into());
    }
}

/// `moka`, which is made for many threads, counting entries. Values are shared, as it asks for.
pub(super) struct Moka(moka::sync::Cache<Box<[u8]>, std::sync::Arc<[u8]>, SameHash>);

impl Moka {
    pub(super) fn new(entries: usize) -> Self {
        let builder =
            moka::sync::Cache::builder().max_capacity((entries * ROOM_PERCENT / 100) as u64);
        Self(builder.build_with_hasher(SameHash::default()))
    }
}

impl Peer for Moka {
    fn read(&mut self, key: &Key) -> Option<u32> {
        self.0.get(&key[..]).map(|value| ends(&value))
    }

    fn store(&mut self, key: &Key) {
        self.0.insert(key[..].into(), VALUE[..].into());
    }
}
