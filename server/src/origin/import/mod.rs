//! Loading a file of lines into the embedded store: all good lines become visible together.
//!
//! The file is streamed; memory is bounded by the longest line that is allowed and by the store's
//! cache. One write transaction holds the whole import: a failure before its end leaves the store
//! as it was. Bad lines are counted by reason and skipped.

mod entry;
mod lines;

pub use entry::{BadLine, Entry, EntryLimits};

use super::store::{Batch, Store, StoreFailure};
use flate2::bufread::MultiGzDecoder;
use lines::{Line, Lines};
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

/// Bytes a line may have beyond the longest value: key, content type, names, spaces.
const LINE_SLACK_SIZE: usize = 8 * 1_024;

/// How much of the file is read at once, bytes.
const READ_SIZE: usize = 64 * 1_024;

/// The first bytes of a gzip member: RFC 1952, 2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines stored.
    pub good_count: u64,
    /// Of these, how many replaced a value: of an earlier line, or of an earlier import.
    pub replaced_count: u64,
    /// Lines skipped, by reason, in the order of [`BadLine::ALL`].
    pub bad_counts: [u64; BadLine::ALL.len()],
}

impl Report {
    /// Lines skipped.
    #[must_use]
    pub fn bad_count(&self) -> u64 {
        self.bad_counts.iter().sum()
    }

    /// Lines read.
    #[must_use]
    pub fn line_count(&self) -> u64 {
        self.good_count + self.bad_count()
    }
}

/// Why an import failed; the store is as it was.
#[derive(Debug)]
pub enum ImportFailure {
    /// The compressed data ends before its end.
    Truncated,
    /// The file cannot be read, or its compressed data is damaged.
    Read(io::Error),
    /// The store cannot be written.
    Store(StoreFailure),
}

impl From<StoreFailure> for ImportFailure {
    fn from(failure: StoreFailure) -> Self {
        Self::Store(failure)
    }
}

impl From<io::Error> for ImportFailure {
    fn from(error: io::Error) -> Self {
        // Plain files end where they end; only the decompressor misses something.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Truncated;
        }
        Self::Read(error)
    }
}

impl fmt::Display for ImportFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("its compressed data ends in the middle"),
            Self::Read(error) => write!(f, "it cannot be read: {error}"),
            Self::Store(failure) => write!(f, "the store cannot be written: {failure}"),
        }
    }
}

impl std::error::Error for ImportFailure {}

/// Streams `input` (plain or gzip, told by its first bytes) into the store and commits once.
/// `bad` is told each bad line: its number, from 1, why, and what exactly is wrong.
///
/// # Errors
/// Nothing was stored: the input is truncated or unreadable, or the store cannot be written.
pub fn import(
    store: &Store,
    input: impl Read,
    limits: EntryLimits,
    bad: &mut dyn FnMut(u64, BadLine, &str),
) -> Result<Report, ImportFailure> {
    let mut input = BufReader::with_capacity(READ_SIZE, input);
    let mut batch = store.batch()?;
    let report = if input.fill_buf()?.starts_with(&GZIP_MAGIC) {
        let plain = BufReader::with_capacity(READ_SIZE, MultiGzDecoder::new(input));
        put_lines(&mut batch, plain, limits, bad)?
    } else {
        put_lines(&mut batch, input, limits, bad)?
    };
    batch.commit()?;
    Ok(report)
}

/// Puts every good line of `input` into the batch.
fn put_lines(
    batch: &mut Batch,
    input: impl BufRead,
    limits: EntryLimits,
    bad: &mut dyn FnMut(u64, BadLine, &str),
) -> Result<Report, ImportFailure> {
    let mut lines = Lines::new(input, limits.value_size_max.saturating_add(LINE_SLACK_SIZE));
    let mut report = Report::default();
    batch.put_all::<ImportFailure>(|puts| {
        loop {
            let parsed = match lines.next()? {
                Line::End => return Ok(()),
                Line::TooLong(size) => Err((BadLine::TooLong, format!("{size} bytes"))),
                Line::Text(line) => Entry::parse(line, limits),
            };
            match parsed {
                Ok(entry) => {
                    let key = entry.key.as_bytes();
                    let replaced = puts.put(key, entry.content_type, entry.ttl, entry.value())?;
                    report.good_count += 1;
                    report.replaced_count += u64::from(replaced);
                }
                Err((reason, detail)) => {
                    report.bad_counts[reason as usize] += 1;
                    bad(report.line_count(), reason, &detail);
                }
            }
        }
    })?;
    Ok(report)
}

#[cfg(test)]
mod tests;
