//! How many connections each shard has, so that a new one can go where there are fewer.
//!
//! The kernel spreads connections over the sockets of a group by a hash, and where they are few
//! they land unevenly, for as long as they live. A shard counts a connection where it is to be
//! before it hands it over, so that many at a time do not all go to the same shard. A count is a
//! hint: nothing breaks where it is late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Alone on its cache line: only accepts and closes touch it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Load(AtomicU32);

/// The counts of all shards, shared by them.
#[derive(Clone, Debug)]
pub struct Loads(Arc<[Load]>);

impl Loads {
    /// Of `shards_count` shards without connections.
    #[must_use]
    pub fn new(shards_count: usize) -> Self {
        Self((0..shards_count).map(|_| Load::default()).collect())
    }

    /// A connection is, or is to be, with this shard.
    pub fn begins(&self, shard: u16) {
        self.0[usize::from(shard)].0.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection of this shard is closed.
    pub fn ends(&self, shard: u16) {
        let before = self.0[usize::from(shard)].0.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a connection ends where it was counted");
    }

    /// The shard that has fewer connections than `shard`, by more than an eighth: where there are
    /// many, a hash is even enough, and no connection changes its core for nothing.
    #[must_use]
    pub fn lighter(&self, shard: u16) -> Option<u16> {
        let count = |load: &Load| load.0.load(Ordering::Relaxed);
        let (least, index) =
            (0..).zip(self.0.iter()).map(|(index, load)| (count(load), index)).min()?;
        let own = count(&self.0[usize::from(shard)]);
        (own > least + least / 8).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_goes_where_there_are_fewer_by_an_eighth() {
        let loads = Loads::new(3);
        assert_eq!(loads.lighter(0), None);
        loads.begins(0);
        assert_eq!((loads.lighter(0), loads.lighter(1)), (Some(1), None));
        (0..17).for_each(|_| loads.begins(1));
        (0..16).for_each(|_| (loads.begins(0), loads.begins(2)).0);
        loads.begins(0);
        assert_eq!(loads.lighter(0), None, "18 are not more than 16 and an eighth");
        loads.begins(0);
        assert_eq!(loads.lighter(0), Some(2));
        loads.ends(0);
        assert_eq!(loads.lighter(0), None);
    }
}
