//! What a request asks for: its route, its key, and what becomes of the connection.
//!
//! The path of a target ends at its `?`; the query is ignored. Paths are compared as they stand:
//! an escaped letter in `/healthz` or `/lookup/` makes another path, and `.`, `..` and `//` mean
//! nothing. Only the key is decoded, once, so `a%2Fb` and `a/b` are one key.

use super::etag::EtagSet;
use super::refusal::Refusal;
use crate::api_key::ApiKey;
use crate::token::Token;

/// The path of batches.
const BATCH_PATH: &[u8] = b"/lookup";

/// What stands before the key in a path.
pub const LOOKUP_PATH: &[u8; 8] = b"/lookup/";

/// The longest decoded key, bytes; `http.key_size_max` may be lower but not higher.
pub const KEY_SIZE_MAX: usize = 512;

/// Bounds on what one request may hold; all from the section `[http]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a head, from the method to the blank line included; beyond 431.
    pub head_size_max: u32,
    /// Lines of a head after the first; beyond 431.
    pub headers_count_max: u16,
    /// Bytes of a target; beyond 414.
    pub target_size_max: u32,
    /// Bytes of a decoded key, at most [`KEY_SIZE_MAX`]; beyond 414.
    pub key_size_max: u16,
    /// Bytes of a body; beyond 413.
    pub body_size_max: u32,
    /// What a batch may be.
    pub batch: BatchLimits,
    /// What PUT and DELETE may do; without it they are answered 405.
    pub writes: Option<WriteLimits>,
}

/// How large a batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Keys; beyond 413.
    pub keys_max: u16,
    /// Bytes of its body, beside `body_size_max`; beyond 413.
    pub body_size_max: u32,
}

/// Who may write, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// What a write must bear, or 401.
    pub token: Option<Token>,
    /// Tenants may write: whoever does not bear the token may be one.
    pub by_tenants: bool,
    /// Bytes of a value, beside `body_size_max`; beyond 413.
    pub value_size_max: u32,
}

/// One request whose head, and whose body if it has one, is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What is asked for.
    pub route: Route<'a>,
    /// HEAD: the reply has the head of a GET and no body.
    pub head_only: bool,
    /// Whether the connection goes on after the reply.
    pub keep_alive: bool,
    /// HTTP/1.0: a connection that goes on has to be announced.
    pub version_1_0: bool,
    /// What the client holds already.
    pub if_none_match: EtagSet,
    /// The key that it shows.
    pub credential: Option<&'a ApiKey>,
}

impl Request<'_> {
    /// What the reply says about the connection; `draining` ends it whatever the client asked.
    #[must_use]
    pub const fn connection(&self, draining: bool) -> Connection {
        match (self.keep_alive && !draining, self.version_1_0) {
            (false, _) => Connection::Close,
            (true, false) => Connection::Persistent,
            (true, true) => Connection::KeepAlive,
        }
    }
}

/// What a reply says about its connection (RFC 9112 section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: HTTP/1.1 goes on by itself.
    Persistent,
    /// `Connection: keep-alive`, for HTTP/1.0.
    KeepAlive,
    /// `Connection: close`: it is the last reply.
    Close,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/healthz`.
    Health,
    /// `/lookup/{key}`.
    Lookup {
        /// The key.
        key: RawKey<'a>,
    },
    /// The write whose head and body were stepped out before.
    Write,
    /// The batch whose body was stepped out before.
    Batch,
    /// A request that is well formed and not served; answered in its turn.
    Refused(Refusal),
}

impl<'a> Route<'a> {
    /// The route of a path, that is of a target up to its `?`, asked for by GET or HEAD. A plain
    /// path has no escapes.
    #[inline]
    pub(crate) fn of(path: &'a [u8], is_plain: bool, limits: &HttpLimits) -> Self {
        match path.strip_prefix(LOOKUP_PATH) {
            Some([]) => Self::Refused(Refusal::NotFound),
            Some(raw) => match RawKey::new(raw, is_plain, usize::from(limits.key_size_max)) {
                Ok(key) => Self::Lookup { key },
                Err(refusal) => Self::Refused(refusal),
            },
            None if path == b"/healthz" => Self::Health,
            None if path == BATCH_PATH => Self::Refused(Refusal::MethodNotAllowedOfBatch),
            None => Self::Refused(Refusal::NotFound),
        }
    }
}

/// A key as it stands in the target. Its escapes are valid and its decoded size is in bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawKey<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> RawKey<'a> {
    /// A key that stands somewhere else in the way it stands in a target.
    ///
    /// # Errors
    /// It has a bad escape, or is longer than any key.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Refusal> {
        Self::new(raw, false, KEY_SIZE_MAX)
    }

    #[inline]
    fn new(raw: &'a [u8], is_plain: bool, size_max: usize) -> Result<Self, Refusal> {
        let escapes = if is_plain { 0 } else { count_escapes(raw)? };
        if raw.len() - 2 * escapes > size_max {
            return Err(Refusal::KeyTooLong);
        }
        Ok(Self { raw, escaped: escapes > 0 })
    }

    /// Writes the decoded key into `room` and returns its size.
    #[must_use]
    #[inline]
    pub fn copy_to(&self, room: &mut [u8; KEY_SIZE_MAX]) -> usize {
        if !self.escaped {
            room[..self.raw.len()].copy_from_slice(self.raw);
            return self.raw.len();
        }
        let mut size = 0;
        let mut rest = self.raw;
        while let [byte, after @ ..] = rest {
            (room[size], rest) = match (byte, after) {
                (b'%', [high, low, after @ ..]) => (hex(*high) << 4 | hex(*low), after),
                _ => (*byte, after),
            };
            size += 1;
        }
        size
    }
}

/// How many escapes `raw` holds.
///
/// # Errors
/// [`Refusal::BadEscape`] if a percent sign is not followed by two hex digits.
fn count_escapes(raw: &[u8]) -> Result<usize, Refusal> {
    let mut escapes = 0;
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        rest = match &rest[at + 1..] {
            [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            _ => return Err(Refusal::BadEscape),
        };
        escapes += 1;
    }
    Ok(escapes)
}

/// The value of a hex digit.
const fn hex(digit: u8) -> u8 {
    (digit & 0x0f) + if digit.is_ascii_alphabetic() { 9 } else { 0 }
}
