//! What an entry costs beside its key and its value: the smallest budget at which all of a number
//! of entries can be read, minus keys of 16 and values of 100 bytes, over their number.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::print_stdout, reason = "a measured number is shown")]

use shard_cache::hash::{Etag, KeyHasher};
use shard_cache::time::Instant;
use shard_cache::{Cache, FreshFor, Kind, Layout, NewValue, SEGMENT_SIZE, StaleWindows};

const WINDOWS: [StaleWindows; 1] = [StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 }];
const HASHER: KeyHasher = KeyHasher::new([1, 2]);

/// Bytes of a key and its value.
const CONTENT_SIZE: usize = 116;

fn are_all_readable(memory: &mut [u8], budget: usize, count: usize) -> bool {
    let layout = Layout::new(budget, 1 << 20).unwrap();
    assert!(layout.total_bytes() <= budget);
    let skip = memory.as_ptr().align_offset(64);
    let memory = &mut memory[skip..][..layout.memory_bytes()];
    memory[..layout.front_bytes()].fill(0);
    let mut cache: Cache<'_> = Cache::new(layout, memory, HASHER, &WINDOWS);
    cache.set_segments_ready(layout.segments_count());
    let now = Instant::from_ns(1);
    let value = NewValue {
        etag: Etag::from_bits(1),
        kind: Kind { content_type: 0, windows: 0 },
        group: 0,
        fresh_for: FreshFor::Ever,
        negative: false,
        bytes: &[7; 100],
    };
    let key = |number: usize| format!("{number:016}");
    (0..count).all(|number| {
        let key = key(number);
        cache.step(now);
        cache.store(HASHER.hash(key.as_bytes()), key.as_bytes(), &value, now).is_ok()
    }) && (0..count).all(|number| {
        let key = key(number);
        cache.lookup(HASHER.hash(key.as_bytes()), key.as_bytes(), now).is_some()
    })
}

/// Bytes an entry, rounded up.
fn overhead(count: usize) -> usize {
    let (mut low, mut high) = (count * (CONTENT_SIZE + 24), count * (CONTENT_SIZE + 56));
    let mut memory = vec![0; high + 64];
    assert!(are_all_readable(&mut memory, high, count), "56 bytes an entry are enough");
    while high - low > SEGMENT_SIZE {
        let middle = usize::midpoint(low, high);
        if are_all_readable(&mut memory, middle, count) { high = middle } else { low = middle }
    }
    let overhead = high.div_ceil(count) - CONTENT_SIZE;
    println!("{count} entries: {overhead} bytes an entry");
    overhead
}

#[test]
fn a_million_entries_cost_40_bytes_each() {
    assert!(overhead(1_000_000) <= 40);
}

/// `cargo test --release -p shard-cache --test overhead -- --ignored --nocapture`
#[test]
#[ignore = "takes 1.7 GB and a minute"]
fn ten_million_entries_cost_40_bytes_each() {
    assert!(overhead(10_000_000) <= 40);
}
