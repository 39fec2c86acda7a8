//! The memory of a real server beside the bill that it made at its start.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::print_stdout, reason = "a measured number is shown")]

use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{Process, until};
use shard_cache::Layout;

const MIB: usize = 1 << 20;

/// Connections that ask at the same time, and requests on each before a reply is read.
const CLIENTS: usize = 16;
const PIPELINE: usize = 32;

/// Bounds without slack: what the server may take beside its cache is what it takes.
const TIGHT: [&str; 4] = [
    "server.shards=1",
    "server.connections_max=32",
    "cache.value_size_max=128KiB",
    "origin.cache=1MiB",
];

/// Starts a server, and waits until all memory of its cache is populated.
fn populated(fixture: &Fixture, cache_size: usize) -> Process {
    let memory = format!("cache.memory={cache_size}B");
    let server = Process::start(&fixture.store(), &[&TIGHT[..], &[&memory]].concat());
    let layout = Layout::new(cache_size, 128 << 10).expect("it is large enough");
    let capacity = layout.arena_bytes() as u64;
    until("all of the cache is there", || {
        server.metric("pelton_cache_capacity_bytes", "") >= capacity
    });
    server
}

/// A store of so many keys, whose values have these sizes in turn.
fn store_of(count: usize, sizes: &[usize]) -> Fixture {
    Fixture::of(count, |number| format!(r#""{}""#, "x".repeat(sizes[number % sizes.len()] - 2)))
}

/// Looks every key up once.
fn read_all(server: &Process, count: usize) {
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::new(server.connect())).collect();
    let keys: Vec<usize> = (0..count).collect();
    for keys in keys.chunks(CLIENTS * PIPELINE) {
        for (client, keys) in clients.iter_mut().zip(keys.chunks(PIPELINE)) {
            let request = |key| format!("GET /lookup/k{key} HTTP/1.1\r\nHost: test\r\n\r\n");
            let requests: String = keys.iter().map(request).collect();
            client.send(requests.as_bytes()).expect("sent");
        }
        for (client, keys) in clients.iter_mut().zip(keys.chunks(PIPELINE)) {
            for key in keys {
                assert_eq!(client.receive(false).expect("a reply").status, 200, "k{key}");
            }
        }
    }
}

/// Writes ten times what the cache holds; what was resident at most is on the bill.
fn stays_within_its_bill(cache_size: usize, sizes: &[usize]) {
    // A header, a key of 7 bytes and padding take some 32 bytes.
    let mean = 32 + sizes.iter().sum::<usize>() / sizes.len();
    let count = 10 * cache_size / mean;
    let fixture = store_of(count, sizes);
    let server = populated(&fixture, cache_size);
    let bill = server.bill();
    read_all(&server, count);
    let [resident, peak] = server.resident();
    println!("values of {sizes:?} bytes: bill {bill}, resident {resident}, at most {peak}");
    // Its counters are published at intervals.
    until("all but a few are stored", || {
        server.metric("pelton_cache_stored_total", "") >= count as u64 * 99 / 100
    });
    assert!(server.metric("pelton_cache_evictions_total", r#"reason="capacity""#) > 0);
    assert!(peak <= bill + bill / 50, "{sizes:?}: bill {bill}, at most {peak}");
}

#[test]
fn values_of_50_bytes_stay_within_the_bill() {
    stays_within_its_bill(4 * MIB, &[50]);
}

#[test]
fn values_of_300_bytes_stay_within_the_bill() {
    stays_within_its_bill(8 * MIB, &[300]);
}

#[test]
fn values_of_4_kib_stay_within_the_bill() {
    stays_within_its_bill(8 * MIB, &[4 << 10]);
}

#[test]
fn values_of_64_kib_stay_within_the_bill() {
    stays_within_its_bill(16 * MIB, &[64 << 10]);
}

#[test]
fn values_of_all_sizes_stay_within_the_bill() {
    stays_within_its_bill(16 * MIB, &[50, 300, 4 << 10, 64 << 10]);
}

/// `cargo test --release -p pelton-tests --test process_memory -- --ignored --nocapture`
#[test]
#[ignore = "writes 2.5 GB for each size of value"]
fn a_larger_cache_stays_within_the_bill() {
    for sizes in [&[50][..], &[300], &[4 << 10], &[64 << 10], &[50, 300, 4 << 10, 64 << 10]] {
        stays_within_its_bill(256 * MIB, sizes);
    }
}

#[test]
fn a_cache_takes_the_memory_that_it_is_given() {
    let fixture = Fixture::numbered(1);
    let [small, large] = [16 * MIB, 80 * MIB].map(|size| populated(&fixture, size).resident()[0]);
    println!("64 MiB more: {} bytes more are resident", large - small);
    let exact = 64 * MIB as u64;
    assert!((large - small).abs_diff(exact) < exact / 50, "{small}, {large}");
}
