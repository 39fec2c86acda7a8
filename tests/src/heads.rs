//! Our parser of request heads beside `httparse`.
//!
//! Where both take a head they agree on every part of it that we show. Where they differ we are
//! the stricter one, for a reason in [`RULES`]; never the other way.

use httparse::{EMPTY_HEADER, Status};
use pelton::http::{
    BatchLimits, Exchange, HttpLimits, KEY_SIZE_MAX, Refusal, Request, Route, Step,
};

const HEADERS_COUNT_MAX: u16 = 64;

/// Wide, so that bounds stay out of the comparison.
pub const LIMITS: HttpLimits = HttpLimits {
    head_size_max: 1 << 20,
    headers_count_max: HEADERS_COUNT_MAX,
    target_size_max: 1 << 20,
    key_size_max: 512,
    body_size_max: 1 << 20,
    batch: BatchLimits { keys_max: 4, body_size_max: 64 },
    writes: None,
};

/// A head as `httparse` understands it.
#[derive(Debug)]
pub struct Foreign<'a> {
    input: &'a [u8],
    size: usize,
    method: &'a str,
    target: &'a str,
    version_1_0: bool,
    fields: Vec<(String, &'a [u8])>,
}

impl<'a> Foreign<'a> {
    /// The head at the beginning of `input`, if `httparse` takes it.
    ///
    /// # Panics
    /// If `httparse` leaves out a part of a complete head.
    #[must_use]
    pub fn read(input: &'a [u8]) -> Option<Self> {
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
#[derive(Debug)]
pub struct Rule {
    /// Where it stands.
    pub section: &'static str,
    /// What it says.
    pub name: &'static str,
    /// How we refuse what breaks it.
    pub refusals: &'static [Refusal],
    /// Whether a head breaks it.
    pub holds: fn(&Foreign<'_>) -> bool,
}

/// Every reason there is.
pub const RULES: &[Rule] = &[
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
        refusals: &[Refusal::CodingUnknown, Refusal::BadTransferEncoding],
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
        Route::Write | Route::Batch => false,
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

/// Gives `input` to both.
///
/// # Errors
/// The disagreement.
pub fn compare(input: &[u8]) -> Result<(), String> {
    match (Exchange::new().next(input, &LIMITS), Foreign::read(input)) {
        (Step::Request { request, consumed }, Some(foreign)) => {
            let framed = match consumed.checked_sub(foreign.size) {
                Some(0) => true,
                Some(_) => foreign.has_body(),
                None => false,
            };
            if !framed {
                return Err(format!("the head ends elsewhere: {consumed}, not {}", foreign.size));
            }
            if !agrees(&request, &foreign) {
                return Err(format!("{request:?} is another request"));
            }
        }
        (Step::Request { request, .. }, None) => {
            return Err(format!("we took what httparse refuses: {request:?}"));
        }
        (Step::Refused(refusal), Some(foreign)) => {
            let named = |rule: &Rule| rule.refusals.contains(&refusal) && (rule.holds)(&foreign);
            let body = [Refusal::BadChunk, Refusal::ContentTooLarge, Refusal::HeadTooLarge];
            let is_body = body.contains(&refusal) && foreign.has_body();
            if !RULES.iter().any(named) && !is_body {
                return Err(format!("refused without a rule: {refusal:?}"));
            }
        }
        (Step::Partial { .. }, Some(foreign)) => {
            if !foreign.has_body() && !foreign.has_bare_lf() {
                return Err("we wait where httparse has a whole head".to_owned());
            }
        }
        (Step::Write { .. } | Step::Body { .. }, _) => {
            return Err("nobody may write here".to_owned());
        }
        (Step::Batch { .. }, Some(foreign)) if foreign.method == "POST" => {}
        (Step::Batch { .. }, _) => return Err("that is no batch".to_owned()),
        (Step::Refused(_) | Step::Partial { .. }, None) => {}
    }
    Ok(())
}
