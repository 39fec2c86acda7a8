//! An origin behind a bad network, under load: whoever asks for what was known is answered.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::disallowed_methods, reason = "clients are threads")]
#![expect(clippy::print_stdout, reason = "a measured number is shown")]

use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::http_origin::HttpOrigin;
use pelton_tests::prng::Prng;
use pelton_tests::process::{Process, until};
use pelton_tests::proxy::{Direction, Faults, Proxy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Keys that are known: `k0`, `k1`, ...
const KEYS: usize = 40;

/// Connections that ask for them, each for one at a time.
const CLIENTS: u64 = 6;

/// Requests that the origin is sent at a time: so few that the limit is never less.
const REQUESTS_MAX: u64 = 4;

const MS: Duration = Duration::from_millis(1);

/// A server, its origin, and what is between the two.
struct World {
    origin: HttpOrigin,
    proxy: Proxy,
    server: Process,
    _fixture: Fixture,
}

/// A value, of which an origin has one after the other: no two keys share any.
fn value(key: usize, version: usize) -> String {
    let padding = [10, 300, 3_000, 20_000][key % 4];
    format!("{key}.{version}:{}", format!("{key:06}").repeat(padding / 6))
}

/// The version of a value.
fn version(key: usize, text: &str) -> usize {
    let version = text.split(['.', ':']).nth(1).and_then(|version| version.parse().ok());
    let version = version.expect("a value names its version");
    assert!(text == value(key, version), "k{key} is no value of its own");
    version
}

fn get(client: &mut Client, key: usize) -> usize {
    let reply = client.get(&format!("/lookup/k{key}"));
    assert_eq!(reply.status, 200, "k{key}: {}", String::from_utf8_lossy(&reply.body));
    version(key, reply.text())
}

impl World {
    /// A world in which each key is known, and stale.
    fn new(timeout: &str) -> Self {
        let origin = HttpOrigin::start();
        let proxy = Proxy::start(origin.address, 1);
        let fixture = Fixture::empty();
        let requests_max = format!("origin.requests_max={REQUESTS_MAX}");
        let sets = [
            "origin.kind=http",
            &HttpOrigin::url_at(proxy.address),
            timeout,
            &requests_max,
            "cache.ttl=1ms",
            "cache.stale_while_revalidate=0s",
            "cache.stale_if_error=1h",
        ];
        let server = Process::start(&fixture.store(), &sets);
        let world = Self { origin, proxy, server, _fixture: fixture };
        world.publish(1);
        let mut client = Client::new(world.server.connect());
        (0..KEYS).for_each(|key| assert_eq!(get(&mut client, key), 1));
        world
    }

    /// The origin has this version of all values from now on.
    fn publish(&self, version: usize) {
        for key in 0..KEYS {
            self.origin.answer(&format!("k{key}"), 200, "", &value(key, version));
        }
    }

    fn level(&self, name: &str) -> u64 {
        self.server.metric(&format!("pelton_origin_server_{name}"), "")
    }

    fn requests(&self, outcome: &str) -> u64 {
        let label = format!("outcome=\"{outcome}\"");
        self.server.metric("pelton_origin_server_requests_total", &label)
    }

    /// What holds whatever happens.
    fn check_bounds(&self) {
        assert_eq!(self.level("limit"), REQUESTS_MAX);
        assert!(self.level("in_flight") <= REQUESTS_MAX);
    }

    /// Waits until each key has been answered with this version.
    fn wait_for_version(&self, wanted: usize) {
        let mut client = Client::new(self.server.connect());
        for key in 0..KEYS {
            until("a value of the origin", || get(&mut client, key) == wanted);
        }
    }
}

/// Clients that ask for the known keys until this is dropped, and fail at any wrong answer.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn begin(server: &Process) -> Self {
        let mut load = Self { stop: Arc::default(), answered: Arc::default(), threads: Vec::new() };
        for seed in 0..CLIENTS {
            let mut client = Client::new(server.connect());
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            load.threads.push(std::thread::spawn(move || {
                let (mut prng, mut newest) = (Prng::new(seed), [0; KEYS]);
                while !stop.load(Ordering::Relaxed) {
                    let key = prng.index(KEYS);
                    let version = get(&mut client, key);
                    assert!(version >= newest[key], "k{key} went back from {}", newest[key]);
                    newest[key] = version;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        load
    }

    /// Waits until so many more requests have been answered; `check` holds all the while.
    fn go_on(&self, count: u64, check: impl Fn()) {
        let end = self.answered.load(Ordering::Relaxed) + count;
        until("answers under load", || {
            assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client has failed");
            check();
            self.answered.load(Ordering::Relaxed) >= end
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no answer was wrong"));
    }
}

/// The breaker opens by the fault and closes after it, and clients see neither.
fn is_survived(timeout: &str, inflict: impl Fn(&Proxy)) {
    let world = World::new(timeout);
    let load = Load::begin(&world.server);
    load.go_on(200, || world.check_bounds());
    assert_eq!(world.level("breaker_state"), 0);
    inflict(&world.proxy);
    until("the breaker is open", || world.level("breaker_state") == 2);
    world.publish(2);
    load.go_on(500, || world.check_bounds());
    assert!(world.requests("broken") > 0);
    world.proxy.heal();
    until("the breaker is closed", || world.level("breaker_state") == 0);
    load.go_on(200, || world.check_bounds());
    world.wait_for_version(2);
    load.end();
    until("all are let out", || world.level("in_flight") == 0);
    let [_, peak] = world.server.resident();
    assert!(peak <= world.server.bill(), "at most {peak} bytes");
}

#[test]
fn connections_that_are_reset_are_survived() {
    is_survived("origin.timeout=10s", Proxy::reset);
}

#[test]
fn an_origin_that_is_down_is_survived() {
    is_survived("origin.timeout=10s", Proxy::go_down);
}

#[test]
fn an_origin_that_answers_nothing_is_survived() {
    let faults = Faults { is_blackhole: true, ..Faults::default() };
    is_survived("origin.timeout=100ms", |proxy| proxy.inflict(faults));
}

#[test]
fn answers_that_are_lost_are_survived() {
    let faults = Faults { is_blackhole: true, ..Faults::default() };
    is_survived("origin.timeout=100ms", |proxy| proxy.inflict_on(Direction::ToClient, faults));
}

#[test]
fn an_origin_that_flaps_is_survived() {
    let world = World::new("origin.timeout=10s");
    let load = Load::begin(&world.server);
    for round in 2..10 {
        match round % 2 {
            0 => world.proxy.go_down(),
            _ => world.proxy.reset(),
        }
        world.publish(round);
        load.go_on(50, || world.check_bounds());
        world.proxy.heal();
        load.go_on(50, || world.check_bounds());
    }
    world.wait_for_version(9);
    load.end();
}

#[test]
fn a_network_that_is_slow_costs_nobody_an_answer_and_the_server_is_not_left_alone() {
    let world = World::new("origin.timeout=30s");
    let usual = Faults::default();
    let load = Load::begin(&world.server);
    for (round, faults) in [
        Faults { latency: 5 * MS, jitter: 10 * MS, ..usual },
        Faults { slice_size_max: 2_000, pause: MS, ..usual },
        Faults { bytes_per_second: 1 << 20, ..usual },
    ]
    .into_iter()
    .enumerate()
    {
        world.proxy.inflict(faults);
        world.publish(round + 2);
        load.go_on(200, || world.check_bounds());
    }
    world.wait_for_version(4);
    load.end();
    for outcome in ["failed", "timed_out", "broken"] {
        assert_eq!(world.requests(outcome), 0, "{outcome}");
    }
}

/// Of values that are fetched at the same time, more than the bill has room for.
#[test]
fn values_that_come_slowly_take_no_more_memory_than_there_is_room_for() {
    const SIZE: usize = 1 << 20;
    const COUNT: usize = 400;
    let origin = HttpOrigin::start();
    for key in 0..COUNT {
        origin.answer(&format!("k{key}"), 200, "", &format!("{key:08}").repeat(SIZE / 8));
    }
    let proxy = Proxy::start(origin.address, 2);
    proxy.inflict_on(Direction::ToClient, Faults { pause: MS, ..Faults::default() });
    let fixture = Fixture::empty();
    let sets = [
        "origin.kind=http",
        &HttpOrigin::url_at(proxy.address),
        "origin.timeout=1m",
        // It may have a tenth of that at first.
        "origin.requests_max=4000",
        "cache.memory=16MiB",
    ];
    let server = Process::start(&fixture.store(), &sets);
    let [at_first, _] = server.resident();
    let mut clients: Vec<_> = (0..COUNT).map(|_| Client::new(server.connect())).collect();
    for (key, client) in clients.iter_mut().enumerate() {
        let request = format!("GET /lookup/k{key} HTTP/1.1\r\nHost: test\r\n\r\n");
        client.send(request.as_bytes()).expect("the server reads");
    }
    let mut found = 0;
    for (key, client) in clients.iter_mut().enumerate() {
        let reply = client.receive(false).expect("the server replies");
        // The cache may be full of values that are not read yet.
        if reply.status != 503 {
            assert_eq!(reply.status, 200, "k{key}");
            assert!(reply.text() == format!("{key:08}").repeat(SIZE / 8), "k{key}");
            found += 1;
        }
    }
    assert!(found > COUNT / 10, "{found}");
    let ([_, peak], bill) = (server.resident(), server.bill());
    println!("bill {bill}, at first {at_first}, at most {peak}");
    assert!(peak <= bill, "bill {bill}, at most {peak}");
}
