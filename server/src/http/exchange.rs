//! The machine of one connection: bytes in, [`Step`]s out.
//!
//! The caller holds the bytes. It hands in all that it holds, drops as many as the step has
//! consumed, and calls again until a step asks for more. A request that is refused is stepped out
//! when its body has been skipped; so there is one answer to each request, in order, and nothing is
//! read after it was answered. A write or a batch is stepped out as it comes: its head, its body in
//! pieces, and with the last piece the request.
//!
//! ```text
//!  Idle -> Head -- end of head ---> Request --+-- the connection goes on --> Idle
//!          |                        ^       |
//!          +-- body -> Body -- end -+       +-- it was the last one -----> Over
//!          |                        |
//!          +-> Write -> pieces -----+
//! ```
//!
//! A partial head is presented again when more has come. It is read again only once its new bytes
//! hold an end, so that a client sending single bytes costs one look at each of them.

use super::chunked::{Chunked, Taken};
use super::head::{self, Body, Head, Stop};
use super::refusal::Refusal;
use super::request::{HttpLimits, Request, Route};
use super::write::{self, Write};
use crate::api_key::ApiKey;

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
    /// The head of a write; a step follows in any case, if only with the end of no body. Who cannot
    /// take the body now says so by [`Exchange::put_back`].
    Write {
        /// What is to be written.
        write: Write<'a>,
        /// Bytes of the input that are done with.
        consumed: usize,
    },
    /// The head of a batch; the rest as for a write.
    Batch {
        /// The client waits to be told to send the body.
        expects_continue: bool,
        /// The key that it shows.
        credential: Option<&'a ApiKey>,
        /// Bytes of the input that are done with.
        consumed: usize,
    },
    /// A piece of the body of a write or a batch.
    Body {
        /// The piece.
        bytes: &'a [u8],
        /// Bytes of the input that are done with.
        consumed: usize,
        /// With the last piece, the request.
        request: Option<Request<'static>>,
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

/// What a request with a body becomes when the body has come.
#[derive(Clone, Copy, Debug)]
struct Answer {
    becomes: Becomes,
    keep_alive: bool,
    version_1_0: bool,
}

/// What a request is whose body has come.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// Refused: its body was skipped.
    Refused(Refusal),
    /// A write or a batch: its body was handed on.
    Write,
    Batch,
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
    #[inline(always)]
    pub fn next<'a>(&mut self, input: &'a [u8], limits: &HttpLimits) -> Step<'a> {
        match self.state {
            State::Head { held, blank_skipped } => self.head(input, held, blank_skipped, limits),
            State::Body { framing, answer } => {
                let step = self.body(input, framing, answer);
                self.end_if_last(&step);
                step
            }
            State::Over => Step::Partial { consumed: input.len() },
        }
    }

    /// After [`Step::Write`], the step that no input would bring: the end of an empty body.
    #[cold]
    pub fn end_empty_body(&mut self) -> Option<Request<'static>> {
        let State::Body { framing: Framing::Length(0), answer } = self.state else { return None };
        let request = answer.request();
        self.state = if request.keep_alive { IDLE } else { State::Over };
        Some(request)
    }

    /// After [`Step::Write`] or [`Step::Batch`], whose body is not wanted: it is skipped, and the
    /// request is stepped out with this refusal when its end has come. A client that waits to send
    /// it is answered at once, and for the last time: whether it comes cannot be known (RFC 9110
    /// section 10.1.1).
    #[cold]
    pub fn refuse(&mut self, refusal: Refusal, is_awaited: bool) -> Option<Request<'static>> {
        let State::Body { framing, answer } = self.state else {
            unreachable!("a body was announced")
        };
        let keep_alive = answer.keep_alive && !is_awaited;
        let answer = Answer { becomes: Becomes::Refused(refusal), keep_alive, ..answer };
        self.state = State::Body { framing, answer };
        if !is_awaited {
            return self.end_empty_body();
        }
        self.state = State::Over;
        Some(answer.request())
    }

    /// Reads nothing after a refusal, or after a request that ends the connection.
    fn end_if_last(&mut self, step: &Step<'_>) {
        let is_last = match step {
            Step::Refused(_) => true,
            Step::Request { request, .. } | Step::Body { request: Some(request), .. } => {
                !request.keep_alive
            }
            Step::Write { .. }
            | Step::Batch { .. }
            | Step::Body { request: None, .. }
            | Step::Partial { .. } => false,
        };
        if is_last {
            self.state = State::Over;
        }
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

    #[inline(always)]
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
            Err(Stop::Refused(refusal)) => {
                self.state = State::Over;
                Step::Refused(refusal)
            }
            Err(Stop::Partial) => {
                self.state = State::Head { held: held_of(bytes), blank_skipped };
                Step::Partial { consumed: blank }
            }
            Ok(head) => {
                let consumed = blank + head.size;
                if head.body == Body::None {
                    // The step is made once, where it is returned: every hit comes by here.
                    self.state = if head.request.keep_alive { IDLE } else { State::Over };
                    return Step::Request { request: head.request, consumed };
                }
                self.state = IDLE;
                let step = self.begin_body(input, consumed, &head, &bytes[..head.size], limits);
                self.end_if_last(&step);
                step
            }
        }
    }

    /// Goes on behind `head`, of the bytes `text`, which has a body; `consumed` bytes of `input`
    /// are done with.
    #[cold]
    fn begin_body<'a>(
        &mut self,
        input: &'a [u8],
        consumed: usize,
        head: &Head<'a>,
        text: &'a [u8],
        limits: &HttpLimits,
    ) -> Step<'a> {
        let Request { keep_alive, version_1_0, .. } = head.request;
        let answer = |becomes| Answer { becomes, keep_alive, version_1_0 };
        let size_max = limits.body_size_max;
        let is_within = |size_max| !matches!(head.body, Body::Length(size) if size > size_max);
        let refusal = match (head.request.route, &limits.writes) {
            (Route::Refused(refusal), _) => refusal,
            (Route::Batch, _) if is_within(limits.batch.body_size_max) => {
                let framing = Framing::of(head.body, size_max.min(limits.batch.body_size_max));
                self.state = State::Body { framing, answer: answer(Becomes::Batch) };
                let (expects_continue, credential) =
                    (head.expects_continue(), head.request.credential);
                return Step::Batch { expects_continue, credential, consumed };
            }
            (Route::Batch, _) => Refusal::ContentTooLarge,
            (Route::Lookup { key }, Some(writes)) => match write::read(text, head, key, writes) {
                Ok(write) => {
                    let framing = Framing::of(head.body, size_max.min(writes.value_size_max));
                    self.state = State::Body { framing, answer: answer(Becomes::Write) };
                    return Step::Write { write, consumed };
                }
                Err(refusal) => refusal,
            },
            (Route::Lookup { .. } | Route::Health | Route::Write, _) => {
                unreachable!("nothing else takes a body")
            }
        };
        let is_served = !matches!(head.request.route, Route::Refused(_));
        if is_served && head.may_wait {
            // As for all that is refused: the client may have waited with its body.
            let request =
                Request { route: Route::Refused(refusal), keep_alive: false, ..head.request };
            return Step::Request { request, consumed };
        }
        let framing = Framing::of(head.body, size_max);
        let answer = answer(Becomes::Refused(refusal));
        match self.body(&input[consumed..], framing, answer) {
            Step::Request { request, consumed: more } => {
                Step::Request { request, consumed: consumed + more }
            }
            Step::Partial { consumed: more } => Step::Partial { consumed: consumed + more },
            step @ (Step::Write { .. }
            | Step::Batch { .. }
            | Step::Body { .. }
            | Step::Refused(_)) => step,
        }
    }

    fn body<'a>(&mut self, input: &'a [u8], mut framing: Framing, answer: Answer) -> Step<'a> {
        let mut consumed = 0;
        loop {
            let taken = match framing.take(&input[consumed..]) {
                Ok(taken) => taken,
                Err(refusal) => return Step::Refused(refusal),
            };
            let bytes = &input[consumed..][taken.data];
            consumed += taken.consumed;
            self.state = if taken.is_last { IDLE } else { State::Body { framing, answer } };
            let request = taken.is_last.then(|| answer.request());
            let is_skipped = matches!(answer.becomes, Becomes::Refused(_));
            return match request {
                Some(request) if is_skipped => Step::Request { request, consumed },
                None if is_skipped && consumed < input.len() => continue,
                None if is_skipped || bytes.is_empty() => Step::Partial { consumed },
                request => Step::Body { bytes, consumed, request },
            };
        }
    }

    /// Takes the last step back, which was [`Step::Write`] or [`Step::Batch`]: its head is
    /// presented again.
    pub const fn put_back(&mut self) {
        self.state = IDLE;
    }
}

impl Answer {
    /// The request whose body has come.
    const fn request(self) -> Request<'static> {
        Request {
            route: match self.becomes {
                Becomes::Refused(refusal) => Route::Refused(refusal),
                Becomes::Write => Route::Write,
                Becomes::Batch => Route::Batch,
            },
            head_only: false,
            keep_alive: self.keep_alive,
            version_1_0: self.version_1_0,
            if_none_match: super::EtagSet::EMPTY,
            credential: None,
        }
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing {
    fn of(body: Body, size_max: u32) -> Self {
        match body {
            Body::None => Self::Length(0),
            Body::Length(size) => Self::Length(size),
            Body::Chunked => Self::Chunked(Chunked::new(size_max)),
        }
    }

    /// Takes what of `input` belongs to the body, up to its second piece of data.
    fn take(&mut self, input: &[u8]) -> Result<Taken, Refusal> {
        match self {
            Self::Chunked(chunked) => chunked.take(input),
            Self::Length(left) => {
                let size = u32::try_from(input.len()).map_or(*left, |size| size.min(*left));
                *left -= size;
                let size = usize::try_from(size).expect("it is in the input");
                Ok(Taken { data: 0..size, consumed: size, is_last: *left == 0 })
            }
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
