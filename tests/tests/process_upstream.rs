//! An HTTP server as the origin: what it says, and what it does to us.
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::fixture::Fixture;
use pelton_tests::http::{Client, Reply};
use pelton_tests::http_origin::HttpOrigin;
use pelton_tests::process::{self, Process, until};

fn serve(origin: &HttpOrigin, sets: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let own = ["origin.kind=http", &HttpOrigin::url_at(origin.address)];
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
    let origin = HttpOrigin::start();
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
    let origin = HttpOrigin::start();
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
    let origin = HttpOrigin::start();
    origin.answer("private", 200, "Cache-Control: no-store\r\n", "1");
    let (_fixture, server) = serve(&origin, &[]);
    assert_eq!(get(&server, "private").text(), "1");
    origin.answer("private", 200, "Cache-Control: no-store\r\n", "2");
    assert_eq!(get(&server, "private").text(), "2");
    origin.forget("private");
    assert_eq!(get(&server, "private").status, 502, "it is not served when it is stale either");
}

/// How long a reply says that its value is fresh, all in all.
fn max_age_s(reply: &Reply) -> u32 {
    let words = reply.header("cache-control").expect("it says how long it is fresh");
    let digits = words.trim_start_matches("max-age=").split(',').next().expect("a part");
    digits.parse().expect("a number of seconds")
}

/// Fetches to which the server said that nothing has changed.
fn unchanged(server: &Process, count: u64) {
    until("a fetch is counted", || {
        server.metric("pelton_origin_fetches_unchanged_total", "") == count
    });
}

/// What is stale is never served, and is kept.
const RETAINED: &str = "cache.stale_while_revalidate=0s";

#[test]
fn a_value_that_has_not_changed_is_not_sent_again() {
    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n";
    const TIME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = HttpOrigin::start();
    let modified = format!("Last-Modified: {TIME}\r\n{DATE}");
    for (key, line, condition) in [
        ("tag", "ETag: \"1\"\r\n", "if-none-match: \"1\"".to_owned()),
        ("weak", "ETag: W/\"1\"\r\n", "if-none-match: W/\"1\"".to_owned()),
        ("time", &modified, format!("if-modified-since: {TIME}")),
    ] {
        origin.answer(key, 200, &format!("Cache-Control: max-age=0\r\n{line}"), "value");
        origin.unchanged(key, &condition, "Cache-Control: max-age=60\r\n");
    }
    let (_fixture, server) = serve(&origin, &[RETAINED]);
    for (key, condition) in
        [("tag", "if-none-match: \"1\""), ("weak", "if-none-match: W/\"1\""), ("time", "")]
    {
        let first = get(&server, key);
        assert_eq!(max_age_s(&first), 0, "{key}");
        for _ in 0..3 {
            let reply = get(&server, key);
            assert_eq!((reply.status, reply.text()), (200, "value"), "{key}");
            assert_eq!(reply.header("etag"), first.header("etag"), "{key}");
            assert!(max_age_s(&reply) > 30, "{key}: by the words of the 304");
        }
        let conditions = origin.conditions(key);
        assert_eq!((conditions.len(), &*conditions[0]), (2, ""), "{key}");
        assert!(conditions[1].starts_with(condition), "{conditions:?}");
    }
    assert_eq!(requests(&server, "answered"), 6);
    unchanged(&server, 3);
    let (_, explained) = server.admin("/explain?key=tag");
    assert!(explained.contains(r#""answer": "unchanged""#), "{explained}");
    assert_eq!(server.metric("pelton_cache_stored_total", ""), 3, "no value came twice");
}

#[test]
fn what_is_never_served_stale_is_asked_about_as_well_unless_it_must_not_be_kept() {
    let origin = HttpOrigin::start();
    let (_fixture, server) = serve(&origin, &[]);
    for (words, is_kept) in [
        ("max-age=0, must-revalidate", true),
        ("s-maxage=0", true),
        ("no-cache", true),
        ("no-store", false),
        ("private, no-cache", false),
    ] {
        let key = words.replace([' ', ',', '='], "_");
        let lines = format!("Cache-Control: {words}\r\nETag: \"1\"\r\n");
        origin.answer(&key, 200, &lines, "value");
        if is_kept {
            origin.unchanged(&key, "if-none-match: \"1\"", "");
        }
        for _ in 0..3 {
            assert_eq!(get(&server, &key).text(), "value", "{words}");
        }
        let again = if is_kept { "if-none-match: \"1\"" } else { "" };
        assert_eq!(origin.conditions(&key), ["", again, again], "{words}");
        origin.forget(&key);
        if !is_kept {
            assert_eq!(get(&server, &key).status, 502, "{words}");
        }
    }
    unchanged(&server, 6);
}

#[test]
fn a_value_that_has_changed_comes_with_what_it_is_known_by_from_then_on() {
    let origin = HttpOrigin::start();
    let tagged = |tag: &str, value: &str| {
        let lines = format!("Cache-Control: max-age=0\r\nETag: {tag}\r\n");
        origin.answer("key", 200, &lines, value);
    };
    let (_fixture, server) = serve(&origin, &[RETAINED]);
    for (tag, value) in [("\"1\"", "one"), ("\"2\"", "two"), ("*", "three"), ("\"4\"", "four")] {
        tagged(tag, value);
        assert_eq!(get(&server, "key").text(), value);
    }
    let conditions = ["", "if-none-match: \"1\"", "if-none-match: \"2\"", ""];
    assert_eq!(origin.conditions("key"), conditions, "what is no tag is not sent");
    // Where a 304 does not say how long it is good, that is as long as before.
    origin.unchanged("key", "if-none-match: \"4\"", "");
    assert_eq!(max_age_s(&get(&server, "key")), 0);
    unchanged(&server, 1);
}

#[test]
fn a_304_that_nobody_has_asked_for_is_a_fault_of_the_server() {
    let origin = HttpOrigin::start();
    origin.answer("unasked", 304, "", "");
    origin.answer("other", 200, "Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "value");
    origin.unchanged("other", "if-none-match: \"1\"", "ETag: \"2\"\r\n");
    let (_fixture, server) = serve(&origin, &[RETAINED, "cache.stale_if_error=1m"]);
    assert_eq!(get(&server, "unasked").status, 502);
    until("it is asked for whole again", || {
        assert_eq!(get(&server, "other").text(), "value");
        origin.asked("other") == 3
    });
    assert_eq!(origin.conditions("other"), ["", "if-none-match: \"1\"", ""]);
    assert_eq!(requests(&server, "failed"), 2);
    assert_eq!(server.metric("pelton_origin_fetches_unchanged_total", ""), 0);
}

#[test]
fn where_nothing_is_remembered_values_come_whole() {
    let origin = HttpOrigin::start();
    origin.answer("key", 200, "Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "value");
    let (_fixture, server) = serve(&origin, &[RETAINED, "upstream.validators_max=0"]);
    for _ in 0..3 {
        assert_eq!(get(&server, "key").text(), "value");
    }
    assert_eq!(origin.conditions("key"), [""; 3]);
}

#[test]
fn what_the_server_says_of_stale_values_is_said_by_every_shard_and_of_every_copy() {
    const KINDS: [(&str, &str, &str); 4] = [
        ("usual", "max-age=600", "stale-while-revalidate=30"),
        ("own", "max-age=600, stale-while-revalidate=7", "stale-while-revalidate=7"),
        ("never", "max-age=600, must-revalidate", "must-revalidate"),
        ("errors", "max-age=600, stale-while-revalidate=0, stale-if-error=9", ""),
    ];
    let origin = HttpOrigin::start();
    let all = KINDS.iter().flat_map(|kind| (0..4).map(move |number| (kind, number)));
    let keys: Vec<_> = all.map(|(kind, number)| (format!("{}-{number}", kind.0), kind)).collect();
    for (key, (_, said, _)) in &keys {
        origin.answer(key, 200, &format!("Cache-Control: {said}\r\n"), "value");
    }
    let (_fixture, server) = serve(&origin, &["server.shards=2"]);
    let mut clients: Vec<_> = (0..8).map(|_| Client::new(server.connect())).collect();
    for _ in 0..8 {
        for client in &mut clients {
            for (key, (.., words)) in &keys {
                let reply = client.get(&format!("/lookup/{key}"));
                let line = reply.header("cache-control").unwrap();
                let beyond = line.split_once(", ").map_or("", |(_, beyond)| beyond);
                assert_eq!(beyond, *words, "{key}: {line}");
            }
        }
    }
    for (metric, least) in [("pelton_remote_reads_total", 16), ("pelton_replica_hits_total", 64)] {
        until("the counters are published", || server.metric(metric, "") >= least);
    }
}

#[test]
fn a_value_with_words_for_which_there_is_no_place_is_never_served_stale() {
    let origin = HttpOrigin::start();
    let (_fixture, server) = serve(&origin, &["server.shards=1"]);
    let mut client = Client::new(server.connect());
    let mut are_own = 0;
    for number in 0..300 {
        let (key, words) = (number.to_string(), format!("stale-while-revalidate={number}"));
        origin.answer(&key, 200, &format!("Cache-Control: max-age=600, {words}\r\n"), "value");
        let line =
            client.get(&format!("/lookup/{key}")).header("cache-control").unwrap().to_owned();
        let is_own = number == 0 || line.ends_with(&format!(", {words}"));
        assert!(is_own || line.ends_with(", must-revalidate"), "{line}");
        are_own += usize::from(is_own);
    }
    assert_eq!(are_own, 252, "and one place is for those that have said so");
}

#[test]
fn while_the_server_is_down_what_is_stale_is_served_and_it_is_left_alone() {
    let origin = HttpOrigin::start();
    let lax: Vec<_> = (0..20).map(|number| format!("lax{number}")).collect();
    let strict: Vec<_> = (0..20).map(|number| format!("strict{number}")).collect();
    for (keys, control) in [(&lax, "max-age=0"), (&strict, "max-age=0, must-revalidate")] {
        for key in keys {
            origin.answer(key, 200, &format!("Cache-Control: {control}\r\n"), "old");
        }
    }
    let (_fixture, server) = serve(&origin, &["cache.stale_while_revalidate=0s"]);
    let keys = || lax.iter().chain(&strict);
    for key in keys() {
        assert_eq!(get(&server, key).text(), "old");
        origin.forget(key);
    }
    for (lax, strict) in lax.iter().zip(&strict) {
        assert_eq!(get(&server, lax).text(), "old");
        assert_eq!(get(&server, strict).status, 502);
    }
    let asked = keys().map(|key| origin.asked(key)).sum::<usize>();
    assert!((44..80).contains(&asked), "the breaker is open: {asked}");
    let [failed, broken] = ["failed", "broken"].map(|outcome| requests(&server, outcome));
    assert_eq!(failed, asked as u64 - 40, "all but the first of each");
    assert!(failed + broken >= 40, "each was sent or not: {failed} + {broken}");
    origin.answer("lax0", 200, "Cache-Control: max-age=0\r\n", "new");
    until("the new value is served", || get(&server, "lax0").text() == "new");
    assert!(requests(&server, "answered") >= 3);
}

#[test]
fn a_key_whose_fetch_has_failed_is_left_alone_for_a_moment() {
    let origin = HttpOrigin::start();
    let (_fixture, server) = serve(&origin, &[]);
    let paused = || server.metric("pelton_origin_fetches_paused_total", "");
    until("a request is answered by the failure before", || {
        assert_eq!(get(&server, "ill").status, 502);
        paused() > 0
    });
    let fetches = server.metric("pelton_origin_fetches_total", "");
    until("it is asked for again", || {
        assert_eq!(get(&server, "ill").status, 502);
        server.metric("pelton_origin_fetches_total", "") > fetches
    });
    origin.answer("ill", 200, "", "well");
    until("it is well", || get(&server, "ill").text() == "well");
}

#[test]
fn what_is_read_often_is_fetched_before_it_is_stale() {
    let origin = HttpOrigin::start();
    // Nothing of it may be served stale.
    origin.answer("hot", 200, "Cache-Control: s-maxage=1\r\n", "value");
    let (_fixture, server) = serve(&origin, &[]);
    let mut client = Client::new(server.connect());
    until("it was fetched early", || {
        for _ in 0..100 {
            assert_eq!(client.get("/lookup/hot").status, 200);
        }
        server.metric("pelton_origin_fetches_early_total", "") > 0
    });
    assert!(origin.asked("hot") >= 2);
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
