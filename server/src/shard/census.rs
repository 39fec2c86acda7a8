//! What a shard holds at a moment: for tests that check that nothing is lost.

use super::slots::State;
use super::{Level, Shard};
use crate::metrics::Counters;
use crate::ring::Ring;

/// How much of each bounded thing of a shard is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Slots that hold a connection.
    pub slots_used: u32,
    /// Nothing is accepted, since no shard has room.
    pub accepts_paused: bool,
    /// Receive buffers on loan.
    pub buffers_held: u32,
    /// Carry blocks in use.
    pub carries_used: usize,
    /// Output blocks in use.
    pub blocks_used: usize,
    /// Replies that wait.
    pub replies_used: usize,
    /// Flights under way or being rushed.
    pub flights_used: usize,
    /// Waiters of flights.
    pub waiters_used: usize,
    /// Parcels at home.
    pub parcels_at_home: usize,
    /// Uploads at home.
    pub uploads_at_home: usize,
    /// A connection waits for an upload.
    pub is_upload_wanted: bool,
    /// Pins on the cache's segments.
    pub pins: u64,
    /// Connection submissions in flight, accepts included.
    pub submissions_in_flight: u64,
}

impl<R: Ring> Shard<R> {
    /// Counts what is in use.
    #[must_use]
    pub fn census(&self) -> Census {
        let (flights_used, waiters_used) = self.flights.used();
        Census {
            slots_used: self.slots.used(),
            accepts_paused: self.accepts.paused,
            buffers_held: self.input.held(),
            carries_used: self.input.carries_used(),
            blocks_used: self.output.used(),
            replies_used: self.replies.used(),
            flights_used,
            waiters_used,
            parcels_at_home: self.parcels.at_home(),
            uploads_at_home: self.writes.at_home(),
            is_upload_wanted: self.writes.is_wanted(),
            pins: self.cache.statistics().pins,
            submissions_in_flight: self.submissions_in_flight,
        }
    }

    /// Whether this shard has a fresh copy of a key that another one owns.
    pub fn has_copy(&mut self, key: &[u8]) -> bool {
        self.replicas.lookup(self.hasher.hash(key), key, self.now).is_some()
    }

    /// Whether this shard, which owns the key, knows that `holder` may have a copy of its value.
    #[must_use]
    pub fn knows_copy(&self, key: &[u8], holder: u16) -> bool {
        self.directory.has(self.hasher.hash(key), holder)
    }

    /// Whether another shard owes this one the answer to a request to drop copies, or a change of a
    /// key is under way.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.directory.owes() || !self.changes.is_empty()
    }

    /// How loaded this shard is.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.overload.level()
    }

    /// The shard's own counters, newer than what is published.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The ring, for the tests that simulate it.
    #[must_use]
    pub fn ring(&self) -> &R {
        &self.ring
    }

    /// Asserts what must hold between two turns.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn check(&self) {
        for index in 0..self.slots.high() {
            self.slots[index].check();
        }
        let slots = (0..self.slots.high()).map(|index| &self.slots[index]);
        let open = slots.filter(|slot| slot.state != State::Free);
        self.tenants.check(|tenant| open.clone().filter(|slot| slot.tenant == tenant).count());
        assert!(self.overload.has_decided(), "a miss is put off to the end of its turn only");
    }
}
