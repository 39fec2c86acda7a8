//! A real server that is written to: what it answered is there, for everybody and after its death.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{self, Process};

const TOKEN: &str = "a-token-of-some-thirty-characters";

/// Uploads that a shard has.
const UPLOADS_COUNT: usize = 16;

fn start(fixture: &Fixture, sets: &[&str]) -> Process {
    let token = fixture.token_file(TOKEN);
    Process::start(&fixture.store(), &[&["http.writes=true", &*token], sets].concat())
}

fn head(method: &str, key: &str, lines: &str) -> String {
    format!(
        "{method} /lookup/{key} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n{lines}\r\n"
    )
}

fn put(client: &mut Client, key: &str, lines: &str, body: &[u8]) -> Reply {
    let lines = format!("{lines}Content-Length: {}\r\n", body.len());
    let request = [head("PUT", key, &lines).as_bytes(), body].concat();
    client.send(&request).expect("the server reads");
    client.receive(false).expect("the server answers")
}

fn delete(client: &mut Client, key: &str) -> u16 {
    client.send(head("DELETE", key, "").as_bytes()).expect("the server reads");
    client.receive(false).expect("the server answers").status
}

#[test]
fn what_was_written_is_read_by_everybody_and_after_the_process_was_killed() {
    let fixture = Fixture::numbered(4);
    let mut server = start(&fixture, &[]);
    let [mut writer, mut reader] = [(); 2].map(|()| Client::new(server.connect()));
    let mut written = Vec::new();
    // Keys of both shards, values that are copied, attached, and come in pieces.
    for (number, size) in [0, 2, 300, 20_000, 300_000, 1 << 20].into_iter().enumerate() {
        for half in 0..4 {
            let key = format!("w{number}-{half}");
            let value = vec![b'a' + half; size];
            assert_eq!(reader.get(&format!("/lookup/{key}")).status, 404, "a negative entry");
            let first = put(&mut writer, &key, "Content-Type: text/plain\r\n", b"old");
            assert_eq!(first.status, 201);
            let reply = put(&mut writer, &key, "Content-Type: text/plain\r\n", &value);
            assert_eq!(reply.status, 204);
            let etag = reply.header("ETag").expect("a tag").to_owned();
            written.push((key, value, etag));
        }
    }
    let read = |client: &mut Client| {
        for (key, value, etag) in &written {
            let reply = client.get(&format!("/lookup/{key}"));
            assert_eq!((reply.status, reply.body.len()), (200, value.len()), "{key}");
            assert_eq!(reply.body, *value, "{key}");
            assert_eq!(reply.header("Content-Type"), Some("text/plain"));
            assert_eq!(reply.header("ETag"), Some(&**etag));
        }
    };
    read(&mut reader);
    assert_eq!(delete(&mut writer, "k1"), 204);
    assert_eq!(delete(&mut writer, "k1"), 404);
    assert_eq!(reader.get("/lookup/k1").status, 404);
    kill(Pid::from_raw(server.id()), Signal::SIGKILL).expect("it runs");
    server.wait();
    let server = start(&fixture, &[]);
    let mut reader = Client::new(server.connect());
    read(&mut reader);
    assert_eq!(reader.get("/lookup/k1").status, 404);
    assert_eq!(reader.get("/lookup/k2").status, 200);
}

#[test]
fn a_write_that_depends_on_a_tag_is_done_once() {
    let fixture = Fixture::numbered(1);
    let server = start(&fixture, &[]);
    let mut client = Client::new(server.connect());
    let etag = client.get("/lookup/k0").header("ETag").expect("a tag").to_owned();
    let lines = format!("If-Match: {etag}\r\n");
    assert_eq!(put(&mut client, "k0", &lines, b"1").status, 204);
    assert_eq!(put(&mut client, "k0", &lines, b"2").status, 412);
    assert_eq!(put(&mut client, "k0", "If-None-Match: *\r\n", b"3").status, 412);
    assert_eq!(client.get("/lookup/k0").body, b"1");
    assert_eq!(put(&mut client, "new", "If-None-Match: *\r\n", b"4").status, 201);
}

#[test]
fn slow_writers_hold_uploads_and_give_them_back_when_they_end() {
    let fixture = Fixture::numbered(1);
    // One shard, so that all connections share its uploads.
    let server = start(&fixture, &["server.shards=1", "http.body_timeout=1h"]);
    let slow = || {
        let mut client = Client::new(server.connect());
        let request = head("PUT", "slow", "Content-Length: 5\r\nExpect: 100-continue\r\n");
        client.send(request.as_bytes()).expect("the server reads");
        assert_eq!(client.receive(false).expect("the server answers").status, 100);
        client
    };
    let mut holders: Vec<Client> = (0..UPLOADS_COUNT).map(|_| slow()).collect();
    let mut next = Client::new(server.connect());
    let request = head("PUT", "next", "Content-Length: 1\r\n") + "1";
    // The second GET shows that the connection was looked at, and waits.
    next.send(format!("GET /lookup/k0 HTTP/1.1\r\nHost: a\r\n\r\n{request}").as_bytes())
        .expect("the server reads");
    assert_eq!(next.receive(false).expect("the server answers").status, 200);
    // A GET of another connection is served all the same.
    assert_eq!(Client::new(server.connect()).get("/lookup/k0").status, 200);
    // One vanishes in the middle of its body, and one ends it.
    drop(holders.pop());
    assert_eq!(next.receive(false).expect("the server answers").status, 201);
    let mut last = holders.pop().expect("some are left");
    last.send(b"12345").expect("the server reads");
    assert_eq!(last.receive(false).expect("the server answers").status, 201);
    let mut others: Vec<Client> = (0..2).map(|_| slow()).collect();
    for client in holders.iter_mut().chain(&mut others) {
        client.send(b"12345").expect("the server reads");
        assert_eq!(client.receive(false).expect("the server answers").status, 204);
    }
}

#[test]
fn the_token_is_needed_and_never_shown() {
    let fixture = Fixture::numbered(1);
    let output = process::run(&["serve", "--set", "http.writes=true"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("admin.token_file"), "{said}");
    let mut server = start(&fixture, &["log.level=trace"]);
    let mut client = Client::new(server.connect());
    assert_eq!(put(&mut client, "k0", "", b"1").status, 204);
    client
        .send(b"DELETE /lookup/k0 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\n\r\n")
        .expect("the server reads");
    let refused = client.receive(false).expect("the server answers");
    assert_eq!((refused.status, refused.text()), (401, r#"{"error":"unauthorized"}"#));
    assert_eq!(refused.header("WWW-Authenticate"), Some("Bearer"));
    assert_eq!(client.get("/lookup/k0").body, b"1", "the connection goes on");
    let shown = server.admin("/config").1 + &server.admin("/stats").1 + &server.admin("/metrics").1;
    assert!(!shown.contains(TOKEN));
    kill(Pid::from_raw(server.id()), Signal::SIGTERM).expect("it runs");
    let words = [server.greeting.clone(), server.last_words()].concat().join("\n");
    assert!(!words.contains(TOKEN), "{words}");
    assert!(server.wait().success());
}
