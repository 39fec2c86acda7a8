//! A real server that is told to forget: by key, prefix and group, all of it, or to ask anew.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{Process, until};
use std::fmt::Write as _;

const TOKEN: &str = "a-token-of-some-thirty-characters";
const KEYS: [&str; 6] = ["user:1", "user:2", "users:1", "item:1", "it", "x"];

/// A server over a store of [`KEYS`], whose values are fresh for an hour.
fn start(sets: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let mut lines = String::new();
    for key in KEYS {
        writeln!(lines, r#"{{"key":"{key}","value":"{key}","ttl":"1h"}}"#).expect("a string grows");
    }
    assert!(fixture.import(&lines).status.success());
    let server = start_again(&fixture, sets);
    (fixture, server)
}

fn start_again(fixture: &Fixture, sets: &[&str]) -> Process {
    Process::start(&fixture.store(), &[&[&*fixture.token_file(TOKEN)], sets].concat())
}

/// What the cache says to each key: whether it was hit, and for how long that is fresh.
fn ask(server: &Process) -> Vec<(bool, i64)> {
    let mut client = Client::new(server.connect());
    let ask = |key: &&str| {
        let reply = client.get(&format!("/lookup/{key}"));
        assert_eq!(reply.text(), format!("\"{key}\""));
        let status = reply.header("Cache-Status").expect("a status");
        let ttl = status.split("ttl=").nth(1).map_or(0, |ttl| {
            let end = ttl.find(';').unwrap_or(ttl.len());
            ttl[..end].parse().expect("a number of seconds")
        });
        (status.contains("; hit"), ttl)
    };
    KEYS.iter().map(ask).collect()
}

fn hits(server: &Process) -> Vec<&'static str> {
    let hits = ask(server).into_iter().zip(KEYS);
    hits.filter(|((is_hit, _), _)| *is_hit).map(|(_, key)| key).collect()
}

#[test]
fn what_a_purge_names_is_fetched_again_and_nothing_else() {
    let (_fixture, server) = start(&[]);
    assert_eq!(hits(&server), [""; 0]);
    assert_eq!(hits(&server), KEYS);
    for (body, kept, found) in [
        (r#"{"key":"user:1"}"#, &["user:2", "users:1", "item:1", "it", "x"][..], true),
        (r#"{"key":"nobody"}"#, &KEYS, false),
        (r#"{"group":"user"}"#, &["users:1", "item:1", "it", "x"], false),
        (r#"{"prefix":"it"}"#, &["user:1", "user:2", "users:1", "x"], false),
        (r#"{"all":true}"#, &[], false),
    ] {
        let (status, answer) = server.purge(TOKEN, body);
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("\"shards\": 2"), "{answer}");
        assert!(answer.contains(&format!("\"found\": {found}")), "{answer}");
        assert_eq!(hits(&server), kept, "{body}");
        assert_eq!(hits(&server), KEYS, "each was fetched once");
    }
    until("ten purges by shards are counted", || {
        server.metric("pelton_shard_purges_total", "") >= 10
    });
}

#[test]
fn what_a_soft_purge_names_is_served_stale_while_it_is_fetched_again() {
    let (_fixture, server) = start(&["cache.stale_while_revalidate=1h"]);
    ask(&server);
    let fetches = || server.metric("pelton_origin_fetches_total", "");
    until("all keys are fetched", || fetches() >= KEYS.len() as u64);
    for (body, named) in [(r#"{"key":"x","soft":true}"#, 1), (r#"{"all":true,"soft":true}"#, 6)] {
        let before = fetches();
        assert_eq!(server.purge(TOKEN, body).0, 200);
        let answers = ask(&server);
        assert!(answers.iter().all(|(is_hit, _)| *is_hit), "{answers:?}");
        assert_eq!(answers.iter().filter(|(_, ttl)| *ttl <= 0).count(), named, "{answers:?}");
        until("the purged are fetched again", || fetches() >= before + named as u64);
        until("all are fresh hits", || {
            ask(&server).iter().all(|(is_hit, ttl)| *is_hit && *ttl >= 3_000)
        });
    }
}

#[test]
fn who_does_not_bear_the_token_purges_nothing() {
    let (fixture, server) = start(&[]);
    ask(&server);
    let all = r#"{"all":true}"#;
    for wrong in ["", "not-the-token-at-all", &TOKEN[1..]] {
        let (status, answer) = server.purge(wrong, all);
        assert_eq!(status, 401, "{answer}");
        assert!(answer.contains("Authorization"), "{answer}");
    }
    for (body, why) in [("", "EOF"), ("{}", "nothing is named"), (r#"{"al":true}"#, "unknown")] {
        let (status, answer) = server.purge(TOKEN, body);
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(why), "{answer}");
    }
    assert_eq!(hits(&server), KEYS);
    drop(server);
    let server = Process::start(&fixture.store(), &[]);
    let (status, answer) = server.purge(TOKEN, all);
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("admin.token_file"), "{answer}");
}

#[test]
fn a_purge_that_cannot_be_noted_beside_the_snapshots_is_refused_and_purges_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!("snapshot.path={}", folder.path().display());
    let (_fixture, server) = start(&[&path]);
    ask(&server);
    folder.close().expect("it can be removed");
    let (status, answer) = server.purge(TOKEN, r#"{"all":true}"#);
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("snapshot"), "{answer}");
    assert_eq!(hits(&server), KEYS);
}

#[test]
fn what_was_purged_does_not_come_back_from_a_snapshot_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!("snapshot.path={}", folder.path().display());
    let (fixture, server) = start(&[&path, "snapshot.interval=1s"]);
    ask(&server);
    let written =
        |server: &Process| server.metric("pelton_snapshots_total", r#"outcome="written""#);
    let restored =
        |server: &Process| server.metric("pelton_snapshot_entries_total", r#"outcome="restored""#);
    let kill = |mut server: Process| {
        kill(Pid::from_raw(server.id()), Signal::SIGKILL).expect("it runs");
        server.wait();
    };
    let count = written(&server);
    until("two more snapshots are written", || written(&server) >= count + 2);
    assert_eq!(server.purge(TOKEN, r#"{"key":"x"}"#).0, 200);
    let note = folder.path().join("purged");
    assert!(note.exists(), "it is on the disk before it is confirmed");
    // The next snapshot knows of the purge.
    until("the note is removed", || !note.exists());
    kill(server);
    let server = start_again(&fixture, &[&path, "snapshot.interval=1h"]);
    until("all but the purged are restored", || restored(&server) >= KEYS.len() as u64 - 1);
    assert!(!hits(&server).contains(&"x"));
    // This process writes none before its end.
    assert_eq!(server.purge(TOKEN, r#"{"key":"it"}"#).0, 200);
    kill(server);
    let server = start_again(&fixture, &[&path]);
    until("the snapshot is refused", || server.metric("pelton_snapshots_refused_total", "") >= 1);
    assert_eq!(hits(&server), [""; 0]);
}
