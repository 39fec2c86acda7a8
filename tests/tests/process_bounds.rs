//! A real server at its edges: clients that dawdle, stall, or come in too great a number.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pelton_tests::fixture::{Fixture, value};
use pelton_tests::http::Client;
use pelton_tests::process::{self, Process, until};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

#[test]
fn a_client_that_does_not_finish_its_head_is_closed_and_counted() {
    let fixture = Fixture::numbered(1);
    let server = Process::start(&fixture.store(), &["http.header_timeout=100ms"]);
    let mut slow = Client::new(server.connect());
    let mut silent = Client::new(server.connect());
    slow.send(b"GET /lookup/k0 HT").unwrap();
    assert!(slow.is_ended());
    assert!(silent.is_ended());
    silent.send(b"x").unwrap_or_default();
    until("both connections are closed", || {
        server.metric("pelton_connections_closed_total", r#"reason="header_timeout""#) >= 2
    });
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_is_served_if_it_is_quick_enough_and_closed_if_not() {
    let fixture = Fixture::numbered(1);
    let request = b"GET /lookup/k0 HTTP/1.1\r\nHost: test\r\n\r\n";
    let server = Process::start(&fixture.store(), &[]);
    let mut client = Client::new(server.connect());
    for byte in request {
        client.send(&[*byte]).unwrap();
    }
    assert_eq!(client.receive(false).unwrap().text(), value(0));
    drop(server);

    let server = Process::start(&fixture.store(), &["http.header_timeout=200ms"]);
    let mut client = Client::new(server.connect());
    // A head that stays below its bound, a byte at a time: each byte buys no more time.
    let closed = (0..8_000).any(|_| {
        client.send(b"a").unwrap_or_default();
        server.metric("pelton_connections_closed_total", r#"reason="header_timeout""#) == 1
    });
    assert!(closed);
}

#[test]
fn a_client_that_never_reads_is_closed_and_others_are_served() {
    let fixture = Fixture::numbered(100);
    let server = Process::start(&fixture.store(), &["http.write_timeout=300ms"]);
    let mut deaf = server.connect();
    let request = b"GET /lookup/k99 HTTP/1.1\r\nHost: test\r\n\r\n".repeat(50);
    let mut other = Client::new(server.connect());
    // The server stops reading, the socket fills, and then the server gives up on the connection.
    let error = (0..1_000_000).find_map(|_| deaf.write_all(&request).err()).unwrap();
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    assert_eq!(other.get("/lookup/k1").text(), value(1));
    let reason = r#"reason="write_timeout""#;
    until("the connection is closed", || {
        server.metric("pelton_connections_closed_total", reason) >= 1
    });
}

const REQUEST: &[u8] = b"GET /lookup/k0 HTTP/1.1\r\nHost: test\r\n\r\n";

/// So many clients, each of which was answered.
fn clients(server: &Process, count: usize) -> Vec<Client> {
    let connect = |_| {
        let mut client = Client::new(server.connect());
        assert_eq!(client.get("/lookup/k0").text(), value(0));
        client
    };
    (0..count).map(connect).collect()
}

#[test]
fn connections_beyond_the_slots_wait_until_one_is_free_and_none_is_closed() {
    let fixture = Fixture::numbered(1);
    let sets = ["server.shards=1", "server.connections_max=20"];
    let server = Process::start(&fixture.store(), &sets);
    let mut inside = clients(&server, 20);
    let mut outside = [(); 5].map(|()| Client::new(server.connect()));
    outside.iter_mut().for_each(|client| client.send(REQUEST).unwrap());
    until("accepts are paused", || server.metric("pelton_accepts_paused", "") == 1);
    assert_eq!(server.metric("pelton_connections_accepted_total", ""), 20);
    assert_eq!(inside[7].get("/healthz").status, 200);
    for client in &mut outside {
        drop(inside.pop());
        assert_eq!(client.receive(false).unwrap().text(), value(0));
    }
    assert_eq!(inside[0].get("/lookup/k0").text(), value(0));
    let closed = server.metric("pelton_connections_closed_total", r#"reason="slots_full""#);
    assert_eq!(closed, 0);
    drop((inside, outside));
    until("nothing is paused", || server.metric("pelton_accepts_paused", "") == 0);
    drop(clients(&server, 20));
}

#[test]
fn a_full_shard_hands_connections_to_one_that_has_room_and_accepts_pause_when_none_has() {
    let fixture = Fixture::numbered(1);
    let sets = ["server.shards=2", "server.connections_max=20", "server.balance=false"];
    let server = Process::start(&fixture.store(), &sets);
    let inside = clients(&server, 40);
    let mut outside = Client::new(server.connect());
    outside.send(REQUEST).unwrap();
    until("both shards have paused", || server.metric("pelton_accepts_paused", "") == 2);
    assert_eq!(server.metric("pelton_connections_open", ""), 40);
    drop(inside);
    assert_eq!(outside.receive(false).unwrap().text(), value(0));
    until("nothing is paused", || server.metric("pelton_accepts_paused", "") == 0);
}

#[test]
fn all_shards_together_hold_no_more_than_they_may() {
    let fixture = Fixture::numbered(1);
    let server = Process::start(&fixture.store(), &["server.connections_total_max=20"]);
    let mut inside = clients(&server, 20);
    let mut outside = Client::new(server.connect());
    outside.send(REQUEST).unwrap();
    until("both shards have paused", || server.metric("pelton_accepts_paused", "") == 2);
    assert_eq!(server.metric("pelton_connections_open", ""), 20);
    drop(inside.pop());
    assert_eq!(outside.receive(false).unwrap().text(), value(0));
}

/// What a connection beyond a bound is told, whether it has asked or not.
fn is_refused(mut client: Client) -> bool {
    let reply = client.receive(false).expect("it is told so");
    assert_eq!(reply.header("Connection"), Some("close"));
    assert!(reply.header("Retry-After").is_some());
    reply.status == 503 && client.is_ended()
}

#[test]
fn connections_of_one_address_beyond_its_bound_are_told_so_and_closed() {
    let fixture = Fixture::numbered(1);
    let sets = ["server.connections_per_address_max=6"];
    let server = Process::start(&fixture.store(), &sets);
    let mut inside = clients(&server, 6);
    let mut asks = Client::new(server.connect());
    asks.send(REQUEST).unwrap();
    assert!(is_refused(asks));
    assert!(is_refused(Client::new(server.connect())));
    let reason = r#"reason="address_bound""#;
    until("both are counted", || server.metric("pelton_connections_closed_total", reason) == 2);
    assert_eq!(inside[0].get("/lookup/k0").text(), value(0));
    drop(inside);
    until("all are closed", || server.metric("pelton_connections_open", "") == 0);
    drop(clients(&server, 6));
}

#[test]
fn connections_that_have_sent_no_request_have_a_bound_of_their_own() {
    let fixture = Fixture::numbered(1);
    let sets = ["server.shards=1", "server.connections_new_max=3"];
    let server = Process::start(&fixture.store(), &sets);
    // Whoever has sent a request is not counted.
    let mut inside = clients(&server, 8);
    let mut silent = [(); 3].map(|()| Client::new(server.connect()));
    silent[0].send(b"GET /lookup/k0 HT").unwrap();
    until("all are there", || server.metric("pelton_connections_open", "") == 11);
    assert!(is_refused(Client::new(server.connect())));
    let reason = r#"reason="new_bound""#;
    until("it is counted", || server.metric("pelton_connections_closed_total", reason) == 1);
    assert_eq!(inside[0].get("/lookup/k0").text(), value(0));
    silent[0].send(b"TP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert_eq!(silent[0].receive(false).unwrap().text(), value(0));
    drop(clients(&server, 1));
}

#[test]
fn a_connection_is_closed_behind_the_last_request_that_it_may_send() {
    let fixture = Fixture::numbered(1);
    let server = Process::start(&fixture.store(), &["http.requests_per_connection_max=3"]);
    let mut client = Client::new(server.connect());
    client.send(&REQUEST.repeat(5)).unwrap();
    for is_last in [false, false, true] {
        let reply = client.receive(false).unwrap();
        assert_eq!((reply.text(), reply.header("Connection").is_some()), (&*value(0), is_last));
    }
    assert!(client.is_ended());
    let reason = r#"reason="requests_bound""#;
    until("it is counted", || server.metric("pelton_connections_closed_total", reason) == 1);
}

#[test]
fn a_server_whose_accepts_are_paused_drains() {
    let fixture = Fixture::numbered(1);
    let sets = ["server.shards=2", "server.connections_max=16"];
    let mut server = Process::start(&fixture.store(), &sets);
    let inside = clients(&server, 32);
    until("both shards have paused", || server.metric("pelton_accepts_paused", "") == 2);
    kill(Pid::from_raw(server.id()), Signal::SIGTERM).unwrap();
    assert!(server.wait().success());
    drop(inside);
}

#[test]
fn as_many_connections_as_descriptors_allow_and_more_are_bounded_and_harm_nobody() {
    let fixture = Fixture::numbered(1);
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n 400; exec {} \"$@\"", process::binary().display());
    command.args(["-c", &limited, "sh"]);
    let server = Process::start_by(command, &fixture.store(), &[]);
    let mut first = clients(&server, 1).remove(0);
    let crowd: Vec<TcpStream> = (0..500).map(|_| server.connect()).collect();
    until("no shard has room", || server.metric("pelton_accepts_paused", "") > 0);
    assert_eq!(first.get("/lookup/k0").text(), value(0), "those who were there are served on");
    assert_eq!(server.metric("pelton_accept_failures_total", ""), 0);
    drop(crowd);
    drop(clients(&server, 100));
}

#[test]
fn connections_that_come_and_go_in_every_rude_way_leave_nothing_behind() {
    let fixture = Fixture::numbered(200);
    let server = Process::start(&fixture.store(), &[]);
    let pipeline: String = (0..150)
        .map(|number| format!("GET /lookup/k{number} HTTP/1.1\r\nHost: test\r\n\r\n"))
        .collect();
    for round in 0..300_usize {
        let mut stream = server.connect();
        match round % 5 {
            0 => {}
            1 => stream.write_all(&pipeline.as_bytes()[..round]).unwrap(),
            2 => stream.write_all(pipeline.as_bytes()).unwrap(),
            3 => {
                stream.write_all(pipeline.as_bytes()).unwrap();
                let mut some = [0; 1000];
                stream.read_exact(&mut some).unwrap();
            }
            _ => {
                stream.write_all(pipeline.as_bytes()).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut client = Client::new(stream);
                for number in 0..150 {
                    assert_eq!(client.receive(false).unwrap().text(), value(number));
                }
                assert!(client.is_ended());
            }
        }
    }
    until("no connection is open", || server.metric("pelton_connections_open", "") == 0);
    until("no buffer is held", || server.metric("pelton_uring_buffers_held", "") == 0);
    assert_eq!(server.metric("pelton_completions_stale_total", ""), 0);
    assert_eq!(Client::new(server.connect()).get("/lookup/k7").text(), value(7));
}
