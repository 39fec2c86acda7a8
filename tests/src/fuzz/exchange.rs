//! The machine of a connection beside two models: one never parses, since it knows what it has
//! written, the other reads any bytes, slowly.
//!
//! The input is a list of requests, written out one after the other, and the places where the
//! bytes are cut. Then they are damaged and any bytes follow: whatever they mean, it must be the
//! same however they are cut.

use super::stream::Fate;
use crate::meaning::{Event, feed};
use crate::reference;
use arbitrary::{Arbitrary, Result, Unstructured};
use pelton::http::{BatchLimits, Connection, HttpLimits, Phase, Refusal, WriteLimits};
use pelton::token::Token;
use std::sync::LazyLock;

/// What whoever writes bears.
const TOKEN: &str = "0123456789abcdef";

static LIMITS: LazyLock<HttpLimits> = LazyLock::new(|| HttpLimits {
    head_size_max: 512,
    headers_count_max: 8,
    target_size_max: 256,
    key_size_max: 32,
    body_size_max: 128,
    batch: BatchLimits { keys_max: 4, body_size_max: 96 },
    writes: Some(WriteLimits {
        token: Some(Token::new(TOKEN).expect("it is long enough")),
        by_tenants: false,
        value_size_max: 64,
    }),
});

/// One request, and so what it means.
#[derive(Arbitrary, Debug)]
struct Sent {
    ask: Ask,
    head_only: bool,
    version_1_0: bool,
    keep_alive: bool,
    /// `If-None-Match` names the ETag.
    held: bool,
    /// A blank line before it.
    blank: bool,
    /// Lines that say nothing, up to three.
    padding: u8,
}

#[derive(Arbitrary, Debug)]
enum Ask {
    Health,
    Lookup(Vec<u8>),
    /// To a key, which is not served.
    Post(Body),
    Put(Body),
    Delete,
    Batch(Body),
    Nowhere,
}

#[derive(Arbitrary, Debug)]
enum Body {
    Length(u8),
    /// Chunks of these sizes, and whether they have extensions and a trailer.
    Chunked(Vec<u8>, bool, bool),
}

impl Sent {
    fn write(&self, out: &mut Vec<u8>) {
        let method = match (&self.ask, self.head_only) {
            (Ask::Post(_) | Ask::Batch(_), _) => "POST",
            (Ask::Put(_), _) => "PUT",
            (Ask::Delete, _) => "DELETE",
            (_, true) => "HEAD",
            (_, false) => "GET",
        };
        let target = match &self.ask {
            Ask::Health => "/healthz?x".to_owned(),
            Ask::Lookup(key) => {
                let escaped: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
                format!("/lookup/{escaped}")
            }
            Ask::Post(_) | Ask::Put(_) | Ask::Delete => "/lookup/a".to_owned(),
            Ask::Batch(_) => "/lookup".to_owned(),
            Ask::Nowhere => "/".to_owned(),
        };
        let version = if self.version_1_0 { "1.0" } else { "1.1" };
        let mut lines = "Host: a\r\n".to_owned();
        if self.keep_alive == self.version_1_0 {
            let option = if self.keep_alive { "keep-alive" } else { "close" };
            lines += &format!("Connection: {option}\r\n");
        }
        if self.held {
            lines += "If-None-Match: \"a\", W/\"00c0ffee00c0ffee\"\r\n";
        }
        lines += &"X: y\r\n".repeat(usize::from(self.padding % 4));
        if matches!(self.ask, Ask::Put(_) | Ask::Delete) {
            lines += &format!("Authorization: Bearer {TOKEN}\r\n");
        }
        if self.blank {
            out.extend(b"\r\n");
        }
        out.extend(format!("{method} {target} HTTP/{version}\r\n{lines}").bytes());
        match &self.ask {
            Ask::Post(body) | Ask::Put(body) | Ask::Batch(body) => body.write(out),
            Ask::Health | Ask::Lookup(_) | Ask::Delete | Ask::Nowhere => out.extend(b"\r\n"),
        }
    }

    fn connection(&self) -> Connection {
        match (self.keep_alive, self.version_1_0) {
            (false, _) => Connection::Close,
            (true, false) => Connection::Persistent,
            (true, true) => Connection::KeepAlive,
        }
    }

    fn written(&self, put: Option<(String, [Option<u32>; 3])>, body: Vec<u8>) -> Event {
        Event::Write {
            key: b"a".to_vec(),
            put,
            if_match: None,
            if_none_match: self.held,
            waits: false,
            body,
            connection: self.connection(),
        }
    }

    /// Why a body that would be taken is not, which may have so much data.
    fn taken(&self, body: &Body, data_size_max: u32) -> Option<Event> {
        let is_chunked = matches!(body, Body::Chunked(..));
        let broken = body.refusal(self.version_1_0, LIMITS.body_size_max);
        let refused = body.refusal(self.version_1_0, data_size_max);
        let connection = self.connection();
        match (broken, refused) {
            (Some(refusal), _) => Some(Event::Broken(refusal)),
            (None, Some(refusal)) if is_chunked => Some(Event::Broken(refusal)),
            (None, Some(refusal)) => Some(Event::Answered { refusal, connection }),
            (None, None) => None,
        }
    }

    fn event(&self) -> Event {
        let connection = self.connection();
        let Self { ask, head_only, held, .. } = self;
        let answered = |refusal| Event::Answered { refusal, connection };
        match ask {
            Ask::Health => Event::Health { connection, head_only: *head_only },
            Ask::Nowhere => answered(Refusal::NotFound),
            Ask::Lookup(key) if key.is_empty() => answered(Refusal::NotFound),
            Ask::Lookup(key) if key.len() > usize::from(LIMITS.key_size_max) => {
                answered(Refusal::KeyTooLong)
            }
            Ask::Lookup(key) => Event::Lookup {
                key: key.clone(),
                connection,
                head_only: *head_only,
                matches: *held,
            },
            Ask::Post(body) => match body.refusal(self.version_1_0, LIMITS.body_size_max) {
                Some(refusal) => Event::Broken(refusal),
                None => answered(Refusal::MethodNotAllowedOfKey),
            },
            Ask::Put(body) => match self.taken(body, 64) {
                Some(refused) => refused,
                None => self.written(Some(("application/json".into(), [None; 3])), body.data()),
            },
            Ask::Delete => self.written(None, Vec::new()),
            Ask::Batch(body) => match self.taken(body, 96) {
                Some(refused) => refused,
                None => Event::Batch { waits: false, body: body.data(), connection },
            },
        }
    }
}

impl Body {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Length(size) => {
                out.extend(format!("Content-Length: {size}\r\n\r\n").bytes());
                out.resize(out.len() + usize::from(*size), b'G');
            }
            Self::Chunked(sizes, extensions, trailer) => {
                let extension = if *extensions { ";a=\"b\"" } else { "" };
                out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for size in sizes.iter().filter(|size| **size > 0) {
                    out.extend(format!("{size:X}{extension}\r\n").bytes());
                    out.resize(out.len() + usize::from(*size), b'\n');
                    out.extend(b"\r\n");
                }
                out.extend(if *trailer { &b"0\r\nX: y\r\n\r\n"[..] } else { b"0\r\n\r\n" });
            }
        }
    }

    fn refusal(&self, version_1_0: bool, data_size_max: u32) -> Option<Refusal> {
        let size = match self {
            Self::Chunked(..) if version_1_0 => return Some(Refusal::BadTransferEncoding),
            Self::Chunked(sizes, ..) => sizes.iter().map(|size| u32::from(*size)).sum(),
            Self::Length(size) => u32::from(*size),
        };
        (size > data_size_max).then_some(Refusal::ContentTooLarge)
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Self::Length(size) => vec![b'G'; usize::from(*size)],
            Self::Chunked(sizes, ..) => {
                vec![b'\n'; sizes.iter().map(|size| usize::from(*size)).sum()]
            }
        }
    }
}

/// What the requests mean, up to the one that ends the connection.
fn expect(requests: &[Sent]) -> (Vec<Event>, bool) {
    let mut events = Vec::new();
    for request in requests {
        let event = request.event();
        let is_last = match &event {
            Event::Broken(_) => true,
            Event::Health { connection, .. }
            | Event::Lookup { connection, .. }
            | Event::Write { connection, .. }
            | Event::Batch { connection, .. }
            | Event::Answered { connection, .. } => *connection == Connection::Close,
        };
        events.push(event);
        if is_last {
            return (events, true);
        }
    }
    (events, false)
}

fn draw(input: &[u8]) -> Result<(Vec<Sent>, Fate)> {
    let mut source = Unstructured::new(input);
    let mut requests: Vec<Sent> = source.arbitrary()?;
    // More of them would only be slower.
    requests.truncate(8);
    for request in &mut requests {
        if let Ask::Lookup(key) = &mut request.ask {
            // Escaped it fits the bound on targets, and may exceed the one on keys.
            key.truncate(64);
        }
    }
    Ok((requests, Fate::draw(source)?))
}

/// The input is drawn from as the head of this file says.
///
/// # Panics
/// If the machine understands something else than was meant, or than the rules say.
pub fn exchange(input: &[u8]) {
    let Ok((requests, fate)) = draw(input) else { return };
    let mut bytes = Vec::new();
    for request in &requests {
        request.write(&mut bytes);
    }
    let (expected, ended) = expect(&requests);
    let seen = feed(&LIMITS, fate.cut(&bytes).into_iter());
    assert_eq!(seen.0, expected, "{requests:?}");
    assert_eq!(seen.1, bytes.len(), "every byte belongs to a request: {requests:?}");
    assert_eq!(seen.2 == Phase::Over, ended, "{requests:?}");

    fate.befall(&mut bytes);
    for parts in [vec![&bytes[..]], fate.cut(&bytes), bytes.chunks(1).collect()] {
        let seen = feed(&LIMITS, parts.iter().copied());
        if let Err(wrong) = reference::check(&bytes, &LIMITS, &seen) {
            let parts: Vec<_> = parts.iter().map(|part| part.escape_ascii().to_string()).collect();
            panic!("{wrong}\n{parts:?}");
        }
    }
}
