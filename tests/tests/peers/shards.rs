//! The proxies as `docs/proxies` configures them: each key reaches the shard that owns it, and a
//! cache in front revalidates what it holds.

use crate::proxy::{Kind, Proxy};
use crate::records::Records;
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{free_ports, until};
use std::net::TcpStream;
use tempfile::TempDir;

/// Requests on a connection; NGINX ends one after a thousand.
const REQUESTS: usize = 500;

/// Where the files of `docs/proxies` expect the sockets of the shards, and where ours are.
struct Upstream {
    folder: TempDir,
    sets: Vec<String>,
    places: Vec<(&'static str, String)>,
}

impl Upstream {
    fn ports() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let first = free_ports(2);
        let place = |port: u16| format!("127.0.0.1:{port}");
        Self {
            sets: vec![format!("server.shard_ports={first}")],
            places: vec![("127.0.0.1:8101", place(first)), ("127.0.0.1:8102", place(first + 1))],
            folder,
        }
    }

    fn unix_sockets() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pelton.sock").display().to_string();
        Self {
            sets: vec![format!("server.listen=unix:{path}")],
            places: vec![("/run/pelton/pelton.sock", path)],
            folder,
        }
    }

    /// The place of a cache, too.
    fn with_cache(mut self) -> Self {
        let cache = self.folder.path().join("cache").display().to_string();
        self.places.push(("/var/cache/nginx/pelton", cache));
        self
    }

    fn serve(&self, sets: &[&str]) -> Records {
        let own = self.sets.iter().map(String::as_str).chain(["server.owner_hash=crc32"]);
        Records::serve(&own.chain(sets.iter().copied()).collect::<Vec<_>>())
    }
}

fn get(proxy: &Proxy, key: &str) -> Reply {
    Client::new(TcpStream::connect(proxy.address).unwrap()).get(&format!("/lookup/{key}"))
}

/// Lookups that the server has answered so far; a proxy's health checks do not count.
fn lookups(records: &Records) -> u64 {
    let health = records.server.metric("pelton_requests_total", r#"outcome="health""#);
    records.requests().saturating_sub(health)
}

fn each_key_goes_to_its_shard(kind: Kind, file: &str, upstream: &Upstream) {
    let records = upstream.serve(&[]);
    let proxy = Proxy::documented(kind, file, &upstream.places);
    for some in records.records.chunks(REQUESTS) {
        let mut client = Client::new(TcpStream::connect(proxy.address).unwrap());
        for (key, value) in some {
            let reply = client.get(&format!("/lookup/{key}"));
            assert_eq!((reply.status, reply.text()), (200, value.as_str()), "{key}");
        }
    }
    let made = records.records.len() as u64;
    // A shard publishes what it has counted a quarter of a second later at most.
    until("all lookups are counted", || lookups(&records) >= made);
    assert_eq!(lookups(&records), made);
    assert_eq!(records.server.metric("pelton_remote_reads_total", ""), 0);
    for shard in ["0", "1"] {
        let label = format!("shard=\"{shard}\"");
        let share = records.server.metric("pelton_shard_requests_total", &label);
        assert!(share > made / 3, "shard {shard} answered {share} of {made}");
    }
    let connections = records.server.metric("pelton_connections_accepted_total", "");
    assert!(connections < made / 10, "{connections} connections for {made} requests");
}

#[test]
#[ignore = "needs NGINX: make test-peers"]
fn nginx_sends_each_key_to_the_port_of_its_shard() {
    each_key_goes_to_its_shard(Kind::Nginx, "nginx.conf", &Upstream::ports());
}

#[test]
#[ignore = "needs NGINX: make test-peers"]
fn nginx_with_a_cache_sends_each_key_to_the_unix_socket_of_its_shard() {
    let upstream = Upstream::unix_sockets().with_cache();
    each_key_goes_to_its_shard(Kind::Nginx, "nginx-cache.conf", &upstream);
}

#[test]
#[ignore = "needs HAProxy: make test-peers"]
fn haproxy_sends_each_key_to_the_port_of_its_shard() {
    each_key_goes_to_its_shard(Kind::Haproxy, "haproxy.cfg", &Upstream::ports());
}

#[test]
#[ignore = "needs HAProxy: make test-peers"]
fn haproxy_sends_each_key_to_the_unix_socket_of_its_shard() {
    let upstream = Upstream::unix_sockets();
    each_key_goes_to_its_shard(Kind::Haproxy, "haproxy-unix.cfg", &upstream);
}

#[test]
#[ignore = "needs NGINX: make test-peers"]
fn nginx_answers_from_its_cache_and_revalidates_what_has_expired() {
    let upstream = Upstream::unix_sockets().with_cache();
    let records = upstream.serve(&["cache.ttl=2s"]);
    let proxy = Proxy::documented(Kind::Nginx, "nginx-cache.conf", &upstream.places);
    let (key, value) = &records.records[0];
    let first = get(&proxy, key);
    assert_eq!((first.text(), first.header("X-Cache")), (value.as_str(), Some("MISS")));
    let second = get(&proxy, key);
    assert_eq!((second.text(), second.header("X-Cache")), (value.as_str(), Some("HIT")));
    assert_eq!(second.header("ETag"), first.header("ETag"));

    let revalidated = || records.server.metric("pelton_replies_not_modified_total", "");
    let mut stale = 0;
    while revalidated() == 0 {
        let reply = get(&proxy, key);
        assert_eq!((reply.status, reply.text()), (200, value.as_str()));
        stale += u64::from(reply.header("X-Cache") == Some("STALE"));
    }
    assert!(stale > 0, "it was served while it was revalidated");
    let full = lookups(&records) - revalidated();
    assert_eq!(full, 1, "the value was sent to the proxy once");

    // An absence is cached as well, for as long as its reply says.
    assert_eq!(get(&proxy, "no-such-key").header("X-Cache"), Some("MISS"));
    let absent = get(&proxy, "no-such-key");
    assert_eq!((absent.status, absent.header("X-Cache")), (404, Some("HIT")));
}
