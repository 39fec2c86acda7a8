//! What a stream of requests means, read the slow way.
//!
//! The whole stream is there at once; it is split into heads, heads into lines, and every rule is
//! a comparison, in the words of RFC 9110, 9112 and 3986. There is no state between two calls and
//! no code of the server: only its names for what comes out.
//!
//! What is broken is told by the first rule that it breaks, from left to right; what only the
//! whole head shows comes after its last line. One thing is left open, since the server may choose
//! it: a head that is broken and has no end yet may be refused now or when more of it has come.

mod body;
mod head;
mod write;

use crate::meaning::Event;
use head::{Head, Lines};
use pelton::http::{HttpLimits, Phase, Refusal};

const CRLF: &[u8] = b"\r\n";

/// What a stream means up to its end.
#[derive(Debug)]
struct Reading {
    said: Vec<Said>,
    end: End,
}

/// What is said by a request that is complete.
#[derive(Debug)]
struct Said {
    event: Event,
    /// `If-None-Match` is malformed: whether it matches is not said.
    any_match: bool,
}

/// How a stream ends.
#[derive(Debug)]
enum End {
    /// In the middle of a head that begins at `from`, or between two.
    Head {
        from: usize,
        /// With which it is refused, if it is.
        refusals: Vec<Refusal>,
        /// It can no longer be waited for.
        is_over: bool,
    },
    /// In the middle of a body.
    Body,
    /// After the last request.
    Over,
}

/// Whether `seen`, as [`feed`](crate::meaning::feed) gives it, is what `stream` means.
///
/// # Errors
/// What it means instead.
pub fn check(
    stream: &[u8],
    limits: &HttpLimits,
    seen: &(Vec<Event>, usize, Phase),
) -> Result<(), String> {
    let Reading { said, end } = read(stream, limits);
    let (events, consumed, phase) = seen;
    let known = said.len().min(events.len());
    let (known, further) = events.split_at(known);
    let all = stream.len();
    let ended = |from: usize, expected: Phase| *phase == expected && *consumed == from;
    let is_right = known.len() == said.len()
        && said.iter().zip(known).all(|(said, event)| said.allows(event))
        && match (&end, further) {
            (End::Over, []) => ended(all, Phase::Over),
            (End::Body, []) => ended(all, Phase::Body),
            (End::Head { from, is_over: false, .. }, []) => {
                ended(*from, if *from == all { Phase::Idle } else { Phase::Head })
            }
            (End::Head { refusals, .. }, [Event::Broken(refusal)]) => {
                refusals.contains(refusal) && ended(all, Phase::Over)
            }
            _ => false,
        };
    if is_right { Ok(()) } else { Err(format!("{seen:?}, where the rules say {said:?}, {end:?}")) }
}

impl Said {
    fn allows(&self, event: &Event) -> bool {
        match (&self.event, event) {
            (
                Event::Lookup { key, connection, head_only, .. },
                Event::Lookup { key: k, connection: c, head_only: h, .. },
            ) if self.any_match => (key, connection, head_only) == (k, c, h),
            (said, event) => said == event,
        }
    }
}

fn read(stream: &[u8], limits: &HttpLimits) -> Reading {
    let mut said = Vec::new();
    let mut from = 0;
    let end = loop {
        // RFC 9112 2.2: a blank line before a request is ignored.
        from += if stream[from..].starts_with(CRLF) { CRLF.len() } else { 0 };
        let rest = &stream[from..];
        let bound = size(limits.head_size_max).min(rest.len());
        let Some(head_size) = head_size(&rest[..bound]) else {
            break unfinished(from, &rest[..bound], limits);
        };
        let broken = |refusal| Said { event: Event::Broken(refusal), any_match: false };
        let head = Lines::read(&rest[..head_size], limits).and_then(|lines| lines.judge(limits));
        let Head { mut event, any_match, keep_alive, body, data_size_max } = match head {
            Ok(head) => head,
            Err(refusal) => {
                said.push(broken(refusal));
                break End::Over;
            }
        };
        match body.read(&rest[head_size..], data_size_max) {
            Ok(Some((body_size, data))) => {
                from += head_size + body_size;
                if let Event::Write { body, .. } | Event::Batch { body, .. } = &mut event {
                    *body = data;
                }
            }
            Ok(None) => break End::Body,
            Err(refusal) => {
                said.push(broken(refusal));
                break End::Over;
            }
        }
        said.push(Said { event, any_match });
        if !keep_alive {
            break End::Over;
        }
    };
    Reading { said, end }
}

/// Bytes of the head that `text` begins with, its blank line included.
fn head_size(text: &[u8]) -> Option<usize> {
    let end = text.windows(2 * CRLF.len()).position(|window| window == [CRLF, CRLF].concat());
    end.map(|end| end + 2 * CRLF.len())
}

/// A head of which `part` is there, up to the bound on its size, and not its end.
fn unfinished(from: usize, part: &[u8], limits: &HttpLimits) -> End {
    // What is broken in it stays broken when the line is ended, and the head with it.
    let ends = [&b"\n"[..], b"\r\n", b"\n\r\n", b"\r\n\r\n"];
    let shortest = ends.iter().find(|end| head_size(&[part, end].concat()).is_some());
    let whole = [part, shortest.expect("the last one is an end")].concat();
    let mut refusals: Vec<Refusal> = Lines::read(&whole, limits).err().into_iter().collect();
    let is_at_bound = part.len() == size(limits.head_size_max);
    if is_at_bound {
        let has_line = part.windows(CRLF.len()).any(|window| window == CRLF);
        refusals.push(if has_line { Refusal::HeadTooLarge } else { Refusal::TargetTooLong });
    }
    let has_bare_lf = (0..part.len()).any(|at| part[at] == b'\n' && !part[..at].ends_with(b"\r"));
    End::Head { from, refusals, is_over: is_at_bound || has_bare_lf }
}

/// How many bytes at the start of `text` are of a class.
fn run(text: &[u8], class: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| class(**byte)).count()
}

/// tchar: RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// HTAB, SP, VCHAR or obs-text: RFC 9110 5.5.
fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn size(bound: u32) -> usize {
    usize::try_from(bound).expect("usize has 32 bits or more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meaning::feed;
    use pelton::http::{BatchLimits, Connection};

    const LIMITS: HttpLimits = HttpLimits {
        head_size_max: 64,
        headers_count_max: 2,
        target_size_max: 32,
        key_size_max: 4,
        body_size_max: 8,
        batch: BatchLimits { keys_max: 4, body_size_max: 64 },
        writes: None,
    };

    const LOOKUP: &[u8] = b"GET /lookup/%61 HTTP/1.1\r\nHost: a\r\n\r\n";

    fn events(stream: &[u8]) -> Vec<Event> {
        read(stream, &LIMITS).said.into_iter().map(|said| said.event).collect()
    }

    #[test]
    fn a_stream_is_its_requests_up_to_the_one_that_ends_it() {
        let lookup = |connection| Event::Lookup {
            key: b"a".to_vec(),
            connection,
            head_only: false,
            matches: false,
        };
        let last = b"GET /lookup/a HTTP/1.0\r\n\r\n";
        let expected = [lookup(Connection::Persistent), lookup(Connection::Close)];
        assert_eq!(events(&[LOOKUP, last, LOOKUP].concat()), expected);
    }

    #[test]
    fn a_meaning_that_differs_in_anything_is_refused() {
        let seen = feed(&LIMITS, std::iter::once(LOOKUP));
        assert_eq!(check(LOOKUP, &LIMITS, &seen), Ok(()));
        let (events, consumed, phase) = &seen;
        for other in [
            (Vec::new(), *consumed, *phase),
            ([&events[..], events].concat(), *consumed, *phase),
            (vec![Event::Broken(Refusal::BadHost)], *consumed, *phase),
            (events.clone(), consumed - 1, *phase),
            (events.clone(), *consumed, Phase::Over),
        ] {
            assert!(check(LOOKUP, &LIMITS, &other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_head_without_its_end_may_wait_and_one_at_its_bound_may_not() {
        let waits = |text: &[u8]| check(text, &LIMITS, &(Vec::new(), 0, Phase::Head)).is_ok();
        assert!(waits(b"GET / HTT"));
        assert!(waits(b"GET /# HTT"));
        assert!(!waits(b"GET /\nHTT"));
        assert!(!waits(&[b"GET /lookup/a HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 64]].concat()));
        let refused = |text: &[u8], refusal| {
            check(text, &LIMITS, &(vec![Event::Broken(refusal)], text.len(), Phase::Over)).is_ok()
        };
        assert!(refused(b"GET /# HTT", Refusal::BadRequestLine));
        assert!(!refused(b"GET /# HTT", Refusal::BadHost));
        assert!(refused(&[b'x'; 64], Refusal::TargetTooLong));
    }
}
