//! What we accept of the smuggling corpus, proxies read as the same requests, or refuse.

use crate::proxy::{Kind, Proxy};
use crate::recorder::Recorder;
use pelton_tests::smuggling::corpus;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Payloads that a proxy reads otherwise, by its name, and why that does no harm.
const KNOWN: [(&str, &str); 0] = [];

/// Sends it and reads until the proxy closes, which it does after a second of silence at most.
pub(crate) fn exchange(proxy: &Proxy, payload: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_read_timeout(Some(pelton_tests::process::PATIENCE)).unwrap();
    let mut replies = Vec::new();
    // A proxy that has refused may have closed before all is written.
    if stream.write_all(payload).is_ok() {
        let _reset = stream.read_to_end(&mut replies);
    }
    replies
}

fn is_read_alike(kind: Kind) {
    let recorder = Recorder::start();
    let proxy = Proxy::start(kind, recorder.address);
    let mut otherwise = Vec::new();
    let mut compared = 0;
    for payload in corpus() {
        let Some(ours) = payload.requests() else { continue };
        exchange(&proxy, &payload.bytes);
        let targets = recorder.take();
        let theirs: Vec<bool> = targets.iter().map(|target| target == "/lookup/k1").collect();
        // What it refuses it forwards no more of.
        if !ours.starts_with(&theirs) && !KNOWN.iter().any(|(name, _)| *name == payload.name) {
            otherwise.push(format!("{}: {ours:?} but {targets:?}", payload.name));
        }
        compared += 1;
    }
    assert!(compared >= 30, "{compared} payloads are accepted");
    assert!(otherwise.is_empty(), "{kind:?} reads otherwise:\n{}", otherwise.join("\n"));
}

#[test]
#[ignore = "needs HAProxy: make test-peers"]
fn haproxy_reads_what_we_accept_as_the_same_requests() {
    is_read_alike(Kind::Haproxy);
}

#[test]
#[ignore = "needs NGINX: make test-peers"]
fn nginx_reads_what_we_accept_as_the_same_requests() {
    is_read_alike(Kind::Nginx);
}
