//! What the two jobs of the plane have in common: ports, pace, and when to stop.

use super::manifest::Clocks;
use super::store::SnapshotStore;
use crate::mesh::{Audit, Control, OwnerHash, PageDone, StoragePort};
use std::fmt;
use std::time::Duration;

/// How long the plane waits for shards that have nothing for it.
const LOOK: Duration = Duration::from_millis(1);

/// One job. It runs wherever its store's futures run, and on simulated shards as well.
pub struct Task<'a, S> {
    /// Where the snapshot lies.
    pub store: &'a mut S,
    /// The plane's ends of the queues to all shards.
    pub ports: &'a mut [StoragePort],
    /// The clocks.
    pub clocks: &'a dyn Fn() -> Clocks,
    /// Bytes of a page.
    pub page_size: usize,
    /// The key of the hash that places keys.
    pub hash_key: [u64; 2],
    /// How keys are spread over the shards.
    pub owner_hash: OwnerHash,
    /// Bytes a second; none: as fast as it goes.
    pub rate: Option<u64>,
    /// What the main thread says.
    pub control: &'a Control,
    /// Asked of each entry that is read, where there is one.
    pub audit: Option<&'a Audit>,
    /// It is the last snapshot of a server that stops.
    pub is_last: bool,
}

impl<S> fmt::Debug for Task<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("is_last", &self.is_last).finish_non_exhaustive()
    }
}

impl<S: SnapshotStore> Task<'_, S> {
    /// Milliseconds on the clock of the process.
    pub(super) fn now_ms(&self) -> u64 {
        (self.clocks)().process_ms
    }

    /// Whether the server stops, and not for this job: it is to end soon.
    pub(super) fn is_stopped(&self) -> bool {
        self.control.is_draining() && !self.is_last
    }

    /// Whether the shards still answer: those of a server that stops do only for a last snapshot.
    pub(super) fn is_answered(&self) -> bool {
        !self.control.is_draining() || self.control.is_saving()
    }

    /// What became of a page of any shard; none if nothing has after a while.
    pub(super) async fn next_done(&mut self) -> Option<(usize, PageDone)> {
        let found = |ports: &mut [StoragePort]| {
            ports.iter_mut().enumerate().find_map(|(shard, port)| Some((shard, port.next_done()?)))
        };
        let done = found(self.ports);
        if done.is_none() {
            self.store.pause(LOOK).await;
        }
        done
    }

    /// Waits until `bytes` since `begun_ms` keep to the rate.
    pub(super) async fn keep_pace(&mut self, bytes: u64, begun_ms: u64) {
        let Some(rate) = self.rate else { return };
        let due_ms = u128::from(bytes) * 1_000 / u128::from(rate);
        let gone_ms = u128::from(self.now_ms() - begun_ms);
        let left_ms = u64::try_from(due_ms.saturating_sub(gone_ms)).unwrap_or(u64::MAX);
        if left_ms > 0 && !self.is_stopped() {
            self.store.pause(Duration::from_millis(left_ms)).await;
        }
    }
}
