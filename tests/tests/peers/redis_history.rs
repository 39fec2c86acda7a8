//! What clients see of keys in Redis that are written meanwhile: through the server, and past it.

#![expect(clippy::disallowed_types, reason = "how stale a value is is a length of time")]
#![expect(clippy::print_stdout, reason = "it says what it came to")]

use crate::redis_server::RedisServer;
use pelton_tests::fixture::Fixture;
use pelton_tests::history::crowd::Crowd;
use pelton_tests::history::purger::purge_while;
use pelton_tests::http::Client;
use pelton_tests::prng::Prng;
use pelton_tests::process::{Process, free_ports};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const TOKEN: &str = "a-token-of-some-thirty-characters";
const SHARDS: u16 = 2;
const KEYS: usize = 16;

/// Each key is written so often past the server.
const ROUNDS: usize = 4_000;

/// After so many rounds the connections of the server are cut.
const ROUNDS_CUT: usize = 1_000;

fn start(redis: &RedisServer, first_port: u16, sets: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let own = [
        "origin.kind=redis",
        &format!("redis.urls=redis://127.0.0.1:{}", redis.port),
        &format!("server.shards={SHARDS}"),
        &format!("server.shard_ports={first_port}"),
        &fixture.token_file(TOKEN),
        "redis.content_type=application/json",
    ];
    let process = Process::start(&fixture.store(), &[&own, sets].concat());
    (fixture, process)
}

fn addresses(first_port: u16) -> Vec<SocketAddr> {
    let address = |shard: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, first_port + shard));
    (0..SHARDS).map(address).collect()
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn what_is_written_through_the_server_is_one_register_a_key() {
    let redis = RedisServer::start(&[]);
    let first_port = free_ports(SHARDS);
    let soon_stale =
        ["http.writes=true", "cache.ttl=200ms", "cache.negative_ttl=50ms", "origin.timeout=20s"];
    let (_fixture, server) = start(&redis, first_port, &soon_stale);
    let crowd = Crowd {
        addresses: addresses(first_port),
        threads: 2,
        connections: 16,
        keys: KEYS,
        writes_per_mille: 70,
        deletes_per_mille: 30,
        token: TOKEN.into(),
        seed: 1,
        operations_max: 60_000,
        time_max: Duration::from_secs(120),
    };
    let (history, tally, purges) =
        crowd.run(|is_wanted| purge_while(&server, TOKEN, KEYS, Prng::new(1), is_wanted));
    if let Err((key, violation)) = history.check() {
        panic!("key {key}: {violation}");
    }
    assert!(tally.values > 10_000 && tally.writes > 1_000 && tally.deletes > 100, "{tally:?}");
    assert!(history.overlaps() > 500 && purges.done > 50, "{purges:?}");
}

/// A write past the server: what was written, and when it was done.
type Done = (u64, Instant);

/// A read through it: when it was asked for, and what it said.
type Read = (Instant, u64);

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn what_is_written_past_the_server_is_seen_within_the_bound_that_it_publishes() {
    let redis = RedisServer::start(&[]);
    let first_port = free_ports(SHARDS);
    let never_stale =
        ["cache.ttl=1h", "cache.stale_while_revalidate=0s", "cache.stale_if_error=0s"];
    let (_fixture, server) = start(&redis, first_port, &never_stale);
    let bound = Duration::from_secs(server.metric("pelton_origin_staleness_bound_seconds", ""));
    assert!(bound > Duration::ZERO);
    let done: Vec<Mutex<Vec<Done>>> = (0..KEYS).map(|_| Mutex::default()).collect();
    write_all(&redis, &done, 0);
    let is_over = &AtomicBool::new(false);
    let reads: Vec<Vec<Vec<Read>>> = thread::scope(|scope| {
        let readers: Vec<_> = addresses(first_port)
            .into_iter()
            .cycle()
            .take(4)
            .map(|address| scope.spawn(move || read_while(address, is_over)))
            .collect();
        for round in 1..ROUNDS {
            write_all(&redis, &done, u64::try_from(round).unwrap());
            if round % ROUNDS_CUT == 0 {
                redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            }
        }
        is_over.store(true, Ordering::Release);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let mut stalest = Duration::ZERO;
    let mut versions_seen = 0;
    for key in 0..KEYS {
        let done = done[key].lock().unwrap();
        for &(asked, version) in reads.iter().flat_map(|reader| &reader[key]) {
            versions_seen += usize::from(version > 0);
            // The next version had been written for so long when this one was read.
            let next = done.get(usize::try_from(version).unwrap() + 1);
            let stale = next.map_or(Duration::ZERO, |(_, at)| asked.duration_since(*at));
            stalest = stalest.max(stale);
        }
    }
    assert!(versions_seen > 10_000, "{versions_seen} reads saw anything new");
    assert!(stalest <= bound, "a value was shown {stalest:?} after it had been replaced");
    assert!(server.metric("pelton_forgotten_total", "") > 1_000, "changes were told");
    println!("the stalest of {versions_seen} reads: {stalest:?}");
}

/// Writes the next version of each key, one after the other.
fn write_all(redis: &RedisServer, done: &[Mutex<Vec<Done>>], version: u64) {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for (key, done) in done.iter().enumerate() {
        (&stream).write_all(format!("SET k{key} {version}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line, "+OK\r\n");
        done.lock().unwrap().push((version, Instant::now()));
    }
}

/// Reads all keys over and over; what was seen of each.
fn read_while(address: SocketAddr, is_over: &AtomicBool) -> Vec<Vec<Read>> {
    let mut reads = vec![Vec::new(); KEYS];
    let mut client = Client::new(TcpStream::connect(address).unwrap());
    while !is_over.load(Ordering::Acquire) {
        for (key, reads) in reads.iter_mut().enumerate() {
            let asked = Instant::now();
            let request = format!("GET /lookup/k{key} HTTP/1.1\r\nHost: h\r\n\r\n");
            client.send(request.as_bytes()).unwrap();
            let reply = client.receive(false).unwrap();
            // While there is no connection nothing can be said.
            if reply.status == 200 {
                reads.push((asked, reply.text().parse().unwrap()));
            }
        }
    }
    reads
}
