//! What comes back after a restart, whatever has happened to the disk meanwhile.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test")]
#![expect(clippy::unwrap_used, reason = "a test")]

use pelton::storage::{Clocks, Manifest, NotLoaded, NotSaved};
use pelton_tests::process::root;
use pelton_tests::snapshots::{Fault, World, value};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

const BEGAN: Clocks =
    Clocks { process_ms: 0, wall_ms: 1 << 40, boot_ms: 1 << 20, boot_id: [1; 16] };
const COUNT: usize = 600;

/// A world of two shards whose caches hold the first `count` keys in `version`.
fn filled(seed: u64, count: usize, version: u32) -> World {
    let world = World::new(2, seed, "", BEGAN);
    for number in 0..count {
        world.source(number, Some(version));
        assert_eq!(world.get(number), Some(value(number, version)));
    }
    world
}

/// A world of so many shards that begins a second after the other one's end, and whose origin
/// fails: what it serves was in the snapshot.
fn restarted(shards: u16, config: &str, before: &World) -> World {
    let Clocks { wall_ms, boot_ms, .. } = before.clocks();
    let began = Clocks { wall_ms: wall_ms + 1_000, boot_ms: boot_ms + 1_000, ..BEGAN };
    let world = World::new(shards, 7, config, began);
    (0..2 * COUNT).for_each(|number| world.source(number, None));
    world
}

/// How many of the keys are served, each in one of these versions.
fn served(world: &World, count: usize, versions: &[u32]) -> usize {
    let is_served = |number: &usize| match world.get(*number) {
        Some(body) => {
            let known = versions.iter().any(|version| value(*number, *version) == body);
            assert!(known, "k{number}: {}", body.escape_ascii());
            true
        }
        None => false,
    };
    (0..count).filter(is_served).count()
}

fn pages(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut pages = files.filter(|path| path.extension().is_some_and(|name| name == "pages"));
    let first = pages.next().expect("there is a file of pages");
    assert_eq!(pages.next(), None, "and one only");
    first
}

#[test]
fn a_cache_comes_back_whole_whatever_the_number_of_shards_and_whoever_owned_its_keys() {
    let crc32 = "server.owner_hash=crc32";
    for (seed, shards, config) in [(0, 2, ""), (1, 1, ""), (2, 3, ""), (3, 2, crc32), (4, 3, crc32)]
    {
        let folder = tempdir().unwrap();
        let mut before = filled(seed, COUNT, 1);
        let (saved, _) = before.save(folder.path(), Fault::None);
        assert_eq!(saved.unwrap().entries, COUNT as u64);
        let mut after = restarted(shards, config, &before);
        let loaded = after.load(folder.path()).unwrap();
        assert_eq!((loaded.entries, loaded.dropped, loaded.withdrawn), (COUNT as u64, 0, 0));
        assert_eq!(served(&after, COUNT, &[1]), COUNT);
        let restored = after.counter("pelton_snapshot_entries_total", "restored");
        assert_eq!(restored, COUNT as u64);
    }
}

#[test]
fn what_comes_back_is_stale_is_fetched_anew_and_dies_when_it_would_have() {
    let folder = tempdir().unwrap();
    let mut before = filled(0, 1, 1);
    before.save(folder.path(), Fault::None).0.unwrap();
    let mut after = restarted(2, "", &before);
    after.load(folder.path()).unwrap();
    after.source(0, Some(2));
    assert_eq!(after.get(0), Some(value(0, 1)), "served while it is fetched");
    assert_eq!(after.counter("pelton_requests_total", "stale"), 1);
    after.advance(100);
    assert_eq!(after.get(0), Some(value(0, 2)));

    let mut late = restarted(2, "", &before);
    late.load(folder.path()).unwrap();
    late.advance(601_000);
    assert_eq!(late.get(0), None, "stale_if_error is over");

    let began = Clocks { wall_ms: BEGAN.wall_ms + 700_000, ..BEGAN };
    let mut later = World::new(2, 0, "", began);
    later.source(0, None);
    later.load(folder.path()).unwrap();
    assert_eq!(later.get(0), None);
    assert_eq!(later.counter("pelton_snapshot_entries_total", "dead"), 1);
}

#[test]
fn what_was_fetched_meanwhile_stays_and_a_smaller_bound_drops_what_exceeds_it() {
    let folder = tempdir().unwrap();
    let mut before = filled(0, 30, 1);
    before.save(folder.path(), Fault::None).0.unwrap();
    let mut after = restarted(2, "cache.value_size_max=500B", &before);
    after.source(3, Some(2));
    assert_eq!(after.get(3), Some(value(3, 2)));
    after.load(folder.path()).unwrap();
    assert_eq!(after.get(3), Some(value(3, 2)));
    let small = (0..30).filter(|number| value(*number, 1).len() <= 500).count();
    assert!(small < 30);
    assert_eq!(served(&after, 30, &[1, 2]), small);
}

#[test]
fn a_snapshot_counts_whole_or_not_at_all_wherever_its_writing_fails() {
    let (_, operations) = filled(0, COUNT, 1).save(tempdir().unwrap().path(), Fault::None);
    assert!(operations >= 7, "create, append, sync, put, rename and remove: {operations}");
    for at in 0..=operations {
        for fault in [Fault::Once(at), Fault::Dead(at)] {
            let folder = tempdir().unwrap();
            let mut before = filled(0, COUNT / 2, 1);
            before.save(folder.path(), Fault::None).0.unwrap();
            for number in COUNT / 2..COUNT {
                before.source(number, Some(2));
                assert!(before.get(number).is_some());
            }
            let (saved, _) = before.save(folder.path(), fault);
            let mut after = restarted(2, "", &before);
            after.load(folder.path()).unwrap();
            let served = served(&after, COUNT, &[1, 2]);
            assert!([COUNT / 2, COUNT].contains(&served), "{fault:?}: {served}, {saved:?}");
            assert!(saved.is_err() || served == COUNT, "{fault:?}");
            // The next one is as good as if nothing had happened, and leaves no rubbish.
            assert_eq!(before.save(folder.path(), Fault::None).0.unwrap().entries, COUNT as u64);
            pages(folder.path());
        }
    }
}

/// Everything that is served from a damaged snapshot is right; how much of it was dropped.
fn drops(folder: &Path, before: &World) -> u64 {
    let mut after = restarted(2, "", before);
    let dropped = match after.load(folder) {
        Ok(loaded) => loaded.dropped,
        Err(NotLoaded::Distrusted(_) | NotLoaded::Disk(_)) => COUNT as u64,
        Err(failure) => panic!("{failure:?}"),
    };
    assert_eq!(served(&after, COUNT, &[1]) as u64 + dropped, COUNT as u64);
    dropped
}

#[test]
fn a_flipped_bit_a_cut_and_a_forged_claim_cost_what_they_hit_and_nothing_else() {
    let folder = tempdir().unwrap();
    let mut before = filled(0, COUNT, 1);
    before.save(folder.path(), Fault::None).0.unwrap();
    let (pages, manifest) = (pages(folder.path()), folder.path().join("manifest"));
    let (good_pages, good_manifest) = (fs::read(&pages).unwrap(), fs::read(&manifest).unwrap());
    assert_eq!(drops(folder.path(), &before), 0);
    for at in (0..good_pages.len()).step_by(good_pages.len() / 7) {
        let mut bad = good_pages.clone();
        bad[at] ^= 4;
        fs::write(&pages, bad).unwrap();
        let dropped = drops(folder.path(), &before);
        assert!(dropped < COUNT as u64, "a page at most");
        fs::write(&pages, &good_pages[..at]).unwrap();
        drops(folder.path(), &before);
    }
    fs::write(&pages, &good_pages).unwrap();
    for at in (0..good_manifest.len()).step_by(13) {
        let mut bad = good_manifest.clone();
        bad[at] ^= 1;
        fs::write(&manifest, &bad).unwrap();
        assert_eq!(drops(folder.path(), &before), COUNT as u64);
        fs::write(&manifest, &good_manifest[..at]).unwrap();
        assert_eq!(drops(folder.path(), &before), COUNT as u64);
    }
    // Claims with a right checksum.
    let read = Manifest::from_bytes(&good_manifest).unwrap();
    for forge in [
        |manifest: &mut Manifest| manifest.pages[0].offset = 10 << 30,
        |manifest: &mut Manifest| manifest.pages[0].offset = u64::MAX - 4095,
        |manifest: &mut Manifest| manifest.pages[0].offset += 1,
        |manifest: &mut Manifest| manifest.pages[0].size = u32::MAX,
        |manifest: &mut Manifest| manifest.pages[0].shard = 9,
        |manifest: &mut Manifest| manifest.withdrawn[0] = vec![0xff; 100],
    ] {
        let mut forged = read.clone();
        forge(&mut forged);
        fs::write(&manifest, forged.to_bytes()).unwrap();
        let dropped = drops(folder.path(), &before);
        assert!(dropped > 0);
    }
    fs::remove_file(&pages).unwrap();
    fs::write(&manifest, &good_manifest).unwrap();
    assert_eq!(drops(folder.path(), &before), COUNT as u64);
}

#[test]
fn a_load_that_never_ends_is_tried_three_times_and_again_after_the_next_snapshot() {
    let folder = tempdir().unwrap();
    let mut before = filled(0, 1, 1);
    before.save(folder.path(), Fault::None).0.unwrap();
    fs::write(folder.path().join("loading"), "..").unwrap();
    assert!(restarted(2, "", &before).load(folder.path()).is_ok());
    fs::write(folder.path().join("loading"), "...").unwrap();
    let failure = restarted(2, "", &before).load(folder.path());
    assert!(matches!(failure, Err(NotLoaded::Feared)), "{failure:?}");
    before.save(folder.path(), Fault::None).0.unwrap();
    assert!(restarted(2, "", &before).load(folder.path()).is_ok());
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    let folder = tempdir().unwrap();
    let (saved, _) = filled(0, 1, 1).save(folder.path(), Fault::Once(1));
    let Err(NotSaved::Disk(error)) = saved else { panic!("{saved:?}") };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

/// What version 1 wrote: the first 20 keys in version 1, by two shards.
const GOLDEN: &str = "tests/testdata/snapshot-v1";

#[test]
fn a_snapshot_of_format_version_1_is_read() {
    let folder = tempdir().unwrap();
    for file in fs::read_dir(root().join(GOLDEN)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let mut after = World::new(3, 7, "", BEGAN);
    (0..20).for_each(|number| after.source(number, None));
    let loaded = after.load(folder.path()).unwrap();
    assert_eq!((loaded.entries, loaded.dropped), (20, 0));
    assert_eq!(served(&after, 20, &[1]), 20);
}

#[test]
#[ignore = "writes the golden files of a new format version"]
fn write_golden_files() {
    let folder = root().join(GOLDEN);
    filled(0, 20, 1).save(&folder, Fault::None).0.unwrap();
    fs::remove_file(folder.join("lock")).unwrap();
}
