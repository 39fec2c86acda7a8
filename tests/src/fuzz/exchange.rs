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
use pelton::http::{Connection, HttpLimits, Phase, Refusal};

const LIMITS: HttpLimits = HttpLimits {
    head_size_max: 512,
    headers_count_max: 8,
    target_size_max: 256,
    key_size_max: 32,
    body_size_max: 128,
};

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
    Post(Body),
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
            (Ask::Post(_), _) => "POST",
            (_, true) => "HEAD",
            (_, false) => "GET",
        };
        let target = match &self.ask {
            Ask::Health => "/healthz?x".to_owned(),
            Ask::Lookup(key) => {
                let escaped: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
                format!("/lookup/{escaped}")
            }
            Ask::Post(_) => "/lookup/a".to_owned(),
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
        if self.blank {
            out.extend(b"\r\n");
        }
        out.extend(format!("{method} {target} HTTP/{version}\r\n{lines}").bytes());
        if let Ask::Post(body) = &self.ask {
            body.write(out);
        } else {
            out.extend(b"\r\n");
        }
    }

    fn event(&self) -> Event {
        let connection = match (self.keep_alive, self.version_1_0) {
            (false, _) => Connection::Close,
            (true, false) => Connection::Persistent,
            (true, true) => Connection::KeepAlive,
        };
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
            Ask::Post(body) => match body.refusal(self.version_1_0) {
                Some(refusal) => Event::Broken(refusal),
                None => answered(Refusal::MethodNotAllowed),
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

    fn refusal(&self, version_1_0: bool) -> Option<Refusal> {
        let size = match self {
            Self::Chunked(..) if version_1_0 => return Some(Refusal::BadTransferEncoding),
            Self::Chunked(sizes, ..) => sizes.iter().map(|size| u32::from(*size)).sum(),
            Self::Length(size) => u32::from(*size),
        };
        (size > LIMITS.body_size_max).then_some(Refusal::ContentTooLarge)
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
