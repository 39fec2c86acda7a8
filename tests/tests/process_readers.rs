//! A real server and readers that are slow: what they hold of the cache, and that others have it.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{Process, until};

/// Keys of the store: twice as many as the cache has room for.
const KEYS: usize = 4_000;

/// Bytes of a value: it is sent from where the cache has it.
const VALUE_SIZE: usize = 9_000;

/// Requests of a slow reader: their replies exceed what the sockets take by far.
const PIPELINE: usize = 2_000;

/// Looks at all keys before a test gives up.
const ROUNDS_MAX: usize = 500;

fn value(number: usize) -> String {
    format!(r#""{number:>width$}""#, width = VALUE_SIZE - 2)
}

fn requests(keys: impl Iterator<Item = usize>) -> String {
    keys.map(|key| format!("GET /lookup/k{key} HTTP/1.1\r\nHost: test\r\n\r\n")).collect()
}

/// A server of one shard whose cache holds half of its store.
fn start() -> (Fixture, Process) {
    let fixture = Fixture::of(KEYS, value);
    let sets = [
        "server.shards=1",
        "cache.memory=18MiB",
        "cache.value_size_max=64KiB",
        "http.write_timeout=10m",
    ];
    let server = Process::start(&fixture.store(), &sets);
    (fixture, server)
}

/// The keys that a slow reader asks for: neighbours among them lie in different segments.
fn keys(number: usize) -> impl Iterator<Item = usize> {
    (0..PIPELINE).map(move |index| (number * 131 + index * 37) % KEYS)
}

/// A reader that has asked and does not read.
fn slow_reader(server: &Process, number: usize) -> Client {
    let mut reader = Client::new(server.connect());
    reader.send(requests(keys(number)).as_bytes()).expect("the server reads on");
    reader
}

/// Somebody else, who reads what he is given, looks at all keys. Returns how often he was told to
/// try again.
fn look_at_all(server: &Process) -> usize {
    let mut client = Client::new(server.connect());
    let mut refused = 0;
    for first in (0..KEYS).step_by(40) {
        client.send(requests(first..first + 40).as_bytes()).expect("the server reads");
        for number in first..first + 40 {
            let reply = client.receive(false).expect("a reply");
            match reply.status {
                200 => assert!(reply.text() == value(number), "the value of k{number}"),
                status => assert_eq!(status, 503),
            }
            refused += usize::from(reply.status == 503);
        }
    }
    refused
}

#[test]
fn what_slow_readers_hold_is_copied_out_and_they_get_every_byte_of_it() {
    let (_fixture, server) = start();
    look_at_all(&server);
    let readers: Vec<_> = (0..2).map(|number| slow_reader(&server, number)).collect();
    let spilled = || server.metric("pelton_cache_spilled_bytes_total", "");
    let is_copied = (0..ROUNDS_MAX).any(|_| {
        look_at_all(&server);
        spilled() >= 5 * VALUE_SIZE as u64
    });
    assert!(is_copied, "{} bytes", spilled());
    for (reader_number, mut reader) in readers.into_iter().enumerate() {
        for number in keys(reader_number) {
            let reply = reader.receive(false).expect("a slow reader is not given up");
            assert!(reply.text() == value(number), "the value of k{number}");
        }
    }
    until("nothing condemned is left", || server.metric("pelton_cache_condemned_bytes", "") == 0);
    assert_eq!(server.metric("pelton_connections_closed_total", r#"reason="output_bound""#), 0);
}

#[test]
fn readers_who_hold_too_much_in_all_are_closed_until_it_is_not() {
    let (_fixture, server) = start();
    let readers: Vec<_> = (0..15).map(|number| slow_reader(&server, number)).collect();
    let held = || server.metric("pelton_cache_condemned_bytes", "");
    let closed = || server.metric("pelton_connections_closed_total", r#"reason="output_bound""#);
    let is_bounded = (0..ROUNDS_MAX).any(|_| {
        let refused = look_at_all(&server);
        // An eighth of the cache.
        closed() > 0 && held() <= 18 << 17 && refused == 0
    });
    assert!(is_bounded, "{} bytes are held, {} readers were closed", held(), closed());
    let served = readers.len() as u64 - closed();
    assert!(served > 0, "those who hold little are not closed");
}
