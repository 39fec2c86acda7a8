//! One record of the embedded store as bytes.
//!
//! ```text
//! byte  0        version, 1
//!       1        flags: bit 0 = a ttl follows the content type, bit 1 = the value was checked to
//!                be JSON, bits 2 and 3 = a stale window follows; the others are 0
//!       2        size of the content type, 1 to 63
//!       3 ..     content type, ASCII
//!       .. + 8   ttl, milliseconds, little endian (only with bit 0)
//!       .. + 8   stale-while-revalidate, milliseconds, little endian (only with bit 2)
//!       .. + 8   stale-if-error, milliseconds, little endian (only with bit 3)
//!       ..       value, to the end
//! ```
//!
//! A file may be damaged, so reading checks everything and answers `None` instead of a record.

use crate::mesh::{ContentType, Stale};
use shard_cache::hash::Etag;
use std::time::Duration;

/// The only version so far. Another one is refused, never guessed at.
const VERSION: u8 = 1;

/// Flag: this record has its own ttl.
const HAS_TTL: u8 = 1;

/// Flag: the value was checked to be JSON.
const IS_CHECKED_JSON: u8 = 2;

/// Flag: this record says how long it is served while it is fetched again.
const HAS_WHILE_REVALIDATE: u8 = 4;

/// Flag: this record says how long it is served while the origin fails.
const HAS_IF_ERROR: u8 = 8;

const FLAGS: u8 = HAS_TTL | IS_CHECKED_JSON | HAS_WHILE_REVALIDATE | HAS_IF_ERROR;

/// A record, borrowed from wherever it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// What the value is.
    pub(crate) content_type: ContentType,
    /// How long it is fresh once fetched; `None` until it is replaced.
    pub(crate) ttl: Option<Duration>,
    /// How long it may be served after that.
    pub(crate) stale: Stale,
    /// The value.
    pub(crate) value: &'a [u8],
}

impl<'a> Record<'a> {
    /// The tag of its value.
    pub(crate) fn etag(&self) -> Etag {
        Etag::of(self.content_type.as_str(), self.value)
    }

    /// Appends the record's bytes to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let content_type = self.content_type.as_str();
        let size = u8::try_from(content_type.len()).expect("a content type is at most 63 bytes");
        let Stale { while_revalidate, if_error } = self.stale;
        let times = [
            (self.ttl, HAS_TTL),
            (while_revalidate, HAS_WHILE_REVALIDATE),
            (if_error, HAS_IF_ERROR),
        ];
        let mut flags = u8::from(self.content_type.is_checked_json()) * IS_CHECKED_JSON;
        for (time, flag) in times {
            flags |= u8::from(time.is_some()) * flag;
        }
        out.extend_from_slice(&[VERSION, flags, size]);
        out.extend_from_slice(content_type.as_bytes());
        for time in times.iter().filter_map(|(time, _)| *time) {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            out.extend_from_slice(&ms.to_le_bytes());
        }
        out.extend_from_slice(self.value);
    }

    /// Reads a record; `None` if `bytes` are none.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, flags, size], rest) = bytes.split_first_chunk()?;
        if version != VERSION || flags & !FLAGS != 0 {
            return None;
        }
        let (content_type, rest) = rest.split_at_checked(usize::from(size))?;
        let content_type = ContentType::new(std::str::from_utf8(content_type).ok()?)?;
        let is_checked = flags & IS_CHECKED_JSON != 0;
        let content_type = if is_checked { content_type.checked_json() } else { content_type };
        let (ttl, rest) = read_time(flags & HAS_TTL != 0, rest)?;
        let (while_revalidate, rest) = read_time(flags & HAS_WHILE_REVALIDATE != 0, rest)?;
        let (if_error, value) = read_time(flags & HAS_IF_ERROR != 0, rest)?;
        let stale = Stale { while_revalidate, if_error };
        Some(Self { content_type, ttl, stale, value })
    }
}

/// A time, if it is there, and what follows it.
fn read_time(is_there: bool, bytes: &[u8]) -> Option<(Option<Duration>, &[u8])> {
    if !is_there {
        return Some((None, bytes));
    }
    let (ms, rest) = bytes.split_first_chunk()?;
    Some((Some(Duration::from_millis(u64::from_le_bytes(*ms))), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            content_type in "[!-~]{1,63}",
            is_checked in any::<bool>(),
            times_ms in any::<[Option<u64>; 3]>(),
            value in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let content_type = ContentType::new(&content_type).expect("follows the rule");
            let times = times_ms.map(|ms| ms.map(Duration::from_millis));
            let [ttl, while_revalidate, if_error] = times;
            let record = Record {
                content_type: if is_checked { content_type.checked_json() } else { content_type },
                ttl,
                stale: Stale { while_revalidate, if_error },
                value: &value,
            };
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            prop_assert_eq!(Record::read(&bytes), Some(record));
        }

        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            if let Some(record) = Record::read(&bytes) {
                let mut again = Vec::new();
                record.write(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn records_of_earlier_programs_are_read() {
        let stale = Stale::default();
        let record = |content_type, ttl| Some(Record { content_type, ttl, stale, value: b"{}" });
        let json = ContentType::JSON;
        let bare = b"\x01\x00\x10application/json{}";
        assert_eq!(Record::read(bare), record(json, None));
        let with_ttl = b"\x01\x01\x10application/json\x07\0\0\0\0\0\0\0{}";
        assert_eq!(Record::read(with_ttl), record(json, Some(Duration::from_millis(7))));
        let checked = b"\x01\x02\x10application/json{}";
        assert_eq!(Record::read(checked), record(json.checked_json(), None));
    }

    #[test]
    fn cut_or_foreign_records_are_refused() {
        let mut bytes = Vec::new();
        let ttl = Some(Duration::from_secs(1));
        let stale = Stale { while_revalidate: ttl, if_error: ttl };
        Record { content_type: ContentType::JSON, ttl, stale, value: b"" }.write(&mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(Record::read(&bytes[..len]), None, "cut to {len} bytes");
        }
        bytes[0] = 2;
        assert_eq!(Record::read(&bytes), None, "another version");
    }
}
