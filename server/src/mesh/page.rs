//! A page of a snapshot: records one after the other, written by a shard and read by one.
//!
//! ```text
//! 0           4         6    7      8              16       24          32
//! [ value size ][ key size ][ tag ][ flags ][ etag or hash ][ born or until ][ fresh until ]
//! 32               33           40
//! [ type's size ][ zero         ][ stale windows ][ content type ][ key ][ value ] pad to 8
//! ```
//!
//! All numbers are little-endian. Times are milliseconds on the clock of the process that wrote
//! them; *fresh until* is all ones where freshness never ends. The low two bits of the *flags* are
//! the frequency, the third says that the entry has proved itself, the fourth that its value was
//! checked to be JSON, the fifth that it has *stale windows* of its own: 4 bytes each, which are
//! not there otherwise. A page from a disk may hold anything: what is no record is an error, never
//! a panic.

use super::ContentType;
use shard_cache::hash::{Etag, KeyHash};
use shard_cache::{Saved, StaleWindows, Withdrawn};

/// Pages are written at multiples of this, and their memory is a multiple of it: a block of every
/// disk there is.
pub const PAGE_ALIGN: usize = 4_096;

const HEADER_SIZE: usize = 40;
const ALIGN: usize = 8;
const FOR_EVER: u64 = u64::MAX;

const WINDOWS_SIZE: usize = 8;

const ENTRY: u8 = 1;
const REMOVED: u8 = 2;
const EVERYTHING: u8 = 3;
const PREFIX: u8 = 4;
const GROUP: u8 = 5;

const FLAG_FREQUENCY: u8 = 3;
const FLAG_PROVEN: u8 = 4;
const FLAG_CHECKED_JSON: u8 = 8;
const FLAG_WINDOWS: u8 = 16;
const FLAGS: u8 = FLAG_FREQUENCY | FLAG_PROVEN | FLAG_CHECKED_JSON | FLAG_WINDOWS;

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An entry, and what it is. The index of its content type means nothing outside its shard,
    /// and is 0 where it was read.
    Entry(Saved<'a>, ContentType),
    /// What must not come back.
    Withdrawn(Withdrawn<'a>),
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRecord;

/// Bytes of the record of an entry.
#[must_use]
pub const fn record_size(content_type_size: usize, key_size: usize, value_size: usize) -> usize {
    (HEADER_SIZE + content_type_size + key_size + value_size).next_multiple_of(ALIGN)
}

/// Memory for records.
#[derive(Debug)]
pub struct Page {
    bytes: Box<[u8]>,
    used: usize,
    /// Where reading goes on.
    read: usize,
}

impl Page {
    /// An empty page with room for `size` bytes, rounded up to [`PAGE_ALIGN`].
    #[must_use]
    pub fn new(size: usize) -> Self {
        let bytes = vec![0; size.next_multiple_of(PAGE_ALIGN)].into_boxed_slice();
        Self { bytes, used: 0, read: 0 }
    }

    /// Forgets its records.
    pub const fn clear(&mut self) {
        self.used = 0;
        self.read = 0;
    }

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Its records.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Its records, and zeroes up to a multiple of [`PAGE_ALIGN`].
    pub fn padded(&mut self) -> &[u8] {
        let size = self.used.next_multiple_of(PAGE_ALIGN);
        self.bytes[self.used..size].fill(0);
        &self.bytes[..size]
    }

    /// Bytes that it has room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Keeps the first `used` bytes of its records.
    pub fn truncate(&mut self, used: usize) {
        self.used = self.used.min(used);
    }

    /// Its memory, of which the first `used` bytes are to be filled with records; `None` if there
    /// is not as much.
    pub fn refill(&mut self, used: usize) -> Option<&mut [u8]> {
        self.clear();
        let room = self.bytes.get_mut(..used)?;
        self.used = used;
        Some(room)
    }

    /// Appends a record. Returns `false` if there is no room for it.
    #[must_use]
    pub fn push(&mut self, record: &Record<'_>) -> bool {
        let (name, key, value): (&[u8], &[u8], &[u8]) = match record {
            Record::Entry(saved, content_type) => {
                (content_type.as_str().as_bytes(), saved.key, saved.value)
            }
            Record::Withdrawn(Withdrawn::Prefix { prefix, .. }) => (&[], prefix, &[]),
            Record::Withdrawn(_) => (&[], &[], &[]),
        };
        let windows = match record {
            Record::Entry(saved, _) => saved.windows,
            Record::Withdrawn(_) => None,
        };
        let extra = if windows.is_some() { WINDOWS_SIZE } else { 0 };
        let size = extra + record_size(name.len(), key.len(), value.len());
        let Some(bytes) = self.bytes[self.used..].get_mut(..size) else { return false };
        self.used += size;
        let (tag, flags, words) = words(record);
        let value_size = u32::try_from(value.len()).expect("a value is at most 256 MiB");
        let key_size = u16::try_from(key.len()).expect("a key is at most 512 bytes");
        bytes[..4].copy_from_slice(&value_size.to_le_bytes());
        bytes[4..6].copy_from_slice(&key_size.to_le_bytes());
        (bytes[6], bytes[7]) = (tag, flags);
        for (at, word) in [8, 16, 24].into_iter().zip(words) {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..HEADER_SIZE].fill(0);
        bytes[32] = u8::try_from(name.len()).expect("a content type is at most 63 bytes");
        let mut rest = &mut bytes[HEADER_SIZE..];
        if let Some(StaleWindows { while_revalidate_ms, if_error_ms }) = windows {
            rest[..4].copy_from_slice(&while_revalidate_ms.to_le_bytes());
            rest[4..WINDOWS_SIZE].copy_from_slice(&if_error_ms.to_le_bytes());
            rest = &mut rest[WINDOWS_SIZE..];
        }
        for part in [name, key, value] {
            let (here, after) = rest.split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
        }
        rest.fill(0);
        true
    }

    /// The next record, `None` at the end.
    pub fn next_record(&mut self) -> Option<Result<Record<'_>, NoRecord>> {
        let bytes = &self.bytes[self.read..self.used];
        if bytes.is_empty() {
            return None;
        }
        let (record, size) = match parse(bytes) {
            Some((record, size)) => (Ok(record), size),
            None => (Err(NoRecord), bytes.len()),
        };
        self.read += size;
        Some(record)
    }
}

/// Tag, flags and the three words of a record's header.
const fn words(record: &Record<'_>) -> (u8, u8, [u64; 3]) {
    match record {
        Record::Entry(saved, content_type) => {
            let is_checked = content_type.is_checked_json();
            let flags = saved.frequency
                | if saved.proven { FLAG_PROVEN } else { 0 }
                | if is_checked { FLAG_CHECKED_JSON } else { 0 }
                | if saved.windows.is_some() { FLAG_WINDOWS } else { 0 };
            let fresh_until_ms = match saved.fresh_until_ms {
                Some(end_ms) => end_ms,
                None => FOR_EVER,
            };
            (ENTRY, flags, [saved.etag.bits(), saved.born_ms, fresh_until_ms])
        }
        Record::Withdrawn(withdrawn) => match withdrawn {
            Withdrawn::Removed(hash) => (REMOVED, 0, [hash.bits(), 0, 0]),
            Withdrawn::Everything { until_ms } => (EVERYTHING, 0, [0, *until_ms, 0]),
            Withdrawn::Prefix { until_ms, .. } => (PREFIX, 0, [0, *until_ms, 0]),
            Withdrawn::Group { name, until_ms } => (GROUP, 0, [name.bits(), *until_ms, 0]),
        },
    }
}

/// The stale windows of an entry, where there are bytes of them.
fn parse_windows(bytes: &[u8]) -> Option<StaleWindows> {
    let (while_revalidate, if_error) = bytes.split_first_chunk()?;
    Some(StaleWindows {
        while_revalidate_ms: u32::from_le_bytes(*while_revalidate),
        if_error_ms: u32::from_le_bytes(*if_error.first_chunk()?),
    })
}

/// The record that `bytes` begin with, and its size.
fn parse(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let header: &[u8; HEADER_SIZE] = bytes.first_chunk()?;
    let word = |at: usize| header[at..].first_chunk().map(|word| u64::from_le_bytes(*word));
    let value_size = u32::from_le_bytes(*header.first_chunk()?) as usize;
    let key_size = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let (tag, flags) = (header[6], header[7]);
    let name_size = usize::from(header[32]);
    let extra = if flags & FLAG_WINDOWS == 0 { 0 } else { WINDOWS_SIZE };
    let size = extra + record_size(name_size, key_size, value_size);
    let (windows, rest) = bytes.get(HEADER_SIZE..size)?.split_at(extra);
    let (name, rest) = rest.split_at(name_size);
    let (key, rest) = rest.split_at(key_size);
    let value = &rest[..value_size];
    let hash = KeyHash::from_bits(word(8)?);
    let until_ms = word(16)?;
    let is_bare = flags == 0 && name_size == 0 && value_size == 0;
    let record = match tag {
        ENTRY if !key.is_empty() && flags & !FLAGS == 0 => {
            let content_type = ContentType::new(std::str::from_utf8(name).ok()?)?;
            let is_checked = flags & FLAG_CHECKED_JSON != 0;
            let content_type = if is_checked { content_type.checked_json() } else { content_type };
            let fresh_until_ms = Some(word(24)?).filter(|end_ms| *end_ms != FOR_EVER);
            let saved = Saved {
                etag: Etag::from_bits(word(8)?),
                content_type: 0,
                windows: parse_windows(windows),
                frequency: flags & FLAG_FREQUENCY,
                proven: flags & FLAG_PROVEN != 0,
                born_ms: word(16)?,
                fresh_until_ms,
                key,
                value,
            };
            Record::Entry(saved, content_type)
        }
        REMOVED if is_bare && key_size == 0 => Record::Withdrawn(Withdrawn::Removed(hash)),
        EVERYTHING if is_bare && key_size == 0 => {
            Record::Withdrawn(Withdrawn::Everything { until_ms })
        }
        PREFIX if is_bare => Record::Withdrawn(Withdrawn::Prefix { prefix: key, until_ms }),
        GROUP if is_bare && key_size == 0 => {
            Record::Withdrawn(Withdrawn::Group { name: hash, until_ms })
        }
        _ => return None,
    };
    Some((record, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &[u8], fresh_until_ms: Option<u64>) -> Record<'_> {
        let saved = Saved {
            etag: Etag::from_bits(u64::MAX - 5),
            content_type: 0,
            windows: None,
            frequency: 2,
            proven: true,
            born_ms: 77,
            fresh_until_ms,
            key: b"key",
            value,
        };
        Record::Entry(saved, ContentType::JSON)
    }

    #[test]
    fn records_survive_their_bytes() {
        let hash = KeyHash::from_bits(0x0123_4567_89ab_cdef);
        let Record::Entry(saved, content_type) = entry(b"{}", None) else { unreachable!() };
        let checked = Record::Entry(saved, content_type.checked_json());
        let windows = Some(StaleWindows { while_revalidate_ms: 7, if_error_ms: u32::MAX });
        let own = Record::Entry(Saved { windows, ..saved }, content_type);
        let records = [
            entry(b"", None),
            entry(b"value", Some(5)),
            checked,
            own,
            Record::Withdrawn(Withdrawn::Removed(hash)),
            Record::Withdrawn(Withdrawn::Everything { until_ms: 1 }),
            Record::Withdrawn(Withdrawn::Prefix { prefix: b"user:", until_ms: 2 }),
            Record::Withdrawn(Withdrawn::Group { name: hash, until_ms: 3 }),
        ];
        let mut page = Page::new(1);
        for _ in 0..2 {
            page.clear();
            assert!(records.iter().all(|record| page.push(record)));
            let bytes = page.bytes().to_vec();
            for record in &records {
                assert_eq!(page.next_record(), Some(Ok(*record)));
            }
            assert_eq!(page.next_record(), None);
            page.refill(bytes.len()).unwrap().copy_from_slice(&bytes);
            assert_eq!(page.next_record(), Some(Ok(records[0])));
        }
    }

    #[test]
    fn a_full_page_takes_no_more_and_stays_as_it_was() {
        let mut page = Page::new(1);
        let value = [1; 1_000];
        while page.push(&entry(&value, None)) {}
        let before = page.bytes().to_vec();
        assert!(before.len() > PAGE_ALIGN - record_size(16, 3, 1_000));
        assert!(!page.push(&entry(&value, None)));
        assert_eq!(page.bytes(), before);
        assert_eq!(page.refill(PAGE_ALIGN + 1), None);
    }

    #[test]
    fn no_single_change_of_a_header_panics_or_reads_beyond_the_page() {
        let mut page = Page::new(1);
        assert!(page.push(&entry(b"value", None)) && page.push(&entry(b"other", Some(9))));
        let good = page.bytes().to_vec();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                page.refill(bad.len()).unwrap().copy_from_slice(&bad);
                while page.next_record().is_some() {}
            }
        }
        for size in 0..good.len() {
            page.refill(size).unwrap().copy_from_slice(&good[..size]);
            while page.next_record().is_some() {}
        }
    }
}
