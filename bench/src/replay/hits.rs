//! `pelton-bench replay`: a shard that answers hits and does nothing else, for counting
//! instructions.
//!
//! What remains without a kernel is the server's own code for a hit. Run it under a profiler that
//! counts instructions, for two numbers of requests; the difference divided by the difference of
//! the numbers is the cost of a hit: start-up cancels out.

use super::{Plan, Shards};
use crate::traffic::Records;
use std::collections::BTreeMap;
use std::io;

/// Replays requests for `records` over `connections`, `requests` of them after each key was
/// fetched once. Returns how many hits were answered.
pub(crate) fn run(records: &Records, connections: u32, requests: u64) -> io::Result<u64> {
    let plan = Plan::new(1, &["cache.memory=256MiB".into()], connections)?;
    let count = records.keys.len();
    let draw = |_| {
        let mut next = 0;
        move || {
            // A stride that is prime to the count visits all keys in an order that no cache likes.
            next = (next + 65_537) % count;
            next
        }
    };
    let mut shards = Shards::new(&plan, &records.keys, draw)?;
    let keys = records.keys.iter().map(String::as_bytes);
    let bodies: BTreeMap<&[u8], &[u8]> =
        keys.zip(records.bodies.iter().map(AsRef::as_ref)).collect();
    for requests in [count as u64, requests] {
        shards.run(requests, |key| bodies[key]);
    }
    Ok(shards.counters().iter().map(|(_, counters)| counters.requests_hit).sum())
}
