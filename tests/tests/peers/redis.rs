//! Redis as the origin: real servers, alone, with a replica, and as a cluster.

use crate::certificate::Certificate;
use crate::redis_server::RedisServer;
use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{Process, until};

const TOKEN: &str = "a-token-of-some-thirty-characters";

/// A server before Redis servers.
pub(crate) struct Pelton {
    _fixture: Fixture,
    pub(crate) process: Process,
}

impl Pelton {
    pub(crate) fn start(servers: &[&RedisServer], sets: &[&str]) -> Self {
        let urls: Vec<_> =
            servers.iter().map(|server| format!("\"redis://127.0.0.1:{}\"", server.port)).collect();
        Self::start_at(&format!("redis.urls=[{}]", urls.join(",")), sets)
    }

    pub(crate) fn start_at(urls: &str, sets: &[&str]) -> Self {
        let fixture = Fixture::empty();
        let token = fixture.token_file(TOKEN);
        let own = ["origin.kind=redis", urls, "http.writes=true", &token];
        let process = Process::start(&fixture.store(), &[&own, sets].concat());
        Self { _fixture: fixture, process }
    }

    pub(crate) fn get(&self, key: &str) -> Reply {
        Client::new(self.process.connect()).get(&format!("/lookup/{key}"))
    }

    /// Status and body.
    pub(crate) fn read(&self, key: &str) -> (u16, String) {
        let reply = self.get(key);
        (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    }

    pub(crate) fn is(&self, key: &str, value: &str) -> bool {
        self.read(key) == (200, value.to_owned())
    }

    /// The status of a write.
    fn write(&self, method: &str, key: &str, fields: &str, body: &str) -> u16 {
        let mut client = Client::new(self.process.connect());
        let size = body.len();
        let request = format!(
            "{method} /lookup/{key} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\
             {fields}Content-Length: {size}\r\n\r\n{body}"
        );
        client.send(request.as_bytes()).unwrap();
        client.receive(false).unwrap().status
    }
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn values_are_read_as_they_are_and_live_as_long_as_redis_says() {
    let redis = RedisServer::start(&[]);
    let large = "x".repeat(200_000);
    redis.cli(&["SET", "user:json", "[1]"]);
    redis.cli(&["SET", "user:empty", ""]);
    redis.cli(&["EVAL", "redis.call('SET', KEYS[1], string.rep('x', 200000))", "1", "user:large"]);
    redis.cli(&["EVAL", "redis.call('SET', KEYS[1], string.rep('x', 300000))", "1", "user:huge"]);
    redis.cli(&["SET", "user:short", "s", "PX", "5500"]);
    redis.cli(&["RPUSH", "user:list", "1"]);
    let sets = ["redis.key=user:{key}", "redis.content_type=text/plain"];
    let pelton = Pelton::start(&[&redis], &[&sets[..], &["cache.value_size_max=200KiB"]].concat());
    for (key, status, text) in [
        ("json", 200, "[1]"),
        ("empty", 200, ""),
        ("large", 200, &*large),
        ("huge", 502, r#"{"error":"origin_unavailable"}"#),
        ("list", 502, r#"{"error":"origin_unavailable"}"#),
        ("none", 404, r#"{"error":"not_found"}"#),
    ] {
        assert_eq!(pelton.read(key), (status, text.to_owned()), "{key}");
    }
    assert_eq!(pelton.get("json").header("content-type"), Some("text/plain"));
    // What was fetched before the connection told of changes is not kept.
    until("it is kept", || pelton.get("json").header("cache-status").unwrap().contains("hit"));
    let short = pelton.get("short");
    let control = short.header("cache-control").unwrap();
    let of_redis =
        (0..=5).any(|left| control.split(',').next() == Some(&*format!("max-age={left}")));
    assert!(of_redis, "as long as Redis keeps it: {control}");
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn what_others_change_is_dropped_and_what_was_told_while_nobody_listened_is_stale() {
    let mut redis = RedisServer::start(&[]);
    redis.cli(&["SET", "a", "1"]);
    redis.cli(&["SET", "b", "1"]);
    let pelton = Pelton::start(&[&redis], &["cache.ttl=1h"]);
    until("it is connected", || pelton.is("a", "1") && pelton.is("b", "1"));
    let forgotten = || pelton.process.metric("pelton_forgotten_total", "");
    let before = forgotten();
    redis.cli(&["SET", "a", "2"]);
    until("the owner has dropped it", || forgotten() > before);
    assert_eq!(pelton.read("a"), (200, "2".to_owned()));
    redis.cli(&["DEL", "a"]);
    until("it is gone", || pelton.read("a").0 == 404);
    redis.cli(&["SET", "a", "3"]);
    until("it is there again, though its absence was kept", || pelton.is("a", "3"));
    redis.cli(&["FLUSHALL"]);
    until("all are gone", || pelton.read("a").0 == 404 && pelton.read("b").0 == 404);

    redis.cli(&["SET", "a", "4"]);
    until("it is there again", || pelton.is("a", "4"));
    redis.kill();
    for _ in 0..20 {
        assert_eq!(pelton.read("a"), (200, "4".to_owned()), "it is served while Redis is down");
    }
    redis.restart();
    redis.cli(&["SET", "a", "5"]);
    until("what has changed meanwhile is seen", || pelton.is("a", "5"));
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    redis.cli(&["SET", "a", "6"]);
    until("the connection is opened anew", || pelton.is("a", "6"));
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn a_key_that_has_changed_is_compared_with_what_redis_has() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["SET", "a", "1"]);
    let pelton = Pelton::start(&[&redis], &["cache.ttl=1h"]);
    let sampled = |outcome| {
        let label = format!("outcome=\"{outcome}\"");
        pelton.process.metric("pelton_origin_samples_total", &label)
    };
    until("it is connected", || pelton.is("a", "1"));
    let mut number = 1;
    let mut change = || {
        number += 1;
        redis.cli(&["SET", "a", &number.to_string()]);
    };
    until("what is read is what Redis has", || {
        change();
        pelton.read("a").0 == 200 && sampled("consistent") > 0
    });
    until("what nobody reads is served by nobody", || {
        change();
        sampled("unserved") > 0
    });
    assert_eq!(sampled("inconsistent") + sampled("unknown"), 0);
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn a_server_that_hangs_is_lost_and_found_again() {
    let redis = RedisServer::start(&["enable-debug-command yes"]);
    redis.cli(&["SET", "a", "1"]);
    let pelton = Pelton::start(&[&redis], &["cache.ttl=1h", "origin.timeout=300ms"]);
    until("it is connected", || pelton.is("a", "1"));
    // What was being fetched while the connection was opened is not kept.
    until("it is kept", || pelton.get("a").header("cache-status").unwrap().contains("hit"));
    let hang = std::thread::scope(|scope| {
        let hang = scope.spawn(|| redis.cli(&["DEBUG", "SLEEP", "4"]));
        while !hang.is_finished() {
            assert_eq!(pelton.read("a"), (200, "1".to_owned()));
        }
        hang.join().unwrap()
    });
    assert_eq!(hang, "OK");
    redis.cli(&["SET", "a", "2"]);
    until("it is asked again", || pelton.is("a", "2"));
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn writes_are_done_in_redis_and_only_where_their_precondition_holds() {
    let redis = RedisServer::start(&[]);
    let pelton = Pelton::start(&[&redis], &["cache.ttl=1h"]);
    until("it is connected", || pelton.read("a").0 == 404);
    assert_eq!(pelton.write("PUT", "a", "If-None-Match: *\r\n", "1"), 201);
    assert_eq!(redis.cli(&["GET", "a"]), "1");
    assert_eq!(pelton.write("PUT", "a", "If-None-Match: *\r\n", "2"), 412);
    let tag = pelton.get("a").header("etag").unwrap().to_owned();
    assert_eq!(pelton.write("PUT", "a", "If-Match: \"0000000000000000\"\r\n", "2"), 412);
    assert_eq!(redis.cli(&["GET", "a"]), "1");
    let if_match = format!("If-Match: {tag}\r\n");
    assert_eq!(pelton.write("PUT", "a", &if_match, "3"), 204);
    assert_eq!((redis.cli(&["GET", "a"]), pelton.read("a").1), ("3".to_owned(), "3".to_owned()));
    assert_eq!(pelton.write("PUT", "a", "Cache-Control: max-age=100\r\n", "4"), 204);
    let ttl: u32 = redis.cli(&["TTL", "a"]).parse().unwrap();
    assert!((1..=100).contains(&ttl), "{ttl}");
    assert_eq!(pelton.write("PUT", "new", "", "5"), 201);
    assert_eq!(redis.cli(&["TTL", "new"]), "-1");
    assert_eq!(pelton.write("DELETE", "a", &if_match, ""), 412);
    assert_eq!(pelton.write("DELETE", "a", "If-Match: *\r\n", ""), 204);
    assert_eq!(pelton.write("DELETE", "a", "", ""), 404);
    assert_eq!((redis.cli(&["EXISTS", "a"]), pelton.read("a").0), ("0".to_owned(), 404));
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn a_replica_is_read_and_where_it_is_down_the_primary_is() {
    let primary = RedisServer::start(&[]);
    let mut replica = RedisServer::start(&[&format!("replicaof 127.0.0.1 {}", primary.port)]);
    primary.cli(&["SET", "a", "1"]);
    until("it is replicated", || replica.cli(&["GET", "a"]) == "1");
    let pelton = Pelton::start(&[&primary, &replica], &["redis.replicas=true", "cache.ttl=1h"]);
    until("it is connected", || pelton.is("a", "1"));
    let reads = |server: &RedisServer| {
        let stats = server.cli(&["INFO", "commandstats"]);
        stats.lines().any(|line| line.starts_with("cmdstat_getrange"))
    };
    assert!(reads(&replica) && !reads(&primary));
    assert_eq!(pelton.write("PUT", "a", "", "2"), 204);
    primary.cli(&["SET", "a", "3"]);
    until("what the primary has is seen", || pelton.is("a", "3"));
    replica.kill();
    primary.cli(&["SET", "b", "1"]);
    until("the primary is asked", || pelton.is("b", "1"));
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn a_cluster_is_read_and_written_and_outlives_a_primary() {
    let mut servers = RedisServer::cluster();
    let pelton = Pelton::start(&[&servers[0]], &["redis.cluster=true", "cache.ttl=1h"]);
    let keys: Vec<String> = (0..100).map(|number| format!("key-{number}")).collect();
    until("it is connected", || pelton.write("PUT", "first", "", "1") == 201);
    for key in &keys {
        until("it is written", || matches!(pelton.write("PUT", key, "", key), 201 | 204));
        assert_eq!(servers[0].cli(&["-c", "GET", key]), *key);
    }
    for key in &keys {
        servers[0].cli(&["-c", "SET", key, "changed"]);
    }
    for key in &keys {
        until("what others change is seen", || pelton.is(key, "changed"));
    }
    let primary = servers.iter().position(|server| server.is_primary());
    let mut dead = servers.remove(primary.unwrap());
    dead.kill();
    until("a replica has taken over", || {
        servers.iter().filter(|server| server.is_primary()).count() == 3
    });
    for key in &keys {
        assert_eq!(pelton.read(key), (200, "changed".to_owned()), "{key}");
    }
    for key in &keys {
        until("it is written to who has taken over", || {
            matches!(pelton.write("PUT", key, "", "again"), 201 | 204)
        });
        servers[0].cli(&["-c", "SET", key, "others"]);
        until("who has taken over tells of changes", || pelton.is(key, "others"));
    }
}

#[test]
#[ignore = "needs redis-server: make test-peers"]
fn tls_a_user_and_his_password_are_used_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let own = Certificate::make(folder.path());
    let (key, certificate) = (own.key.display(), own.certificate.display());
    let tls_port = pelton_tests::process::free_ports(1);
    let redis = RedisServer::start(&[
        &format!("tls-port {tls_port}"),
        &format!("tls-cert-file {certificate}"),
        &format!("tls-key-file {key}"),
        &format!("tls-ca-cert-file {certificate}"),
        "tls-auth-clients no",
    ]);
    redis.cli(&["ACL", "SETUSER", "reader", "on", ">the-password", "~*", "+@all"]);
    redis.cli(&["SET", "a", "1"]);
    redis.cli(&["ACL", "SETUSER", "default", "off"]);
    std::fs::write(path("password"), "the-password\n").unwrap();
    let urls = format!("redis.urls=rediss://reader@localhost:{tls_port}");
    let password = format!("redis.password_file={}", path("password"));
    let pelton = Pelton::start_at(&urls, &[&password, &own.setting()]);
    until("it is connected", || pelton.is("a", "1"));
    for page in ["/config", "/stats"] {
        let (status, text) = pelton.process.admin(page);
        assert!(status == 200 && !text.contains("the-password"), "{page}: {text}");
    }
    let stranger = Pelton::start_at(&urls, &[&password]);
    assert_eq!(stranger.read("a").0, 502, "nobody vouches for the server");
}
