//! One entry: its bytes in the arena and what they say.
//!
//! ```text
//! 0       8       12            16                20              22    24      24+key
//! [ etag ][ born ][ fresh until ][ size and flags ][ key and group ][ kind ][ key ][ value ] pad
//! ```
//!
//! All numbers are little-endian. `born` is the low 32 bits of the entry's stamp (see `purge`), in
//! milliseconds, and so is `fresh until`; the segment remembers its oldest stamp in 64, so nothing
//! wraps (see `segments`). The low 28 bits
//! of *size and flags* are the value's size, the low 10 of *key and group* the key's; the other 6
//! are the group of entries that it belongs to (see `quota`). Entries begin at multiples of 8.
//!
//! Key and value never change. `born`, `fresh until` and the index of the stale windows (half of
//! `kind`) do when an origin says that the value is still the same; they are never sent from here.

use crate::hash::Etag;
use crate::time::Instant;

pub(crate) const HEADER_SIZE: usize = 24;

/// Entries begin at multiples of this.
pub(crate) const ALIGN: usize = 8;

/// The largest value an entry can describe.
pub(crate) const VALUE_SIZE_MAX: usize = (1 << 28) - 1;

/// The longest lifetime that is kept, milliseconds: 24 days. Longer ones are cut.
pub(crate) const LIFETIME_MS_MAX: u32 = 1 << 31;

const FLAG_NEGATIVE: u32 = 1 << 28;
const FLAG_EVER: u32 = 1 << 29;

/// Where the bits of the group begin, above those of the key's size.
const GROUP_SHIFT: u32 = 10;

/// The bits of the key's size.
pub(crate) const KEY_MASK: u16 = (1 << GROUP_SHIFT) - 1;

/// Groups of entries that are told apart.
pub const GROUPS_COUNT_MAX: usize = 1 << (u16::BITS - GROUP_SHIFT);

/// Where an entry lies: its offset in the arena in units of [`ALIGN`].
///
/// It stays valid until the next call that stores, removes or steps, and for as long as a pin is
/// held on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef(pub(crate) u64);

impl EntryRef {
    pub(crate) fn at(offset: usize) -> Self {
        debug_assert!(offset.is_multiple_of(ALIGN), "entries are aligned");
        Self((offset / ALIGN) as u64)
    }

    pub(crate) fn offset(self) -> usize {
        usize::try_from(self.0).expect("made from an offset") * ALIGN
    }
}

/// What a value is, as far as it matters outside: two small indexes that the cache only keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Index of its content type, in a table of the owner's.
    pub content_type: u8,
    /// Index of its stale windows, in the table that the cache was made with.
    pub windows: u8,
}

/// How long a value is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshFor {
    /// Until it is replaced.
    Ever,
    /// This many milliseconds, at most 24 days.
    Ms(u32),
}

/// The size of an entry's key and the group that it belongs to. They are told apart where they are
/// asked for: a hit asks for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyAndGroup(u16);

impl KeyAndGroup {
    /// Of a key of `key_size` bytes, which is at most as long as keys may be.
    pub(crate) fn new(key_size: usize, group: u8) -> Self {
        let key_size = u16::try_from(key_size).expect("a key's size has 10 bits");
        debug_assert!(key_size <= KEY_MASK, "a key's size has 10 bits");
        Self(key_size | u16::from(group) << GROUP_SHIFT)
    }
}

/// The fixed part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) etag: Etag,
    pub(crate) born_ms: u32,
    pub(crate) fresh_until_ms: u32,
    pub(crate) value_size: u32,
    pub(crate) negative: bool,
    pub(crate) ever: bool,
    pub(crate) key: KeyAndGroup,
    pub(crate) kind: Kind,
}

impl Header {
    #[inline]
    pub(crate) fn read(arena: &[u8], at: EntryRef) -> Self {
        let bytes: &[u8; HEADER_SIZE] =
            arena[at.offset()..].first_chunk().expect("an entry has a header");
        let word = |from: usize| {
            u32::from_le_bytes(*bytes[from..].first_chunk().expect("within the header"))
        };
        let sizes = word(16);
        Self {
            etag: Etag::from_bits(u64::from(word(0)) | u64::from(word(4)) << 32),
            born_ms: word(8),
            fresh_until_ms: word(12),
            value_size: sizes & (FLAG_NEGATIVE - 1),
            negative: sizes & FLAG_NEGATIVE != 0,
            ever: sizes & FLAG_EVER != 0,
            key: KeyAndGroup(u16::from_le_bytes([bytes[20], bytes[21]])),
            kind: Kind { content_type: bytes[22], windows: bytes[23] },
        }
    }

    pub(crate) fn write(&self, arena: &mut [u8], at: EntryRef) {
        let flags =
            if self.negative { FLAG_NEGATIVE } else { 0 } | if self.ever { FLAG_EVER } else { 0 };
        let bytes = &mut arena[at.offset()..][..HEADER_SIZE];
        bytes[..8].copy_from_slice(&self.etag.bits().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.born_ms.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.fresh_until_ms.to_le_bytes());
        bytes[16..20].copy_from_slice(&(self.value_size | flags).to_le_bytes());
        bytes[20..22].copy_from_slice(&self.key.0.to_le_bytes());
        bytes[22] = self.kind.content_type;
        bytes[23] = self.kind.windows;
    }

    pub(crate) const fn key_size(&self) -> usize {
        (self.key.0 & KEY_MASK) as usize
    }

    pub(crate) const fn group(&self) -> u8 {
        (self.key.0 >> GROUP_SHIFT) as u8
    }

    /// Bytes of the whole entry, padding included.
    pub(crate) const fn entry_size(&self) -> usize {
        entry_size(self.key_size(), self.value_size as usize)
    }
}

/// Bytes of an entry, padding included.
pub const fn entry_size(key_size: usize, value_size: usize) -> usize {
    (HEADER_SIZE + key_size + value_size).next_multiple_of(ALIGN)
}

/// Writes what follows the header of the entry at `at`.
pub(crate) fn write_body(arena: &mut [u8], at: EntryRef, key: &[u8], value: &[u8]) {
    let body = &mut arena[at.offset() + HEADER_SIZE..];
    body[..key.len()].copy_from_slice(key);
    body[key.len()..][..value.len()].copy_from_slice(value);
}

/// The key of the entry at `at`, without a look at the rest of its header.
#[inline]
pub(crate) fn key(arena: &[u8], at: EntryRef) -> &[u8] {
    let bytes = &arena[at.offset()..];
    let size = u16::from_le_bytes([bytes[20], bytes[21]]) & KEY_MASK;
    &bytes[HEADER_SIZE..][..usize::from(size)]
}

/// An entry that was found, borrowed from the arena.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub(crate) header: Header,
    pub(crate) born_ms: u64,
    pub(crate) fresh_until_ms: Option<u64>,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Hash of content type and value; the entry's version.
    #[must_use]
    pub const fn etag(&self) -> Etag {
        self.header.etag
    }

    /// What the value is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.header.kind
    }

    /// The group of entries that it belongs to (see [`NewValue`](crate::NewValue)).
    #[must_use]
    pub const fn group(&self) -> u8 {
        self.header.group()
    }

    /// Whether it says that the key does not exist.
    #[must_use]
    pub const fn is_negative(&self) -> bool {
        self.header.negative
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The value.
    #[must_use]
    pub const fn value(&self) -> &'a [u8] {
        self.value
    }

    /// When it was stored, milliseconds.
    #[must_use]
    pub const fn born_ms(&self) -> u64 {
        self.born_ms
    }

    /// Until when it is fresh, milliseconds; `None` if that never ends.
    #[must_use]
    pub const fn fresh_until_ms(&self) -> Option<u64> {
        self.fresh_until_ms
    }

    /// Whole seconds since it was stored.
    #[must_use]
    pub fn age_s(&self, now: Instant) -> u32 {
        u32::try_from(now.ms().saturating_sub(self.born_ms) / 1000).unwrap_or(u32::MAX)
    }

    /// Whole seconds of freshness left, below zero once it is stale; `None` if it never ends.
    #[must_use]
    pub fn fresh_left_s(&self, now: Instant) -> Option<i32> {
        let left = |end_ms: u64| match end_ms.checked_sub(now.ms()) {
            Some(left_ms) => i32::try_from(left_ms / 1000).unwrap_or(i32::MAX),
            None => i32::try_from((now.ms() - end_ms).div_ceil(1000)).map_or(i32::MIN, |s| -s),
        };
        self.fresh_until_ms.map(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = Header {
            etag: Etag::from_bits(0x0123_4567_89ab_cdef),
            born_ms: u32::MAX,
            fresh_until_ms: 77,
            value_size: u32::try_from(VALUE_SIZE_MAX).unwrap(),
            negative: true,
            ever: false,
            key: KeyAndGroup::new(512, 63),
            kind: Kind { content_type: 255, windows: 3 },
        };
        let mut arena = [0xaa; 64];
        let at = EntryRef::at(16);
        header.write(&mut arena, at);
        assert_eq!(Header::read(&arena, at), header);
        assert_eq!(arena[15], 0xaa);
        assert_eq!(arena[16], 0xef, "little-endian");
        assert_eq!(arena[40], 0xaa);
        assert_eq!(header.entry_size() % ALIGN, 0);
        assert_eq!((header.key_size(), header.group()), (512, 63));
    }
}
