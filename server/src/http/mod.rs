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
//! chunked   skips a chunked body
//! exchange  the machine of one connection
//! date      Date, rendered once a second
//! response  replies
//! ```

mod chunked;
mod date;
mod etag;
mod exchange;
mod head;
mod refusal;
mod request;
mod response;
#[allow(unsafe_code, reason = "SSE2 loads")]
mod scan;

pub use etag::EtagSet;
pub use exchange::{Exchange, Phase, Step};
pub use refusal::Refusal;
pub use request::{Connection, HttpLimits, KEY_SIZE_MAX, LOOKUP_PATH, RawKey, Request, Route};
pub use response::{
    CONTENT_TYPE_SIZE_MAX, HeadPolicy, HeadTemplate, REPLY_HEAD_SIZE_MAX, Replies, Served, Source,
    Term,
};
