//! What can be wrong when a server starts or imports: each has its message, and nothing is lost.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use pelton_tests::fixture::{Fixture, value};
use pelton_tests::http::Client;
use pelton_tests::process::{self, Process, until};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;

/// Runs `serve`, which must fail; its exit code and what it printed.
fn refused(fixture: &Fixture, sets: &[&str]) -> (Option<i32>, String) {
    let path = format!("origin.path={}", fixture.store().display());
    let own = ["cache.memory=64MiB", "admin.listen=127.0.0.1:0", &path];
    let sets = own.iter().chain(sets).flat_map(|set| ["--set", *set]);
    let arguments: Vec<&str> = std::iter::once("serve").chain(sets).collect();
    let output = process::run(&arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let fixture = Fixture::numbered(1);
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let (code, message) = refused(&fixture, &[&format!(r#"server.listen=["{address}"]"#)]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains(&address.to_string()) && message.contains("ss -ltnp"), "{message}");
    let admin = format!("admin.listen={address}");
    let (code, message) = refused(&fixture, &[&admin, r#"server.listen=["127.0.0.1:0"]"#]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains(&address.to_string()) && message.contains("admin"), "{message}");
}

#[test]
fn a_store_that_is_none_or_is_cut_off_is_refused_and_left_as_it_is() {
    let listen = r#"server.listen=["127.0.0.1:0"]"#;
    let fixture = Fixture::empty();
    std::fs::write(fixture.store(), "this is not a store").unwrap();
    let (code, message) = refused(&fixture, &[listen]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("store.redb"), "{message}");
    assert_eq!(std::fs::read(fixture.store()).unwrap(), b"this is not a store");

    let fixture = Fixture::numbered(500);
    let whole = std::fs::read(fixture.store()).unwrap();
    std::fs::write(fixture.store(), &whole[..whole.len() / 2]).unwrap();
    let (code, message) = refused(&fixture, &[listen]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("store.redb"), "{message}");
}

#[test]
fn a_store_that_another_process_holds_is_refused_with_its_holder() {
    let fixture = Fixture::numbered(10);
    let server = Process::start(&fixture.store(), &[]);
    let (code, message) = refused(&fixture, &[r#"server.listen=["127.0.0.1:0"]"#]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains(&server.id().to_string()), "{message}");
    let output = fixture.import(r#"{"key":"new","value":1}"#);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(&server.id().to_string()), "{message}");
    assert_eq!(Client::new(server.connect()).get("/lookup/k1").text(), value(1));
}

#[test]
fn more_memory_than_the_machine_has_is_refused_with_the_bill() {
    let fixture = Fixture::numbered(1);
    let (code, message) =
        refused(&fixture, &["cache.memory=100TiB", r#"server.listen=["127.0.0.1:0"]"#]);
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains("total") && message.contains("cache.memory"), "{message}");
}

#[test]
fn steering_by_cpu_is_refused_with_the_reason_where_no_queue_decides_the_cpu() {
    let fixture = Fixture::numbered(1);
    let path = format!("server.listen=unix:{}", fixture.path("pelton.sock").display());
    let cases: [(&str, &[&str]); 2] = [
        (r#"server.listen=["127.0.0.1:0"]"#, &["127.0.0.1:0 is of the loopback", "client's CPU"]),
        (&path, &["Unix sockets alone"]),
    ];
    for (listen, parts) in cases {
        let (code, message) = refused(&fixture, &[listen, "server.steer=cpu"]);
        assert_eq!(code, Some(3), "{message}");
        for part in parts.iter().chain(&["server.steer: ", "set server.steer to hash"]) {
            assert!(message.contains(part), "{part} is missing in {message}");
        }
    }
}

#[test]
fn bad_lines_of_an_import_are_named_and_the_good_ones_kept() {
    let fixture = Fixture::empty();
    let huge = "x".repeat(3 << 20);
    let lines = format!(
        "{{\"key\":\"a\",\"value\":1}}\n\nnot json\n{{\"key\":\"b\",\"value\":\"{huge}\"}}\n\
         {{\"key\":\"c\",\"value\":[1,  2]}}\n{{\"value\":1}}\n"
    );
    let output = fixture.import(&lines);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{message}");
    for line in ["line 2", "line 3", "line 4", "line 6"] {
        assert!(message.contains(line), "{line} in {message}");
    }
    let server = Process::start(&fixture.store(), &[]);
    let mut client = Client::new(server.connect());
    assert_eq!(client.get("/lookup/a").text(), "1");
    assert_eq!(client.get("/lookup/b").status, 404);
    assert_eq!(client.get("/lookup/c").text(), "[1,  2]", "a value is served as it was written");
}

#[test]
fn a_shard_that_stops_turning_ends_the_process() {
    let fixture = Fixture::numbered(1);
    let mut server = Process::start(&fixture.store(), &[]);
    // Before that the shards wait for each other, and none turns without the other.
    until("it is ready", || server.admin("/readyz").0 == 200);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    let shard = tasks
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "shard-1")
        .unwrap();
    let shard = Pid::from_raw(shard.file_name().unwrap().to_str().unwrap().parse().unwrap());
    // A traced thread stands still alone: the rest of the process goes on.
    ptrace::seize(shard, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(shard).unwrap();
    waitpid(shard, Some(WaitPidFlag::__WALL)).unwrap();
    until("it is not alive", || server.admin("/livez").0 != 200);
    let words = server.last_words();
    // The tracer must take note of the thread's end before the process can be waited for.
    waitpid(shard, Some(WaitPidFlag::__WALL)).unwrap();
    let status = server.wait();
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{words:?}");
    assert!(words.iter().any(|line| line.contains("shard 1 has made no turn")), "{words:?}");
}
