//! The races of a cache before an origin that others change, a test each: `docs/freshness.md` says
//! how each is closed. Those that take a real Redis are under `peers`.
//!
//! A race is run by steps: the origin has read a value and not yet answered, something happens, the
//! answer lands. It is run in several worlds, each with other faults of the kernel.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton::mesh::{Key, Named};
use pelton::storage::Clocks;
use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::http_origin::HttpOrigin;
use pelton_tests::process::{Process, root};
use pelton_tests::snapshots::{self, World, value};
use pelton_tests::wire::{SimulatorStage, Source, Stage};
use shard_cache::Force;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Worlds in which each race is run; the first one has a kernel on its best day.
const WORLDS: u64 = 8;

/// Runs a race in all worlds.
fn run(sets: &[&str], race: impl Fn(&mut SimulatorStage)) {
    for seed in 0..WORLDS {
        race(&mut SimulatorStage::of_steps(sets, seed));
    }
}

/// Everybody sees this value from now on, and it took so many fetches in all.
fn expect(world: &mut SimulatorStage, key: &str, value: &str, fetches: u64) {
    for shard in [0, 1, 0] {
        assert_eq!(world.get(shard, key), (200, value.to_owned()));
    }
    assert_eq!(world.counter("pelton_origin_fetches_total", "", fetches), fetches);
}

fn body(world: &mut SimulatorStage, client: usize) -> String {
    let Reply { status, body, .. } = world.reply(client);
    assert_eq!(status, 200);
    String::from_utf8(body).unwrap()
}

/// Somebody asks for a key, the origin reads its value, and then has another one; the answer is
/// held.
fn ask_before_a_change(world: &mut SimulatorStage, key: &str) -> usize {
    world.has(key, "1");
    world.hold(true);
    let client = world.ask(0, key);
    world.wait_for_fetches(1);
    world.read_now();
    world.has(key, "2");
    client
}

/// The one fetch under way is for whoever has asked already, and for nobody else.
fn is_void(world: &mut SimulatorStage, key: &str, before: usize) {
    let after = world.ask(1, key);
    world.wait_for_fetches(2);
    world.land_one(0);
    assert_eq!(body(world, before), "1", "it had asked before");
    let third = world.ask(0, key);
    world.advance(100);
    world.hold(false);
    assert_eq!([body(world, after), body(world, third)], ["2", "2"]);
    expect(world, key, "2", 2);
}

fn requests(world: &mut SimulatorStage, outcome: &str) -> u64 {
    world.counter("pelton_requests_total", &format!("outcome=\"{outcome}\""), 0)
}

#[test]
fn r01_many_misses_of_a_key_are_one_fetch() {
    run(&["origin.flight_waiters_max=30"], |world| {
        world.has("k", "1");
        world.hold(true);
        let clients: Vec<_> = (0..40).map(|number| world.ask(number % 2, "k")).collect();
        world.advance(100);
        world.wait_for_fetches(1);
        assert_eq!(requests(world, "shed"), 10, "they are refused before the origin has answered");
        world.hold(false);
        let replies = clients.into_iter().map(|client| world.reply(client).status);
        let refused = replies.filter(|status| *status == 503).count();
        assert_eq!(refused, 10);
        expect(world, "k", "1", 1);
    });
}

#[test]
fn r02_what_was_read_before_a_change_is_not_kept_after_it() {
    run(&[], |world| {
        let before = ask_before_a_change(world, "k");
        world.tell("k");
        world.settle();
        world.hold(false);
        assert_eq!(body(world, before), "1", "it had asked before");
        expect(world, "k", "2", 2);
    });
}

#[test]
fn r03_what_was_read_before_a_purge_is_not_kept_after_it() {
    let key = |text: &str| Key::new(text.as_bytes()).unwrap();
    for named in [
        Named::Key(key("group:k")),
        Named::Prefix(key("gr")),
        Named::Group(key("group")),
        Named::Everything,
    ] {
        for force in [Force::Hard, Force::Soft] {
            run(&[], |world| {
                let before = ask_before_a_change(world, "group:k");
                world.purge(&named, force);
                world.settle();
                is_void(world, "group:k", before);
            });
        }
    }
}

#[test]
fn r05_the_answer_of_a_fetch_that_was_given_up_lands_last_and_is_not_kept() {
    run(&[], |world| {
        let before = ask_before_a_change(world, "k");
        world.tell("k");
        world.settle();
        let after = world.ask(1, "k");
        world.wait_for_fetches(2);
        world.land_one(1);
        assert_eq!(body(world, after), "2");
        world.hold(false);
        assert_eq!(body(world, before), "2", "nobody is shown what is older any more");
        expect(world, "k", "2", 2);
    });
}

/// Lets one shard turn alone until a counter of all says so.
fn turn_until(world: &mut SimulatorStage, shard: usize, name: &str, count: u64) {
    for _ in 0..100 {
        world.turn_alone(shard);
        if world.counter(name, "", count) >= count {
            // What it has sent is on its way after the next turn.
            return world.turn_alone(shard);
        }
    }
    panic!("{name} never comes to {count}");
}

#[test]
fn r06_a_copy_on_its_way_to_another_shard_does_not_outlive_a_change() {
    // With less there are no copies.
    run(&["cache.memory=64MiB"], |world| {
        world.has("k", "1");
        let owner = world.owner("k");
        let other = 1 - owner;
        assert_eq!(world.get(other, "k").1, "1");
        // The second read of another shard's key brings a copy.
        let reader = world.ask(other, "k");
        turn_until(world, other, "pelton_remote_reads_total", 2);
        turn_until(world, owner, "pelton_replica_grants_total", 1);
        assert_eq!(world.counter("pelton_replica_stored_total", "", 0), 0, "it is on its way");
        world.has("k", "2");
        world.tell("k");
        turn_until(world, owner, "pelton_replica_invalidations_total", 1);
        assert_eq!(body(world, reader), "1", "it had asked before");
        assert_eq!(world.counter("pelton_replica_stored_total", "", 1), 1);
        world.settle();
        for shard in [other, other, other, owner] {
            assert_eq!(world.get(shard, "k").1, "2");
        }
        assert!(world.counter("pelton_replica_hits_total", "", 1) > 0, "there is another copy");
    });
}

#[test]
fn r07_what_is_being_sent_stays_whole_when_it_is_purged_and_its_place_is_wanted() {
    run(&["http.write_timeout=1h"], |world| {
        let large = |letter: &str| format!("\"{}\"", letter.repeat(600_000));
        world.has("k", &large("k"));
        let owner = world.owner("k");
        let reader = world.ask_slowly(owner, "k", 10_000);
        world.advance(100);
        world.purge(&Named::Everything, Force::Hard);
        world.settle();
        let evicted = |world: &mut SimulatorStage| {
            world.counter("pelton_cache_evictions_total", "capacity", 0)
        };
        let mut number = 0;
        while evicted(world) < 50 {
            number += 1;
            let key = format!("other-{number}");
            world.has(&key, &large("x"));
            assert_eq!(world.get(owner, &key).0, 200);
        }
        assert!(body(world, reader) == large("k"), "another value shows");
    });
}

#[test]
fn r08_a_change_that_is_told_before_an_older_answer_comes_voids_it() {
    run(&[], |world| {
        world.has("k", "1");
        world.hold(true);
        let before = world.ask(0, "k");
        world.wait_for_fetches(1);
        world.tell("k");
        world.settle();
        // The connection for values is behind the one that tells.
        world.read_now();
        world.has("k", "2");
        is_void(world, "k", before);
    });
}

#[test]
fn r13_what_was_read_before_a_write_of_ours_is_not_kept_after_it() {
    run(&["http.writes=true"], |world| {
        for (key, written, status) in [("put", Some("2"), 204), ("gone", None, 204)] {
            world.has(key, "1");
            world.hold(true);
            let before = world.ask(0, key);
            world.wait_for_fetches(1);
            world.read_now();
            let writer = world.change(1, key, written);
            world.advance(100);
            // The write is done, then the answer lands.
            world.hold(false);
            assert_eq!(world.reply(writer).status, status);
            world.reply(before);
            let after = written.map_or(404, |_| 200);
            for shard in [0, 1] {
                let (status, body) = world.get(shard, key);
                assert_eq!(status, after, "{key}: {body}");
                assert!(written.is_none_or(|value| value == body), "{key}: {body}");
            }
        }
    });
}

#[test]
fn r13_nothing_is_kept_of_a_key_whose_write_nobody_knows() {
    run(&["http.writes=true"], |world| {
        world.has("k", "1");
        assert_eq!(world.get(0, "k").1, "1");
        world.source("k", &Source::Late);
        let writer = world.change(1, "k", Some("2"));
        assert_eq!(world.reply(writer).status, 504);
        world.has("k", "2");
        expect(world, "k", "2", 2);
    });
}

#[test]
fn r17_all_who_wait_for_a_fetch_that_fails_are_told_so_and_nobody_asks_again() {
    for (source, status) in [(Source::Failing, 502), (Source::Late, 504)] {
        run(&[], |world| {
            world.source("k", &source);
            world.hold(true);
            let clients: Vec<_> = (0..40).map(|number| world.ask(number % 2, "k")).collect();
            world.advance(100);
            world.wait_for_fetches(1);
            world.hold(false);
            for client in clients {
                assert_eq!(world.reply(client).status, status);
            }
            assert_eq!(world.get(0, "k").0, status, "nor does who asks at once after that");
            world.has("k", "1");
            world.advance(200);
            expect(world, "k", "1", 2);
        });
    }
}

#[test]
fn r18_steps_of_the_wall_clock_change_no_lifetime() {
    run(&["cache.ttl=10s", "cache.stale_while_revalidate=0s"], |world| {
        world.has("k", "1");
        assert_eq!(world.get(0, "k").1, "1");
        world.has("k", "2");
        world.unsettle_wall_clock();
        let mut dates = BTreeSet::new();
        for second in 1..=9 {
            world.advance(1_000);
            let client = world.ask(world.owner("k"), "k");
            let reply = world.reply(client);
            assert_eq!((reply.text(), reply.header("Age")), ("1", Some(&*second.to_string())));
            dates.insert(reply.header("Date").unwrap()[..22].to_owned());
        }
        assert!(dates.len() > 5, "hours go by: {dates:?}");
        world.advance(1_500);
        expect(world, "k", "2", 2);
    });
}

#[test]
fn r19_what_comes_back_after_a_restart_is_not_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let (wall_ms, boot_ms) = (1 << 40, 1 << 20);
    let began = Clocks { process_ms: 0, wall_ms, boot_ms, boot_id: [1; 16] };
    let mut before = World::new(2, 0, "cache.ttl=1h", began);
    before.source(0, Some(1));
    assert_eq!(before.get(0), Some(value(0, 1)));
    before.save(folder.path(), snapshots::Fault::None).0.unwrap();
    for (restored, served) in [(false, None), (true, Some(value(0, 1)))] {
        let began = Clocks { wall_ms: wall_ms + 2_000, boot_ms: boot_ms + 2_000, ..began };
        let config = "cache.ttl=1h\ncache.stale_while_revalidate=0s";
        let mut after = World::new(2, 7, config, began);
        if restored {
            after.load(folder.path()).unwrap();
        }
        after.source(0, None);
        assert_eq!(after.get(0), served, "while the origin fails");
        after.advance(200);
        // It has changed while nobody listened.
        after.source(0, Some(2));
        assert_eq!(after.get(0), Some(value(0, 2)));
    }
}

#[test]
fn r20_an_absence_does_not_hide_a_value_that_is_new() {
    run(&["cache.negative_ttl=1h", "http.writes=true"], |world| {
        assert_eq!(world.get(0, "told").0, 404);
        world.has("told", "1");
        assert_eq!(world.get(1, "told").0, 404, "it is remembered");
        world.tell("told");
        world.settle();
        expect(world, "told", "1", 2);
        assert_eq!(world.get(0, "written").0, 404);
        let writer = world.change(1, "written", Some("2"));
        assert_eq!(world.reply(writer).status, 201);
        expect(world, "written", "2", 3);
    });
    run(&["cache.negative_ttl=2s"], |world| {
        assert_eq!(world.get(0, "k").0, 404);
        world.has("k", "1");
        world.advance(2_500);
        expect(world, "k", "1", 2);
    });
}

fn serve(origin: &HttpOrigin, sets: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let own = ["origin.kind=http", &HttpOrigin::url_at(origin.address), "origin.timeout=1m"];
    let process = Process::start(&fixture.store(), &[&own, sets].concat());
    (fixture, process)
}

/// A GET with a further field.
fn get(server: &Process, key: &str, field: &str) -> Reply {
    let mut client = Client::new(server.connect());
    let request = format!("GET /lookup/{key} HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
    client.send(request.as_bytes()).unwrap();
    client.receive(false).unwrap()
}

/// Whether the last request had one of these fields.
fn was_sent(origin: &HttpOrigin, names: &[&str]) -> bool {
    let fields = origin.last_fields();
    assert!(fields.iter().any(|field| field.starts_with("user-agent: pelton")), "{fields:?}");
    fields.iter().any(|field| names.iter().any(|name| field.starts_with(name)))
}

#[test]
fn r14_a_304_renews_no_other_version_than_the_one_that_was_asked_about() {
    run(&["cache.ttl=10s", "cache.stale_while_revalidate=0s"], |world| {
        world.source("k", &Source::Keeps(b"1".to_vec()));
        assert_eq!(world.get(0, "k").1, "1");
        world.advance(10_500);
        world.hold(true);
        let before = world.ask(0, "k");
        world.wait_for_fetches(1);
        world.read_now();
        // It was unchanged when the origin was asked, and is not when the answer lands.
        world.has("k", "2");
        world.tell("k");
        world.settle();
        world.land_one(0);
        world.wait_for_fetches(1);
        world.hold(false);
        assert_eq!(body(world, before), "2", "the origin was asked once more");
        expect(world, "k", "2", 4);
    });
}

#[test]
fn r15_what_varies_is_one_value_for_all_or_kept_for_nobody() {
    let origin = HttpOrigin::start();
    origin.answer("language", 200, "Vary: Accept-Language\r\nCache-Control: max-age=60\r\n", "1");
    origin.answer("any", 200, "Vary: Accept, *\r\nCache-Control: max-age=60\r\n", "1");
    let (_fixture, server) = serve(&origin, &["cache.stale_if_error=1h"]);
    for language in ["Accept-Language: de", "Accept-Language: fr"] {
        assert_eq!(get(&server, "language", language).text(), "1");
        assert!(!was_sent(&origin, &["accept-language"]), "no answer depends on who asks");
    }
    assert_eq!(origin.asked("language"), 1);
    for asked in 1..4 {
        assert_eq!(get(&server, "any", "X: y").text(), "1");
        assert_eq!(origin.asked("any"), asked);
    }
    origin.forget("any");
    assert_eq!(get(&server, "any", "X: y").status, 502, "nor is it served stale");
}

#[test]
fn r16_who_waits_for_what_must_not_be_kept_is_answered_with_all_others() {
    let origin = HttpOrigin::start();
    origin.answer("k", 200, "Cache-Control: no-store\r\n", "1");
    let (_fixture, server) = serve(&origin, &[]);
    for wave in 1..4 {
        origin.hold(true);
        let mut clients: Vec<_> = (0..100).map(|_| Client::new(server.connect())).collect();
        for client in &mut clients {
            client.send(b"GET /lookup/k HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        }
        let waiting = || server.metric("pelton_request_bytes_total", "");
        let size = b"GET /lookup/k HTTP/1.1\r\nHost: h\r\n\r\n".len() as u64;
        pelton_tests::process::until("all have asked", || waiting() == wave * 100 * size);
        origin.hold(false);
        for client in &mut clients {
            assert_eq!(client.receive(false).unwrap().text(), "1");
        }
        assert_eq!(origin.asked("k") as u64, wave, "one fetch for all of a wave");
    }
}

/// The names of all tests of races in the tree, with their files.
fn names(folder: &Path, found: &mut BTreeSet<String>) {
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            names(&path, found);
        } else if path.extension().is_some_and(|name| name == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn r"));
            let races =
                functions.filter(|name| name.as_bytes()[..2].iter().all(u8::is_ascii_digit));
            found.extend(races.map(|name| format!("r{}", name.split('(').next().unwrap())));
        }
    }
}

#[test]
fn the_page_names_each_race_and_its_tests() {
    let mut found = BTreeSet::new();
    names(&root().join("tests/tests"), &mut found);
    names(&root().join("server/src"), &mut found);
    let page = fs::read_to_string(root().join("docs/freshness.md")).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| R")).collect();
    let mut named = BTreeSet::new();
    for (number, row) in (1..=20).zip(&rows) {
        assert!(row.starts_with(&format!("| R{number} |")), "{row}");
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row}");
        let prefix = format!("r{number:02}_");
        assert!(tests.iter().all(|name| name.starts_with(&prefix)), "{row}");
        named.extend(tests.into_iter().map(str::to_owned));
    }
    assert_eq!((rows.len(), named), (20, found));
}
