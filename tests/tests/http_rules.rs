//! The rules of the data port's HTTP/1.1, each with its section, and what must hold of any input:
//! no split of the bytes changes what they mean, nothing panics, nothing is consumed twice.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test")]

use pelton::http::{BatchLimits, Connection, Exchange, HttpLimits, Phase, Refusal, Step};
use pelton_tests::meaning::{Event, feed};
use pelton_tests::reference;
use pelton_tests::smuggling::corpus;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

const LIMITS: HttpLimits = HttpLimits {
    head_size_max: 512,
    headers_count_max: 8,
    target_size_max: 128,
    key_size_max: 16,
    body_size_max: 64,
    batch: BatchLimits { keys_max: 4, body_size_max: 64 },
    writes: None,
};

const KEPT: Connection = Connection::Persistent;
const CLOSED: Connection = Connection::Close;

fn whole(input: &[u8]) -> Vec<Event> {
    feed(&LIMITS, std::iter::once(input)).0
}

fn lookup(key: &[u8]) -> Event {
    Event::Lookup { key: key.to_vec(), connection: KEPT, head_only: false, matches: false }
}

fn answered(refusal: Refusal) -> Event {
    Event::Answered { refusal, connection: KEPT }
}

fn answered_last(refusal: Refusal) -> Event {
    Event::Answered { refusal, connection: CLOSED }
}

/// `GET /lookup/42` with more header lines.
fn get_with(lines: &str) -> String {
    format!("GET /lookup/42 HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// `POST /lookup/42`, chunked, with this body.
fn chunks(body: &str) -> String {
    format!("POST /lookup/42 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

/// Requests that are well formed, by rule, and what comes of each.
#[expect(clippy::too_many_lines, reason = "a table")]
fn accepted() -> Vec<(&'static str, Vec<u8>, Vec<Event>)> {
    use Refusal::{
        BadEscape, ExpectationFailed, KeyTooLong, MethodNotAllowed, MethodNotAllowedOfBatch,
        MethodUnknown, NotFound,
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let method = |method: &str| format!("{method} /lookup/42 HTTP/1.1\r\nHost: a\r\n\r\n");
    let old = |lines: &str| format!("GET /lookup/42 HTTP/1.0\r\n{lines}\r\n");
    let post = |lines: &str| format!("POST /lookup/42 HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let health = |connection| Event::Health { connection, head_only: false };
    let with = |connection, head_only, matches| Event::Lookup {
        key: b"42".to_vec(),
        connection,
        head_only,
        matches,
    };
    let hit = || lookup(b"42");
    let not_allowed = || answered(MethodNotAllowed);
    let rows: Vec<(&str, String, Vec<Event>)> = vec![
        ("9112 2.2 one blank line before", format!("\r\n{}", get_with("")), vec![hit()]),
        ("9112 3.2.1 origin form", get("/lookup/42"), vec![hit()]),
        ("9112 3.2.2 absolute form", get("http://b:80/lookup/42"), vec![hit()]),
        ("9112 3.2.2 scheme in any case", get("HTTPS://b/healthz"), vec![health(KEPT)]),
        ("9112 3.2.2 absolute form, no path", get("http://b"), vec![answered(NotFound)]),
        ("9112 3.2.2 absolute form, query", get("http://b?/x"), vec![answered(NotFound)]),
        (
            "9112 3.2.4 asterisk form",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            vec![not_allowed()],
        ),
        ("3986 3.4 query ignored", get("/lookup/42?a=/b?%zz"), vec![hit()]),
        ("3986 3.4 query of healthz", get("/healthz?x"), vec![health(KEPT)]),
        ("3986 2.1 escapes", get("/lookup/a%2Fb%25%00"), vec![lookup(b"a/b%\0")]),
        ("3986 2.1 escape in any case", get("/lookup/%aF%Af"), vec![lookup(b"\xaf\xaf")]),
        ("3986 2.1 escape of a question mark", get("/lookup/a%3fb"), vec![lookup(b"a?b")]),
        ("3986 2.1 one digit", get("/lookup/%4"), vec![answered(BadEscape)]),
        ("3986 2.1 no digit", get("/lookup/%4g"), vec![answered(BadEscape)]),
        ("3986 2.1 twice", get("/lookup/%2525"), vec![lookup(b"%25")]),
        ("key with slashes and dots", get("/lookup/a/../b//"), vec![lookup(b"a/../b//")]),
        (
            "key of the longest size",
            get("/lookup/0123456789abcdef"),
            vec![lookup(b"0123456789abcdef")],
        ),
        (
            "key of the longest size, escaped",
            get("/lookup/%30123456789abcdef"),
            vec![lookup(b"0123456789abcdef")],
        ),
        ("key too long", get("/lookup/0123456789abcdefg"), vec![answered(KeyTooLong)]),
        ("no key", get("/lookup/"), vec![answered(NotFound)]),
        ("no key but a query", get("/lookup/?a"), vec![answered(NotFound)]),
        ("no slash", get("/lookup"), vec![answered(MethodNotAllowedOfBatch)]),
        ("another path", get("/"), vec![answered(NotFound)]),
        ("paths are not decoded", get("/%6cookup/42"), vec![answered(NotFound)]),
        ("paths are case-sensitive", get("/Lookup/42"), vec![answered(NotFound)]),
        ("9110 9.3.2 HEAD", method("HEAD"), vec![with(KEPT, true, false)]),
        ("9110 9.1 known methods", method("DELETE"), vec![not_allowed()]),
        ("9110 9.3.7 OPTIONS", method("OPTIONS"), vec![not_allowed()]),
        ("9110 9.1 methods are case-sensitive", method("get"), vec![answered(MethodUnknown)]),
        ("9110 9.1 unknown token", method("B~!#$%&'*+-.^_`|"), vec![answered(MethodUnknown)]),
        ("9110 5.5 optional space", get_with("X:\t a \t\r\nY:\r\n"), vec![hit()]),
        ("9110 5.5 obs-text and tabs", get_with("X: \u{e9}\ta\r\n"), vec![hit()]),
        ("9110 5.6.2 every tchar", get_with("!#$%&'*+-.^_`|~09azAZ: a\r\n"), vec![hit()]),
        (
            "9110 7.2 empty host",
            "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n".into(),
            vec![health(KEPT)],
        ),
        (
            "9110 7.2 IPv6 host",
            "GET /healthz HTTP/1.1\r\nhOST: [::1]:80\r\n\r\n".into(),
            vec![health(KEPT)],
        ),
        ("9112 9.3 close", get_with("Connection: close\r\n"), vec![with(CLOSED, false, false)]),
        (
            "9112 9.3 close in a list",
            get_with("CONNECTION: keep-alive ,\tClose\r\n"),
            vec![with(CLOSED, false, false)],
        ),
        ("9112 9.3 not a token", get_with("Connection: closed\r\n"), vec![hit()]),
        (
            "9112 9.3 nothing after the last request",
            format!("{}{}", get_with("Connection: close\r\n"), get_with("")),
            vec![with(CLOSED, false, false)],
        ),
        ("9112 9.3 HTTP/1.0 closes", old(""), vec![with(CLOSED, false, false)]),
        (
            "9112 9.3 HTTP/1.0 keep-alive",
            old("Connection: Keep-Alive\r\n"),
            vec![with(Connection::KeepAlive, false, false)],
        ),
        (
            "9112 9.3 close wins",
            old("Connection: keep-alive\r\nConnection: close\r\n"),
            vec![with(CLOSED, false, false)],
        ),
        ("9110 8.6 no body", get_with("Content-Length: 0\r\n"), vec![hit()]),
        (
            "9112 6.2 body skipped",
            post("Content-Length: 005\r\n") + "GET /" + &get_with(""),
            vec![not_allowed(), hit()],
        ),
        (
            "9112 7.1 chunked body skipped",
            chunks("5;a=\"b\"\r\nGET /\r\n0a\r\n0123456789\r\n000\r\nX: y\r\n\r\n") + &get_with(""),
            vec![not_allowed(), hit()],
        ),
        (
            "9112 7 codings in any case",
            chunks("0\r\n\r\n").replace("chunked", "\tChunKED "),
            vec![not_allowed()],
        ),
        ("9110 10.1.1 nothing to wait for", get_with("Expect: 100-continue\r\n"), vec![hit()]),
        (
            "9110 10.1.1 the answer is known",
            post("Expect: 100-Continue\r\nContent-Length: 5\r\n"),
            vec![answered_last(MethodNotAllowed)],
        ),
        (
            "9110 10.1.1 another expectation",
            get_with("Expect: 200-ok\r\n"),
            vec![answered(ExpectationFailed)],
        ),
        (
            "9110 10.1.1 one of two is unknown",
            post("Expect: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"),
            vec![answered_last(ExpectationFailed)],
        ),
        (
            "9110 13.1.2 condition",
            get_with("If-None-Match: \"a\", W/\"00c0ffee00c0ffee\"\r\n"),
            vec![with(KEPT, false, true)],
        ),
        (
            "9112 9.3.2 pipelining",
            get_with("") + &get("/healthz") + &method("PUT") + &get_with(""),
            vec![hit(), health(KEPT), not_allowed(), hit()],
        ),
    ];
    rows.into_iter().map(|(rule, input, events)| (rule, latin_1(&input), events)).collect()
}

/// One byte a character, so that a table of strings can hold obs-text.
fn latin_1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("a table row is Latin-1")).collect()
}

/// Inputs that break a rule, and the answer with which the connection ends.
#[expect(clippy::too_many_lines, reason = "a table")]
fn broken() -> Vec<(&'static str, Vec<u8>, Refusal)> {
    use Refusal::{
        BadChunk, BadContentLength, BadFieldName, BadFieldValue, BadHost, BadRequestLine,
        BadTarget, BadTransferEncoding, BodyNotAllowed, CodingUnknown, ContentTooLarge,
        HeadTooLarge, MethodUnknown, TargetTooLong, TooManyFields, VersionUnknown,
    };
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let long = "x".repeat(600);
    let rows: Vec<(&str, String, Refusal)> = vec![
        ("9112 2.2 two blank lines", format!("\r\n\r\n{}", get_with("")), BadRequestLine),
        ("9112 2.2 bare LF before", format!("\n{}", get_with("")), BadRequestLine),
        ("9112 2.2 bare LF", "GET / HTTP/1.1\nHost: a\n\n".into(), BadRequestLine),
        ("9112 2.2 bare LF after a field", get_with("X: a\nY: b\r\n"), BadFieldValue),
        (
            "9112 2.2 bare LF as the blank line",
            "GET / HTTP/1.1\r\nHost: a\r\n\n".into(),
            BadFieldName,
        ),
        ("9112 2.2 bare CR in the target", line("GET /\r HTTP/1.1"), BadRequestLine),
        ("9112 2.2 bare CR in a value", get_with("X: a\rb\r\n"), BadFieldValue),
        ("9112 2.2 bare CR at the end", get_with("\rX: a\r\n"), BadFieldName),
        (
            "9112 2.2 space before the first field",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(),
            BadFieldName,
        ),
        ("9112 3 two spaces", line("GET  / HTTP/1.1"), BadRequestLine),
        ("9112 3 space at the end", line("GET / HTTP/1.1 "), BadRequestLine),
        ("9112 3 space at the beginning", line(" GET / HTTP/1.1"), BadRequestLine),
        ("9112 3 tab", line("GET\t/ HTTP/1.1"), BadRequestLine),
        ("9112 3 no version", line("GET /lookup/42"), BadRequestLine),
        ("9112 3.1 method with a delimiter", line("GE(T / HTTP/1.1"), BadRequestLine),
        ("9112 3 long method", line(&format!("{} / HTTP/1.1", &long[..33])), MethodUnknown),
        ("9110 9.3.6 CONNECT", line("CONNECT a:80 HTTP/1.1"), MethodUnknown),
        ("9112 3.2 authority form", line("GET a:80 HTTP/1.1"), BadTarget),
        ("9112 3.2 relative", line("GET lookup/42 HTTP/1.1"), BadTarget),
        ("9112 3.2.4 asterisk form of GET", line("GET * HTTP/1.1"), BadTarget),
        ("9112 3.2.2 another scheme", line("GET ftp://a/ HTTP/1.1"), BadTarget),
        ("9110 4.2.1 empty authority", line("GET http:///x HTTP/1.1"), BadTarget),
        ("9110 4.2.4 user information", line("GET http://u@a/ HTTP/1.1"), BadTarget),
        ("9112 3.2 fragment", line("GET /lookup/42#a HTTP/1.1"), BadRequestLine),
        ("9112 3.2 NUL", line("GET /lookup/\0 HTTP/1.1"), BadRequestLine),
        ("9112 3.2 DEL", line("GET /lookup/\x7f HTTP/1.1"), BadRequestLine),
        ("9112 3.2 obs-text", line("GET /lookup/\u{e9} HTTP/1.1"), BadRequestLine),
        ("9112 3 target without end", format!("GET /{}", "x".repeat(4096)), TargetTooLong),
        ("9112 3 long target", line(&format!("GET /{} HTTP/1.1", &long[..128])), TargetTooLong),
        ("9112 2.3 HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), VersionUnknown),
        ("9112 2.3 HTTP/1.2", line("GET / HTTP/1.2"), VersionUnknown),
        ("9112 2.3 lower case", line("GET / http/1.1"), BadRequestLine),
        ("9112 2.3 two digits", line("GET / HTTP/1.10"), BadRequestLine),
        ("9112 5.1 space before the colon", get_with("X : a\r\n"), BadFieldName),
        ("9112 5.1 tab before the colon", get_with("X\t: a\r\n"), BadFieldName),
        ("9112 5.1 no name", get_with(": a\r\n"), BadFieldName),
        ("9112 5.1 no colon", get_with("Xa\r\n"), BadFieldName),
        ("9110 5.1 NUL in a name", get_with("X\0: a\r\n"), BadFieldName),
        ("9110 5.1 obs-text in a name", get_with("X\u{e9}: a\r\n"), BadFieldName),
        ("9110 5.1 delimiter in a name", get_with("X(: a\r\n"), BadFieldName),
        ("9112 5.2 folded with a space", get_with("X: a\r\n b\r\n"), BadFieldName),
        ("9112 5.2 folded with a tab", get_with("X: a\r\n\tb\r\n"), BadFieldName),
        ("9110 5.5 NUL in a value", get_with("X: a\0\r\n"), BadFieldValue),
        ("9110 5.5 vertical tab in a value", get_with("X: a\x0b\r\n"), BadFieldValue),
        ("9110 5.5 DEL in a value", get_with("X: \x7f\r\n"), BadFieldValue),
        ("9112 3.2 no host", "GET / HTTP/1.1\r\n\r\n".into(), BadHost),
        ("9112 3.2 two hosts", get_with("Host: a\r\n"), BadHost),
        (
            "9112 3.2 two hosts in HTTP/1.0",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".into(),
            BadHost,
        ),
        ("9112 3.2 path in the host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), BadHost),
        ("9112 3.2 space in the host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), BadHost),
        (
            "9112 3.2 user information in the host",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(),
            BadHost,
        ),
        ("too many lines", get_with(&"X: a\r\n".repeat(8)), TooManyFields),
        ("6585 5 long head", get_with(&format!("X: {long}\r\n")), HeadTooLarge),
        ("6585 5 long name", get_with(&format!("{long}: a\r\n")), HeadTooLarge),
        ("9110 9.3.1 body of GET", get_with("Content-Length: 1\r\n") + "x", BodyNotAllowed),
        (
            "9110 9.3.1 chunks of GET",
            get_with("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n",
            BodyNotAllowed,
        ),
        (
            "9110 9.3.2 body of HEAD",
            get_with("Content-Length: 1\r\n").replace("GET", "HEAD"),
            BodyNotAllowed,
        ),
        (
            "9112 6.3 CL.TE",
            post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
            BadTransferEncoding,
        ),
        (
            "9112 6.3 TE.CL",
            post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
            BadTransferEncoding,
        ),
        (
            "9112 6.3 CL.TE, CL of 0",
            post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
            BadTransferEncoding,
        ),
        (
            "9112 6.3 CL beside an unknown TE",
            post("Content-Length: 4\r\nTransfer-Encoding: x\r\n"),
            BadTransferEncoding,
        ),
        (
            "9112 6.1 TE.TE",
            post("Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n"),
            BadTransferEncoding,
        ),
        (
            "9112 6.1 TE twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            BadTransferEncoding,
        ),
        (
            "9112 6.1 TE of HTTP/1.0",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            BadTransferEncoding,
        ),
        ("9112 6.3 xchunked", post("Transfer-Encoding: xchunked\r\n"), BadTransferEncoding),
        ("9112 6.3 not last", post("Transfer-Encoding: chunked, gzip\r\n"), BadTransferEncoding),
        ("9112 6.1 list", post("Transfer-Encoding: gzip, chunked\r\n"), CodingUnknown),
        ("9112 6.1 empty element", post("Transfer-Encoding: ,chunked\r\n"), CodingUnknown),
        (
            "9112 6.1 twice in a list",
            post("Transfer-Encoding: chunked, chunked\r\n"),
            CodingUnknown,
        ),
        ("9112 6.3 parameter", post("Transfer-Encoding: chunked;a=b\r\n"), BadTransferEncoding),
        ("9112 6.3 quoted", post("Transfer-Encoding: \"chunked\"\r\n"), BadTransferEncoding),
        (
            "9112 6.3 no-break space",
            post("Transfer-Encoding: \u{a0}chunked\r\n"),
            BadTransferEncoding,
        ),
        ("9112 6.3 empty", post("Transfer-Encoding:\r\n"), BadTransferEncoding),
        ("9112 6.3 identity", post("Transfer-Encoding: identity\r\n"), BadTransferEncoding),
        ("9112 6.1 vertical tab", post("Transfer-Encoding: \x0bchunked\r\n"), BadFieldValue),
        ("9112 5.1 TE with a space", post("Transfer-Encoding : chunked\r\n"), BadFieldName),
        ("9112 5.2 TE folded", post("Transfer-Encoding:\r\n chunked\r\n"), BadFieldName),
        (
            "9112 2.2 TE behind a bare LF",
            post("X: y\nTransfer-Encoding: chunked\r\n"),
            BadFieldValue,
        ),
        ("9112 6.3 CL twice", post("Content-Length: 4\r\nContent-Length: 5\r\n"), BadContentLength),
        (
            "9112 6.3 CL twice, equal",
            post("Content-Length: 4\r\nContent-Length: 4\r\n"),
            BadContentLength,
        ),
        ("9112 6.3 CL list", post("Content-Length: 4, 4\r\n"), BadContentLength),
        ("9110 8.6 negative CL", post("Content-Length: -1\r\n"), BadContentLength),
        ("9110 8.6 plus CL", post("Content-Length: +4\r\n"), BadContentLength),
        ("9110 8.6 hex CL", post("Content-Length: 0x4\r\n"), BadContentLength),
        ("9110 8.6 underscore CL", post("Content-Length: 1_0\r\n"), BadContentLength),
        ("9110 8.6 space in CL", post("Content-Length: 1 0\r\n"), BadContentLength),
        ("9110 8.6 empty CL", post("Content-Length:\r\n"), BadContentLength),
        (
            "9110 8.6 CL of 20 digits",
            post("Content-Length: 18446744073709551617\r\n"),
            BadContentLength,
        ),
        ("9110 15.5.14 long body", post("Content-Length: 65\r\n"), ContentTooLarge),
        (
            "9110 15.5.14 longest CL",
            post("Content-Length: 9999999999999999999\r\n"),
            ContentTooLarge,
        ),
        ("9112 7.1 long chunk", chunks("41\r\n"), ContentTooLarge),
        (
            "9112 7.1 long sum of chunks",
            chunks(&("20\r\n".to_owned() + &long[..32] + "\r\n21\r\n")),
            ContentTooLarge,
        ),
        ("9112 7.1 size overflow", chunks("ffffffffffffffff1\r\n"), ContentTooLarge),
        ("9112 7.1 size that wraps to 5", chunks("100000005\r\n"), ContentTooLarge),
        ("9112 7.1 endless zeros", chunks("00000000000000005\r\n"), BadChunk),
        ("9112 7.1 no size", chunks("\r\n"), BadChunk),
        ("9112 7.1 no size but an extension", chunks(";a\r\n"), BadChunk),
        ("9112 7.1 hex prefix", chunks("0x5\r\n"), BadChunk),
        ("9112 7.1 negative size", chunks("-5\r\n"), BadChunk),
        ("9112 7.1 plus size", chunks("+5\r\n"), BadChunk),
        ("9112 7.1 space before the size", chunks(" 5\r\n"), BadChunk),
        ("9112 7.1.1 space after the size", chunks("5 \r\n"), BadChunk),
        ("9112 7.1 bare LF after the size", chunks("1\na\r\n0\r\n\r\n"), BadChunk),
        ("9112 7.1 CR without LF", chunks("1\rXa\r\n0\r\n\r\n"), BadChunk),
        ("9112 7.1.1 bare LF in an extension", chunks("1;a\na\r\n0\r\n\r\n"), BadChunk),
        ("9112 7.1.1 NUL in an extension", chunks("5;\0\r\n"), BadChunk),
        ("9112 7.1.1 long extensions", chunks(&format!("5;{}", "x".repeat(1025))), BadChunk),
        ("9112 7.1 longer than its size", chunks("1\r\nab\r\n"), BadChunk),
        ("9112 7.1 bare LF after data", chunks("1\r\na\n0\r\n\r\n"), BadChunk),
        ("9112 7.1 CR without LF after data", chunks("1\r\na\rX0\r\n\r\n"), BadChunk),
        ("9112 7.1.2 CR without LF after a trailer", chunks("0\r\nX: y\rX\r\n"), BadChunk),
        ("9112 7.1 CR without LF at the end", chunks("0\r\n\rX"), BadChunk),
        ("9112 7.1.2 trailer without a name", chunks("0\r\n: a\r\n\r\n"), BadChunk),
        ("9112 7.1.2 trailer without a colon", chunks("0\r\nGET / HTTP/1.1\r\n"), BadChunk),
        ("9112 7.1.2 folded trailer", chunks("0\r\nX: a\r\n b\r\n\r\n"), BadChunk),
        ("9112 7.1.2 bare LF at the end", chunks("0\r\n\n"), BadChunk),
        ("9112 7.1.2 NUL in a trailer", chunks("0\r\nX: \0\r\n\r\n"), BadChunk),
        (
            "9112 7.1.2 long trailers",
            chunks(&format!("0\r\nX: {}", "x".repeat(1024))),
            HeadTooLarge,
        ),
    ];
    rows.into_iter().map(|(rule, input, refusal)| (rule, latin_1(&input), refusal)).collect()
}

#[test]
fn well_formed_requests_are_understood_rule_by_rule() {
    for (rule, input, events) in accepted() {
        let (seen, consumed, phase) = feed(&LIMITS, std::iter::once(&input[..]));
        assert_eq!(seen, events, "{rule}");
        assert_eq!(consumed, input.len(), "{rule}: every byte belongs to a request");
        let closes = matches!(
            events.last(),
            Some(
                Event::Lookup { connection: CLOSED, .. }
                    | Event::Answered { connection: CLOSED, .. }
            )
        );
        assert_eq!(phase, if closes { Phase::Over } else { Phase::Idle }, "{rule}");
    }
}

#[test]
fn broken_input_is_refused_and_nothing_behind_it_is_read() {
    for (rule, input, refusal) in broken() {
        let smuggled = [&input[..], get_with("").as_bytes()].concat();
        assert_eq!(whole(&smuggled), [Event::Broken(refusal)], "{rule}");
        let status = refusal.status();
        assert!(status.starts_with(['4', '5']), "{rule}: {status}");
    }
}

#[test]
fn a_request_line_that_has_ended_too_soon_is_not_waited_for() {
    for version in ["", " ", "X", "HTTP", "HTTP/1.", "TTP/1.1"] {
        let input = format!("GET / {version}\r\n\r\n");
        assert_eq!(whole(input.as_bytes()), [Event::Broken(Refusal::BadRequestLine)], "{input:?}");
    }
}

#[test]
fn no_split_in_two_changes_what_the_bytes_mean() {
    let well_formed = accepted().into_iter().map(|(rule, input, _)| (rule, input));
    for (rule, input) in
        well_formed.chain(broken().into_iter().map(|(rule, input, _)| (rule, input)))
    {
        let expected = feed(&LIMITS, std::iter::once(&input[..]));
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            let seen = feed(&LIMITS, [first, second].into_iter());
            assert_eq!((&seen.0, seen.2), (&expected.0, expected.2), "{rule}, split at {at}");
        }
        let seen = feed(&LIMITS, input.chunks(1));
        assert_eq!((&seen.0, seen.2), (&expected.0, expected.2), "{rule}, byte by byte");
    }
}

#[test]
fn the_slow_reading_of_all_these_and_of_the_smuggling_corpus_is_the_same() {
    let rows = accepted().into_iter().map(|(rule, input, _)| (rule.to_owned(), input));
    let broken = broken().into_iter().map(|(rule, input, _)| (rule.to_owned(), input));
    let payloads = corpus().into_iter().map(|payload| (payload.name, payload.bytes));
    for (name, input) in rows.chain(broken).chain(payloads) {
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            let seen = feed(&LIMITS, [first, second].into_iter());
            let checked = reference::check(&input, &LIMITS, &seen);
            assert_eq!(checked, Ok(()), "{name}, split at {at}");
        }
        // The beginning of a stream is a stream.
        for size in 0..input.len() {
            let seen = feed(&LIMITS, input[..size].chunks(1));
            let checked = reference::check(&input[..size], &LIMITS, &seen);
            assert_eq!(checked, Ok(()), "{name}, {size} bytes of it");
        }
    }
}

#[test]
fn the_phase_follows_the_bytes() {
    let mut exchange = Exchange::new();
    assert_eq!(exchange.phase(), Phase::Idle);
    assert_eq!(exchange.next(b"\r\n", &LIMITS), Step::Partial { consumed: 2 });
    assert_eq!(exchange.phase(), Phase::Idle, "a blank line is no request");
    assert_eq!(exchange.next(b"P", &LIMITS), Step::Partial { consumed: 0 });
    assert_eq!(exchange.phase(), Phase::Head);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let with_body = [&head[..], b"ab"].concat();
    let step = exchange.next(&with_body, &LIMITS);
    assert_eq!(step, Step::Partial { consumed: with_body.len() });
    assert_eq!(exchange.phase(), Phase::Body);
    assert!(matches!(exchange.next(b"cG", &LIMITS), Step::Request { consumed: 1, .. }));
    assert_eq!(exchange.phase(), Phase::Idle);
    assert_eq!(exchange.next(b"\r\n\r\n", &LIMITS), Step::Refused(Refusal::BadRequestLine));
    assert_eq!(exchange.phase(), Phase::Over);
    assert_eq!(exchange.next(b"GET", &LIMITS), Step::Partial { consumed: 3 });
}

#[test]
fn a_draining_server_announces_the_end_of_every_connection() {
    let input = get_with("");
    let mut exchange = Exchange::new();
    let Step::Request { request, .. } = exchange.next(input.as_bytes(), &LIMITS) else {
        panic!("the request is well formed");
    };
    assert_eq!(request.connection(false), Connection::Persistent);
    assert_eq!(request.connection(true), Connection::Close);
}

/// Pieces of requests, valid and not, so that random sequences reach deep.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => Just(b"GET /lookup/42 HTTP/1.1\r\nHost: a\r\n".to_vec()),
        3 => Just(b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec()),
        6 => Just(b"\r\n".to_vec()),
        3 => Just(b"Content-Length: 3\r\n".to_vec()),
        3 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        2 => Just(b"3\r\nabc\r\n".to_vec()),
        2 => Just(b"0\r\n\r\n".to_vec()),
        1 => Just(b"Expect: 100-continue\r\n".to_vec()),
        1 => Just(b"Connection: close\r\n".to_vec()),
        1 => Just(b"If-None-Match: \"00c0ffee00c0ffee\"\r\n".to_vec()),
        2 => proptest::collection::vec(any::<u8>(), 0..8),
        1 => proptest::collection::vec(any::<u8>(), 0..600),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_input_in_any_pieces_means_what_the_rules_say(
        input in soup(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]);
        let seen = feed(&LIMITS, parts);
        prop_assert_eq!(reference::check(&input, &LIMITS, &seen), Ok(()));
    }
}
