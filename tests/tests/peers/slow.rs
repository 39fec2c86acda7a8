//! slowhttptest opens five thousand connections that dawdle, while others are served as ever.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{Process, until};
use std::process::Stdio;

/// Connections of an attack.
const COUNT: u64 = 5_000;

/// Requests of the other client on each of its connections.
const ROUNDS: usize = 10;

/// The key of the value that is read slowly.
const LARGE: usize = 50;

/// Attacks a server while a client is served, which fails the test if it is not; then all of the
/// attackers are gone for one of the `reasons`.
fn attack(arguments: &[&str], path: &str, sets: &[&str], reasons: &[&str]) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    assert!(most > 2 * COUNT + 1_000, "{most} open files are allowed: raise ulimit -Hn");
    let size = |number| if number == LARGE { 900_000 } else { 100 };
    let content = |number| format!("\"{}\"", "x".repeat(size(number)));
    let fixture = Fixture::of(100, content);
    let server = Process::start(&fixture.store(), sets);
    let url = format!("http://{}{path}", server.data);
    let mut attackers = crate::program("slowhttptest")
        .args(["-c", &COUNT.to_string(), "-r", "2500", "-l", "30", "-i", "10", "-u", &url])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut connections_count = 0;
    let mut is_over = || attackers.try_wait().unwrap().is_some();
    while !is_over() {
        connections_count += 1;
        let mut client = Client::new(server.connect());
        for number in 0..ROUNDS {
            let request = format!("GET /lookup/k{number} HTTP/1.1\r\nHost: test\r\n\r\n");
            let reply = client.send(request.as_bytes()).and_then(|()| client.receive(false));
            let reply =
                reply.unwrap_or_else(|error| panic!("{error}\n{}", server.admin("/metrics").1));
            assert_eq!(reply.text(), content(number));
        }
        assert_eq!(client.get("/healthz").status, 200);
    }
    let closed = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        server.metric("pelton_connections_closed_total", &label)
    };
    until("all connections are closed", || server.metric("pelton_connections_open", "") == 0);
    let counts: Vec<_> = reasons.iter().map(|reason| (*reason, closed(reason))).collect();
    assert!(connections_count > 0);
    let cut: u64 = counts.iter().map(|(_, count)| count).sum();
    let vanished = closed("peer_vanished");
    assert!(cut >= COUNT / 10 * 9, "{counts:?} were cut, {vanished} went by themselves");
}

#[test]
#[ignore = "needs slowhttptest: make test-peers"]
fn slow_heads_are_cut_and_others_are_served() {
    let sets = ["http.header_timeout=4s"];
    attack(&["-H"], "/lookup/k1", &sets, &["header_timeout"]);
}

#[test]
#[ignore = "needs slowhttptest: make test-peers"]
fn slow_bodies_are_cut_and_others_are_served() {
    let sets = ["http.body_timeout=4s"];
    attack(&["-B", "-s", "8192"], "/lookup", &sets, &["body_timeout"]);
}

#[test]
#[ignore = "needs slowhttptest: make test-peers"]
fn slow_readers_are_cut_and_others_are_served() {
    let sets = ["http.write_timeout=4s"];
    let arguments = ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"];
    let path = format!("/lookup/k{LARGE}");
    attack(&arguments, &path, &sets, &["write_timeout", "output_bound"]);
}
