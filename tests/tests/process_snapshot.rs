//! Real processes that are stopped, killed and started again: the cache comes back with them.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::print_stdout, reason = "a test that cannot be done says so")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use pelton_tests::fixture::{Fixture, value};
use pelton_tests::http::Client;
use pelton_tests::process::{self, Process, until};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const COUNT: usize = 500;

fn start(fixture: &Fixture, folder: &Path, sets: &[&str]) -> Process {
    let path = format!("snapshot.path={}", folder.display());
    Process::start(&fixture.store(), &[sets, &[&path]].concat())
}

fn read_all(server: &Process) {
    let mut client = Client::new(server.connect());
    for number in 0..COUNT {
        assert_eq!(client.get(&format!("/lookup/k{number}")).text(), value(number));
    }
}

fn end(mut server: Process, signal: Signal) -> Option<i32> {
    kill(Pid::from_raw(server.id()), signal).unwrap();
    server.wait().code()
}

/// Waits until so many entries are back and the snapshot was read to its end: only then is it told
/// what was dropped of it.
fn wait_until_loaded(server: &Process, count: usize) {
    until("all entries are restored", || restored(server) >= count as u64);
    until("the snapshot is read to its end", || {
        server.metric("pelton_snapshot_load_milliseconds", "") > 0
    });
}

fn restored(server: &Process) -> u64 {
    server.metric("pelton_snapshot_entries_total", r#"outcome="restored""#)
}

#[test]
fn a_server_that_was_stopped_starts_warm_with_another_number_of_shards() {
    let fixture = Fixture::numbered(COUNT);
    let folder = fixture.path("snapshots");
    let server = start(&fixture, &folder, &["server.shards=2"]);
    read_all(&server);
    assert_eq!(end(server, Signal::SIGTERM), Some(0));
    let server = start(&fixture, &folder, &["server.shards=1"]);
    wait_until_loaded(&server, COUNT);
    assert_eq!(server.metric("pelton_origin_fetches_total", ""), 0);
    read_all(&server);
    assert_eq!(server.metric("pelton_snapshot_entries_dropped_total", ""), 0);
}

#[test]
fn a_server_that_is_killed_comes_back_with_its_last_snapshot_whenever_that_happens() {
    let fixture = Fixture::numbered(COUNT);
    let folder = fixture.path("snapshots");
    let sets = ["snapshot.interval=1s", "snapshot.rate=1MiB"];
    let written =
        |server: &Process| server.metric("pelton_snapshots_total", r#"outcome="written""#);
    let server = start(&fixture, &folder, &sets);
    read_all(&server);
    until("a snapshot is written", || written(&server) > 0);
    assert_eq!(end(server, Signal::SIGKILL), None);
    for _ in 0..3 {
        let server = start(&fixture, &folder, &sets);
        until("all entries are restored", || restored(&server) >= COUNT as u64);
        // Somewhere in the next one.
        let pages = || std::fs::read_dir(&folder).unwrap().count();
        until("the next snapshot is begun", || pages() >= 4 || written(&server) > 0);
        assert_eq!(end(server, Signal::SIGKILL), None);
    }
}

#[test]
fn what_was_written_after_a_snapshot_is_read_after_a_kill_as_it_was_written() {
    let fixture = Fixture::numbered(COUNT);
    let folder = fixture.path("snapshots");
    let server = start(&fixture, &folder, &["snapshot.interval=1s"]);
    read_all(&server);
    until("all entries are written", || {
        server.metric("pelton_snapshot_written_entries", "") >= COUNT as u64
    });
    assert_eq!(end(server, Signal::SIGKILL), None);
    assert!(fixture.import("{\"key\":\"k3\",\"value\":\"new\"}\n").status.success());
    let server = start(&fixture, &folder, &[]);
    wait_until_loaded(&server, COUNT - 1);
    let dropped = "pelton_snapshot_entries_dropped_total";
    assert_eq!(server.metric(dropped, r#"reason="outdated""#), 1);
    let mut client = Client::new(server.connect());
    assert_eq!(client.get("/lookup/k3").text(), r#""new""#);
}

/// A store of some 6 MiB, which takes seconds to write or to read at [`SLOW`].
fn large() -> Fixture {
    Fixture::of(LARGE_COUNT, |_| format!(r#""{}""#, "x".repeat(6_000)))
}

const LARGE_COUNT: usize = 1_000;
const SLOW: &str = "snapshot.rate=1MiB";

fn fill(server: &Process) {
    let mut client = Client::new(server.connect());
    for number in 0..LARGE_COUNT {
        assert_eq!(client.get(&format!("/lookup/k{number}")).status, 200);
    }
}

fn pages(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).into_iter().flatten();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".pages")).collect()
}

#[test]
fn a_server_that_is_stopped_while_it_writes_a_snapshot_gives_it_up_for_a_last_one() {
    let fixture = large();
    let folder = fixture.path("snapshots");
    let server = start(&fixture, &folder, &[SLOW, "snapshot.interval=1s"]);
    fill(&server);
    // What was begun before all was in memory ends first.
    let written =
        |server: &Process| server.metric("pelton_snapshots_total", r#"outcome="written""#);
    until("a snapshot is written", || written(&server) >= 1);
    until("the next snapshot is begun", || pages(&folder).len() >= 2);
    assert_eq!(end(server, Signal::SIGTERM), Some(0));
    assert_eq!(pages(&folder).len(), 1);
    let server = start(&fixture, &folder, &[]);
    until("all entries are restored", || restored(&server) >= LARGE_COUNT as u64);
}

/// What starts a command with a file system of 4 MiB at `folder`; `None` where that is not allowed.
fn on_a_small_disk(folder: &Path) -> Option<Command> {
    let mut command = Command::new("unshare");
    if !Uid::effective().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let mount = r#"mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@""#;
    command.args(["--mount", "sh", "-c", mount]).arg(folder);
    let mut trial = Command::new(command.get_program());
    trial.args(command.get_args()).arg("true").stderr(Stdio::null());
    trial.status().is_ok_and(|status| status.success()).then_some(command)
}

#[test]
fn a_full_disk_costs_the_new_snapshot_and_leaves_the_one_before() {
    let fixture = large();
    let folder = fixture.path("snapshots");
    std::fs::create_dir(&folder).unwrap();
    let Some(mut command) = on_a_small_disk(&folder) else {
        println!("skipped: no file system may be mounted here");
        return;
    };
    command.arg(process::binary());
    let path = format!("snapshot.path={}", folder.display());
    let server = Process::start_by(command, &fixture.store(), &[&path, "snapshot.interval=1s"]);
    let ended = |how: &str| server.metric("pelton_snapshots_total", &format!(r#"outcome="{how}""#));
    // The folder as the server sees it.
    let folder = PathBuf::from(format!("/proc/{}/root{}", server.id(), folder.display()));
    until("a snapshot is written", || ended("written") > 0);
    let before = pages(&folder);
    assert_eq!((before.len(), ended("failed")), (1, 0));
    fill(&server);
    // What was begun before all was in memory may still have fitted.
    until("a snapshot has failed", || ended("failed") > 0);
    let (written, failed) = (ended("written"), ended("failed"));
    until("another snapshot has failed", || ended("failed") != failed);
    assert_eq!(ended("written"), written);
    until("only the first snapshot is left", || pages(&folder).len() == 1);
    assert_eq!(Client::new(server.connect()).get("/lookup/k0").status, 200);
    assert_eq!(end(server, Signal::SIGTERM), Some(0));
}

#[test]
fn a_server_that_is_stopped_while_it_reads_a_snapshot_leaves_it_as_it_is() {
    let fixture = large();
    let folder = fixture.path("snapshots");
    let server = start(&fixture, &folder, &[]);
    fill(&server);
    assert_eq!(end(server, Signal::SIGTERM), Some(0));
    let before = pages(&folder);
    let server = start(&fixture, &folder, &[SLOW]);
    assert_eq!(server.metric("pelton_snapshot_load_milliseconds", ""), 0, "it is still being read");
    assert_eq!(end(server, Signal::SIGTERM), Some(0));
    assert_eq!(pages(&folder), before);
    let server = start(&fixture, &folder, &[]);
    until("all entries are restored", || restored(&server) >= LARGE_COUNT as u64);
}

#[test]
fn a_folder_that_another_process_uses_or_nobody_can_is_refused() {
    let fixture = Fixture::numbered(1);
    let folder = fixture.path("snapshots");
    let server = start(&fixture, &folder, &[]);
    let other = Fixture::numbered(1);
    let refused = |path: &Path| {
        let path = format!("snapshot.path={}", path.display());
        let store = format!("origin.path={}", other.store().display());
        let sets = ["server.listen=127.0.0.1:0", "admin.listen=off", "cache.memory=64MiB"];
        let sets = [&sets[..], &[&path, &store]].concat();
        let sets = sets.into_iter().flat_map(|set| ["--set", set]);
        let arguments: Vec<&str> = std::iter::once("serve").chain(sets).collect();
        let output = process::run(&arguments);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused(&folder);
    assert!(message.contains("another process uses it"), "{message}");
    let message = refused(&fixture.store());
    assert!(message.contains("snapshot.path") && message.contains("folder"), "{message}");
    drop(server);
}
