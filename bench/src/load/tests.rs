//! The generator against real servers on loopback: what is counted, not how long it took.

#![expect(clippy::disallowed_methods, reason = "servers on threads of their own")]

use super::{Outcome, Plan, Stream, Until, run};
use crate::address::Address;
use crate::traffic::{Recipe, Requests};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";

/// A server that answers each head with `reply` and closes after `closes_after` of them; notes all
/// that it reads.
fn serve(reply: &'static [u8], closes_after: usize) -> (&'static Address, Arc<Mutex<Vec<u8>>>) {
    let address: Address = Address::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let listener: TcpListener = address.listen().unwrap().into();
    let address = Address::tcp(listener.local_addr().unwrap());
    let read = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&read);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, noted) = (stream.unwrap(), Arc::clone(&noted));
            std::thread::spawn(move || {
                let (mut seen, mut answered, mut piece) = (Vec::new(), 0, [0; 4096]);
                while let Ok(size @ 1..) = stream.read(&mut piece) {
                    noted.lock().unwrap().extend_from_slice(&piece[..size]);
                    seen.extend_from_slice(&piece[..size]);
                    let heads = seen.windows(4).filter(|window| window == b"\r\n\r\n").count();
                    for _ in answered..heads.min(closes_after) {
                        stream.write_all(reply).unwrap_or(());
                    }
                    answered = heads;
                    if heads >= closes_after {
                        return;
                    }
                }
            });
        }
    });
    (Box::leak(Box::new(address)), read)
}

fn requests(portion: usize, closing: bool, headers: &[String]) -> Requests {
    Requests::new(&Recipe { headers, portion, closing, count: Some(120), ..Recipe::get("/x", "h") })
        .unwrap()
}

fn stream(requests: &Requests, pipeline: usize) -> Stream<'_> {
    Stream {
        name: "all",
        connections: 3,
        rate: None,
        pipeline,
        requests,
        first_request: 0,
        verify: None,
        bodiless: false,
    }
}

fn sweep(address: &'static Address, streams: Vec<Stream<'_>>) -> Outcome {
    drive(address, streams, Until::Swept, 1)
}

fn drive(
    address: &'static Address,
    streams: Vec<Stream<'_>>,
    until: Until,
    threads: usize,
) -> Outcome {
    let plan = Plan {
        address,
        threads,
        cpus: Vec::new(),
        streams,
        until,
        warm_up: Duration::ZERO,
        timeout: Duration::from_secs(10),
        deadline: Duration::from_secs(10),
        spin: false,
    };
    run(&plan).unwrap()
}

#[test]
fn a_sweep_asks_once_for_everything() {
    for pipeline in [1, 8] {
        let (address, _) = serve(GOOD, usize::MAX);
        let total = sweep(address, vec![stream(&requests(pipeline, false, &[]), pipeline)]).total();
        assert_eq!((total.answered, total.errors.count(), total.connects), (120, 0, 3));
        assert_eq!(total.latency.len(), 120);
        assert_eq!(total.bytes_read, 120 * GOOD.len() as u64);
    }
}

#[test]
fn churning_connections_ask_for_the_close_and_are_made_anew() {
    let (address, read) = serve(GOOD, 5);
    let total = sweep(address, vec![stream(&requests(5, true, &[]), 1)]).total();
    assert_eq!((total.answered, total.errors.count()), (120, 0));
    // One for each life of five; the last ones of the three connections may be unfinished.
    assert!((24..=27).contains(&total.connects), "{}", total.connects);
    let text = String::from_utf8(read.lock().unwrap().clone()).unwrap();
    let asked = text.matches("Connection: close\r\n\r\n").count();
    assert!((22..=24).contains(&asked), "{asked}");
}

#[test]
fn a_connection_that_closes_early_is_counted_and_made_anew() {
    let (address, _) = serve(GOOD, 6);
    let total = sweep(address, vec![stream(&requests(8, false, &[]), 8)]).total();
    // Of each batch of eight, six are answered.
    assert_eq!((total.answered, total.errors.unanswered, total.errors.read), (90, 30, 15));
}

#[test]
fn tenants_have_their_own_headers_and_counts() {
    let (address, read) = serve(GOOD, usize::MAX);
    let gold = requests(1, false, &["X-API-Key: gold".to_owned()]);
    let tin = requests(1, false, &["X-API-Key: tin".to_owned()]);
    let streams = vec![stream(&gold, 1), Stream { rate: Some(1e6), ..stream(&tin, 1) }];
    let outcome = sweep(address, streams);
    assert_eq!(outcome.tallies.iter().map(|tally| tally.answered).collect::<Vec<_>>(), [120, 120]);
    let text = String::from_utf8(read.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches("X-API-Key: gold\r\n").count(), 120);
    assert_eq!(text.matches("X-API-Key: tin\r\n").count(), 120);
}

#[test]
fn threads_share_the_connections_and_the_rate() {
    let (address, _) = serve(GOOD, usize::MAX);
    let sequence = requests(1, false, &[]);
    let streams = vec![Stream { rate: Some(1_000.0), ..stream(&sequence, 1) }];
    let outcome = drive(address, streams, Until::Elapsed(Duration::from_millis(300)), 2);
    let total = outcome.total();
    // 300 are due in 300 ms, whatever became of them.
    let due = total.answered + total.errors.unanswered + total.errors.unsent;
    assert_eq!((due, total.connects, outcome.threads.len()), (300, 3, 2));
}

#[test]
fn a_server_that_refuses_connections_is_counted() {
    let (address, _) = serve(GOOD, usize::MAX);
    let sequence = requests(1, false, &[]);
    let nobody = Address::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let nobody: &'static Address = Box::leak(Box::new(nobody));
    assert!(address.probe(Duration::from_secs(1)).is_ok());
    let streams = vec![Stream { rate: Some(100.0), ..stream(&sequence, 1) }];
    let total = drive(nobody, streams, Until::Elapsed(Duration::from_millis(100)), 1).total();
    assert_eq!((total.answered, total.errors.unanswered), (0, 10));
    assert!(total.errors.connect >= 10);
}
