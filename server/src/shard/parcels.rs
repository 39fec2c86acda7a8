//! The parcels of a shard: how many reads of other shards' keys it may have under way.
//!
//! Every read goes out in a small parcel. Where its value is larger, a big parcel goes on if one is
//! at home, since each piece is a way there and back; if none is, the small one does. So large
//! values are faster with big parcels, and no read ever waits for one or is refused for want of it.

use crate::limits::Limits;
use crate::mesh::Parcel;

/// Parcels at home.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "parcels travel by their boxes")]
pub(super) struct Parcels {
    small: Vec<Box<Parcel>>,
    big: Vec<Box<Parcel>>,
    small_size: usize,
}

impl Parcels {
    pub(super) fn new(limits: &Limits) -> Self {
        let (small_size, big_size) = (limits.parcel_size, limits.big_parcel_size);
        assert!(small_size < big_size, "they are told apart by their sizes");
        let all = |count, size| (0..count).map(|_| Parcel::with_size(size)).collect::<Vec<_>>();
        let small = all(limits.parcels_count, small_size);
        let big = all(limits.big_parcels_count, big_size);
        let small_size = small.first().map_or(0, |parcel| parcel.size_max());
        Self { small, big, small_size }
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

    /// The parcel with which to fetch what is left of the value that `parcel` has brought a piece
    /// of: so many bytes.
    pub(super) fn for_rest(&mut self, mut parcel: Box<Parcel>, left_size: u32) -> Box<Parcel> {
        if left_size as usize <= self.small_size || parcel.size_max() > self.small_size {
            return parcel;
        }
        let Some(mut big) = self.big.pop() else { return parcel };
        big.take_over(&mut parcel);
        self.put(parcel);
        big
    }

    /// A parcel comes home.
    pub(super) fn put(&mut self, parcel: Box<Parcel>) {
        assert!(parcel.lent.is_none(), "what was lent is given back first");
        if parcel.size_max() > self.small_size {
            self.big.push(parcel);
        } else {
            self.small.push(parcel);
        }
    }
}
