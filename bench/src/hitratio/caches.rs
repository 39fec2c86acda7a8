//! The caches that are compared, each with the same bytes.
//!
//! An object is charged in all of them what it takes in the log of the cache: a header, the key and
//! the value. Tables beside the entries (index, ghost, maps, lists) are charged to nobody; segments
//! that the cache keeps free are its own loss.
//!
//! Peers know no deadline that could be passed in: an object that is too old counts as a miss when
//! it is asked for and is stored again, and takes its room until then, as a user of such a library
//! would have it.

use super::workload::Object;
use quick_cache::unsync;
use shard_cache::hash::{Etag, KeyHash, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{
    Cache, FreshFor, Freshness, Kind, Layout, NewValue, SEGMENT_SIZE, StaleWindows, StoreRefused,
};
use std::collections::VecDeque;

/// Bytes of a key: an object's number in text.
pub(super) const KEY_SIZE: usize = 16;

/// The largest value, bytes.
pub(super) const VALUE_SIZE_MAX: u32 = 64 << 10;

/// What the memory of a cache is aligned to.
pub(super) const CACHE_LINE: usize = 64;

/// Answers requests for objects.
pub(super) trait Store {
    /// Asks for object `number`, which is `object`, and stores it if it is not there. Whether it
    /// was.
    fn request(&mut self, number: u32, object: Object, now_ms: u64) -> bool;
}

/// The cache of a shard.
pub(super) struct Engine<'m> {
    cache: Cache<'m>,
    hasher: KeyHasher,
    value: Vec<u8>,
}

/// The layout whose arena has `capacity` bytes, rounded down to segments.
pub(super) fn layout(capacity: u64) -> Layout {
    let segments = usize::try_from(capacity).expect("fits memory") / SEGMENT_SIZE;
    (segments..)
        .filter_map(|count| Layout::new(count * SEGMENT_SIZE, VALUE_SIZE_MAX).ok())
        .find(|layout| layout.segments_count() as usize >= segments)
        .expect("some budget has so many segments")
}

impl<'m> Engine<'m> {
    /// Over zeroed memory: a cache line more than the layout says.
    pub(super) fn new(layout: Layout, memory: &'m mut [u8]) -> Self {
        const WINDOWS: [StaleWindows; 1] =
            [StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 }];
        let skip = memory.as_ptr().align_offset(CACHE_LINE);
        let memory = &mut memory[skip..][..layout.memory_bytes()];
        let hasher = KeyHasher::new([1, 2]);
        let mut cache = Cache::new(layout, memory, hasher, &WINDOWS);
        cache.set_segments_ready(layout.segments_count());
        Self { cache, hasher, value: vec![7; VALUE_SIZE_MAX as usize] }
    }
}

impl Store for Engine<'_> {
    fn request(&mut self, number: u32, object: Object, now_ms: u64) -> bool {
        // Time 0 is before everything.
        let now = Instant::from_ns((now_ms + 1) * 1_000_000);
        let (key, hash) = key(number, self.hasher);
        let hit = self.cache.lookup(hash, &key, now);
        if hit.is_some_and(|hit| hit.freshness == Freshness::Fresh) {
            return true;
        }
        let value = NewValue {
            etag: Etag::from_bits(1),
            kind: Kind { content_type: 0, windows: 0 },
            group: 0,
            fresh_for: object.ttl_ms.map_or(FreshFor::Ever, FreshFor::Ms),
            negative: false,
            bytes: &self.value[..object.value_size as usize],
        };
        self.cache.step(now);
        while let Err(refused) = self.cache.store(hash, &key, &value, now) {
            // As a shard does with what it has fetched and has no room for yet.
            assert_eq!(refused, StoreRefused::NoRoom, "no object is larger than the largest");
            self.cache.step(now);
        }
        false
    }
}

fn key(number: u32, hasher: KeyHasher) -> ([u8; KEY_SIZE], KeyHash) {
    let mut key = *b"object-000000000";
    let mut rest = number;
    for digit in key.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    (key, hasher.hash(&key))
}

/// What a peer keeps of an object.
#[derive(Clone, Copy)]
struct Kept {
    size: u32,
    dead_ms: u64,
}

impl Kept {
    fn new(object: Object, now_ms: u64) -> Self {
        let dead_ms = object.ttl_ms.map_or(u64::MAX, |ttl_ms| now_ms + u64::from(ttl_ms));
        Self { size: object.size(), dead_ms }
    }

    const fn is_alive(&self, now_ms: u64) -> bool {
        now_ms < self.dead_ms
    }
}

/// First in, first out, object by object.
pub(super) struct Fifo {
    free: u64,
    queue: VecDeque<u32>,
    kept: Vec<Option<Kept>>,
}

impl Fifo {
    pub(super) fn new(capacity: u64, objects: usize) -> Self {
        Self { free: capacity, queue: VecDeque::new(), kept: vec![None; objects] }
    }
}

impl Store for Fifo {
    fn request(&mut self, number: u32, object: Object, now_ms: u64) -> bool {
        let size = u64::from(object.size());
        match &mut self.kept[number as usize] {
            Some(kept) if kept.is_alive(now_ms) => return true,
            // It keeps its place in the queue.
            Some(kept) => *kept = Kept::new(object, now_ms),
            none => {
                *none = Some(Kept::new(object, now_ms));
                self.queue.push_back(number);
                while self.free < size {
                    let oldest = self.queue.pop_front().expect("others take what is not free");
                    let gone = self.kept[oldest as usize].take().expect("what is queued is kept");
                    self.free += u64::from(gone.size);
                }
                self.free -= size;
            }
        }
        false
    }
}

/// Least recently used, object by object: a ring through all objects, with one more as its head.
pub(super) struct Lru {
    free: u64,
    kept: Vec<Option<Kept>>,
    /// The one used after each; the head's is the least recently used.
    newer: Vec<u32>,
    older: Vec<u32>,
}

impl Lru {
    pub(super) fn new(capacity: u64, objects: usize) -> Self {
        let head = u32::try_from(objects).expect("objects are numbered in 32 bits");
        let ring = || (0..=head).collect();
        Self { free: capacity, kept: vec![None; objects], newer: ring(), older: ring() }
    }

    fn unlink(&mut self, number: u32) {
        let (older, newer) = (self.older[number as usize], self.newer[number as usize]);
        self.newer[older as usize] = newer;
        self.older[newer as usize] = older;
    }

    /// Makes it the most recently used.
    fn link(&mut self, number: u32) {
        let head = self.kept.len();
        let newest = std::mem::replace(&mut self.older[head], number);
        self.newer[newest as usize] = number;
        self.older[number as usize] = newest;
        self.newer[number as usize] = u32::try_from(head).expect("numbered in 32 bits");
    }
}

impl Store for Lru {
    fn request(&mut self, number: u32, object: Object, now_ms: u64) -> bool {
        let size = u64::from(object.size());
        let kept = self.kept[number as usize];
        if kept.is_some() {
            self.unlink(number);
        }
        self.link(number);
        if kept.is_some_and(|kept| kept.is_alive(now_ms)) {
            return true;
        }
        self.kept[number as usize] = Some(Kept::new(object, now_ms));
        if kept.is_none() {
            while self.free < size {
                let oldest = self.newer[self.kept.len()];
                self.unlink(oldest);
                let gone = self.kept[oldest as usize].take().expect("what is linked is kept");
                self.free += u64::from(gone.size);
            }
            self.free -= size;
        }
        false
    }
}

#[derive(Clone)]
struct Weigh;

impl quick_cache::Weighter<u32, Kept> for Weigh {
    fn weight(&self, _: &u32, kept: &Kept) -> u64 {
        kept.size.into()
    }
}

/// `quick_cache`, for one thread.
pub(super) struct Quick(unsync::Cache<u32, Kept, Weigh>);

impl Quick {
    /// `items`: how many objects it will hold.
    pub(super) fn new(capacity: u64, items: usize) -> Self {
        Self(unsync::Cache::with_weighter(items, capacity, Weigh))
    }
}

impl Store for Quick {
    fn request(&mut self, number: u32, object: Object, now_ms: u64) -> bool {
        if self.0.get(&number).is_some_and(|kept| kept.is_alive(now_ms)) {
            return true;
        }
        self.0.insert(number, Kept::new(object, now_ms));
        false
    }
}

/// `moka`: W-TinyLFU.
pub(super) struct Moka {
    cache: moka::sync::Cache<u32, Kept>,
    requests: u64,
}

/// Moka does its upkeep on its own after some hundred operations or milliseconds; here after so
/// many requests, so that its result does not hang on how fast it is asked.
const UPKEEP_EVERY: u64 = 64;

impl Moka {
    pub(super) fn new(capacity: u64) -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, kept: &Kept| kept.size)
            .build();
        Self { cache, requests: 0 }
    }
}

impl Store for Moka {
    fn request(&mut self, number: u32, object: Object, now_ms: u64) -> bool {
        self.requests += 1;
        if self.requests.is_multiple_of(UPKEEP_EVERY) {
            self.cache.run_pending_tasks();
        }
        if self.cache.get(&number).is_some_and(|kept| kept.is_alive(now_ms)) {
            return true;
        }
        self.cache.insert(number, Kept::new(object, now_ms));
        false
    }
}
