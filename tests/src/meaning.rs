//! What bytes mean to the exchange: its steps without their borrows, for any fragmentation.

use pelton::http::{
    Connection, Exchange, HttpLimits, KEY_SIZE_MAX, Phase, RawKey, Refusal, Request, Route, Step,
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
    }
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
    for part in parts {
        held.extend_from_slice(part);
        loop {
            let (event, consumed) = match exchange.next(&held, limits) {
                Step::Request { request, consumed } => (Some(event(&request)), consumed),
                Step::Refused(refusal) => (Some(Event::Broken(refusal)), 0),
                Step::Partial { consumed } => (None, consumed),
            };
            assert!(consumed <= held.len(), "no more can be consumed than there is");
            held.drain(..consumed);
            consumed_total += consumed;
            match event {
                Some(Event::Broken(refusal)) if exchange.phase() != Phase::Over => {
                    panic!("read on after {refusal:?}")
                }
                Some(event) => {
                    let is_broken = matches!(event, Event::Broken(_));
                    assert!(consumed > 0 || is_broken, "{event:?} came of no byte");
                    events.push(event);
                }
                None => break,
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
