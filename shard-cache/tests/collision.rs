//! Two keys of one hash: the key decides.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use shard_cache::hash::{Etag, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{Cache, FreshFor, Kind, Layout, NewValue, StaleWindows};

#[test]
fn a_key_whose_hash_is_another_keys_is_not_taken_for_it() {
    let layout = Layout::new(8 << 20, 1 << 20).unwrap();
    let memory = vec![0_u8; layout.memory_bytes() + 64].leak();
    let skip = memory.as_ptr().align_offset(64);
    let hasher = KeyHasher::new([7, 9]);
    let windows = StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 };
    let memory = &mut memory[skip..][..layout.memory_bytes()];
    let mut cache: Cache<'_> = Cache::new(layout, memory, hasher, &[windows]);
    cache.set_segments_ready(u32::MAX);
    let value = NewValue {
        etag: Etag::from_bits(1),
        kind: Kind { content_type: 0, windows: 0 },
        fresh_for: FreshFor::Ever,
        negative: false,
        bytes: b"value",
    };
    let (now, hash) = (Instant::from_ns(1_000_000), hasher.hash(b"this"));
    cache.store(hash, b"this", &value, now).unwrap();
    assert!(cache.lookup(hash, b"this", now).is_some());
    assert!(cache.lookup(hash, b"that", now).is_none());
    assert!(!cache.remove(hash, b"that"));
    assert!(cache.lookup(hash, b"this", now).is_some());
}
