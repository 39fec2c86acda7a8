//! A real server that is asked for many keys at once.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{Process, until};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Bytes of the values of the keys `v0`, `v1`, ...: copied, and in pieces from another shard.
const SIZES: [usize; 12] =
    [1, 2, 3, 4, 150, 8_191, 8_192, 20_000, 65_536, 70_001, 300_000, 1_000_000];

/// Each of [`SIZES`] as JSON `v..` and as text `t..`, of four keys each.
fn fixture() -> Fixture {
    let fixture = Fixture::empty();
    let mut lines = String::new();
    for (number, _) in keys() {
        let value = value(number);
        writeln!(lines, r#"{{"key":"v{number}","value":{value}}}"#).expect("a string grows");
        let text = text(number, SIZES[number / 4]);
        writeln!(lines, r#"{{"key":"t{number}","value":"{text}","content_type":"text/plain"}}"#)
            .expect("a string grows");
    }
    let output = fixture.import(&lines);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fixture
}

fn keys() -> impl Iterator<Item = (usize, usize)> {
    (0..4 * SIZES.len()).map(|number| (number, SIZES[number / 4]))
}

/// A JSON text of the key's size.
fn value(number: usize) -> String {
    match SIZES[number / 4] {
        1 => "7".to_owned(),
        size => format!("\"{}\"", text(number, size - 2)),
    }
}

fn text(number: usize, size: usize) -> String {
    let mut text = format!("{number:08}").repeat(size / 8 + 1);
    text.truncate(size);
    text
}

fn request(keys: &[&str], lines: &str) -> Vec<u8> {
    let body = json!({ "keys": keys }).to_string();
    let head = format!("POST /lookup HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {}", body.len());
    format!("{head}\r\n\r\n{body}").into_bytes()
}

fn items(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("Cache-Control"), Some("no-store"));
    let mut body: Value = serde_json::from_slice(&reply.body).expect("the reply is JSON");
    let items = body.as_object_mut().expect("an object").remove("items").expect("its items");
    assert!(body.as_object().is_some_and(serde_json::Map::is_empty), "and nothing else");
    items.as_array().expect("a list").clone()
}

fn ask(client: &mut Client, keys: &[&str]) -> Vec<Value> {
    client.send(&request(keys, "")).expect("the server reads");
    items(&client.receive(false).expect("the server answers"))
}

fn decoded(text: &Value) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = text.as_str().expect("base64 is text").as_bytes();
    assert_eq!(text.len() % 4, 0, "whole groups");
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        let padding = group.iter().filter(|digit| **digit == b'=').count();
        let bits = group.iter().fold(0_u32, |bits, digit| {
            let place = DIGITS.iter().position(|other| other == digit).unwrap_or(0);
            bits << 6 | u32::try_from(place).expect("six bits")
        });
        bytes.extend(&bits.to_be_bytes()[1..4 - padding]);
    }
    bytes
}

#[test]
fn a_batch_has_every_value_in_order_whatever_its_size_type_and_shard() {
    let fixture = fixture();
    let server = Process::start(&fixture.store(), &["http.batch_bytes_max=64MiB"]);
    let mut client = Client::new(server.connect());
    let mut names = Vec::new();
    for (number, _) in keys() {
        names.extend([format!("v{number}"), format!("absent{number}"), format!("t{number}")]);
    }
    // Misses, then hits; all at once, and few at a time.
    for at_once in [128, 128, 7, 1] {
        for names in names.chunks(at_once) {
            let keys: Vec<&str> = names.iter().map(String::as_str).collect();
            let items = ask(&mut client, &keys);
            assert_eq!(items.len(), keys.len());
            for (key, item) in keys.iter().zip(&items) {
                assert_eq!(item["key"], **key);
                let number = key.trim_start_matches(char::is_alphabetic);
                let number: usize = number.parse().expect("a number");
                if key.starts_with("absent") {
                    assert_eq!(*item, json!({ "key": key, "status": 404 }));
                } else if key.starts_with('t') {
                    assert_eq!(item["content_type"], "text/plain");
                    let expected = text(number, SIZES[number / 4]);
                    assert!(decoded(&item["value_base64"]) == expected.as_bytes(), "{key}");
                } else {
                    let expected: Value = serde_json::from_str(&value(number)).expect("JSON");
                    assert_eq!(item["content_type"], "application/json");
                    assert!(item["value"] == expected, "{key}");
                }
            }
        }
    }
    assert_eq!(client.get("/lookup/v0").body, b"7", "the connection goes on");
}

#[test]
fn a_batch_stands_in_line_with_what_is_before_and_behind_it() {
    let fixture = fixture();
    let mut server = Process::start(&fixture.store(), &[]);
    let mut client = Client::new(server.connect());
    let get = |key: &str| format!("GET /lookup/{key} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let first = request(&["v0", "v41", "v40"], "");
    let second = request(&["v1"], "Expect: 100-continue\r\n");
    let line = [get("v44"), get("v4"), first, get("v8"), second, get("nobody"), get("v0")].concat();
    client.send(&line).expect("the server reads");
    let mut next = || client.receive(false).expect("the server answers");
    assert_eq!(next().body, value(44).as_bytes());
    assert_eq!(next().body, value(4).as_bytes());
    assert_eq!(items(&next()).len(), 3);
    assert_eq!(next().body, value(8).as_bytes());
    assert_eq!(
        items(&next()),
        [json!({
            "key": "v1", "status": 200, "content_type": "application/json", "value": 7
        })]
    );
    assert_eq!(next().status, 404);
    assert_eq!(next().body, b"7");
    // Shards publish a little later.
    until("both batches are counted", || server.metric("pelton_batches_total", "") >= 2);
    kill(Pid::from_raw(server.id()), Signal::SIGTERM).expect("it runs");
    assert!(server.wait().success(), "every upload is at home");
}

#[test]
fn what_a_batch_may_not_have_costs_it_or_its_item_alone() {
    let fixture = fixture();
    let sets = ["http.batch_keys_max=3", "http.batch_bytes_max=10KiB"];
    let server = Process::start(&fixture.store(), &sets);
    let mut client = Client::new(server.connect());
    // 8,191 bytes, 20,000, 150, 8,192: what does not fit is left out, and what does is not.
    let items = ask(&mut client, &["v20", "v28", "v16"]);
    let statuses: Vec<&Value> = items.iter().map(|item| &item["status"]).collect();
    assert_eq!(statuses, [200, 413, 200]);
    assert_eq!(items[1], json!({ "key": "v28", "status": 413, "error": "batch_too_large" }));
    assert_eq!(ask(&mut client, &[]), [json!(null); 0]);
    for (body, status, error) in [
        (request(&["a", "b", "c", "d"], ""), 413, "too_many_keys"),
        (request(&[""], ""), 400, "bad_batch"),
        (b"POST /lookup HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400, "bad_batch"),
        (b"GET /lookup HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 405, "method_not_allowed"),
        (b"PUT /lookup HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 405, "method_not_allowed"),
    ] {
        client.send(&body).expect("the server reads");
        let reply = client.receive(false).expect("the server answers");
        assert_eq!((reply.status, reply.text()), (status, &*format!(r#"{{"error":"{error}"}}"#)));
        assert_eq!(reply.header("Allow").is_some(), status == 405);
    }
}

#[test]
fn http_1_0_reads_a_batch_until_the_end() {
    let fixture = fixture();
    let server = Process::start(&fixture.store(), &[]);
    let mut client = Client::new(server.connect());
    let request = request(&["v44", "t40", "v0"], "Connection: keep-alive\r\n");
    let request = String::from_utf8(request).expect("text").replace("HTTP/1.1", "HTTP/1.0");
    client.send(request.as_bytes()).expect("the server reads");
    let reply = client.receive_to_end().expect("the server answers");
    assert_eq!(reply.header("Transfer-Encoding"), None);
    assert_eq!(reply.header("Connection"), Some("close"));
    assert_eq!(items(&reply).len(), 3);
}

#[test]
fn readers_that_take_nothing_keep_nobody_from_being_answered() {
    let fixture = fixture();
    let sets = ["server.shards=1", "http.write_timeout=1h", "http.batch_bytes_max=64MiB"];
    let server = Process::start(&fixture.store(), &sets);
    let names: Vec<String> = (0..128).map(|number| format!("v{}", 44 + number % 4)).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    // One more than there are uploads: the sockets have no room for so much.
    let silent: Vec<Client> = (0..17)
        .map(|_| {
            let mut client = Client::new(server.connect());
            client.send(&request(&keys, "")).expect("the server reads");
            client
        })
        .collect();
    let mut client = Client::new(server.connect());
    assert_eq!(ask(&mut client, &["v0"]).len(), 1);
    drop(silent);
}

#[test]
fn readers_of_batches_that_vanish_leave_nothing_behind() {
    let fixture = fixture();
    let mut server = Process::start(&fixture.store(), &["http.batch_bytes_max=64MiB"]);
    let names: Vec<String> = keys().map(|(number, _)| format!("v{number}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    for _ in 0..64 {
        let mut client = Client::new(server.connect());
        client.send(&request(&keys, "")).expect("the server reads");
    }
    let mut client = Client::new(server.connect());
    assert_eq!(ask(&mut client, &keys).len(), keys.len());
    drop(client);
    kill(Pid::from_raw(server.id()), Signal::SIGTERM).expect("it runs");
    assert!(server.wait().success(), "every upload, parcel and pin is at home");
}
