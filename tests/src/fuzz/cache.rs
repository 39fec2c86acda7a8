//! The cache beside its model: the same interpreter that the property tests of `shard-cache` use.

#[path = "../../../shard-cache/tests/model/interpreter.rs"]
mod interpreter;

use shard_cache::policy::{Fifo, Lru, S3Fifo};

/// Bytes of the cache: a few segments more than the largest value needs.
const BUDGET_SIZE: usize = 4 << 20;

/// When the clock begins, milliseconds: at zero, and shortly before 32 bits of them wrap.
const STARTS_MS: [u64; 3] = [0, (1 << 32) - 2_000, 5 * (1 << 32) - 1];

/// The first byte says when the clock begins and how much is guaranteed; each six after it are an
/// operation, played under every policy.
///
/// # Panics
/// If the cache and its model differ.
pub fn cache(input: &[u8]) {
    let Some((start, operations)) = input.split_first() else { return };
    let start_ms = STARTS_MS[usize::from(*start) % STARTS_MS.len()];
    let percent = start / 3;
    interpreter::run::<Fifo>(operations, BUDGET_SIZE, start_ms, percent);
    interpreter::run::<Lru>(operations, BUDGET_SIZE, start_ms, percent);
    interpreter::run::<S3Fifo>(operations, BUDGET_SIZE, start_ms, percent);
}
