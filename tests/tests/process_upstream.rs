//! An HTTP server as the origin: what it says, and what it does to us.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::disallowed_methods, reason = "the origin is a few threads")]

use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::process::{self, Process};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What the origin answers to a key, and how often it was asked.
#[derive(Default)]
struct Script {
    answers: BTreeMap<&'static str, String>,
    asked: BTreeMap<String, usize>,
    /// Answers are held back.
    is_held: bool,
}

/// An HTTP server that follows a script.
#[derive(Clone)]
struct Origin {
    address: SocketAddr,
    script: Arc<(Mutex<Script>, Condvar)>,
}

impl Origin {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), script: Arc::default() };
        let of_all = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let origin = of_all.clone();
                std::thread::spawn(move || origin.serve(&stream));
            }
        });
        origin
    }

    /// Answers until the peer is gone, or the script says nothing of a key.
    fn serve(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while let Some(first) = lines.next() {
            lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
            let key = first.split(' ').nth(1).unwrap().trim_start_matches("/items/").to_owned();
            let mut script = self.script.0.lock().unwrap();
            *script.asked.entry(key.clone()).or_default() += 1;
            self.script.1.notify_all();
            let script = self.script.1.wait_while(script, |script| script.is_held).unwrap();
            let Some(answer) = script.answers.get(key.as_str()).cloned() else { return };
            drop(script);
            if (&mut &*stream).write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, key: &'static str, status: u16, lines: &str, body: &str) {
        let size = body.len();
        let answer = format!("HTTP/1.1 {status} It\r\nContent-Length: {size}\r\n{lines}\r\n{body}");
        self.script.0.lock().unwrap().answers.insert(key, answer);
    }

    /// From now on it closes connections instead of an answer.
    fn forget(&self, key: &str) {
        self.script.0.lock().unwrap().answers.remove(key);
    }

    fn hold(&self, is_held: bool) {
        self.script.0.lock().unwrap().is_held = is_held;
        self.script.1.notify_all();
    }

    fn wait_until_asked(&self, key: &str) {
        let is_asked = |script: &mut Script| script.asked.contains_key(key);
        let script = self.script.0.lock().unwrap();
        drop(self.script.1.wait_while(script, |script| !is_asked(script)).unwrap());
    }

    fn asked(&self, key: &str) -> usize {
        self.script.0.lock().unwrap().asked.get(key).copied().unwrap_or_default()
    }
}

fn serve(origin: &Origin, sets: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let url = format!("upstream.url=http://{}/items/{{key}}", origin.address);
    let own = ["origin.kind=http", &url];
    let server = Process::start(&fixture.store(), &[&own, sets].concat());
    (fixture, server)
}

fn get(server: &Process, key: &str) -> Reply {
    Client::new(server.connect()).get(&format!("/lookup/{key}"))
}

/// Requests to the origin that ended like this.
fn requests(server: &Process, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    server.metric("pelton_origin_server_requests_total", &label)
}

#[test]
fn values_absences_and_errors_are_told_as_the_server_tells_them() {
    let origin = Origin::start();
    origin.answer("json", 200, "Content-Type: application/json\r\n", "[1]");
    origin.answer("a%2Fb%FF", 200, "Content-Type: text/plain\r\n", "text");
    origin.answer("bytes", 200, "", "x");
    origin.answer("gone", 410, "", "no more");
    origin.answer("absent", 404, "", "none");
    origin.answer("teapot", 418, "", "");
    origin.answer("ill", 500, "", "sorry");
    origin.answer("coded", 200, "Content-Encoding: gzip\r\n", "x");
    origin.answer("large", 200, "", &"x".repeat(1001));
    let (_fixture, server) = serve(&origin, &["cache.value_size_max=1000B"]);
    for (key, status, content_type, text) in [
        ("json", 200, "application/json", "[1]"),
        ("a%2fb%ff", 200, "text/plain", "text"),
        ("bytes", 200, "application/octet-stream", "x"),
        ("gone", 404, "application/json", r#"{"error":"not_found"}"#),
        ("absent", 404, "application/json", r#"{"error":"not_found"}"#),
        ("teapot", 502, "application/json", r#"{"error":"origin_unavailable"}"#),
        ("ill", 502, "application/json", r#"{"error":"origin_unavailable"}"#),
        ("coded", 502, "application/json", r#"{"error":"origin_unavailable"}"#),
        ("large", 502, "application/json", r#"{"error":"origin_unavailable"}"#),
        ("unscripted", 502, "application/json", r#"{"error":"origin_unavailable"}"#),
    ] {
        let reply = get(&server, key);
        let of_type = reply.header("content-type").unwrap();
        assert_eq!((reply.status, of_type, reply.text()), (status, content_type, text), "{key}");
    }
    assert_eq!(get(&server, "json").text(), "[1]");
    assert_eq!(origin.asked("json"), 1, "it is served from memory");
}

#[test]
fn many_who_ask_for_one_cold_key_are_one_request_to_the_server() {
    let origin = Origin::start();
    origin.answer("cold", 200, "", "value");
    origin.hold(true);
    let (_fixture, server) = serve(&origin, &["origin.timeout=30s"]);
    let mut clients: Vec<_> = (0..100).map(|_| Client::new(server.connect())).collect();
    for client in &mut clients {
        client.send(b"GET /lookup/cold HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    origin.wait_until_asked("cold");
    let label = format!("server=\"{}\"", origin.address);
    assert_eq!(server.metric("pelton_origin_server_in_flight", &label), 1);
    origin.hold(false);
    for client in &mut clients {
        assert_eq!(client.receive(false).unwrap().text(), "value");
    }
    assert_eq!(origin.asked("cold"), 1);
    assert_eq!(requests(&server, "answered"), 1);
    for level in ["in_flight", "waiting", "breaker_state"] {
        assert_eq!(server.metric(&format!("pelton_origin_server_{level}"), &label), 0, "{level}");
    }
    assert_eq!(server.metric("pelton_origin_server_limit", &label), 25);
}

#[test]
fn what_must_not_be_kept_is_asked_for_again() {
    let origin = Origin::start();
    origin.answer("private", 200, "Cache-Control: no-store\r\n", "1");
    let (_fixture, server) = serve(&origin, &[]);
    assert_eq!(get(&server, "private").text(), "1");
    origin.answer("private", 200, "Cache-Control: no-store\r\n", "2");
    assert_eq!(get(&server, "private").text(), "2");
    origin.forget("private");
    assert_eq!(get(&server, "private").status, 502, "it is not served when it is stale either");
}

#[test]
fn while_the_server_is_down_what_is_stale_is_served_and_it_is_left_alone() {
    let origin = Origin::start();
    origin.answer("key", 200, "Cache-Control: max-age=0\r\n", "old");
    origin.answer("strict", 200, "Cache-Control: max-age=0, must-revalidate\r\n", "old");
    let (_fixture, server) = serve(&origin, &["cache.stale_while_revalidate=0s"]);
    assert_eq!(get(&server, "key").text(), "old");
    assert_eq!(get(&server, "strict").text(), "old");
    origin.forget("key");
    origin.forget("strict");
    for _ in 0..20 {
        assert_eq!(get(&server, "key").text(), "old");
        assert_eq!(get(&server, "strict").status, 502);
    }
    let asked = origin.asked("key") + origin.asked("strict");
    assert!((4..40).contains(&asked), "the breaker is open: {asked}");
    let [failed, broken] = ["failed", "broken"].map(|outcome| requests(&server, outcome));
    assert_eq!(failed, asked as u64 - 2, "all but the first two");
    assert!(failed + broken >= 40, "each was sent or not: {failed} + {broken}");
    origin.answer("key", 200, "Cache-Control: max-age=0\r\n", "new");
    while get(&server, "key").text() != "new" {}
    assert!(requests(&server, "answered") >= 3);
}

#[test]
fn what_it_cannot_be_is_refused_with_what_to_do() {
    for (sets, what) in [
        (["upstream.url=http://127.0.0.1:1/", "http.writes=false"], "without a place for {key}"),
        (["origin.tls_ca=/dev/null", "http.writes=false"], "no certificate"),
        (["http.writes=true", "http.cache_control=true"], "cannot be written"),
    ] {
        let fixture = Fixture::empty();
        let token = fixture.token_file("a-token-of-16-bytes");
        let listen = r#"server.listen=["127.0.0.1:0"]"#;
        let own = ["admin.listen=127.0.0.1:0", "origin.kind=http", &token, listen];
        let all = own.iter().chain(&sets).flat_map(|set| ["--set", *set]);
        let output = process::run(&std::iter::once("serve").chain(all).collect::<Vec<_>>());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(what), "{message}");
    }
}
