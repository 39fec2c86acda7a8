//! The binary serves: a real server, a real store, real sockets.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "a client that writes while it reads")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pelton_tests::fixture::{Fixture, value};
use pelton_tests::http::Client;
use pelton_tests::process::{self, Process, until};
use std::io::Write as _;
use std::net::{IpAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;

fn signal(process: &Process, signal: Signal) {
    kill(Pid::from_raw(process.id()), signal).unwrap();
}

#[test]
fn the_real_data_set_is_imported_and_every_sampled_record_is_served_as_it_was_written() {
    let fixture = Fixture::empty();
    let file = process::root().join("data/cities.jsonl.gz");
    let output = fixture.import_file(file.to_str().unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = Process::start(&fixture.store(), &[]);
    let mut client = Client::new(server.connect());

    let london = client.get("/lookup/2643743");
    assert_eq!(london.status, 200);
    assert!(london.text().contains(r#""name":"London""#), "{}", london.text());
    assert_eq!(london.header("Content-Type"), Some("application/json"));

    let text = std::fs::File::open(file).unwrap();
    let lines = std::io::BufReader::new(flate2::read::MultiGzDecoder::new(text));
    let records = std::io::BufRead::lines(lines).map(Result::unwrap).step_by(37);
    let mut count = 0;
    for record in records {
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let key = record["key"].as_str().unwrap();
        let reply = client.get(&format!("/lookup/{key}"));
        assert_eq!(reply.status, 200);
        let served: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(served, record["value"], "key {key}");
        count += 1;
    }
    assert!(count > 3_000);
    assert_eq!(server.metric("pelton_origin_failures_total", ""), 0);
}

#[test]
fn replies_of_a_pipeline_leave_in_order_whoever_owns_the_keys_and_whatever_is_in_memory() {
    let fixture = Fixture::numbered(1_000);
    let server = Process::start(&fixture.store(), &[]);
    for round in 0..3 {
        let mut client = Client::new(server.connect());
        let mut requests = String::new();
        let numbers: Vec<usize> = (0..500).map(|n| (n * 7 + round * 3) % 1_100).collect();
        for number in &numbers {
            requests += &format!("GET /lookup/k{number} HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        let mut writer = client.socket().try_clone().unwrap();
        let sender = std::thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
        for number in numbers {
            let reply = client.receive(false).unwrap();
            if number < 1_000 {
                assert_eq!((reply.status, reply.text()), (200, value(number).as_str()));
            } else {
                assert_eq!((reply.status, reply.text()), (404, r#"{"error":"not_found"}"#));
            }
        }
        sender.join().unwrap();
    }
    assert!(server.metric("pelton_remote_reads_total", "") > 0);
    assert!(server.metric("pelton_requests_total", r#"outcome="hit""#) > 0);
}

#[test]
fn a_key_is_fetched_once_however_many_ask_for_it_at_once() {
    let fixture = Fixture::numbered(1);
    let server = Process::start(&fixture.store(), &[]);
    let mut clients: Vec<Client> = (0..50).map(|_| Client::new(server.connect())).collect();
    for client in &mut clients {
        client.send(b"GET /lookup/k0 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.receive(false).unwrap().text(), value(0));
    }
    assert_eq!(server.metric("pelton_origin_fetches_total", ""), 1);
}

#[test]
fn heads_conditions_versions_and_health_are_answered_as_the_contract_says() {
    let fixture = Fixture::numbered(200);
    let server = Process::start(&fixture.store(), &[]);
    let mut client = Client::new(server.connect());
    for key in ["k3", "k99"] {
        let path = format!("/lookup/{key}");
        let full = client.get(&path);
        let etag = full.header("ETag").unwrap().to_owned();
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes()).unwrap();
        let head = client.receive(true).unwrap();
        assert_eq!(head.header("Content-Length"), full.header("Content-Length"));
        assert_eq!(head.header("ETag"), Some(etag.as_str()));
        let conditional =
            format!("GET {path} HTTP/1.1\r\nHost: t\r\nIf-None-Match: \"other\", {etag}\r\n\r\n");
        client.send(conditional.as_bytes()).unwrap();
        let unchanged = client.receive(false).unwrap();
        assert_eq!((unchanged.status, unchanged.header("ETag")), (304, Some(etag.as_str())));
    }
    assert_eq!(client.get("/healthz").text(), r#"{"ok":true}"#);
    assert_eq!(client.get("/lookup/k%33").text(), value(3), "keys are percent-decoded");
    assert_eq!(client.get("/elsewhere").status, 404);
    client.send(b"POST /lookup/k3 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc").unwrap();
    let refused = client.receive(false).unwrap();
    assert_eq!((refused.status, refused.header("Allow")), (405, Some("GET, HEAD")));
    client.send(b"GET /lookup/k3 HTTP/1.0\r\n\r\n").unwrap();
    let last = client.receive(false).unwrap();
    assert_eq!((last.text(), last.header("Connection")), (value(3).as_str(), Some("close")));
    assert!(client.is_ended());
}

#[test]
fn a_refusal_reaches_a_client_that_has_sent_more_than_was_read() {
    let fixture = Fixture::numbered(1);
    let server = Process::start(&fixture.store(), &[]);
    for _ in 0..20 {
        let mut client = Client::new(server.connect());
        let mut requests = b"GET / HTTP/1.1\nHost: bare line feed\r\n\r\n".to_vec();
        requests.extend(std::iter::repeat_n(b'x', 20_000));
        client.send(&requests).unwrap();
        let reply = client.receive(false).unwrap();
        assert_eq!((reply.status, reply.header("Connection")), (400, Some("close")));
        assert!(client.is_ended());
    }
}

#[test]
fn a_draining_server_answers_what_it_was_asked_and_exits_0() {
    let fixture = Fixture::numbered(300);
    let mut server = Process::start(&fixture.store(), &[]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::new(server.connect())).collect();
    for client in &mut clients {
        assert_eq!(client.get("/lookup/k1").status, 200);
    }
    signal(&server, Signal::SIGTERM);
    let mut last = 0;
    for (number, client) in clients.iter_mut().enumerate() {
        // Until it is told that this was the last reply, a client is served on.
        for _ in 0..100_000 {
            let reply = client.get(&format!("/lookup/k{number}"));
            assert_eq!(reply.text(), value(number));
            if reply.header("Connection") == Some("close") {
                last += 1;
                break;
            }
        }
        assert!(client.is_ended());
    }
    assert_eq!(last, clients.len());
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_draining_server_at_once() {
    let fixture = Fixture::numbered(1);
    let mut server =
        Process::start(&fixture.store(), &["server.drain_timeout=1h", "http.header_timeout=1h"]);
    let mut client = Client::new(server.connect());
    client.send(b"GET /lookup/k0 HTTP/1.1\r\nHost: half a").unwrap();
    assert_eq!(Client::new(server.connect()).get("/lookup/k0").text(), value(0));
    signal(&server, Signal::SIGTERM);
    // It is draining, and the half request keeps it from ending.
    until("it is not ready", || server.admin("/readyz").0 == 503);
    signal(&server, Signal::SIGINT);
    let status = server.wait();
    assert_ne!(status.code(), Some(0), "{status:?}");
}

#[test]
fn both_families_can_have_the_same_port() {
    let fixture = Fixture::numbered(1);
    let port = process::free_ports(1);
    let listen = format!(r#"server.listen=["0.0.0.0:{port}", "[::]:{port}"]"#);
    let _server = Process::start(&fixture.store(), &[&listen]);
    for address in ["127.0.0.1", "::1"] {
        let ip: IpAddr = address.parse().unwrap();
        let mut client = Client::new(TcpStream::connect((ip, port)).unwrap());
        assert_eq!(client.get("/lookup/k0").text(), value(0));
    }
}

#[test]
fn a_fatal_signal_ends_the_process_and_a_restart_serves_again() {
    let fixture = Fixture::numbered(10);
    let listen = format!("server.listen=127.0.0.1:{}", process::free_ports(1));
    let mut server = Process::start(&fixture.store(), &[&listen]);
    assert_eq!(Client::new(server.connect()).get("/lookup/k5").text(), value(5));
    signal(&server, Signal::SIGABRT);
    assert_eq!(server.wait().signal(), Some(Signal::SIGABRT as i32));
    // On the same port, which the kernel may hold a little longer than the process lives.
    let server = Process::start(&fixture.store(), &[&listen]);
    assert_eq!(Client::new(server.connect()).get("/lookup/k5").text(), value(5));
}
