//! A real server that says why a key is served as it is, by its admin port and by the command.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton::admin::{ExplainReport, FetchReport};
use pelton::mesh::{OwnerHash, Owners, State, Taken, Why};
use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::http_origin::HttpOrigin;
use pelton_tests::process::{self, Process, until};
use shard_cache::hash::KeyHasher;
use std::net::TcpListener;

const TOKEN: &str = "a-token-of-some-thirty-characters";
const SHARDS: u16 = 2;

/// The secret of the hash that places keys.
const HASH_KEY: [u64; 2] = [5, 8];

/// A server of an HTTP origin, whose values are fresh for an hour.
struct World {
    origin: HttpOrigin,
    server: Process,
    _fixture: Fixture,
}

impl World {
    fn new(sets: &[&str]) -> Self {
        let (origin, fixture) = (HttpOrigin::start(), Fixture::empty());
        let [high, low] = HASH_KEY;
        let hash_key = format!(r#"cache.hash_key="{high:016x}{low:016x}""#);
        let url = HttpOrigin::url_at(origin.address);
        let token = fixture.token_file(TOKEN);
        let own = ["origin.kind=http", "origin.timeout=30s", "cache.ttl=1h", &url, &token];
        let sets = [&own, &[&*hash_key][..], sets].concat();
        let server = Process::start(&fixture.store(), &sets);
        Self { origin, server, _fixture: fixture }
    }

    /// What is said of a key, which stands as in a path.
    fn explain(&self, key: &str) -> ExplainReport {
        let (status, body) = self.server.admin(&format!("/explain?key={key}"));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("a report")
    }

    /// The last fetch of a key.
    fn last_fetch(&self, key: &str) -> FetchReport {
        self.explain(key).last_fetch.expect("it was fetched just now")
    }

    fn get(&self, key: &str) -> Reply {
        Client::new(self.server.connect()).get(&format!("/lookup/{key}"))
    }

    fn purge(&self, body: &str) {
        let (status, answer) = self.server.purge(TOKEN, body);
        assert_eq!(status, 200, "{answer}");
    }
}

fn owner(key: &[u8]) -> u16 {
    let hash = KeyHasher::new(HASH_KEY).hash(key);
    Owners::new(OwnerHash::Keyed, SHARDS).of(hash, key)
}

#[test]
fn a_key_is_explained_from_its_first_fetch_to_a_purge_and_after() {
    let world = World::new(&[]);
    world.origin.answer("k", 200, "Content-Type: text/plain\r\n", "value");
    let new = world.explain("k");
    assert_eq!((new.state, new.owner_shard), (State::Missing, owner(b"k")));
    assert!(new.entry.is_none() && new.fetch.is_none() && new.last_fetch.is_none(), "{new:?}");

    let reply = world.get("k");
    let report = world.explain("k");
    let entry = report.entry.expect("it is in memory");
    assert_eq!(report.state, State::Fresh);
    assert_eq!((entry.size, entry.content_type.as_deref()), (Some(5), Some("text/plain")));
    assert_eq!(entry.etag.as_deref(), reply.header("ETag"));
    assert!(entry.fresh_seconds.is_some_and(|left| left > 3_000.0), "{entry:?}");
    let fetch = report.last_fetch.expect("it was fetched");
    assert_eq!((fetch.reason, &*fetch.answer, fetch.kept), (Why::New, "found", true));
    assert_eq!(report.origin.server, Some(world.origin.address.to_string()));
    assert_eq!(report.origin.breaker.as_deref(), Some("closed"));

    world.purge(r#"{"all":true}"#);
    assert_eq!(world.explain("k").state, State::Purged);
    world.get("k");
    assert_eq!(world.last_fetch("k").reason, Why::Purged);
    world.purge(r#"{"key":"k"}"#);
    let purged = world.explain("k");
    assert_eq!(purged.state, State::Missing);
    assert_eq!(purged.last_fetch.expect("it was fetched").taken, Some(Taken::Purged));
}

#[test]
fn a_fetch_under_way_is_explained_and_that_a_purge_has_made_it_void() {
    let world = World::new(&[]);
    world.origin.answer("k", 200, "", "value");
    world.origin.hold(true);
    let mut clients = [0; 3].map(|_| Client::new(world.server.connect()));
    for client in &mut clients {
        client.send(b"GET /lookup/k HTTP/1.1\r\nHost: h\r\n\r\n").expect("the server reads");
    }
    let waiters = || world.explain("k").fetch.map_or(0, |fetch| fetch.waiters);
    until("all wait for one fetch", || waiters() == 3);
    let report = world.explain("k");
    assert!(!report.fetch.expect("it is under way").void);
    assert_eq!(report.last_fetch.expect("it has begun").answer, "pending");
    world.purge(r#"{"key":"k"}"#);
    let fetch = world.explain("k").fetch.expect("it is still under way");
    assert_eq!((fetch.void, fetch.waiters), (true, 3));
    world.origin.hold(false);
    for client in &mut clients {
        assert_eq!(client.receive(false).expect("a reply").text(), "value");
    }
    let report = world.explain("k");
    assert!(report.entry.is_none() && report.fetch.is_none(), "{report:?}");
    let fetch = report.last_fetch.expect("it has ended");
    assert_eq!((&*fetch.answer, fetch.kept, fetch.taken), ("found", false, Some(Taken::Purged)));
    world.get("k");
    assert_eq!(world.last_fetch("k").reason, Why::Purged);
}

#[test]
fn absences_failures_and_what_is_past_its_time_are_told_apart() {
    let world = World::new(&["cache.stale_while_revalidate=0s", "cache.stale_if_error=1h"]);
    world.origin.answer("none", 404, "", "");
    world.origin.answer("past", 200, "Cache-Control: max-age=0\r\n", "value");
    let dead = "Cache-Control: max-age=0, must-revalidate\r\n";
    world.origin.answer("dead", 200, dead, "value");
    for (key, status) in [("none", 404), ("past", 200), ("dead", 200), ("ill", 502)] {
        assert_eq!(world.get(key).status, status, "{key}");
    }
    let absent = world.explain("none");
    assert_eq!((absent.state, absent.entry.expect("it is kept").size), (State::Absent, None));
    assert_eq!(absent.last_fetch.expect("it was fetched").answer, "absent");
    assert_eq!(world.explain("past").state, State::Retained);
    assert_eq!(world.explain("dead").state, State::Expired);
    let failed = world.explain("ill");
    assert_eq!(failed.state, State::Missing);
    assert_eq!(failed.last_fetch.expect("it was fetched").answer, "unavailable");
    for key in ["past", "dead"] {
        world.get(key);
        assert_eq!(world.last_fetch(key).reason, Why::Expired, "{key}");
    }
    until("what failed is fetched again after its pause", || {
        world.get("ill");
        world.last_fetch("ill").reason == Why::NotKept
    });
}

#[test]
fn shards_with_copies_are_named_and_keys_have_any_bytes() {
    let world = World::new(&[]);
    world.origin.answer("%00%FF", 200, "", "value");
    until("the other shard has a copy", || {
        world.get("%00%FF");
        !world.explain("%00%ff").copies.is_empty()
    });
    let report = world.explain("%00%FF");
    assert_eq!((&*report.key, &*report.encoding), ("%00%FF", "percent"));
    assert_eq!(report.copies, [1 - report.owner_shard]);
    for (query, why) in [("", "say which"), ("?key=", "empty"), ("?key=%0", "two hex digits")] {
        let (status, answer) = world.server.admin(&format!("/explain{query}"));
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(why), "{answer}");
    }
}

#[test]
fn the_command_prints_a_few_lines_or_what_is_wrong() {
    let world = World::new(&[]);
    world.origin.answer("a%20b", 200, "", "value");
    world.get("a%20b");
    let admin = world.server.admin.to_string();
    let explain = |arguments: &[&str]| {
        let output = process::run(&[&["explain"], arguments].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat());
        (text.expect("it prints text"), output.status.code())
    };
    for arguments in [&["a b", "--admin", &admin][..], &["a%20b", "--percent", "--admin", &admin]] {
        let (text, code) = explain(arguments);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("fresh: served from memory"), "{text}");
        assert!(text.contains(&format!("owned by shard {}", owner(b"a b"))), "{text}");
    }
    let (json, code) = explain(&["a b", "--json", "--admin", &admin]);
    assert_eq!(code, Some(0), "{json}");
    let report: ExplainReport = serde_json::from_str(&json).expect("a report");
    assert_eq!(report.key, "a b");

    let (text, code) = explain(&["k", "--set", "admin.listen=off"]);
    assert!(code == Some(6) && text.contains("admin port is off"), "{text}");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = free.local_addr().expect("it has an address").to_string();
    drop(free);
    let (text, code) = explain(&["k", "--admin", &nobody]);
    assert!(code == Some(6) && text.contains("Nothing answers"), "{text}");
    let long = "x".repeat(513);
    for (arguments, why) in [
        (&[""][..], "empty"),
        (&[&*long], "513 bytes"),
        (&["%f", "--percent"], "two hex digits"),
        (&[], "<KEY>"),
    ] {
        let (text, code) = explain(arguments);
        assert!(code == Some(2) && text.contains(why), "{text}");
    }
}
