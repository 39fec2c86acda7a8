//! Purges: what is named is hidden or made stale, and what is being fetched of it comes too late.
//! So is a key of which the origin says that it has changed.

use super::Shard;
use super::changes::Change;
use crate::mesh::{Key, Named, Order, PurgeOrder, Purged, Taken};
use crate::ring::Ring;
use shard_cache::hash::KeyHash;
use shard_cache::{Force, Purge};

impl<R: Ring> Shard<R> {
    /// A purge has come, of which this shard has its part.
    pub(super) fn purge(&mut self, order: Box<PurgeOrder>) {
        match self.purged_hash(&order) {
            Some((hash, true)) => self.change(hash, Change::Purge(order)),
            Some((_, false)) => {
                self.counters.purges += 1;
                self.link.order(Order::Purged(order));
            }
            None => self.change_many(Change::Purge(order)),
        }
    }

    /// The hash of the key that is purged, and whether it is ours; none where it is many.
    fn purged_hash(&self, order: &PurgeOrder) -> Option<(KeyHash, bool)> {
        match &order.named {
            Named::Key(key) => {
                let hash = self.hasher.hash(key.as_bytes());
                Some((hash, self.owners.of(hash, key.as_bytes()) == self.index))
            }
            Named::Prefix(_) | Named::Group(_) | Named::Everything => None,
        }
    }

    /// Puts a purge in force, and says so.
    pub(super) fn put_in_force(&mut self, mut order: Box<PurgeOrder>) {
        let purged = self.purged_hash(&order);
        order.outcome = match (&order.named, order.named.rule()) {
            (Named::Key(key), _) => self.purge_key(key, order.force, Taken::Purged),
            (_, Some(rule)) => self.purge_all(rule, order.force),
            (_, None) => unreachable!("only a single key has no rule"),
        };
        self.counters.purges += u64::from(order.outcome != Purged::Refused);
        self.link.order(Order::Purged(order));
        match purged {
            Some((hash, _)) => self.end_change(hash),
            None => self.end_change_of_many(),
        }
    }

    /// The origin says that a key of ours has changed.
    pub(super) fn hear_of(&mut self, key: Box<Key>) {
        let hash = self.hasher.hash(key.as_bytes());
        self.change(hash, Change::Forget(key));
    }

    /// Drops a key that has changed, and says so.
    pub(super) fn forget(&mut self, key: Box<Key>) {
        self.purge_key(&key, Force::Hard, Taken::Changed);
        self.counters.forgotten += 1;
        let hash = self.hasher.hash(key.as_bytes());
        self.link.order(Order::Forgotten(key));
        self.end_change(hash);
    }

    fn purge_key(&mut self, key: &Key, force: Force, taken: Taken) -> Purged {
        let key = key.as_bytes();
        let hash = self.hasher.hash(key);
        let is_void = self.flights.void(hash, key);
        self.counters.fetches_void += u64::from(is_void);
        let is_found = match force {
            Force::Hard => self.cache.remove(hash, key),
            Force::Soft => self.cache.end_freshness(hash, key, self.now),
        };
        if is_void || is_found && force == Force::Hard {
            self.recent.take(hash, taken);
        }
        if is_found { Purged::Found } else { Purged::Done }
    }

    fn purge_all(&mut self, what: Purge<'_>, force: Force) -> Purged {
        let Self { cache, changes, flights, counters, now, .. } = self;
        if cache.purge(what, force, *now).is_err() {
            return Purged::Refused;
        }
        changes.void_all();
        counters.fetches_void += flights.void_all(|key| cache.is_named(what, key));
        Purged::Done
    }
}
