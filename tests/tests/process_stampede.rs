//! A crowd that asks for the same at the same time: for one key that nobody knows yet, or for all.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::http_origin::HttpOrigin;
use pelton_tests::process::{Process, until};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const REQUEST: &[u8] = b"GET /lookup/cold HTTP/1.1\r\nHost: test\r\n\r\n";

fn serve(origin: &HttpOrigin, sets: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let own = ["origin.kind=http", &HttpOrigin::url_at(origin.address), "origin.timeout=1m"];
    let server = Process::start(&fixture.store(), &[&own, sets].concat());
    (fixture, server)
}

/// As many as this process may have, and the server as well.
fn descriptors() -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is one");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("it may be raised so far");
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// An origin that knows a key and does not yet say so.
fn held() -> HttpOrigin {
    let origin = HttpOrigin::start();
    origin.answer("cold", 200, "", "value");
    origin.hold(true);
    origin
}

/// A connection that asks for the key, and what was answered so far.
struct Asking {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Asking {
    fn begin(server: &Process) -> Self {
        let mut stream = server.connect();
        stream.write_all(REQUEST).expect("the server reads");
        stream.set_nonblocking(true).expect("an option can be set");
        Self { stream, answer: Vec::new() }
    }

    /// The status, if there is one.
    fn status(&mut self) -> Option<u16> {
        let mut some = [0; 1024];
        match self.stream.read(&mut some) {
            Ok(size) => self.answer.extend_from_slice(&some[..size]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let text = std::str::from_utf8(&self.answer).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.expect("a reply has a status");
        match status {
            200 if body == "value" => {}
            503 if head.contains("\r\nRetry-After: ") => {}
            _ => panic!("{text}"),
        }
        Some(status)
    }
}

/// How many were answered with this status.
fn count(crowd: &mut [Asking], status: u16) -> usize {
    crowd.iter_mut().filter_map(Asking::status).filter(|answered| *answered == status).count()
}

/// Has a crowd ask for the key while the origin holds it back: so many wait for the value and get
/// it, and the others were refused before that.
fn is_shared(server: &Process, origin: &HttpOrigin, asking: usize, waiting: usize) {
    let mut crowd: Vec<_> = (0..asking).map(|_| Asking::begin(server)).collect();
    let received = (asking * REQUEST.len()) as u64;
    until("all have asked", || server.metric("pelton_request_bytes_total", "") == received);
    origin.wait_until_asked("cold");
    until("those beyond are refused", || count(&mut crowd, 503) == asking - waiting);
    assert_eq!(count(&mut crowd, 200), 0, "the origin has not answered");
    origin.hold(false);
    until("the others are answered", || count(&mut crowd, 200) == waiting);
    assert_eq!(origin.asked("cold"), 1);
    let shed = server.metric("pelton_requests_total", "outcome=\"shed\"");
    assert_eq!(shed, (asking - waiting) as u64);
    assert_eq!(server.metric("pelton_connections_open", ""), asking as u64, "nobody was closed");
}

#[test]
fn as_many_as_may_wait_for_a_fetch_get_its_value_and_the_next_one_is_refused() {
    for shards in ["server.shards=1", "server.shards=2"] {
        for asking in [50, 51] {
            let origin = held();
            let sets = ["origin.flight_waiters_max=50", shards];
            let (_fixture, server) = serve(&origin, &sets);
            is_shared(&server, &origin, asking, 50);
        }
    }
}

#[test]
fn ten_thousand_who_ask_for_one_cold_key_are_one_fetch() {
    // The rest is for the other tests, and for what is no connection.
    let asking = descriptors().saturating_sub(4_000).min(10_000);
    let origin = held();
    let (_fixture, server) = serve(&origin, &[]);
    is_shared(&server, &origin, asking, 1_024);
    let ([_, peak], bill) = (server.resident(), server.bill());
    assert!(peak <= bill, "bill {bill}, at most {peak}");
}

#[test]
fn a_stampede_takes_no_way_to_what_is_in_memory() {
    let origin = HttpOrigin::start();
    for key in 0..20 {
        origin.answer(&format!("k{key}"), 200, "", "known");
    }
    let (_fixture, server) = serve(&origin, &["origin.flight_waiters_max=8192"]);
    let mut clients: Vec<_> = (0..20).map(|_| Client::new(server.connect())).collect();
    let get = |client: &mut Client, key: usize| client.get(&format!("/lookup/k{key}"));
    (0..20).for_each(|key| assert_eq!(get(&mut clients[key], key).text(), "known"));
    origin.answer("cold", 200, "", "value");
    origin.hold(true);
    assert!(descriptors() >= 8_000, "raise the limit on open files: ulimit -Hn");
    let mut crowd: Vec<_> = (0..3_000).map(|_| Asking::begin(&server)).collect();
    // They are at the other shard than the key's, and would take all of its parcels.
    until("some are refused", || count(&mut crowd, 503) > 500);
    for (number, client) in clients.iter_mut().enumerate() {
        (0..20).for_each(|key| assert_eq!(get(client, key).text(), "known", "{number}"));
    }
    assert_eq!(count(&mut crowd, 200), 0, "the origin has not answered");
    origin.hold(false);
}

#[test]
fn who_finds_no_room_to_wait_is_served_what_is_stale() {
    let origin = HttpOrigin::start();
    origin.answer("k", 200, "Cache-Control: max-age=0, stale-if-error=3600\r\n", "old");
    let sets = ["origin.flight_waiters_max=1", "cache.stale_while_revalidate=0s"];
    let (_fixture, server) = serve(&origin, &sets);
    let get = |client: &mut Client| client.get("/lookup/k");
    assert_eq!(get(&mut Client::new(server.connect())).text(), "old");
    origin.answer("k", 200, "", "new");
    origin.hold(true);
    let mut first = Client::new(server.connect());
    first.send(b"GET /lookup/k HTTP/1.1\r\nHost: test\r\n\r\n").expect("the server reads");
    until("it is fetched again", || origin.asked("k") == 2);
    for _ in 0..20 {
        assert_eq!(get(&mut Client::new(server.connect())).text(), "old");
    }
    origin.hold(false);
    assert_eq!(first.receive(false).expect("the server replies").text(), "new");
    assert_eq!(origin.asked("k"), 2);
}

/// Clients that ask for all keys, 50 of them on a connection at once.
struct Crowd<'a> {
    keys: &'a [String],
    clients: Vec<Client>,
}

impl<'a> Crowd<'a> {
    const PIPELINE: usize = 50;

    fn new(server: &Process, keys: &'a [String]) -> Self {
        let count = keys.len().div_ceil(Self::PIPELINE);
        Self { keys, clients: (0..count).map(|_| Client::new(server.connect())).collect() }
    }

    /// Asks for each key once; how many were answered with each status.
    fn ask(&mut self) -> BTreeMap<u16, u64> {
        let chunks = || self.keys.chunks(Self::PIPELINE);
        for (client, keys) in self.clients.iter_mut().zip(chunks()) {
            let request = |key| format!("GET /lookup/{key} HTTP/1.1\r\nHost: test\r\n\r\n");
            let requests: String = keys.iter().map(request).collect();
            client.send(requests.as_bytes()).expect("the server reads");
        }
        let mut statuses = BTreeMap::new();
        for (client, keys) in self.clients.iter_mut().zip(chunks()) {
            for key in keys {
                let reply = client.receive(false).expect("each is answered");
                assert!(reply.status != 200 || reply.text() == key, "{key}: {reply:?}");
                *statuses.entry(reply.status).or_default() += 1;
            }
        }
        statuses
    }

    /// Asks until `is_enough`; how many were refused. None fails.
    fn ask_until(&mut self, is_enough: impl Fn() -> bool) -> u64 {
        let mut refused = 0;
        until("all were asked for", || {
            let statuses = self.ask();
            assert!(statuses.keys().all(|status| [200, 503].contains(status)), "{statuses:?}");
            refused += statuses.get(&503).copied().unwrap_or_default();
            is_enough()
        });
        refused
    }
}

#[test]
fn keys_that_expire_all_at_once_are_fetched_a_few_at_a_time() {
    const REQUESTS_MAX: usize = 64;
    let origin = HttpOrigin::start();
    let keys: Vec<_> = (0..2_000).map(|key| format!("k{key}")).collect();
    keys.iter().for_each(|key| origin.answer(key, 200, "", key));
    let sets = [
        "origin.requests_max=64",
        "cache.ttl=1s",
        "cache.stale_while_revalidate=0s",
        "cache.stale_if_error=0s",
    ];
    let (_fixture, server) = serve(&origin, &sets);
    let asked = |times| keys.iter().all(|key| origin.asked(key) >= times);
    let mut crowd = Crowd::new(&server, &keys);
    let mut refused = crowd.ask_until(|| asked(1));
    origin.slow_down(Duration::from_millis(2));
    refused += crowd.ask_until(|| {
        let limit = server.metric("pelton_origin_server_limit", "");
        assert!(limit <= REQUESTS_MAX as u64);
        asked(3)
    });
    let at_most = origin.in_flight_max();
    assert!((5..=REQUESTS_MAX).contains(&at_most), "{at_most} at a time");
    assert!(refused > 0, "so many do not find room");
    assert_eq!(server.metric("pelton_requests_total", "outcome=\"shed\""), refused);
    assert_eq!(server.metric("pelton_requests_total", "outcome=\"error\""), 0);
}

/// The origin says nothing, so an answer that comes has not waited for it.
#[test]
fn keys_that_expire_all_at_once_are_each_answered_though_the_origin_hangs() {
    const REQUESTS_MAX: u64 = 8;
    let origin = HttpOrigin::start();
    let keys: Vec<_> = (0..2_000).map(|key| format!("k{key}")).collect();
    keys.iter().for_each(|key| origin.answer(key, 200, "", key));
    let sets = [
        "origin.requests_max=8",
        "origin.timeout=200ms",
        "cache.ttl=2s",
        "cache.stale_while_revalidate=0s",
        "cache.stale_if_error=0s",
    ];
    let (_fixture, server) = serve(&origin, &sets);
    let mut crowd = Crowd::new(&server, &keys);
    crowd.ask_until(|| keys.iter().all(|key| origin.asked(key) >= 1));
    origin.hold(true);
    let mut late = 0;
    until("all have expired", || {
        let statuses = crowd.ask();
        assert_eq!(statuses.values().sum::<u64>(), 2_000);
        assert!(statuses.keys().all(|status| [200, 502, 503, 504].contains(status)));
        assert!(server.metric("pelton_origin_server_in_flight", "") <= REQUESTS_MAX);
        late += statuses.get(&504).copied().unwrap_or_default();
        !statuses.contains_key(&200)
    });
    assert!(late > 0, "some were sent to the origin");
    origin.hold(false);
    until("it is asked again", || crowd.ask().contains_key(&200));
}
