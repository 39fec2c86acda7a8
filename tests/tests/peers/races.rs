//! The races of a cache before a Redis that others change, as far as they take a real one: see
//! `docs/freshness.md`.

use crate::program;
use crate::redis::Pelton;
use crate::redis_server::RedisServer;
use pelton_tests::process::until;
use pelton_tests::proxy::{Direction, Faults, Proxy};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// Nothing comes through.
fn silence() -> Faults {
    Faults { is_blackhole: true, ..Faults::default() }
}

/// What is between others and a Redis server.
fn before(redis: &RedisServer) -> Proxy {
    Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port)), 1)
}

fn is_hit(pelton: &Pelton, key: &str) -> bool {
    pelton.get(key).header("cache-status").unwrap().contains("hit")
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn r04_a_replica_that_lags_tells_of_a_change_when_it_has_it() {
    let primary = RedisServer::start(&[]);
    let proxy = before(&primary);
    let replica = RedisServer::start(&[&format!("replicaof 127.0.0.1 {}", proxy.address.port())]);
    primary.cli(&["SET", "a", "1"]);
    until("it is replicated", || replica.cli(&["GET", "a"]) == "1");
    let pelton = Pelton::start(&[&primary, &replica], &["redis.replicas=true", "cache.ttl=1h"]);
    until("it is kept", || pelton.is("a", "1") && is_hit(&pelton, "a"));
    let forgotten = || pelton.process.metric("pelton_forgotten_total", "");
    let before = forgotten();
    proxy.inflict_on(Direction::ToClient, silence());
    primary.cli(&["SET", "a", "2"]);
    until("the primary has told", || forgotten() > before);
    assert_eq!(replica.cli(&["GET", "a"]), "1", "it lags");
    until("what the replica has is kept again", || pelton.is("a", "1") && is_hit(&pelton, "a"));
    proxy.inflict_on(Direction::ToClient, Faults::default());
    until("the replica has told", || pelton.is("a", "2"));
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn r09_what_changes_while_nobody_hears_of_it_is_not_called_fresh() {
    let redis = RedisServer::start(&[]);
    let proxy = before(&redis);
    redis.cli(&["SET", "a", "1"]);
    let sets = ["cache.ttl=1h", "cache.stale_while_revalidate=0s", "origin.timeout=500ms"];
    let urls = format!("redis.urls=redis://{}", proxy.address);
    let pelton = Pelton::start_at(&urls, &sets);
    until("it is kept", || pelton.is("a", "1") && is_hit(&pelton, "a"));
    proxy.inflict_on(Direction::ToClient, silence());
    redis.cli(&["SET", "a", "2"]);
    until("it is stale", || !is_hit(&pelton, "a"));
    assert_eq!(pelton.read("a"), (200, "1".to_owned()), "Redis does not answer");
    proxy.inflict_on(Direction::ToClient, Faults::default());
    until("what has changed is seen", || pelton.is("a", "2"));
}

/// `redis-cli MONITOR`, which writes down all commands.
struct Monitor {
    child: Child,
    folder: TempDir,
}

impl Monitor {
    fn start(redis: &RedisServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = program("redis-cli");
        command.args(["-p", &redis.port.to_string(), "MONITOR"]).stdin(Stdio::null()).stdout(log);
        let monitor = Self { child: command.spawn().unwrap(), folder };
        until("it listens", || monitor.text().starts_with("OK"));
        monitor
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The commands of each connection, in order.
    fn connections(&self) -> BTreeMap<String, Vec<String>> {
        let mut connections = BTreeMap::<_, Vec<_>>::new();
        for line in self.text().lines() {
            let Some((head, command)) = line.split_once("] ") else { continue };
            let (_, address) = head.rsplit_once(' ').unwrap();
            connections.entry(address.to_owned()).or_default().push(command.to_uppercase());
        }
        connections
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn r10_no_value_is_read_on_a_connection_that_does_not_tell_of_changes_yet() {
    let redis = RedisServer::start(&[]);
    let monitor = Monitor::start(&redis);
    let proxy = before(&redis);
    let pelton = Pelton::start_at(&format!("redis.urls=redis://{}", proxy.address), &[]);
    let mut number = 0;
    let mut read = || {
        number += 1;
        pelton.read(&format!("k{number}")).0
    };
    for _ in 0..20 {
        until("it is connected", || read() == 404);
        proxy.reset();
        // Whoever asks meanwhile waits for the next connection, or is told that there is none.
        (0..20).for_each(|_| assert!([404, 502].contains(&read())));
        proxy.heal();
    }
    until("it is connected", || read() == 404);
    let mut reading = 0;
    for (address, commands) in monitor.connections() {
        let first = |name: &str| commands.iter().position(|command| command.contains(name));
        if let Some(read) = first("GETRANGE") {
            reading += 1;
            let told = first("\"TRACKING\" \"ON\"");
            assert!(told.is_some_and(|told| told < read), "{address}: {commands:?}");
        }
    }
    assert!(reading > 20, "{reading} connections were read on");
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn r11_more_changes_than_can_be_told_make_everything_stale() {
    const MANY: &str = "for i = 1, 200000 do redis.call('SET', 'k' .. i, ARGV[1]) end";
    for limit in ["normal 0 0 0", "normal 1mb 0 0"] {
        let redis = RedisServer::start(&[]);
        redis.cli(&["CONFIG", "SET", "client-output-buffer-limit", limit]);
        let change = |value: &str| redis.cli(&["EVAL", MANY, "0", value]);
        change("1");
        let pelton = Pelton::start(&[&redis], &["cache.ttl=1h"]);
        let keys: Vec<_> = (1..=50).map(|number| format!("k{}", number * 4_000)).collect();
        let all_are = |value| keys.iter().all(|key| pelton.is(key, value));
        let are_kept = || keys.iter().all(|key| is_hit(&pelton, key));
        until("all are kept", || all_are("1") && are_kept());
        change("2");
        until("no key is overlooked", || all_are("2"));
        until("all are kept", are_kept);
        redis.cli(&["FLUSHALL"]);
        until("all are gone", || keys.iter().all(|key| pelton.read(key).0 == 404));
    }
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn r12_a_key_whose_time_in_redis_is_over_is_not_served_until_redis_says_so() {
    let redis = RedisServer::start(&["enable-debug-command yes"]);
    // Now a key is let go, and that told, when somebody asks Redis for it.
    redis.cli(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    let pelton = Pelton::start(&[&redis], &["cache.ttl=1h"]);
    until("it is connected", || pelton.read("a").0 == 404);
    until("it is seen", || {
        redis.cli(&["SET", "a", "1", "PX", "2000"]);
        pelton.is("a", "1")
    });
    until("it is gone", || pelton.read("a").0 == 404);
}
