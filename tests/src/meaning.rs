//! What bytes mean to the exchange: its steps without their borrows, for any fragmentation.

use pelton::http::{
    Connection, Exchange, HttpLimits, KEY_SIZE_MAX, Phase, RawKey, Refusal, Request, Route, Step,
    Write,
};
use shard_cache::hash::Etag;

/// The ETag that [`Event::Lookup`] is asked about.
pub const ETAG: Etag = Etag::from_bits(0x00c0_ffee_00c0_ffee);

/// What became of some input, without its borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `/healthz`.
    Health {
        /// What its reply says about the connection.
        connection: Connection,
        /// HEAD.
        head_only: bool,
    },
    /// A lookup.
    Lookup {
        /// Decoded.
        key: Vec<u8>,
        /// What its reply says about the connection.
        connection: Connection,
        /// HEAD.
        head_only: bool,
        /// `If-None-Match` names [`ETAG`].
        matches: bool,
    },
    /// A write.
    Write {
        /// Decoded.
        key: Vec<u8>,
        /// What a PUT says of its value: content type, `max-age`, `stale-while-revalidate` and
        /// `stale-if-error`; nothing for DELETE.
        put: Option<(String, [Option<u32>; 3])>,
        /// `If-Match` names [`ETAG`], if there is one.
        if_match: Option<bool>,
        /// `If-None-Match` names [`ETAG`].
        if_none_match: bool,
        /// It waits to be told to send the body.
        waits: bool,
        /// All of the body.
        body: Vec<u8>,
        /// What its reply says about the connection.
        connection: Connection,
    },
    /// A batch.
    Batch {
        /// It waits to be told to send the body.
        waits: bool,
        /// All of the body.
        body: Vec<u8>,
        /// What its reply says about the connection.
        connection: Connection,
    },
    /// A request that is answered with an error.
    Answered {
        /// With which.
        refusal: Refusal,
        /// What its reply says about the connection.
        connection: Connection,
    },
    /// The connection ends with this answer.
    Broken(Refusal),
}

fn event(request: &Request<'_>) -> Event {
    let connection = request.connection(false);
    let head_only = request.head_only;
    match request.route {
        Route::Health => Event::Health { connection, head_only },
        Route::Refused(refusal) => Event::Answered { refusal, connection },
        Route::Lookup { key } => Event::Lookup {
            key: decoded(key),
            connection,
            head_only,
            matches: request.if_none_match.matches(ETAG),
        },
        Route::Write | Route::Batch => unreachable!("it ends with a piece of its body"),
    }
}

/// A write of which the head has come.
fn begun(write: &Write<'_>) -> Event {
    let put = write.put.map(|put| {
        let seconds = [put.max_age_s, put.stale_while_revalidate_s, put.stale_if_error_s];
        (put.content_type.to_owned(), seconds)
    });
    Event::Write {
        key: decoded(write.key),
        put,
        if_match: write.if_match.map(|set| set.matches(ETAG)),
        if_none_match: write.if_none_match.matches(ETAG),
        waits: write.expects_continue,
        body: Vec::new(),
        connection: Connection::Persistent,
    }
}

/// More of its body has come, and the request with the last of it.
fn go_on(write: &mut Option<Event>, bytes: &[u8], request: Option<Request<'_>>) -> Option<Event> {
    let Some(Event::Write { body, connection, .. } | Event::Batch { body, connection, .. }) = write
    else {
        panic!("a body comes after its head");
    };
    body.extend_from_slice(bytes);
    *connection = request?.connection(false);
    write.take()
}

/// Feeds `parts` one after the other, as receives would bring them. Answers what came of it, how
/// many bytes were consumed and where the connection stands.
///
/// # Panics
/// If more is consumed than there is, or work is done without end.
pub fn feed<'a>(
    limits: &HttpLimits,
    parts: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Event>, usize, Phase) {
    let mut exchange = Exchange::new();
    let (mut events, mut consumed_total, mut held) = (Vec::new(), 0, Vec::new());
    let mut write = None;
    for part in parts {
        held.extend_from_slice(part);
        loop {
            let mut is_over = false;
            let (event, consumed) = match exchange.next(&held, limits) {
                Step::Request { request, consumed } => (Some(event(&request)), consumed),
                Step::Refused(refusal) => (Some(Event::Broken(refusal)), 0),
                Step::Write { write: head, consumed } => {
                    assert!(write.replace(begun(&head)).is_none(), "one write at a time");
                    (None, consumed)
                }
                Step::Batch { expects_continue: waits, consumed, .. } => {
                    let (body, connection) = (Vec::new(), Connection::Persistent);
                    assert!(write.replace(Event::Batch { waits, body, connection }).is_none());
                    (None, consumed)
                }
                Step::Body { bytes, consumed, request } => {
                    (go_on(&mut write, bytes, request), consumed)
                }
                Step::Partial { consumed } => {
                    is_over = true;
                    (None, consumed)
                }
            };
            assert!(consumed <= held.len(), "no more can be consumed than there is");
            held.drain(..consumed);
            consumed_total += consumed;
            match event {
                Some(Event::Broken(refusal)) if exchange.phase() != Phase::Over => {
                    panic!("read on after {refusal:?}")
                }
                Some(event) => {
                    let may_be_empty = matches!(
                        event,
                        Event::Broken(_) | Event::Write { .. } | Event::Batch { .. }
                    );
                    assert!(consumed > 0 || may_be_empty, "{event:?} came of no byte");
                    events.push(event);
                }
                None if is_over => break,
                None => assert!(consumed > 0, "work is done without end"),
            }
        }
    }
    (events, consumed_total, exchange.phase())
}

fn decoded(key: RawKey<'_>) -> Vec<u8> {
    let mut room = [0; KEY_SIZE_MAX];
    let size = key.copy_to(&mut room);
    room[..size].to_vec()
}
