//! One to ten thousand connections at a time, each of which is used more than once.

use crate::records::Records;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pelton_tests::http::Client;

/// Requests on each connection.
const ROUNDS: usize = 3;

fn all_connections_are_served(count: usize) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    assert!(most > count as u64 + 1_000, "{most} open files are allowed: raise ulimit -Hn");
    let records = Records::serve(&["server.connections_max=9000"]);
    let before = records.requests();
    let mut clients: Vec<Client> =
        (0..count).map(|_| Client::new(records.server.connect())).collect();
    for round in 0..ROUNDS {
        let record = |index: usize| &records.records[(index + round) % records.records.len()];
        for (index, client) in clients.iter_mut().enumerate() {
            let (key, _) = record(index);
            let request = format!("GET /lookup/{key} HTTP/1.1\r\nHost: peer\r\n\r\n");
            client.send(request.as_bytes()).unwrap();
        }
        for (index, client) in clients.iter_mut().enumerate() {
            let reply = client.receive(false).unwrap();
            assert_eq!((reply.status, reply.text()), (200, &*record(index).1));
        }
    }
    assert_eq!(records.server.metric("pelton_connections_open", ""), count as u64);
    records.wait_for(before + (count * ROUNDS) as u64);
}

#[test]
#[ignore = "takes ten thousand descriptors: make test-peers"]
fn one_and_a_hundred_and_ten_thousand_connections_are_served() {
    for count in [1, 100, 10_000] {
        all_connections_are_served(count);
    }
}
