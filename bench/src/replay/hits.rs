//! `pelton-bench replay`: a shard that answers hits and does nothing else, for counting
//! instructions.
//!
//! What remains without a kernel is the server's own code for a hit. Run it under a profiler that
//! counts instructions, for two numbers of requests; the difference divided by the difference of
//! the numbers is the cost of a hit: start-up cancels out.

use super::{HASH_KEY, Plan, Shards};
use crate::traffic::Records;
use pelton::mesh::{OwnerHash, Owners};
use shard_cache::hash::KeyHasher;
use std::collections::BTreeMap;
use std::io;

/// Replays requests for `records` to so many shards, over `connections` to each, `requests` of them
/// after each key was fetched once. Each shard is asked for its own keys. Returns how many hits
/// were answered.
pub(crate) fn run(
    records: &Records,
    shards: u16,
    connections: u32,
    requests: u64,
) -> io::Result<u64> {
    let plan = Plan::new(shards, &["cache.memory=256MiB".into()], connections)?;
    let (hasher, owners) = (KeyHasher::new(HASH_KEY), Owners::new(OwnerHash::Keyed, shards));
    let owner = |key: &str| owners.of(hasher.hash(key.as_bytes()), key.as_bytes());
    let draw = |shard| {
        let own = records.keys.iter().enumerate().filter(|(_, key)| owner(key) == shard);
        let own: Vec<usize> = own.map(|(index, _)| index).collect();
        let mut next = 0;
        move || {
            // A stride that is prime to the count visits all keys in an order that no cache likes.
            next = (next + 65_537) % own.len();
            own[next]
        }
    };
    let mut all = Shards::new(&plan, &records.keys, draw)?;
    let keys = records.keys.iter().map(String::as_bytes);
    let bodies: BTreeMap<&[u8], &[u8]> =
        keys.zip(records.bodies.iter().map(AsRef::as_ref)).collect();
    // Shards are asked for equally many, and one has more keys than the other.
    for requests in [2 * records.keys.len() as u64, requests] {
        all.run(requests, |key| bodies[key]);
    }
    let counters = all.counters();
    let remote: u64 = counters.iter().map(|(_, counters)| counters.remote_reads).sum();
    assert_eq!(remote, 0, "each shard is asked for its own keys");
    Ok(counters.iter().map(|(_, counters)| counters.requests_hit).sum())
}
