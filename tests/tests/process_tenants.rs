//! Tenants before a real server: what a noisy one gets, that others do not notice it, and that no
//! key is ever shown.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::disallowed_methods, reason = "the oracle needs to know when replies came")]
#![expect(clippy::disallowed_types, reason = "the oracle needs to know when replies came")]

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{self, PATIENCE, Process, free_ports};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

/// The noisy tenant's rate and burst.
const RATE: u32 = 500;
const BURST: u32 = 50;

/// Connections of the noisy tenant, all but one to the first shard, and requests of each.
const NOISY: u16 = 10;
const ASKED: u32 = 4_000;

/// A new key and its digest, as `pelton key new` prints them.
fn new_key() -> (String, String) {
    let output = process::run(&["key", "new", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("key"), text("digest"))
}

fn tenant(name: &str, digest: &str, rest: &str) -> String {
    format!("[[tenant]]\nname = \"{name}\"\nkeys = [\"{digest}\"]\n{rest}\n")
}

fn written(fixture: &Fixture, text: &str) -> PathBuf {
    let path = fixture.path("pelton.toml");
    fs::write(&path, text).unwrap();
    path
}

fn connect(port: u16) -> Client {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::new(stream)
}

fn status(client: &mut Client, key: &str, number: u32) -> u16 {
    let head = format!("GET /lookup/k{number} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n");
    client.send(head.as_bytes()).unwrap();
    client.receive(false).unwrap().status
}

/// How many of requests at these times one limiter for all of them admits.
fn oracle(times: &[Instant]) -> u64 {
    let number = |number: u32| NonZeroU32::new(number).unwrap();
    let clock = FakeRelativeClock::default();
    let quota = Quota::per_second(number(RATE)).allow_burst(number(BURST));
    let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
    let mut before = times[0];
    let admitted = times.iter().filter(|time| {
        clock.advance(time.duration_since(before));
        before = **time;
        limiter.check().is_ok()
    });
    admitted.count() as u64
}

#[test]
fn a_noisy_tenant_gets_its_rate_and_others_do_not_notice() {
    let fixture = Fixture::numbered(10);
    let ((noisy, noisy_digest), (quiet, quiet_digest)) = (new_key(), new_key());
    let rate = format!("rate = {RATE}\nburst = {BURST}");
    let text = tenant("noisy", &noisy_digest, &rate) + &tenant("quiet", &quiet_digest, "");
    let first = free_ports(2);
    let ports = format!("server.shard_ports={first}");
    let server = Process::start_with(&written(&fixture, &text), &fixture.store(), &[&ports]);

    let ask = |port: u16| {
        let mut client = connect(port);
        let one = |number| (status(&mut client, &noisy, number % 10), Instant::now());
        (0..ASKED).map(one).collect::<Vec<_>>()
    };
    let (replies, quiet_statuses) = thread::scope(|scope| {
        let port = |number| if number == 0 { first + 1 } else { first };
        let noisy: Vec<_> =
            (0..NOISY).map(|number| scope.spawn(move || ask(port(number)))).collect();
        let quiet = scope.spawn(|| {
            let mut client = connect(first);
            (0..ASKED / 4).map(|number| status(&mut client, &quiet, number % 10)).collect()
        });
        let replies: Vec<_> = noisy.into_iter().flat_map(|asks| asks.join().unwrap()).collect();
        let statuses: Vec<u16> = quiet.join().unwrap();
        (replies, statuses)
    });

    assert!(quiet_statuses.iter().all(|status| *status == 200), "the quiet one is not refused");
    let admitted = replies.iter().filter(|(status, _)| *status == 200).count() as u64;
    let limited = replies.iter().filter(|(status, _)| *status == 429).count() as u64;
    assert_eq!(admitted + limited, u64::from(NOISY) * u64::from(ASKED));
    let mut times: Vec<Instant> = replies.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    let expected = oracle(&times);
    // Two in a hundred, and what shards may hold of a burst.
    let slack = expected / 50 + u64::from(BURST / 2);
    assert!(admitted.abs_diff(expected) <= slack, "{admitted} admitted, by the oracle {expected}");
    let counted = |outcome: &str| {
        let (_, text) = server.admin("/metrics");
        let series =
            format!("pelton_tenant_requests_total{{tenant=\"noisy\",outcome=\"{outcome}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().to_owned();
        value.parse::<u64>().unwrap()
    };
    process::until("the counters are published", || counted("rate_limited") == limited);
    assert_eq!(counted("admitted"), admitted);
}

/// Reads the keys of these numbers. Returns how many of them had to be fetched.
fn fetches(server: &Process, client: &mut Client, key: &str, numbers: Range<u32>) -> u64 {
    let counted =
        |outcome: &str| server.metric("pelton_requests_total", &format!("outcome=\"{outcome}\""));
    let (hits, misses) = (counted("hit"), counted("miss"));
    let count = numbers.len() as u64;
    for number in numbers {
        assert_eq!(status(client, key, number), 200);
    }
    process::until("the counters are published", || {
        counted("hit") + counted("miss") == hits + misses + count
    });
    counted("miss") - misses
}

#[test]
fn a_noisy_tenant_takes_nothing_of_the_share_that_another_has_of_the_cache() {
    // 30 MB of values for a cache of 16 MiB.
    let fixture = Fixture::of(30_000, |number| format!("\"{number:01000}\""));
    let lost = |share: &str| {
        let ((noisy, noisy_digest), (quiet, quiet_digest)) = (new_key(), new_key());
        let text = tenant("noisy", &noisy_digest, "") + &tenant("quiet", &quiet_digest, share);
        let sets = ["server.shards=1", "cache.memory=16MiB", "cache.value_size_max=64KiB"];
        let server = Process::start_with(&written(&fixture, &text), &fixture.store(), &sets);
        process::until("the cache is populated", || {
            server.metric("pelton_cache_capacity_bytes", "") > 12 << 20
        });
        let mut client = Client::new(server.connect());
        assert_eq!(fetches(&server, &mut client, &quiet, 0..500), 500);
        assert_eq!(fetches(&server, &mut client, &noisy, 500..30_000), 29_500);
        assert!(fetches(&server, &mut client, &noisy, 500..30_000) > 10_000, "it has no room");
        fetches(&server, &mut client, &quiet, 0..500)
    };
    assert_eq!(lost("cache = \"20%\""), 0);
    assert!(lost("") > 100, "without a share the others win");
}

#[test]
fn keys_are_shown_nowhere() {
    let fixture = Fixture::numbered(10);
    let (key, digest) = new_key();
    let text = tenant("web", &digest, "rate = 1000") + "[log]\nlevel = \"trace\"\n";
    let mut server = Process::start_with(&written(&fixture, &text), &fixture.store(), &[]);
    let mut client = Client::new(server.connect());
    assert_eq!(status(&mut client, &key, 1), 200);
    let (wrong, _) = new_key();
    assert_eq!(status(&mut client, &wrong, 1), 401);
    let head = format!("GET /lookup/k1 HTTP/1.1\r\nHost: a\r\nX-API-Key: {wrong}\r\n\r\n");
    client.send(head.as_bytes()).unwrap();
    let refused = client.receive(false).unwrap();
    let mut shown = format!("{refused:?}\n{}", server.greeting.join("\n"));
    for path in ["/metrics", "/config", "/stats", "/hot", "/explain?key=k1", "/readyz"] {
        writeln!(shown, "{}", server.admin(path).1).unwrap();
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(server.id()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(server.wait().success());
    shown += &server.last_words().join("\n");
    assert!(shown.contains("web"), "the tenant itself is shown");
    let digits = digest.strip_prefix("sha256:").unwrap();
    for secret in [&*key, &*wrong, digits] {
        assert!(!shown.contains(secret), "{secret} in\n{shown}");
    }
}

#[test]
fn a_thousand_tenants_are_told_apart() {
    let fixture = Fixture::numbered(10);
    let keys: Vec<(String, String)> = (0..1_000)
        .map(|_| {
            let key = pelton::api_key::new_key();
            let digest = pelton::api_key::KeyDigest::of(&key).to_string();
            (String::from_utf8(key.to_vec()).unwrap(), digest)
        })
        .collect();
    let text: String = keys
        .iter()
        .enumerate()
        .map(|(number, (_, digest))| tenant(&format!("t{number}"), digest, "rate = 10\nburst = 2"))
        .collect();
    let server = Process::start_with(&written(&fixture, &text), &fixture.store(), &[]);
    let mut client = Client::new(server.connect());
    for (key, _) in &keys {
        assert_eq!(status(&mut client, key, 1), 200, "a rate of its own");
    }
    let (_, text) = server.admin("/metrics");
    let series = text.lines().filter(|line| line.starts_with("pelton_tenant_requests_total"));
    assert_eq!(series.count(), 33 * 3, "those that stand first, and the others together");
    process::until("each is counted", || {
        let (_, stats) = server.admin("/stats");
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        let tenants = stats["tenants"].as_object().unwrap();
        tenants.len() == 1_000 && tenants.values().all(|tenant| tenant["admitted"] == 1)
    });
}

#[test]
fn a_configuration_with_a_key_instead_of_its_digest_is_refused() {
    let fixture = Fixture::empty();
    let (key, _) = new_key();
    let file = written(&fixture, &tenant("web", &key, ""));
    let output = process::run(&["check", "-c", file.to_str().unwrap()]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("its digest belongs here"), "{message}");
}
