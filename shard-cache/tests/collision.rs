//! What is done by a hash: of two keys of one hash the key decides, where it is known.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use shard_cache::hash::{Etag, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{Cache, FreshFor, Kind, Layout, NewValue, StaleWindows};

const VALUE: NewValue<'_> = NewValue {
    etag: Etag::from_bits(1),
    kind: Kind { content_type: 0, windows: 0 },
    group: 0,
    fresh_for: FreshFor::Ever,
    negative: false,
    bytes: b"value",
};

fn cache() -> (Cache<'static>, KeyHasher) {
    let layout = Layout::new(8 << 20, 1 << 20).expect("it is large enough");
    let memory = vec![0_u8; layout.memory_bytes() + 64].leak();
    let skip = memory.as_ptr().align_offset(64);
    let hasher = KeyHasher::new([7, 9]);
    let windows = StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 };
    let memory = &mut memory[skip..][..layout.memory_bytes()];
    let mut cache = Cache::new(layout, memory, hasher, &[windows]);
    cache.set_segments_ready(u32::MAX);
    (cache, hasher)
}

#[test]
fn a_key_whose_hash_is_another_keys_is_not_taken_for_it() {
    let (mut cache, hasher) = cache();
    let (now, hash) = (Instant::from_ns(1_000_000), hasher.hash(b"this"));
    cache.store(hash, b"this", &VALUE, now).unwrap();
    assert!(cache.lookup(hash, b"this", now).is_some());
    assert!(cache.lookup(hash, b"that", now).is_none());
    assert!(!cache.remove(hash, b"that"));
    assert!(cache.lookup(hash, b"this", now).is_some());
}

#[test]
fn who_knows_no_more_than_the_hash_drops_its_key_and_no_other() {
    let (mut cache, hasher) = cache();
    let now = Instant::from_ns(1_000_000);
    for number in 0..1_000_u32 {
        let key = number.to_le_bytes();
        cache.store(hasher.hash(&key), &key, &VALUE, now).unwrap();
    }
    let hash = |number: u32| hasher.hash(&number.to_le_bytes());
    for number in (0..1_000).step_by(3) {
        assert!(cache.remove_hash(hash(number)));
        assert!(!cache.remove_hash(hash(number)));
    }
    for number in 0..1_000_u32 {
        let found = cache.lookup(hash(number), &number.to_le_bytes(), now);
        assert_eq!(found.is_some(), number % 3 != 0, "{number}");
    }
    assert_eq!(cache.statistics().entries, 666);
}

#[test]
fn a_hit_that_somebody_else_has_served_spares_the_entry_as_one_of_ours_does() {
    let (mut cache, hasher) = cache();
    let mut now = Instant::from_ns(1_000_000);
    let hash = hasher.hash(b"popular");
    cache.store(hash, b"popular", &VALUE, now).unwrap();
    for number in 0..1_000_000_u32 {
        let key = number.to_le_bytes();
        cache.store(hasher.hash(&key), &key, &VALUE, now).unwrap();
        cache.count_hit(hash);
        now = now + std::time::Duration::from_micros(1);
        cache.step(now);
    }
    assert!(cache.statistics().evicted > 0);
    assert!(cache.lookup(hash, b"popular", now).is_some());
    assert!(cache.lookup(hasher.hash(&[0; 4]), &[0; 4], now).is_none());
}
