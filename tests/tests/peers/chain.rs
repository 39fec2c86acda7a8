//! Every payload of the corpus through a proxy that uses its one connection to us again: one
//! request in, one reply out, and nobody gets what another asked for.

use crate::proxy::{Kind, Proxy};
use crate::reading::exchange;
use pelton_tests::fixture::{Fixture, value};
use pelton_tests::http::Client;
use pelton_tests::process::{Process, until};
use pelton_tests::smuggling::corpus;
use std::net::TcpStream;

/// The key that only the innocent client asks for.
const INNOCENT: usize = 2;

fn innocent(proxy: &Proxy, payload: &str) {
    let mut client = Client::new(TcpStream::connect(proxy.address).unwrap());
    let reply = client.get(&format!("/lookup/k{INNOCENT}"));
    assert_eq!(reply.status, 200, "beside {payload}: {}", reply.text());
    assert_eq!(reply.text(), value(INNOCENT), "beside {payload}");
}

fn nobody_gets_what_another_asked_for(kind: Kind) {
    let fixture = Fixture::numbered(3);
    let server = Process::start(&fixture.store(), &[]);
    let proxy = Proxy::start(kind, server.data);
    let corpus = corpus();
    let mut direct = Client::new(server.connect());
    for key in 0..3 {
        // A server that has just started may have no room for a value yet.
        until("the key is served", || direct.get(&format!("/lookup/k{key}")).status == 200);
    }
    for payload in &corpus {
        innocent(&proxy, &payload.name);
        let replies = exchange(&proxy, &payload.bytes);
        let replies = String::from_utf8_lossy(&replies);
        assert!(!replies.contains(&value(INNOCENT)), "{} got another's reply", payload.name);
        let hidden = replies.matches(&value(1)).count();
        let asked = payload.bytes.windows(10).filter(|window| window == b"/lookup/k1").count();
        assert!(hidden <= asked, "{} was answered {hidden} times", payload.name);
        innocent(&proxy, &payload.name);
    }
    // Every request of the innocent has reached the server, over connections that others used.
    let hits = server.metric("pelton_requests_total", "") - 1;
    assert!(hits >= 2 * corpus.len() as u64, "{hits} requests reached the server");
    let connections = server.metric("pelton_connections_accepted_total", "");
    assert!(connections < hits, "{connections} connections carried {hits} requests");
}

#[test]
#[ignore = "needs HAProxy: make test-peers"]
fn behind_haproxy_nobody_gets_what_another_asked_for() {
    nobody_gets_what_another_asked_for(Kind::Haproxy);
}

#[test]
#[ignore = "needs NGINX: make test-peers"]
fn behind_nginx_nobody_gets_what_another_asked_for() {
    nobody_gets_what_another_asked_for(Kind::Nginx);
}
