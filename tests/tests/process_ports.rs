//! Shards one by one: their own ports, their Unix sockets, and keys that a client sends to owners.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pelton_tests::fixture::{Fixture, value};
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{self, PATIENCE, Process, free_ports, until};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Keys in the store: enough for values of every size, and for both shards.
const KEYS: usize = 200;

fn tcp(port: u16) -> Client {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::new(stream)
}

fn unix(path: &Path) -> Client {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::new(stream)
}

/// Reads every key, twice, over one connection, which the shard `name` must have.
fn reads_all(client: &mut Client, name: &str) {
    for number in (0..KEYS).chain(0..KEYS) {
        let reply = client.get(&format!("/lookup/k{number}"));
        assert_eq!((reply.status, reply.text()), (200, value(number).as_str()));
        assert_eq!(reply.header("Shard"), Some(name));
    }
    for path in ["/lookup/absent", "/healthz", "/elsewhere"] {
        assert_eq!(client.get(path).header("Shard"), Some(name), "{path}");
    }
}

fn own_path(path: &Path, shard: usize) -> PathBuf {
    PathBuf::from(format!("{}.{shard}", path.display()))
}

fn refused(fixture: &Fixture, sets: &[&str]) -> String {
    let store = format!("origin.path={}", fixture.store().display());
    let own = ["cache.memory=64MiB", "admin.listen=off", "server.shards=2", &store];
    let sets = own.iter().chain(sets).flat_map(|set| ["--set", *set]);
    let output = process::run(&std::iter::once("serve").chain(sets).collect::<Vec<_>>());
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    message
}

#[test]
fn every_shard_serves_all_keys_at_its_own_port_and_says_which_it_is() {
    let fixture = Fixture::numbered(KEYS);
    let first = free_ports(2);
    let ports = format!("server.shard_ports={first}");
    let server = Process::start(&fixture.store(), &[&ports, "http.shard_header=true"]);
    let greeting = server.greeting.join("\n");
    assert!(greeting.contains(&format!("127.0.0.1:{first}-{}", first + 1)), "{greeting}");
    for (port, name) in [(first, "0/2"), (first + 1, "1/2")] {
        // However many a shard has, they stay there.
        let mut clients: Vec<Client> = (0..4).map(|_| tcp(port)).collect();
        clients.iter_mut().for_each(|client| reads_all(client, name));
    }
    let shared = Client::new(server.connect()).get("/healthz");
    assert!(matches!(shared.header("Shard"), Some("0/2" | "1/2")));
}

#[test]
fn a_client_that_knows_the_owners_causes_no_remote_reads_and_one_that_does_not_does() {
    let fixture = Fixture::numbered(KEYS);
    let first = free_ports(2);
    let ports = format!("server.shard_ports={first}");
    let server = Process::start(&fixture.store(), &[&ports, "server.owner_hash=crc32"]);
    let mut shards = [tcp(first), tcp(first + 1)];
    let owner = |key: &str| {
        let mut crc = flate2::Crc::new();
        crc.update(format!("/lookup/{key}").as_bytes());
        (crc.sum() >> 16 & 0x7fff) as usize % 2
    };
    let mut ask = |shift: usize| {
        for number in 0..KEYS {
            let key = format!("k{number}");
            let shard = &mut shards[(owner(&key) + shift) % 2];
            assert_eq!(shard.get(&format!("/lookup/{key}")).text(), value(number));
        }
    };
    ask(0);
    let made = KEYS as u64;
    until("all requests are counted", || server.metric("pelton_requests_total", "") >= made);
    assert_eq!(server.metric("pelton_remote_reads_total", ""), 0);
    ask(1);
    // A value that its parcel does not hold is read again with a larger one, which is no other
    // read.
    until("all remote reads are counted", || {
        server.metric("pelton_remote_reads_total", "") >= made
    });
    assert_eq!(server.metric("pelton_remote_reads_total", ""), made);
}

#[test]
fn unix_sockets_are_served_have_the_umask_s_mode_and_go_when_the_server_stops() {
    let fixture = Fixture::numbered(KEYS);
    let path = fixture.path("pelton.sock");
    let listen = format!(r#"server.listen=["127.0.0.1:0", "unix:{}"]"#, path.display());
    let sets: [&str; 3] = [&listen, "http.shard_header=true", "server.drain_timeout=1h"];
    let mut server = Process::start(&fixture.store(), &sets);
    let paths = [path.clone(), own_path(&path, 0), own_path(&path, 1)];
    // Those at the path for all are spread; a shard's own stay there, however many it has.
    let mut shared: Vec<Client> = (0..8).map(|_| unix(&path)).collect();
    let replies = shared.iter_mut().map(|client| client.get("/healthz"));
    let is_second = |reply: Reply| reply.header("Shard") == Some("1/2");
    assert_eq!(replies.map(is_second).filter(|is| *is).count(), 4);
    for (path, name) in [(&paths[1], "0/2"), (&paths[2], "1/2")] {
        let mut clients: Vec<Client> = (0..4).map(|_| unix(path)).collect();
        clients.iter_mut().for_each(|client| reads_all(client, name));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap().trim();
    let umask = u32::from_str_radix(umask, 8).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o777 & !umask);

    let mut client = unix(&paths[2]);
    assert_eq!(client.get("/lookup/k1").status, 200);
    kill(Pid::from_raw(server.id()), Signal::SIGTERM).unwrap();
    until("its sockets are gone", || paths.iter().all(|path| !path.exists()));
    let mut replies = (0..100_000).map(|_| client.get("/lookup/k1"));
    let last = replies.find(|reply| reply.header("Connection") == Some("close"));
    assert_eq!(last.unwrap().text(), value(1));
    assert!(client.is_ended());
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_a_killed_server_leaves_is_taken_over_and_a_living_one_or_a_file_is_not() {
    let fixture = Fixture::numbered(1);
    let path = fixture.path("pelton.sock");
    let listen = format!("server.listen=unix:{}", path.display());
    // At once: the kernel may still hold the sockets of the one before.
    for _ in 0..5 {
        drop(Process::start(&fixture.store(), &[&listen]));
    }
    assert!(path.exists() && own_path(&path, 1).exists(), "it was killed");
    let server = Process::start(&fixture.store(), &[&listen]);
    let message = refused(&fixture, &[&listen]);
    assert!(message.contains("another process listens there"), "{message}");
    assert!(message.contains(&format!("unix:{}", path.display())), "{message}");
    assert_eq!(unix(&path).get("/lookup/k0").text(), value(0), "it was left alone");
    drop(server);

    let own = own_path(&path, 1);
    fs::remove_file(&own).unwrap();
    fs::write(&own, "precious").unwrap();
    let message = refused(&fixture, &[&listen]);
    assert!(message.contains("no socket") && message.contains("pelton.sock.1"), "{message}");
    assert_eq!(fs::read(&own).unwrap(), b"precious");
    assert!(!own_path(&path, 0).exists(), "what was listened on already is removed");
}

#[test]
fn a_port_of_a_shard_that_is_taken_is_named_with_what_to_do() {
    let fixture = Fixture::numbered(1);
    let first = free_ports(2);
    let _holder = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
    let ports = format!("server.shard_ports={first}");
    let message = refused(&fixture, &["server.listen=127.0.0.1:0", &ports]);
    let address = format!("127.0.0.1:{}", first + 1);
    for part in [&address, "another process", "server.shard_ports", "ss -ltnp"] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
}
