//! HTTP/1.1 as the data port speaks it: bytes in, requests out; replies in, bytes out.
//!
//! Everything here is a pure function of its input or a small machine without input and output of
//! its own: no sockets, no clock, no allocation. [`Exchange`] turns the bytes of one connection
//! into [`Step`]s; [`Replies`] renders the answers. The rules are those of RFC 9110 and RFC 9112,
//! and where they leave a choice between tolerating and refusing, this module refuses: each
//! tolerance is a way for a proxy in front to see other requests than we do.
//!
//! ```text
//! scan      finds the end of a name, a path, a value        (SIMD, the only unsafe)
//! etag      entity tags as text, If-None-Match
//! refusal   every error that is answered
//! request   what a request asks for: route, key, connection
//! head      bytes of one head -> request and framing of its body
//! write     what the head of a write says besides
//! batch     the keys of a batch, out of its body
//! item      what a batch is answered, piece by piece
//! chunked   takes a chunked body out of its chunks
//! exchange  the machine of one connection
//! date      Date, rendered once a second
//! response  replies
//! ```

mod batch;
mod chunked;
mod date;
mod etag;
mod exchange;
mod head;
mod item;
mod refusal;
mod request;
mod response;
#[allow(unsafe_code, reason = "SSE2 loads")]
mod scan;
mod write;

pub use batch::{Token as BatchToken, check as check_batch, take as take_key};
pub use etag::EtagSet;
pub use exchange::{Exchange, Phase, Step};
pub use item::{Chunk, Form, ITEM_SIZE_MAX};
pub use refusal::Refusal;
pub use request::{
    BatchLimits, Connection, HttpLimits, KEY_SIZE_MAX, LOOKUP_PATH, RawKey, Request, Route,
    WriteLimits,
};
pub use response::{
    Beyond, CONTENT_TYPE_SIZE_MAX, HeadPolicy, HeadTemplate, REPLY_HEAD_SIZE_MAX, Replies, Served,
    Source, Term,
};
pub use write::{Put, Write};
