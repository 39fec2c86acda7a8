//! A real server whose connections are few: each shard has its share of them.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::fixture::{Fixture, value};
use pelton_tests::http::Client;
use pelton_tests::process::{Process, until};
use serde_json::Value;

/// Connections that each shard holds.
fn open(server: &Process) -> Vec<u64> {
    let (_, stats) = server.admin("/stats");
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    let shards = stats["shards"].as_array().expect("a list").iter();
    shards.map(|shard| shard["connections_open"].as_u64().expect("a count")).collect()
}

fn connect(server: &Process, count: usize) -> Vec<Client> {
    let connect = |number| {
        let mut client = Client::new(server.connect());
        assert_eq!(client.get(&format!("/lookup/k{number}")).text(), value(number));
        client
    };
    (0..count).map(connect).collect()
}

#[test]
fn a_new_connection_goes_to_the_shard_that_has_the_fewest() {
    let fixture = Fixture::numbered(20);
    let server = Process::start(&fixture.store(), &["server.shards=2"]);
    let mut clients = connect(&server, 16);
    until("both shards have eight connections", || open(&server) == [8; 2]);
    for client in &mut clients {
        assert_eq!(client.get("/lookup/k7").text(), value(7), "it is served where it came to");
    }
    drop(clients);
    until("all connections are closed", || open(&server) == [0; 2]);
    let _clients = connect(&server, 8);
    until("both shards have four connections", || open(&server) == [4; 2]);
}

#[test]
fn without_balance_a_connection_stays_where_it_landed() {
    let fixture = Fixture::numbered(20);
    let server = Process::start(&fixture.store(), &["server.shards=2", "server.balance=false"]);
    let _clients = connect(&server, 16);
    until("sixteen connections are open", || open(&server).iter().sum::<u64>() >= 16);
    assert_eq!(server.metric("pelton_connections_handed_total", ""), 0);
}
