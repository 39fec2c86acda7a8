//! One record of the embedded store as bytes.
//!
//! ```text
//! byte  0        version, 1
//!       1        flags: bit 0 = a ttl follows the content type; the others are 0
//!       2        size of the content type, 1 to 63
//!       3 ..     content type, ASCII
//!       .. + 8   ttl, milliseconds, little endian (only with bit 0)
//!       ..       value, to the end
//! ```
//!
//! A file may be damaged, so reading checks everything and answers `None` instead of a record.

use crate::mesh::ContentType;
use std::time::Duration;

/// The only version so far. Another one is refused, never guessed at.
const VERSION: u8 = 1;

/// Flag: this record has its own ttl.
const HAS_TTL: u8 = 1;

/// A record, borrowed from wherever it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// What the value is.
    pub(crate) content_type: ContentType,
    /// How long it is fresh once fetched; `None` until it is replaced.
    pub(crate) ttl: Option<Duration>,
    /// The value.
    pub(crate) value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Appends the record's bytes to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let content_type = self.content_type.as_str();
        let size = u8::try_from(content_type.len()).expect("a content type is at most 63 bytes");
        out.extend_from_slice(&[VERSION, u8::from(self.ttl.is_some()) * HAS_TTL, size]);
        out.extend_from_slice(content_type.as_bytes());
        if let Some(ttl) = self.ttl {
            let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            out.extend_from_slice(&ms.to_le_bytes());
        }
        out.extend_from_slice(self.value);
    }

    /// Reads a record; `None` if `bytes` are none.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, flags, size], rest) = bytes.split_first_chunk()?;
        if version != VERSION || flags & !HAS_TTL != 0 {
            return None;
        }
        let (content_type, rest) = rest.split_at_checked(usize::from(size))?;
        let content_type = ContentType::new(std::str::from_utf8(content_type).ok()?)?;
        let (ttl, value) = if flags & HAS_TTL == 0 {
            (None, rest)
        } else {
            let (ms, value) = rest.split_first_chunk()?;
            (Some(Duration::from_millis(u64::from_le_bytes(*ms))), value)
        };
        Some(Self { content_type, ttl, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            content_type in "[!-~]{1,63}",
            ttl_ms in proptest::option::of(any::<u64>()),
            value in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let record = Record {
                content_type: ContentType::new(&content_type).expect("follows the rule"),
                ttl: ttl_ms.map(Duration::from_millis),
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
    fn cut_or_foreign_records_are_refused() {
        let mut bytes = Vec::new();
        let ttl = Some(Duration::from_secs(1));
        Record { content_type: ContentType::JSON, ttl, value: b"" }.write(&mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(Record::read(&bytes[..len]), None, "cut to {len} bytes");
        }
        bytes[0] = 2;
        assert_eq!(Record::read(&bytes), None, "another version");
    }
}
