//! Purges: what is named is hidden or made stale, and what is being fetched of it comes too late.

use super::Shard;
use crate::mesh::{Key, Named, Order, PurgeOrder, Purged};
use crate::ring::Ring;
use shard_cache::{Force, Purge};

impl<R: Ring> Shard<R> {
    /// Puts a purge in force, and says so.
    pub(super) fn purge(&mut self, mut order: Box<PurgeOrder>) {
        order.outcome = match (&order.named, order.named.rule()) {
            (Named::Key(key), _) => self.purge_key(key, order.force),
            (_, Some(rule)) => self.purge_all(rule, order.force),
            (_, None) => unreachable!("only a single key has no rule"),
        };
        self.counters.purges += u64::from(order.outcome != Purged::Refused);
        self.link.order(Order::Purged(order));
    }

    fn purge_key(&mut self, key: &Key, force: Force) -> Purged {
        let key = key.as_bytes();
        let hash = self.hasher.hash(key);
        if self.owners.of(hash, key) != self.index {
            return Purged::Done;
        }
        self.counters.fetches_void += u64::from(self.flights.void(hash, key));
        let is_found = match force {
            Force::Hard => self.cache.remove(hash, key),
            Force::Soft => self.cache.end_freshness(hash, key, self.now),
        };
        if is_found { Purged::Found } else { Purged::Done }
    }

    fn purge_all(&mut self, what: Purge<'_>, force: Force) -> Purged {
        let Self { cache, flights, counters, now, .. } = self;
        if cache.purge(what, force, *now).is_err() {
            return Purged::Refused;
        }
        counters.fetches_void += flights.void_all(|key| cache.is_named(what, key));
        Purged::Done
    }
}
