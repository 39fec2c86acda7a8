//! A real server of two shards and values larger than what one shard sends another at once.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{Process, until};

/// Keys of the store, about half of which belong to the other shard.
const KEYS: usize = 16;

/// Bytes of a value, nearly what a cache takes: some twenty pieces.
const VALUE_SIZE: usize = 1_000_000;

/// Connections that ask for all keys before any of them reads.
const CLIENTS: usize = 12;

const TOKEN: &str = "a-token-of-some-thirty-characters";

fn value(number: usize) -> String {
    let unit = format!("{number:07} ");
    format!(r#""{}""#, unit.repeat(VALUE_SIZE / unit.len()))
}

fn start() -> (Fixture, Process) {
    let fixture = Fixture::of(KEYS, value);
    let sets = [&*fixture.token_file(TOKEN), "cache.memory=128MiB"];
    let server = Process::start(&fixture.store(), &sets);
    (fixture, server)
}

/// A client that has asked for all keys and has read nothing.
fn ask(server: &Process) -> Client {
    let mut client = Client::new(server.connect());
    let request = |number| format!("GET /lookup/k{number} HTTP/1.1\r\nHost: test\r\n\r\n");
    let requests: String = (0..KEYS).map(request).collect();
    client.send(requests.as_bytes()).expect("the server reads");
    client
}

/// Reads all replies: every one is whole.
fn read(mut client: Client) {
    for number in 0..KEYS {
        let reply = client.receive(false).expect("a reply");
        assert_eq!(reply.status, 200, "k{number}");
        assert!(reply.text() == value(number), "the value of k{number}");
    }
}

#[test]
fn everybody_gets_large_values_of_other_shards_whoever_else_is_slow() {
    let (_fixture, server) = start();
    let clients: Vec<_> = (0..CLIENTS).map(|_| ask(&server)).collect();
    clients.into_iter().rev().for_each(read);
    assert!(server.metric("pelton_remote_pieces_total", "") > 0);
    assert_eq!(server.metric("pelton_requests_total", r#"outcome="shed""#), 0);
}

#[test]
fn a_value_that_is_purged_while_it_is_read_is_read_to_its_end() {
    let (_fixture, server) = start();
    read(ask(&server));
    let hits = || server.metric("pelton_requests_total", r#"outcome="hit""#);
    let before = hits();
    let clients = [ask(&server), ask(&server)];
    // Their requests came in one piece: with the first reply of each, all are looked up.
    until("both hits are counted", || hits() >= before + 2);
    let (status, answer) = server.purge(TOKEN, r#"{"all":true}"#);
    assert_eq!(status, 200, "{answer}");
    read(ask(&server));
    clients.into_iter().for_each(read);
}
