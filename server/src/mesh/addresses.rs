//! How many connections each client address has, over all shards.
//!
//! Two rows of counters; an address has one in each, by a keyed hash, and what it has is the lesser
//! of the two. So the table never grows, and a count is never too low. It is too high only for an
//! address that shares both counters with others, which nobody can arrange without the key.

use shard_cache::hash::KeyHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counters of a row; a power of two.
const ROW: usize = 1 << 16;

/// The counters of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPlace([u16; 2]);

impl AddressPlace {
    /// Of an address; of IPv6, of its network of 64 bits, which is what one client is given.
    #[must_use]
    pub fn of(address: IpAddr, hasher: &KeyHasher) -> Self {
        let hash = match address.to_canonical() {
            IpAddr::V4(v4) => hasher.hash(&v4.octets()),
            IpAddr::V6(v6) => hasher.hash(&v6.octets()[..8]),
        };
        let [a, b, c, d, ..] = hash.bits().to_le_bytes();
        Self([u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])])
    }
}

/// The counts of all addresses, shared by the shards; touched where connections begin and end.
#[derive(Clone, Debug)]
pub struct Addresses {
    rows: Arc<[AtomicU32]>,
    max: u32,
}

impl Addresses {
    /// No connections yet; `max` for each address, or no bound and no table where that is 0.
    #[must_use]
    pub fn new(max: u32) -> Self {
        let count = if max == 0 { 0 } else { 2 * ROW };
        Self { rows: (0..count).map(|_| AtomicU32::new(0)).collect(), max }
    }

    /// Whether there is a bound.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        self.max > 0
    }

    /// Counts a connection more, if its address has fewer than it may.
    #[must_use]
    pub fn begins(&self, place: AddressPlace) -> bool {
        let before = self.counters(place).map(|counter| counter.fetch_add(1, Ordering::Relaxed));
        let has_room = before[0].min(before[1]) < self.max;
        if !has_room {
            self.ends(place);
        }
        has_room
    }

    /// A connection that was counted is closed.
    pub fn ends(&self, place: AddressPlace) {
        for counter in self.counters(place) {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn counters(&self, AddressPlace([first, second]): AddressPlace) -> [&AtomicU32; 2] {
        [&self.rows[usize::from(first)], &self.rows[ROW + usize::from(second)]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str) -> AddressPlace {
        AddressPlace::of(address.parse().unwrap(), &KeyHasher::new([1, 2]))
    }

    #[test]
    fn an_address_has_its_bound_whatever_others_have() {
        let addresses = Addresses::new(2);
        let (one, other) = (place("192.0.2.1"), place("192.0.2.2"));
        assert!(addresses.begins(one) && addresses.begins(one) && !addresses.begins(one));
        assert!(addresses.begins(other));
        addresses.ends(one);
        assert!(addresses.begins(one) && !addresses.begins(one));
        assert!(!Addresses::new(0).is_bounded());
    }

    #[test]
    fn a_network_of_64_bits_is_one_address_and_a_mapped_one_is_its_ipv4() {
        assert_eq!(place("2001:db8:0:1::1"), place("2001:db8:0:1:ffff::9"));
        assert_ne!(place("2001:db8:0:1::1"), place("2001:db8:0:2::1"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
    }
}
