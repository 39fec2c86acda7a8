//! Whole imports into a store of their own.

use super::super::store::{Store, StoreOptions};
use super::*;
use crate::mesh::Held;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

const LIMITS: EntryLimits = EntryLimits { key_size_max: 512, value_size_max: 1_000 };

struct Fixture {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.redb");
        let store = Store::open(&StoreOptions { path, cache_bytes: 4 << 20 }).expect("opens");
        Self { _folder: folder, store }
    }

    fn import(&self, input: impl Read) -> Result<(Report, Vec<(u64, BadLine)>), ImportFailure> {
        let mut bad = Vec::new();
        let report = import(&self.store, input, LIMITS, &mut |number, reason, _| {
            bad.push((number, reason));
        })?;
        Ok((report, bad))
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        let records = self.store.read().expect("reads");
        let found = records.get(key.as_bytes(), usize::MAX, |_| Held::default()).expect("read");
        found.map(|found| found.value.into())
    }
}

fn line(key: &str, value: &str) -> String {
    format!("{{\"key\":\"{key}\",\"value\":{value}}}\n")
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("compressed");
    encoder.finish().expect("compressed")
}

#[test]
fn good_lines_are_kept_and_bad_ones_told_by_number_and_reason() {
    let fixture = Fixture::new();
    let mut input = line("a", "1").into_bytes();
    input.extend_from_slice(b"\n{\"key\":\nnot json\n\xff\xfe\n");
    input.extend_from_slice(line("b", &format!("\"{}\"", "x".repeat(1_000))).as_bytes());
    input.extend_from_slice(line("c", "3").trim_end().as_bytes());
    let (report, bad) = fixture.import(&input[..]).expect("imported");
    let wanted = [
        (2, BadLine::Empty),
        (3, BadLine::NotJson),
        (4, BadLine::NotJson),
        (5, BadLine::NotUtf8),
        (6, BadLine::ValueTooLarge),
    ];
    assert_eq!(bad, wanted);
    assert_eq!((report.good_count, report.bad_count(), report.line_count()), (2, 5, 7));
    assert_eq!(report.bad_counts[BadLine::NotJson as usize], 2);
    assert_eq!(fixture.value("a").as_deref(), Some(&b"1"[..]));
    assert_eq!(fixture.value("c").as_deref(), Some(&b"3"[..]));
    assert_eq!(fixture.value("b"), None);
}

#[test]
fn a_line_that_is_too_long_is_skipped_and_the_next_one_kept() {
    let fixture = Fixture::new();
    let long = io::repeat(b'x').take(32 << 20);
    let (first, last) = (line("a", "1"), line("z", "26"));
    let input = first.as_bytes().chain(long).chain(&b"\n"[..]).chain(last.as_bytes());
    let (report, bad) = fixture.import(input).expect("imported");
    assert_eq!(bad, [(2, BadLine::TooLong)]);
    assert_eq!(report.good_count, 2);
    assert_eq!(fixture.value("z").as_deref(), Some(&b"26"[..]));
}

#[test]
fn the_last_of_equal_keys_wins_and_an_import_can_be_repeated() {
    let fixture = Fixture::new();
    let input = line("a", "1") + &line("b", "2") + &line("a", "3");
    for replaced_count in [1, 3] {
        let (report, _) = fixture.import(input.as_bytes()).expect("imported");
        assert_eq!((report.good_count, report.replaced_count), (3, replaced_count));
        assert_eq!(fixture.value("a").as_deref(), Some(&b"3"[..]));
        assert_eq!(fixture.store.count().expect("counts"), 2);
    }
}

#[test]
fn several_gzip_members_are_one_file() {
    let fixture = Fixture::new();
    let mut input = gzip(&line("a", "1"));
    input.extend(gzip(&line("b", "2")));
    assert_eq!(fixture.import(&input[..]).expect("imported").0.good_count, 2);
    assert_eq!(fixture.value("b").as_deref(), Some(&b"2"[..]));
}

#[test]
fn truncated_or_damaged_gzip_leaves_the_store_as_it_was() {
    let fixture = Fixture::new();
    fixture.import(line("old", "1").as_bytes()).expect("imported");
    let text: String = (0..2_000).map(|n| line(&format!("k{n}"), &n.to_string())).collect();
    let whole = gzip(&text);
    for len in [3, 10, whole.len() / 2, whole.len() - 1] {
        let failure = fixture.import(&whole[..len]).expect_err("truncated");
        assert!(matches!(failure, ImportFailure::Truncated), "{len}: {failure:?}");
    }
    let mut damaged = whole.clone();
    let last = damaged.len() - 5;
    damaged[last] ^= 1;
    let failure = fixture.import(&damaged[..]).expect_err("damaged");
    assert!(matches!(failure, ImportFailure::Read(_)), "{failure:?}");
    assert_eq!(fixture.store.count().expect("counts"), 1);
    assert_eq!(fixture.value("old").as_deref(), Some(&b"1"[..]));
}

#[test]
fn an_empty_file_is_no_lines() {
    let report = Fixture::new().import(io::empty()).expect("imported").0;
    assert_eq!(report, Report::default());
}
