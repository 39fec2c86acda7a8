//! PUT and DELETE as the data port reads them, each rule with its section.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test")]

use pelton::http::{BatchLimits, Connection, Exchange, HttpLimits, Refusal, Step, WriteLimits};
use pelton::token::Token;
use pelton_tests::meaning::{Event, feed};
use pelton_tests::reference;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;

const BEARER: &str = "Authorization: Bearer 0123456789abcdef\r\n";

fn limits() -> HttpLimits {
    let token = Token::new("0123456789abcdef").expect("long enough");
    HttpLimits {
        head_size_max: 1024,
        headers_count_max: 16,
        target_size_max: 128,
        key_size_max: 16,
        body_size_max: 64,
        batch: BatchLimits { keys_max: 4, body_size_max: 64 },
        writes: Some(WriteLimits { token: Some(token), by_tenants: false, value_size_max: 32 }),
    }
}

fn whole(input: &str) -> Vec<Event> {
    feed(&limits(), std::iter::once(input.as_bytes())).0
}

/// A PUT of `k` that bears the token, with more lines, and this body.
fn put(lines: &str, body: &str) -> String {
    format!("PUT /lookup/k HTTP/1.1\r\nHost: a\r\n{BEARER}{lines}\r\n{body}")
}

fn delete(lines: &str) -> String {
    format!("DELETE /lookup/k HTTP/1.1\r\nHost: a\r\n{BEARER}{lines}\r\n")
}

/// A PUT of `k` that says nothing else.
fn written(body: &str) -> Event {
    Event::Write {
        key: b"k".to_vec(),
        put: Some(("application/json".into(), [None; 3])),
        if_match: None,
        if_none_match: false,
        waits: false,
        body: body.as_bytes().to_vec(),
        connection: Connection::Persistent,
    }
}

fn answered(refusal: Refusal) -> Event {
    Event::Answered { refusal, connection: Connection::Persistent }
}

#[test]
fn a_put_is_its_head_and_its_body_however_it_is_framed() {
    assert_eq!(whole(&put("Content-Length: 3\r\n", "abc")), [written("abc")]);
    assert_eq!(whole(&put("", "")), [written("")]);
    let chunks = "1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: u\r\n\r\n";
    assert_eq!(whole(&put("Transfer-Encoding: chunked\r\n", chunks)), [written("abc")]);
    let two = put("Content-Length: 1\r\n", "a") + &put("Content-Length: 1\r\n", "b");
    assert_eq!(whole(&two), [written("a"), written("b")]);
}

#[test]
fn a_write_says_what_and_when() {
    let lines = "Content-Type: text/plain\r\nCache-Control: max-age=5, stale-if-error=7\r\n\
                 If-Match: \"00c0ffee00c0ffee\"\r\nIf-None-Match: *\r\n";
    let [Event::Write { put: Some(put), if_match, if_none_match, .. }] =
        &whole(&put(lines, ""))[..]
    else {
        panic!("a write");
    };
    assert_eq!(*put, ("text/plain".into(), [Some(5), None, Some(7)]));
    assert_eq!((*if_match, *if_none_match), (Some(true), true));
    let [Event::Write { put: None, if_match, .. }] =
        &whole(&delete("If-Match: W/\"00c0ffee00c0ffee\"\r\n"))[..]
    else {
        panic!("a deletion");
    };
    assert_eq!(*if_match, Some(false), "RFC 9110 13.1.1: the comparison is strong");
}

#[test]
fn what_is_not_understood_is_refused_and_the_connection_goes_on() {
    use Refusal::{
        BadCacheControl, BadPrecondition, BodyNotAllowed, ContentEncodingUnsupported,
        ContentRangeNotAllowed, ContentTooLarge, ContentTypeUnsupported, MethodNotAllowed,
        MethodNotAllowedOfKey, NotFound, Unauthorized,
    };
    let long = "x".repeat(64);
    let large = "x".repeat(33);
    let body = "Content-Length: 1\r\n";
    let stranger = |lines: &str| format!("PUT /lookup/k HTTP/1.1\r\nHost: a\r\n{lines}{body}\r\nx");
    for (input, refusal) in [
        (stranger(""), Unauthorized),
        (stranger("Authorization: Bearer 0123456789abcdeF\r\nContent-Range: x\r\n"), Unauthorized),
        (stranger(&BEARER.repeat(2)), Unauthorized),
        (put(&format!("{body}Content-Range: bytes 0-0/1\r\n"), "x"), ContentRangeNotAllowed),
        (put(&format!("{body}Content-Encoding: gzip\r\n"), "x"), ContentEncodingUnsupported),
        (put(&format!("{body}Content-Type: {long}\r\n"), "x"), ContentTypeUnsupported),
        (put(&format!("{body}Content-Type:\r\n"), "x"), ContentTypeUnsupported),
        (
            put(&format!("{body}Content-Type: a\r\nContent-Type: a\r\n"), "x"),
            ContentTypeUnsupported,
        ),
        (put(&format!("{body}Cache-Control: max-age=x\r\n"), "x"), BadCacheControl),
        (put(&format!("{body}If-Match: x\r\n"), "x"), BadPrecondition),
        (put(&format!("{body}If-None-Match: *\r\nIf-None-Match: \"a\"\r\n"), "x"), BadPrecondition),
        (put("Content-Length: 33\r\n", &large), ContentTooLarge),
        (delete(body) + "x", BodyNotAllowed),
        (delete("").replace("DELETE", "PATCH"), MethodNotAllowedOfKey),
        (delete("").replace("DELETE", "OPTIONS"), MethodNotAllowedOfKey),
        (delete("").replace("/lookup/k", "/healthz"), MethodNotAllowed),
        (delete("").replace("/lookup/k", "/lookup/"), NotFound),
    ] {
        let events = whole(&(input.clone() + &put("", "")));
        assert_eq!(events, [answered(refusal), written("")], "{input}");
    }
}

#[test]
fn a_body_that_cannot_be_framed_or_exceeds_its_bound_ends_the_connection() {
    let chunked = |body: &str| put("Transfer-Encoding: chunked\r\n", body);
    for (input, refusal) in [
        (chunked("21\r\n"), Refusal::ContentTooLarge),
        (chunked("20\r\n12345678901234567890123456789012\r\n1"), Refusal::ContentTooLarge),
        (chunked("1\r\nab"), Refusal::BadChunk),
        (put("Content-Length: 65\r\n", ""), Refusal::ContentTooLarge),
    ] {
        assert_eq!(whole(&input), [Event::Broken(refusal)], "{input}");
    }
}

#[test]
fn who_waits_with_the_body_is_told_to_go_on_or_answered_at_once() {
    let waiting = |input: &str| {
        let mut exchange = Exchange::new();
        let Step::Write { write, .. } = exchange.next(input.as_bytes(), &limits()) else {
            panic!("a write");
        };
        write.expects_continue
    };
    let expect = "Expect: 100-continue\r\n";
    let body = "Content-Length: 3\r\n";
    assert!(waiting(&put(&format!("{body}{expect}"), "")));
    assert!(!waiting(&put(body, "")) && !waiting(&put(expect, "")), "there is nothing to wait for");
    let old = put(&format!("{body}{expect}"), "").replace("HTTP/1.1", "HTTP/1.0");
    assert!(!waiting(&old), "RFC 9110 10.1.1: HTTP/1.0 is not told");
    let refused = put(&format!("{body}{expect}Content-Range: x\r\n"), "");
    let refusal = Refusal::ContentRangeNotAllowed;
    assert_eq!(whole(&refused), [Event::Answered { refusal, connection: Connection::Close }]);
    let stranger = old.replace(BEARER, "");
    let refusal = Refusal::Unauthorized;
    assert_eq!(whole(&stranger), [Event::Answered { refusal, connection: Connection::Close }]);
    let batch = format!("POST /lookup HTTP/1.1\r\nHost: a\r\n{expect}\r\n");
    let (body_of_batch, connection) = (Vec::new(), Connection::Persistent);
    assert_eq!(whole(&batch), [Event::Batch { waits: false, body: body_of_batch, connection }]);
    let other = put(&format!("{body}Expect: x\r\n"), "");
    let refusal = Refusal::ExpectationFailed;
    assert_eq!(whole(&other), [Event::Answered { refusal, connection: Connection::Close }]);
}

#[test]
fn a_head_that_cannot_be_taken_up_is_presented_again() {
    let mut exchange = Exchange::new();
    let input = put("Content-Length: 1\r\n", "x");
    for _ in 0..2 {
        let step = exchange.next(input.as_bytes(), &limits());
        assert!(matches!(step, Step::Write { .. }), "{step:?}");
        exchange.put_back();
    }
}

#[test]
fn nobody_writes_where_that_is_off() {
    let limits = HttpLimits { writes: None, ..limits() };
    let input = put("Content-Length: 1\r\n", "x") + &delete("");
    let (events, ..) = feed(&limits, std::iter::once(input.as_bytes()));
    assert_eq!(events, [answered(Refusal::MethodNotAllowed), answered(Refusal::MethodNotAllowed)]);
}

/// Heads and bodies of writes and batches, whole and in parts, and what does not belong there.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(BEARER),
        Just("Authorization: Basic x\r\n"),
        Just("Content-Length: 3\r\n"),
        Just("Content-Length: 33\r\n"),
        Just("Content-Length: 0\r\n"),
        Just("Transfer-Encoding: chunked\r\n"),
        Just("Expect: 100-continue\r\n"),
        Just("If-Match: \"00c0ffee00c0ffee\"\r\n"),
        Just("If-Match: W/\"00c0ffee00c0ffee\"\r\n"),
        Just("If-None-Match: *\r\n"),
        Just("If-None-Match: \"a\", \"00c0ffee00c0ffee\"\r\n"),
        Just("If-Match: \"a\" x\r\n"),
        Just("Content-Type: text/plain\r\n"),
        Just("Content-Type: \t\r\n"),
        Just("Cache-Control: max-age=5, x=\"a,\\\"b\"\r\n"),
        Just("Cache-Control: Stale-If-Error=\"7\",,\r\n"),
        Just("Cache-Control: max-age\r\n"),
        Just("cache-control: \"\r\n"),
        Just("Content-Range: x\r\n"),
        Just("Content-Encoding: gzip\r\n"),
        Just("Connection: close\r\n"),
    ];
    let method = prop_oneof![
        4 => Just("PUT"), 2 => Just("DELETE"), 2 => Just("POST"), 1 => Just("GET"),
        1 => Just("PATCH"),
    ];
    let target = prop_oneof![4 => Just("/lookup/k"), 2 => Just("/lookup"), 1 => Just("/healthz")];
    let version = prop_oneof![6 => Just("1.1"), 1 => Just("1.0")];
    let head = (method, target, version, any::<bool>(), proptest::collection::vec(line, 0..5));
    let head = head.prop_map(|(method, target, version, bears, lines)| {
        let bearer = if bears { BEARER } else { "" };
        let lines = lines.concat();
        format!("{method} {target} HTTP/{version}\r\nHost: a\r\n{bearer}{lines}\r\n")
    });
    let piece = prop_oneof![
        6 => head,
        2 => Just("abc".to_owned()),
        2 => Just("3\r\nabc\r\n0\r\n\r\n".to_owned()),
        1 => Just("21\r\n".to_owned()),
        1 => any::<String>(),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_writes_in_any_pieces_mean_what_the_rules_say(
        input in soup(),
        cuts in proptest::collection::vec(any::<Index>(), 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]);
        let seen = feed(&limits(), parts);
        prop_assert_eq!(reference::check(&input, &limits(), &seen), Ok(()));
    }

    #[test]
    fn no_split_of_the_bytes_changes_what_a_write_means(
        cuts in proptest::collection::vec(any::<Index>(), 0..6),
        sizes in proptest::collection::vec(1_usize..10, 0..6),
    ) {
        let body: String = sizes.iter().map(|size| format!("{size:x}\r\n{}\r\n", "y".repeat(*size)))
            .collect();
        let chunked = put("Transfer-Encoding: chunked\r\n", &(body + "0\r\n\r\n"));
        let input = chunked + &put("Content-Length: 3\r\n", "abc") + &delete("");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| &input.as_bytes()[cut[0]..cut[1]]);
        prop_assert_eq!(feed(&limits(), parts).0, whole(&input));
        let bytes = feed(&limits(), input.as_bytes().chunks(1)).0;
        prop_assert_eq!(bytes, whole(&input));
    }
}
