//! The machine of one connection: bytes in, [`Step`]s out.
//!
//! The caller holds the bytes. It hands in all that it holds, drops as many as the step has
//! consumed, and calls again until a step asks for more. A request that has a body is stepped out
//! when its body has been skipped, and only requests that are refused may have one; so there is
//! one answer to each request, in order, and nothing is read after it was answered.
//!
//! ```text
//!  Idle -> Head -- end of head ---> Request --+-- the connection goes on --> Idle
//!          |                        ^       |
//!          +-- body -> Body -- end -+       +-- it was the last one -----> Over
//! ```
//!
//! A partial head is presented again when more has come. It is read again only once its new bytes
//! hold an end, so that a client sending single bytes costs one look at each of them.

use super::chunked::{Chunked, Skipped};
use super::head::{self, Body, Stop};
use super::refusal::Refusal;
use super::request::{HttpLimits, Request, Route};

/// What the input says next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A request, complete with its body, which was skipped. The key lies in the input, so the
    /// `consumed` bytes may be dropped when the request has been served.
    Request {
        /// What is asked for.
        request: Request<'a>,
        /// Bytes of the input that are done with.
        consumed: usize,
    },
    /// More bytes are needed.
    Partial {
        /// Bytes of the input that are done with.
        consumed: usize,
    },
    /// The input broke the protocol: answer with this, and close.
    Refused(Refusal),
}

/// Where a connection stands; each phase has its own deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests; nothing of the next one has come.
    Idle,
    /// A head is incomplete.
    Head,
    /// A body is incomplete.
    Body,
    /// The last request has come; what follows is thrown away (RFC 9112 section 9.6).
    Over,
}

/// The machine of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head {
        /// Bytes of the partial head that have been looked at.
        held: u32,
        /// Whether the blank line that may precede a head was skipped (RFC 9112 section 2.2).
        blank_skipped: bool,
    },
    Body {
        framing: Framing,
        answer: Answer,
    },
    Over,
}

/// What is left of a body.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(u32),
    Chunked(Chunked),
}

/// What a request with a body becomes when the body has been skipped.
#[derive(Clone, Copy, Debug)]
struct Answer {
    refusal: Refusal,
    keep_alive: bool,
    version_1_0: bool,
}

const IDLE: State = State::Head { held: 0, blank_skipped: false };

impl Exchange {
    /// The machine of a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: IDLE }
    }

    /// Reads on. `input` begins where the bytes consumed so far end.
    ///
    /// After a refusal, or a request that ends the connection, all input is thrown away.
    pub fn next<'a>(&mut self, input: &'a [u8], limits: &HttpLimits) -> Step<'a> {
        let step = match self.state {
            State::Head { held, blank_skipped } => self.head(input, held, blank_skipped, limits),
            State::Body { framing, answer } => self.body(input, framing, answer),
            State::Over => Step::Partial { consumed: input.len() },
        };
        match step {
            Step::Refused(_) => self.state = State::Over,
            Step::Request { request, .. } if !request.keep_alive => self.state = State::Over,
            Step::Request { .. } | Step::Partial { .. } => {}
        }
        step
    }

    /// Where the connection stands.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Head { held: 0, .. } => Phase::Idle,
            State::Head { .. } => Phase::Head,
            State::Body { .. } => Phase::Body,
            State::Over => Phase::Over,
        }
    }

    #[inline]
    fn head<'a>(
        &mut self,
        input: &'a [u8],
        held: u32,
        blank_skipped: bool,
        limits: &HttpLimits,
    ) -> Step<'a> {
        let blank = if !blank_skipped && input.starts_with(b"\r\n") { 2 } else { 0 };
        let bytes = &input[blank..];
        let held = if blank == 0 { held } else { 0 };
        let blank_skipped = blank_skipped || blank > 0;
        if bytes == b"\r" || !is_worth_reading(bytes, held, limits) {
            self.state = State::Head { held: held_of(bytes), blank_skipped };
            return Step::Partial { consumed: blank };
        }
        match head::read(bytes, limits) {
            Err(Stop::Refused(refusal)) => Step::Refused(refusal),
            Err(Stop::Partial) => {
                self.state = State::Head { held: held_of(bytes), blank_skipped };
                Step::Partial { consumed: blank }
            }
            Ok(head) => {
                self.state = IDLE;
                let consumed = blank + head.size;
                match head.body {
                    Body::None => Step::Request { request: head.request, consumed },
                    Body::Length(size) => {
                        self.begin_body(input, consumed, Framing::Length(size), &head.request)
                    }
                    Body::Chunked => {
                        let chunked = Chunked::new(limits.body_size_max);
                        self.begin_body(input, consumed, Framing::Chunked(chunked), &head.request)
                    }
                }
            }
        }
    }

    /// Goes on with the body of `request`, whose head ended after `consumed` bytes of `input`.
    #[cold]
    fn begin_body<'a>(
        &mut self,
        input: &'a [u8],
        consumed: usize,
        framing: Framing,
        request: &Request<'a>,
    ) -> Step<'a> {
        let Route::Refused(refusal) = request.route else {
            unreachable!("no route that is served takes a body");
        };
        let Request { keep_alive, version_1_0, .. } = *request;
        let answer = Answer { refusal, keep_alive, version_1_0 };
        match self.body(&input[consumed..], framing, answer) {
            Step::Request { request, consumed: more } => {
                Step::Request { request, consumed: consumed + more }
            }
            Step::Partial { consumed: more } => Step::Partial { consumed: consumed + more },
            Step::Refused(refusal) => Step::Refused(refusal),
        }
    }

    fn body<'a>(&mut self, input: &[u8], mut framing: Framing, answer: Answer) -> Step<'a> {
        match framing.skip(input) {
            Err(refusal) => Step::Refused(refusal),
            Ok(Skipped::All) => {
                self.state = State::Body { framing, answer };
                Step::Partial { consumed: input.len() }
            }
            Ok(Skipped::Last(consumed)) => {
                self.state = IDLE;
                let request = Request {
                    route: Route::Refused(answer.refusal),
                    head_only: false,
                    keep_alive: answer.keep_alive,
                    version_1_0: answer.version_1_0,
                    if_none_match: super::EtagSet::EMPTY,
                };
                Step::Request { request, consumed }
            }
        }
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing {
    /// Skips what of `input` belongs to the body.
    fn skip(&mut self, input: &[u8]) -> Result<Skipped, Refusal> {
        match self {
            Self::Chunked(chunked) => chunked.skip(input),
            Self::Length(left) => match u32::try_from(input.len()) {
                Ok(size) if size < *left => {
                    *left -= size;
                    Ok(Skipped::All)
                }
                _ => Ok(Skipped::Last(usize::try_from(*left).expect("it is in the input"))),
            },
        }
    }
}

/// Size of a partial head: below `head_size_max`, or it would have been refused.
fn held_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a partial head is below head_size_max")
}

/// Whether reading `bytes`, of which `held` have been looked at, can give more than "not yet".
///
/// New bytes are worth it: all of a head usually comes at once. Of a head that did not, only its
/// end is: the LF of a blank line, an LF without CR, or the bound on its size.
fn is_worth_reading(bytes: &[u8], held: u32, limits: &HttpLimits) -> bool {
    let held = usize::try_from(held).expect("usize has 32 bits or more");
    if held == 0 || is_at_bound(bytes, limits) {
        return !bytes.is_empty();
    }
    let mut from = held;
    while let Some(distance) = bytes[from..].iter().position(|&byte| byte == b'\n') {
        let line_feed = from + distance;
        match &bytes[..line_feed] {
            [.., b'\r', b'\n', b'\r'] => return true,
            [.., b'\r'] => from = line_feed + 1,
            _ => return true,
        }
    }
    false
}

/// Whether a head of these `bytes` has reached the bound on its size.
fn is_at_bound(bytes: &[u8], limits: &HttpLimits) -> bool {
    u32::try_from(bytes.len()).map_or(true, |size| size >= limits.head_size_max)
}
