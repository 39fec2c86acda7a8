//! A real server under a skewed load: which keys it says are hot.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton::admin::HotReport;
use pelton::mesh::{OwnerHash, Owners};
use pelton_tests::fixture::Fixture;
use pelton_tests::http::Client;
use pelton_tests::process::{self, Process};
use shard_cache::hash::KeyHasher;
use std::net::TcpListener;

const SHARDS: u16 = 2;

/// Connections, and requests on each, 64 at a time.
const CLIENTS: usize = 8;
const BATCHES: usize = 80;
const BATCH: usize = 64;

/// The secret of the hash that places keys.
const HASH_KEY: [u64; 2] = [17, 4];

/// A key whose value is of 6,000 bytes; those of others are of 40.
const LARGE: usize = 99;
const KEYS: usize = 1100;

fn store() -> Fixture {
    let fixture = Fixture::empty();
    let line = |number| {
        let value = "x".repeat(if number == LARGE { 6_000 } else { 40 } - 2);
        format!("{{\"key\":\"k{number}\",\"value\":\"{value}\"}}\n")
    };
    assert!(fixture.import(&(0..KEYS).map(line).collect::<String>()).status.success());
    fixture
}

fn owner(number: usize) -> u16 {
    let key = format!("k{number}");
    let hash = KeyHasher::new(HASH_KEY).hash(key.as_bytes());
    Owners::new(OwnerHash::Keyed, SHARDS).of(hash, key.as_bytes())
}

/// The first key of a shard.
fn key_of(shard: u16) -> usize {
    (0..LARGE).find(|number| owner(*number) == shard).expect("a shard owns half of the keys")
}

/// Half of all requests for the hottest key, a quarter for the next, one in 16 for a large one, and
/// the others for all other keys in turn.
fn key(number: usize, [hottest, next]: [usize; 2]) -> usize {
    match number % 16 {
        0..8 => hottest,
        8..12 => next,
        12 => LARGE,
        _ => number % 1000 + 100,
    }
}

fn load(server: &Process, hot: [usize; 2]) {
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::new(server.connect())).collect();
    for batch in 0..BATCHES {
        let keys = (batch * BATCH..).take(BATCH).map(|number| key(number, hot));
        let requests: String =
            keys.map(|key| format!("GET /lookup/k{key} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
        for client in &mut clients {
            client.send(requests.as_bytes()).expect("the server reads");
        }
        for client in &mut clients {
            for _ in 0..BATCH {
                assert_eq!(client.receive(false).expect("a reply").status, 200);
            }
        }
    }
}

/// How far a share may lie off in a part of so many samples: six standard deviations.
#[expect(clippy::cast_precision_loss, reason = "a count for a share")]
fn off_max(share: f64, part: f64, samples: u64) -> f64 {
    6.0 * (share * (1.0 - share) / (part * samples as f64)).sqrt()
}

/// Runs `pelton hot` at this server's admin port; what it prints, and its exit code.
fn pelton_hot(admin: &str, arguments: &[&str]) -> (String, Option<i32>) {
    let output = process::run(&[&["hot", "--admin", admin], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).expect("it prints text"), output.status.code())
}

#[test]
fn the_hot_keys_of_a_skewed_load_are_named_with_their_shares_and_owners() {
    let fixture = store();
    let [high, low] = HASH_KEY;
    let hash_key = format!(r#"cache.hash_key="{high:016x}{low:016x}""#);
    let server = Process::start(&fixture.store(), &[&hash_key, "cache.replica_share=0%"]);
    let hot = [key_of(1), key_of(0)];
    load(&server, hot);

    let (status, body) = server.admin("/hot?top=3");
    assert_eq!(status, 200, "{body}");
    let report: HotReport = serde_json::from_str(&body).expect("a report");
    assert!(report.samples > 0 && report.window_seconds > 0.0, "{body}");
    let [hottest, next, large] = &report.keys[..] else { panic!("three keys: {body}") };
    for (shown, number, share) in
        [(hottest, hot[0], 0.5), (next, hot[1], 0.25), (large, LARGE, 0.0625)]
    {
        assert_eq!(
            (&*shown.key, &*shown.encoding, shown.cut),
            (&*format!("k{number}"), "text", false)
        );
        assert_eq!(shown.owner_shard, owner(number));
        let off_max = off_max(share, 1.0, report.samples);
        assert!((shown.requests_share - share).abs() < off_max, "{shown:?}, {off_max}");
        assert!(shown.requests_share_error < 0.002, "{shown:?}");
    }
    // Every connection asks for the same: what is near for one shard is far for the other.
    let remote = hottest.remote_share + next.remote_share;
    let off_max = off_max(0.5, 0.5, report.samples) + off_max(0.5, 0.25, report.samples);
    assert!((remote - 1.0).abs() < off_max, "{body}, {off_max}");
    assert!(large.bytes_share > 0.5 && hottest.bytes_share < 0.2, "{body}");

    let admin = server.admin.to_string();
    let (table, code) = pelton_hot(&admin, &["--top", "2"]);
    assert_eq!(code, Some(0), "{table}");
    let rows: Vec<Vec<&str>> =
        table.lines().skip(2).map(|row| row.split_whitespace().collect()).collect();
    let named: Vec<_> = rows.iter().map(|row| (row[1].to_owned(), row[6].to_owned())).collect();
    let expected = hot.map(|number| (format!("k{number}"), owner(number).to_string()));
    assert_eq!(named, expected, "{table}");
    let (json, code) = pelton_hot(&admin, &["--json"]);
    assert_eq!(code, Some(0), "{json}");
    let report: HotReport = serde_json::from_str(&json).expect("a report");
    assert_eq!(report.keys.len(), 20);

    assert_eq!(server.admin("/hot?top=many").0, 400);
    assert!(!server.admin("/metrics").1.contains(&format!("k{}", hot[0])), "a key is no label");
}

#[test]
fn where_nothing_listens_it_says_what_to_do_and_ends_with_6() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let admin = free.local_addr().expect("it has an address").to_string();
    drop(free);
    let (text, code) = pelton_hot(&admin, &[]);
    assert_eq!(code, Some(6), "{text}");
    assert!(text.contains("Nothing answers") && text.contains("--admin"), "{text}");
    let off = process::run(&["hot", "--set", "admin.listen=off"]);
    assert_eq!(off.status.code(), Some(6));
    let (text, code) = pelton_hot(&admin, &["--top", "1001"]);
    assert_eq!(code, Some(2), "{text}");
}
