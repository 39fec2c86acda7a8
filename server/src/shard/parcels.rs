//! The parcels of a shard: how many reads of other shards' keys it may have under way.

use crate::mesh::Parcel;

/// Parcels at home. Small ones carry every read; a few big ones carry values that do not fit.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "parcels travel by their boxes")]
pub(super) struct Parcels {
    small: Vec<Box<Parcel>>,
    big: Vec<Box<Parcel>>,
    small_size: u32,
}

impl Parcels {
    pub(super) fn new(small_count: u32, small_size: u32, big_count: u32, big_size: u32) -> Self {
        Self {
            small: (0..small_count).map(|_| Parcel::with_size(small_size)).collect(),
            big: (0..big_count).map(|_| Parcel::with_size(big_size)).collect(),
            small_size,
        }
    }

    /// How many reads may begin.
    pub(super) fn len(&self) -> usize {
        self.small.len()
    }

    /// Parcels of both sizes at home.
    pub(super) fn at_home(&self) -> usize {
        self.small.len() + self.big.len()
    }

    /// Takes a parcel for a read.
    pub(super) fn take(&mut self) -> Option<Box<Parcel>> {
        self.small.pop()
    }

    /// Takes a parcel that holds `size` bytes, if one is at home.
    pub(super) fn take_big(&mut self, size: u32) -> Option<Box<Parcel>> {
        let fits = self.big.last().is_some_and(|parcel| parcel.size_max() >= size as usize);
        if fits { self.big.pop() } else { None }
    }

    /// A parcel comes home.
    pub(super) fn put(&mut self, parcel: Box<Parcel>) {
        if parcel.size_max() > self.small_size as usize {
            self.big.push(parcel);
        } else {
            self.small.push(parcel);
        }
    }
}
