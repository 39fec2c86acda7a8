//! Our parser beside `httparse`, on generated and mutated heads.
//!
//! Where both take a head they agree on every part of it that we show. Where they differ we are
//! the stricter one, for a reason in [`RULES`]; never the other way.

#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test")]

use httparse::{EMPTY_HEADER, Status};
use pelton::http::{Exchange, HttpLimits, KEY_SIZE_MAX, Refusal, Request, Route, Step};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseError;

const HEADERS_COUNT_MAX: u16 = 64;

/// Wide, so that bounds stay out of the comparison.
const LIMITS: HttpLimits = HttpLimits {
    head_size_max: 1 << 20,
    headers_count_max: HEADERS_COUNT_MAX,
    target_size_max: 1 << 20,
    key_size_max: 512,
    body_size_max: 1 << 20,
};

/// A head as `httparse` understands it.
struct Foreign<'a> {
    input: &'a [u8],
    size: usize,
    method: &'a str,
    target: &'a str,
    version_1_0: bool,
    fields: Vec<(String, &'a [u8])>,
}

impl<'a> Foreign<'a> {
    fn read(input: &'a [u8]) -> Option<Self> {
        let mut headers = [EMPTY_HEADER; HEADERS_COUNT_MAX as usize];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(Status::Complete(size)) = request.parse(input) else { return None };
        Some(Self {
            input,
            size,
            method: request.method.expect("complete"),
            target: request.path.expect("complete"),
            version_1_0: request.version.expect("complete") == 0,
            fields: request
                .headers
                .iter()
                .map(|header| (header.name.to_ascii_lowercase(), header.value))
                .collect(),
        })
    }

    fn values(&self, name: &str) -> Vec<&'a [u8]> {
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| *value).collect()
    }

    fn head(&self) -> &'a [u8] {
        &self.input[..self.size]
    }

    fn has_body(&self) -> bool {
        let length = |value: &&[u8]| !value.iter().all(|&byte| byte == b'0');
        !self.values("transfer-encoding").is_empty()
            || self.values("content-length").iter().any(length)
    }

    /// Whether a line ends, or is ended, by LF without CR.
    fn has_bare_lf(&self) -> bool {
        let head = self.head();
        (0..head.len()).any(|at| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r'))
    }
}

/// A reason to refuse what `httparse` takes.
struct Rule {
    section: &'static str,
    name: &'static str,
    refusals: &'static [Refusal],
    holds: fn(&Foreign<'_>) -> bool,
}

/// Every reason there is.
const RULES: &[Rule] = &[
    Rule {
        section: "RFC 9112 2.2",
        name: "a line ends with CRLF; bare LF is where two parsers begin to see two requests",
        refusals: &[Refusal::BadRequestLine, Refusal::BadFieldName, Refusal::BadFieldValue],
        holds: |head| head.has_bare_lf(),
    },
    Rule {
        section: "RFC 9112 2.2",
        name: "at least one blank line before a request may be ignored: we ignore one",
        refusals: &[Refusal::BadRequestLine],
        holds: |head| head.input.starts_with(b"\r\n\r\n"),
    },
    Rule {
        section: "RFC 9112 3.2, RFC 3986 3.5",
        name: "a target has visible ASCII only and no fragment",
        refusals: &[Refusal::BadRequestLine],
        holds: |head| head.target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#'),
    },
    Rule {
        section: "RFC 9112 3.2",
        name: "a target is a path, an http URI or the asterisk of OPTIONS",
        refusals: &[Refusal::BadTarget],
        holds: |head| {
            let is_asterisk = head.target == "*" && head.method == "OPTIONS";
            !head.target.starts_with('/') && !is_asterisk
        },
    },
    Rule {
        section: "RFC 9112 3.2",
        name: "Host stands there once in HTTP/1.1, at most once in 1.0, and is a host",
        refusals: &[Refusal::BadHost],
        holds: |head| {
            let hosts = head.values("host");
            let no_host = |byte: &u8| {
                !(byte.is_ascii_alphanumeric() || b"-._~%:[]!$&'()*+,;=".contains(byte))
            };
            hosts.len() > 1
                || (hosts.is_empty() && !head.version_1_0)
                || hosts.iter().any(|host| host.iter().any(no_host))
        },
    },
    Rule {
        section: "RFC 9112 6.3",
        name: "Content-Length stands there once, as 1 to 19 digits",
        refusals: &[Refusal::BadContentLength],
        holds: |head| {
            let lengths = head.values("content-length");
            let is_number = |value: &&[u8]| {
                (1..20).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
            };
            lengths.len() > 1 || !lengths.iter().all(is_number)
        },
    },
    Rule {
        section: "RFC 9112 6.1",
        name: "Transfer-Encoding stands there once, without Content-Length, in HTTP/1.1",
        refusals: &[Refusal::BadTransferEncoding],
        holds: |head| {
            let codings = head.values("transfer-encoding").len();
            let lengths = head.values("content-length").len();
            codings > 1 || (codings == 1 && (lengths > 0 || head.version_1_0))
        },
    },
    Rule {
        section: "RFC 9112 6.1",
        name: "the only transfer coding is chunked, once",
        refusals: &[Refusal::CodingUnknown],
        holds: |head| {
            let codings = head.values("transfer-encoding");
            codings.iter().any(|value| !value.eq_ignore_ascii_case(b"chunked"))
        },
    },
    Rule {
        section: "RFC 9110 9.3.1, 9.3.2",
        name: "GET and HEAD have no body",
        refusals: &[Refusal::BodyNotAllowed],
        holds: |head| ["GET", "HEAD"].contains(&head.method) && head.has_body(),
    },
    Rule {
        section: "RFC 9110 15.5.14",
        name: "a body is bounded",
        refusals: &[Refusal::ContentTooLarge],
        holds: |head| head.has_body(),
    },
    Rule {
        section: "RFC 9110 9.1, 9.3.6",
        name: "a method has at most 32 bytes and is not CONNECT",
        refusals: &[Refusal::MethodUnknown],
        holds: |head| head.method.len() > 32 || head.method == "CONNECT",
    },
];

/// Whether `request`, as we took it, is what `httparse` saw.
fn agrees(request: &Request<'_>, foreign: &Foreign<'_>) -> bool {
    let path = match foreign.target.split_once("://") {
        Some((scheme, rest)) if !scheme.starts_with('/') => {
            rest.find(['/', '?']).map_or("", |at| &rest[at..])
        }
        _ => foreign.target,
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let served = ["GET", "HEAD"].contains(&foreign.method);
    let route = match request.route {
        Route::Health => served && path == "/healthz",
        Route::Refused(_) => true,
        Route::Lookup { key } => {
            let mut scratch = [0; KEY_SIZE_MAX];
            let size = key.copy_to(&mut scratch);
            let key = &scratch[..size];
            served && path.strip_prefix("/lookup/").is_some_and(|raw| decoded(raw) == key)
        }
    };
    route
        && request.head_only == (foreign.method == "HEAD")
        && request.version_1_0 == foreign.version_1_0
}

/// The slow and obvious way to decode escapes.
fn decoded(raw: &str) -> Vec<u8> {
    let mut pieces = raw.split('%');
    let mut bytes = pieces.next().expect("a split has one piece").as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).expect("two hex digits"));
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    bytes
}

/// Gives `input` to both; an error names the disagreement.
fn compare(input: &[u8]) -> Result<(), TestCaseError> {
    let foreign = Foreign::read(input);
    match (Exchange::new().next(input, &LIMITS), foreign) {
        (Step::Request { request, consumed }, Some(foreign)) => {
            let body_size = consumed.checked_sub(foreign.size);
            let framed = match body_size {
                Some(0) => true,
                Some(_) => foreign.has_body(),
                None => false,
            };
            prop_assert!(framed, "the head ends elsewhere: {consumed}, not {}", foreign.size);
            prop_assert!(agrees(&request, &foreign), "{request:?} is another request");
        }
        (Step::Request { request, .. }, None) => {
            return Err(TestCaseError::fail(format!("we took what httparse refuses: {request:?}")));
        }
        (Step::Refused(refusal), Some(foreign)) => {
            let reason = RULES
                .iter()
                .find(|rule| rule.refusals.contains(&refusal) && (rule.holds)(&foreign));
            let body = [Refusal::BadChunk, Refusal::ContentTooLarge, Refusal::HeadTooLarge];
            let is_body = body.contains(&refusal) && foreign.has_body();
            prop_assert!(reason.is_some() || is_body, "refused without a rule: {refusal:?}");
        }
        (Step::Partial { .. }, Some(foreign)) => {
            let waits = foreign.has_body() || foreign.has_bare_lf();
            prop_assert!(waits, "we wait where httparse has a whole head");
        }
        (Step::Refused(_) | Step::Partial { .. }, None) => {}
    }
    Ok(())
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "/lookup/[a-z0-9%?/._~-]{0,12}",
        2 => "/lookup/[0-9]{1,7}",
        1 => Just("/healthz".to_owned()),
        1 => "https?://[a-z.:0-9\\[\\]]{0,8}(/lookup/[a-z]{1,3})?(\\?[a-z/]{0,3})?",
        1 => Just("*".to_owned()),
        1 => "[!-~]{1,12}",
    ]
}

fn field() -> impl Strategy<Value = String> {
    let length = prop_oneof![
        3 => "[0-9]{1,2}".prop_map(|n| format!("Content-Length: {n}\r\n")),
        1 => "[-+0-9, x]{0,21}".prop_map(|n| format!("content-length: {n}\r\n")),
    ];
    let coding = select(vec!["chunked", "Chunked", "gzip, chunked", "xchunked", ", chunked", ""])
        .prop_map(|coding| format!("Transfer-Encoding: {coding}\r\n"));
    prop_oneof![
        4 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}:[ \t]{0,2}[ -~\t]{0,60}[ \t]{0,2}\r\n",
        1 => length,
        1 => coding,
        1 => "(Connection|Expect|If-None-Match): [a-z0-9\", -]{0,40}\r\n",
        1 => "Host: ?[a-z0-9.:/@\\[\\]]{0,12}\r\n",
    ]
}

fn head() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        6 => Just("GET".to_owned()),
        2 => select(vec!["HEAD", "POST", "PUT", "OPTIONS", "CONNECT"]).prop_map(str::to_owned),
        1 => "[A-Za-z!#.~_-]{1,40}",
    ];
    let version = select(vec!["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"]);
    let host = select(vec!["Host: a\r\n", "Host: a\r\n", "Host: a\r\n", ""]);
    let fields = proptest::collection::vec(field(), 0..6);
    let parts = (method, target(), version, host, fields, "[ -~]{0,8}");
    parts.prop_map(|(method, target, version, host, fields, rest)| {
        let fields = fields.concat();
        format!("{method} {target} {version}\r\n{host}{fields}\r\n{rest}").into_bytes()
    })
}

/// One change of a head.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(u8),
    Insert(u8),
    Remove,
    /// Repeats what stands there, up to so many bytes.
    Repeat(usize),
}

fn mutation() -> impl Strategy<Value = (Index, Mutation)> {
    let byte = || {
        prop_oneof![
            2 => select(b"\r\n \t:,;#%?/\"\0\x0b\x7f\x80\xff0aGH".to_vec()),
            1 => any::<u8>(),
        ]
    };
    let mutation = prop_oneof![
        byte().prop_map(Mutation::Replace),
        byte().prop_map(Mutation::Insert),
        Just(Mutation::Remove),
        (1..24_usize).prop_map(Mutation::Repeat),
    ];
    (any::<Index>(), mutation)
}

fn mutate(mut input: Vec<u8>, mutations: Vec<(Index, Mutation)>) -> Vec<u8> {
    for (at, mutation) in mutations {
        let at = at.index(input.len().max(1)).min(input.len().saturating_sub(1));
        match mutation {
            Mutation::Insert(byte) => input.insert(at, byte),
            _ if input.is_empty() => {}
            Mutation::Replace(byte) => input[at] = byte,
            Mutation::Remove => drop(input.remove(at)),
            Mutation::Repeat(size) => {
                let piece = input[at..input.len().min(at + size)].to_vec();
                input.splice(at..at, piece);
            }
        }
    }
    input
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(4096))]

    #[test]
    fn generated_heads_mean_the_same_or_break_a_named_rule(input in head()) {
        compare(&input)?;
    }

    #[test]
    fn mutated_heads_mean_the_same_or_break_a_named_rule(
        input in head(),
        mutations in proptest::collection::vec(mutation(), 1..5),
    ) {
        compare(&mutate(input, mutations))?;
    }
}

#[test]
fn every_rule_is_a_disagreement_that_there_is() {
    let long = "x".repeat(33);
    let inputs: Vec<String> = vec![
        "GET / HTTP/1.1\nHost: a\n\n".into(),
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.1\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,1\r\n\r\n".into(),
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n".into(),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n".into(),
        format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    assert_eq!(inputs.len(), RULES.len());
    for (rule, input) in RULES.iter().zip(&inputs) {
        let foreign = Foreign::read(input.as_bytes()).expect("httparse takes it");
        assert!((rule.holds)(&foreign), "{}: {}", rule.section, rule.name);
        let step = Exchange::new().next(input.as_bytes(), &LIMITS);
        let Step::Refused(refusal) = step else { panic!("{}: {step:?}", rule.name) };
        assert!(rule.refusals.contains(&refusal), "{}: {refusal:?}", rule.name);
    }
}
