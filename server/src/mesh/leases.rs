//! How long a shard may serve copies of another's values: words that the shards share.
//!
//! A shard lends its values to others, the holders, who serve copies of them ([`Parcel::grant`]).
//! Before a value changes, its owner asks each holder to drop its copy, and waits until he has. A
//! holder may be stalled, so nobody may serve a copy without a *lease*: one word for each owner and
//! holder, until when the owner believes him. It is renewed for all copies at once; one that is not
//! renewed ends within [`LEASE`].
//!
//! That is enough also for a holder who is stalled in the middle of a turn and has an old idea of
//! the time. A turn serves what had arrived when it began, and its copies count by that time. So
//! whoever is given an old value by a turn that was stalled had asked before the lease was over,
//! and so before the value changed.
//!
//! Where there is no room to ask for each copy, an owner takes back all that one holder has: it
//! raises their *epoch*. Copies of an earlier epoch are void, those on their way included.
//!
//! [`Parcel::grant`]: super::Parcel

use shard_cache::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long a lease lasts.
pub const LEASE: Duration = Duration::from_secs(1);

/// How much longer an owner takes a lease to last than its holder does: the clocks of two cores may
/// differ, though far less.
pub const MARGIN: Duration = Duration::from_millis(1);

/// Alone on its cache line: what one owner says to one holder.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Pair {
    /// Until when copies may be served; nanoseconds. The owner writes it, and it never falls.
    until_ns: AtomicU64,
    /// The owner's word: copies of earlier epochs are void.
    epoch: AtomicU32,
    /// The holder's answer: it has none of an earlier epoch than this.
    dropped: AtomicU32,
}

/// Alone on its cache line: whether an owner has raised an epoch of one holder.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Bell(AtomicBool);

#[derive(Debug)]
struct Words {
    pairs: Box<[Pair]>,
    bells: Box<[Bell]>,
}

/// The words of all shards, as one of them sees them.
#[derive(Clone, Debug)]
pub struct Leases {
    words: Arc<Words>,
    index: u16,
}

/// The leases of `shards_count` shards, one for each of them.
#[must_use]
pub fn leases(shards_count: u16) -> Vec<Leases> {
    let count = usize::from(shards_count);
    let words = Arc::new(Words {
        pairs: (0..count * count).map(|_| Pair::default()).collect(),
        bells: (0..count).map(|_| Bell::default()).collect(),
    });
    (0..shards_count).map(|index| Leases { words: Arc::clone(&words), index }).collect()
}

/// Bytes of the words of so many shards.
#[must_use]
pub const fn leases_size(shards_count: u16) -> u64 {
    let count = shards_count as u64;
    count * count * size_of::<Pair>() as u64 + count * size_of::<Bell>() as u64
}

impl Leases {
    fn pair(&self, owner: u16, holder: u16) -> &Pair {
        let count = self.words.bells.len();
        &self.words.pairs[usize::from(owner) * count + usize::from(holder)]
    }

    fn bell(&self, shard: u16) -> &AtomicBool {
        &self.words.bells[usize::from(shard)].0
    }

    /// As a holder: whether copies of `owner`'s values may be served in a turn that began at `now`.
    #[must_use]
    #[inline]
    pub fn is_valid(&self, owner: u16, now: Instant) -> bool {
        now.ns() < self.pair(owner, self.index).until_ns.load(Ordering::Acquire)
    }

    /// As a holder: whether an owner has raised an epoch; asked once more before a sleep.
    #[must_use]
    pub fn has_bell(&self) -> bool {
        self.bell(self.index).load(Ordering::Acquire)
    }

    /// As a holder: the same, and the bell is silent until the next one does.
    pub fn take_bell(&self) -> bool {
        self.has_bell() && self.bell(self.index).swap(false, Ordering::AcqRel)
    }

    /// The epoch of copies that `owner` gives to `holder`.
    #[must_use]
    pub fn epoch(&self, owner: u16, holder: u16) -> u32 {
        self.pair(owner, holder).epoch.load(Ordering::Acquire)
    }

    /// As a holder: all copies of `owner`'s values are dropped that are older than `epoch`. Returns
    /// whether that was news.
    pub fn drop_before(&self, owner: u16, epoch: u32) -> bool {
        self.pair(owner, self.index).dropped.swap(epoch, Ordering::AcqRel) != epoch
    }

    /// As an owner: lets `holder` serve copies until a while after `now`.
    pub fn renew(&self, holder: u16, now: Instant) {
        self.pair(self.index, holder).until_ns.store((now + LEASE).ns(), Ordering::Release);
    }

    /// As an owner: whether the lease of `holder` is over at `now`.
    #[must_use]
    pub fn is_over(&self, holder: u16, now: Instant) -> bool {
        let until_ns = self.pair(self.index, holder).until_ns.load(Ordering::Relaxed);
        now >= Instant::from_ns(until_ns) + MARGIN
    }

    /// As an owner: takes back all copies that `holder` has. He is to be woken.
    pub fn raise_epoch(&self, holder: u16) {
        self.pair(self.index, holder).epoch.fetch_add(1, Ordering::AcqRel);
        self.bell(holder).store(true, Ordering::Release);
    }

    /// As an owner: whether `holder` has dropped all copies of earlier epochs.
    #[must_use]
    pub fn has_dropped(&self, holder: u16) -> bool {
        let pair = self.pair(self.index, holder);
        pair.dropped.load(Ordering::Acquire) == pair.epoch.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    #[test]
    fn a_lease_is_over_for_its_holder_before_it_is_for_its_owner() {
        let all = leases(3);
        let (owner, holder) = (&all[0], &all[2]);
        assert!(!holder.is_valid(0, at(1)) && owner.is_over(2, at(1)), "there is none at first");
        owner.renew(2, at(5));
        assert!(holder.is_valid(0, at(1_004)) && !owner.is_over(2, at(1_004)));
        assert!(!holder.is_valid(1, at(10)), "it is of one owner");
        assert!(!holder.is_valid(0, at(1_005)) && !owner.is_over(2, at(1_005)));
        assert!(owner.is_over(2, at(1_006)));
    }

    #[test]
    fn an_epoch_is_raised_with_a_bell_and_is_over_when_the_holder_says_so() {
        let all = leases(2);
        let (owner, holder) = (&all[1], &all[0]);
        assert!(owner.has_dropped(0) && !holder.take_bell());
        owner.raise_epoch(0);
        assert!(!owner.has_dropped(0) && holder.has_bell());
        assert!(holder.take_bell() && !holder.take_bell());
        let epoch = holder.epoch(1, 0);
        assert!(holder.drop_before(1, epoch) && !holder.drop_before(1, epoch));
        assert!(owner.has_dropped(0));
    }
}
