//! What a snapshot's files may hold: anything. What is read from them is written back as it was.

use pelton::mesh::Page;
use pelton::storage::{Manifest, VERSION};
use xxhash_rust::xxh3::xxh3_64;

/// The first byte says what the others are: the tables of a manifest, whose header is made right, a
/// whole manifest, or a page.
///
/// # Panics
/// If what was read is written otherwise.
pub fn snapshot(input: &[u8]) {
    let Some((what, bytes)) = input.split_first() else { return };
    match what % 3 {
        0 => manifest(&with_header(bytes)),
        1 => manifest(bytes),
        _ => page(bytes),
    }
}

fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::from_bytes(bytes) else { return };
    assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
}

/// Tables with the header that belongs to them.
fn with_header(tables: &[u8]) -> Vec<u8> {
    let words = [u64::from(VERSION), tables.len() as u64, xxh3_64(tables)];
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    let mut bytes: Vec<u8> = b"PLTNSNAP".iter().copied().chain(words).collect();
    bytes.resize(64, 0);
    bytes.extend(tables);
    bytes
}

fn page(bytes: &[u8]) {
    let mut read = Page::new(bytes.len());
    read.refill(bytes.len()).expect("made as large").copy_from_slice(bytes);
    let (mut written, mut count) = (Page::new(bytes.len()), 0);
    while let Some(Ok(record)) = read.next_record() {
        assert!(written.push(&record), "a record takes what it took");
        count += 1;
    }
    let again = written.bytes().to_vec();
    read.refill(bytes.len()).expect("made as large").copy_from_slice(bytes);
    for _ in 0..count {
        assert_eq!(written.next_record(), read.next_record());
    }
    assert_eq!(written.next_record(), None);
    assert_eq!(written.bytes(), again);
}
