//! What the main thread tells all shards, looked at once a turn, and what they tell each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};

/// Shared by the main thread and all shards.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Words>);

#[derive(Debug, Default)]
struct Words {
    draining: AtomicBool,
    drained: AtomicU16,
    saving: AtomicBool,
    purges: AtomicU64,
    shortage: AtomicU8,
}

/// What the host or the control group is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Shortage {
    /// Nothing that is known.
    #[default]
    Nothing,
    /// CPU time.
    Cpu,
    /// Memory, of which more would end the process.
    Memory,
}

impl Control {
    /// Nothing was asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every shard to stop accepting, answer what is in flight, and stop.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether the shards were asked to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether a last snapshot is being written, for which the shards go on.
    #[must_use]
    pub fn is_saving(&self) -> bool {
        self.0.saving.load(Ordering::Acquire)
    }

    /// A last snapshot begins or has ended.
    pub fn set_saving(&self, is_saving: bool) {
        self.0.saving.store(is_saving, Ordering::Release);
    }

    /// What the process is short of, from now on.
    pub fn set_shortage(&self, shortage: Shortage) {
        self.0.shortage.store(shortage as u8, Ordering::Relaxed);
    }

    /// What the process is short of.
    #[must_use]
    pub fn shortage(&self) -> Shortage {
        match self.0.shortage.load(Ordering::Relaxed) {
            0 => Shortage::Nothing,
            1 => Shortage::Cpu,
            _ => Shortage::Memory,
        }
    }

    /// A purge begins; that is noted before any shard hears of it.
    pub fn purge_begins(&self) {
        self.0.purges.fetch_add(1, Ordering::AcqRel);
    }

    /// Purges that have begun: a snapshot does not know of those that began after it did.
    #[must_use]
    pub fn purges_begun(&self) -> u64 {
        self.0.purges.load(Ordering::Acquire)
    }

    /// A shard has no connection left and will have none; called once by each.
    pub fn drained(&self) {
        self.0.drained.fetch_add(1, Ordering::AcqRel);
    }

    /// Shards that have no connection left: while others have some, they may still be asked for
    /// their keys.
    #[must_use]
    pub fn drained_count(&self) -> u16 {
        self.0.drained.load(Ordering::Acquire)
    }
}
