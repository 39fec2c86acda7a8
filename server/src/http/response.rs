//! Renders replies into memory of the caller. A reply to a hit is one copy of a template, with
//! Date, ETag and the length written into the copy.
//!
//! ```text
//! HTTP/1.1 200 OK                                        template
//! Date: Sun, 06 Nov 1994 08:49:37 GMT                    29 bytes written at a fixed place
//! Content-Type: application/json                         template
//! ETag: "00c0ffee00c0ffee"                               16 bytes written at a fixed place
//! Cache-Status: pelton; hit; ttl=60                      template for entries that never expire,
//! Cache-Control: max-age=60, stale-while-revalidate=30   else written line by line
//! Age: 0
//! Content-Length: 153                                    written
//! ```
//!
//! A recipient takes `max-age` minus `Age` for what is left (RFC 9111 section 4.2), so `max-age`
//! is the whole lifetime of the entry. What is left stands in Cache-Status (RFC 9211 section 2.4),
//! below zero for a stale reply. An entry that never expires is sent as if just made. A value whose
//! origin or writer has said how long it may be served stale is sent with these words (RFC 5861),
//! or where it never may, with `must-revalidate`.

use super::date::{DATE_SIZE, Date};
use super::etag::{self, ETAG_DIGITS};
use super::refusal::Refusal;
use super::request::Connection;
use crate::error::FetchFailure;
use shard_cache::hash::Etag;
use shard_cache::time::WallSeconds;

/// The longest content type, bytes.
pub const CONTENT_TYPE_SIZE_MAX: usize = 63;

/// Room that every reply of this file needs at most: the head of a value, or a whole other reply.
pub const REPLY_HEAD_SIZE_MAX: usize = 384;

const DATE_AT: usize = "HTTP/1.1 200 OK\r\nDate: ".len();
const BODY_HEALTH: &[u8] = br#"{"ok":true}"#;
const JSON: &[u8] = b"application/json";

/// What heads say about caching; from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPolicy {
    /// Whether to send Cache-Control.
    pub cache_control: bool,
    /// Whether to send Cache-Status.
    pub cache_status: bool,
    /// `max-age` of entries that never expire, seconds.
    pub max_age_s: u32,
    /// `stale-while-revalidate` of values, seconds; 0 leaves it out.
    pub stale_while_revalidate_s: u32,
    /// The index of the shard that replies, and how many there are; none leaves them out.
    pub shard: Option<(u16, u16)>,
}

/// How long an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Until it is replaced.
    Ever,
    /// For a time.
    Ends {
        /// Seconds that it is fresh, from its birth on.
        lifetime_s: u32,
        /// Seconds since its birth; beyond `lifetime_s` it is stale.
        age_s: u32,
    },
}

/// How long a value may be served beyond its freshness, as a reply says it: so many seconds while
/// it is fetched again, or one of two words. A number, since every hit looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond(pub u32);

impl Beyond {
    /// As the configuration says of all values.
    pub const AS_CONFIGURED: Self = Self(u32::MAX);

    /// Not at all.
    pub const NEVER: Self = Self(u32::MAX - 1);
}

/// Where a reply came from (RFC 9211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Memory.
    Hit,
    /// The origin, by a fetch that this request led.
    Fetched,
    /// The origin, by a fetch that another request led.
    Collapsed,
    /// Memory, since the origin was asked and failed.
    Kept(FetchFailure),
}

/// An entry as it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Its tag.
    pub etag: Etag,
    /// How long it lives.
    pub term: Term,
    /// How long it may be served after that.
    pub beyond: Beyond,
    /// Where it came from.
    pub source: Source,
}

/// The head of a 200 for one content type.
///
/// ```text
/// 0                      entry_at                 size
/// [ up to the ETag line ][ an immortal hit's rest ][ unused ]
/// ```
#[derive(Clone, Debug)]
pub struct HeadTemplate {
    bytes: [u8; REPLY_HEAD_SIZE_MAX],
    etag_at: u16,
    entry_at: u16,
    size: u16,
}

/// Renders the replies of one shard.
#[derive(Clone, Debug)]
pub struct Replies {
    policy: HeadPolicy,
    date: Date,
}

impl Replies {
    /// A renderer whose date is `now`.
    #[must_use]
    pub fn new(policy: HeadPolicy, now: WallSeconds) -> Self {
        Self { policy, date: Date::new(now) }
    }

    /// Sets the date; costs a comparison while the second is the same.
    pub fn set_date(&mut self, now: WallSeconds) {
        self.date.set(now);
    }

    /// The template for values of `content_type`.
    ///
    /// # Panics
    /// If `content_type` is longer than [`CONTENT_TYPE_SIZE_MAX`].
    #[must_use]
    pub fn template(&self, content_type: &[u8]) -> HeadTemplate {
        assert!(content_type.len() <= CONTENT_TYPE_SIZE_MAX, "a content type is bounded");
        let mut bytes = [0; REPLY_HEAD_SIZE_MAX];
        let mut writer = self.begin(&mut bytes, "200 OK");
        writer.field("Content-Type: ", content_type);
        let etag_at = offset(writer.size + "ETag: \"".len());
        writer.etag(Etag::from_bits(0));
        let entry_at = offset(writer.size);
        self.caching(&mut writer, Term::Ever, Beyond::AS_CONFIGURED, Source::Hit);
        writer.put(b"Content-Length: ");
        let size = offset(writer.size);
        HeadTemplate { bytes, etag_at, entry_at, size }
    }

    /// Writes the head of a 200 whose body has `value_size` bytes; answers the head's size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    #[inline]
    pub fn found(
        &self,
        out: &mut [u8],
        template: &HeadTemplate,
        served: &Served,
        value_size: u32,
        connection: Connection,
    ) -> usize {
        let out = room(out);
        let immortal_hit = served.term == Term::Ever
            && served.beyond == Beyond::AS_CONFIGURED
            && served.source == Source::Hit
            && connection == Connection::Persistent;
        let size = usize::from(if immortal_hit { template.size } else { template.entry_at });
        out[..size].copy_from_slice(&template.bytes[..size]);
        out[DATE_AT..DATE_AT + DATE_SIZE].copy_from_slice(self.date.text());
        let etag_at = usize::from(template.etag_at);
        out[etag_at..etag_at + ETAG_DIGITS].copy_from_slice(&etag::digits(served.etag));
        let mut writer = Writer { out, size };
        if !immortal_hit {
            self.caching(&mut writer, served.term, served.beyond, served.source);
            writer.connection(connection);
            writer.put(b"Content-Length: ");
        }
        writer.number(u64::from(value_size));
        writer.put(b"\r\n\r\n");
        writer.size
    }

    /// Writes a 304: the client holds what is served. Answers its size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    pub fn not_modified(&self, out: &mut [u8], served: &Served, connection: Connection) -> usize {
        let mut writer = self.begin(room(out), "304 Not Modified");
        writer.etag(served.etag);
        self.caching(&mut writer, served.term, served.beyond, served.source);
        writer.connection(connection);
        writer.put(b"\r\n");
        writer.size
    }

    /// Writes a 404 for a key that the origin does not have. Answers its size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    pub fn absent(
        &self,
        out: &mut [u8],
        term: Term,
        source: Source,
        head_only: bool,
        connection: Connection,
    ) -> usize {
        let mut writer = self.begin(room(out), Refusal::NotFound.status());
        // An absence is not served beyond its time.
        self.caching(&mut writer, term, Beyond(0), source);
        writer.json(Refusal::NotFound.body().as_bytes(), head_only, connection)
    }

    /// Writes the answer to `/healthz`. Answers its size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    pub fn health(&self, out: &mut [u8], head_only: bool, connection: Connection) -> usize {
        self.begin(room(out), "200 OK").json(BODY_HEALTH, head_only, connection)
    }

    /// Writes the interim reply to a client that waits to send its body. Answers its size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    #[must_use]
    pub fn go_on(&self, out: &mut [u8]) -> usize {
        let mut writer = Writer { out: room(out), size: 0 };
        writer.put(b"HTTP/1.1 100 Continue\r\n\r\n");
        writer.size
    }

    /// Writes the head of the reply to a batch, whose items follow in chunks or, for HTTP/1.0,
    /// until the connection ends. Answers its size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    #[must_use]
    pub fn items(&self, out: &mut [u8], connection: Connection, is_chunked: bool) -> usize {
        let mut writer = self.begin(room(out), "200 OK");
        writer.field("Content-Type: ", JSON);
        writer.put(b"Cache-Control: no-store\r\n");
        writer.connection(connection);
        writer.put(if is_chunked { b"Transfer-Encoding: chunked\r\n".as_slice() } else { b"" });
        writer.put(b"\r\n");
        writer.size
    }

    /// Writes the answer to a PUT that has stored a value under `etag`. Answers its size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    pub fn stored(
        &self,
        out: &mut [u8],
        etag: Etag,
        is_new: bool,
        connection: Connection,
    ) -> usize {
        let status = if is_new { "201 Created" } else { "204 No Content" };
        let mut writer = self.begin(room(out), status);
        writer.etag(etag);
        writer.connection(connection);
        // A 204 must not say how long the body is that it cannot have (RFC 9110 section 8.6).
        writer.put(if is_new { b"Content-Length: 0\r\n\r\n".as_slice() } else { b"\r\n" });
        writer.size
    }

    /// Writes the answer to a DELETE that has done so. Answers its size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    pub fn deleted(&self, out: &mut [u8], connection: Connection) -> usize {
        let mut writer = self.begin(room(out), "204 No Content");
        writer.connection(connection);
        writer.put(b"\r\n");
        writer.size
    }

    /// Writes an error. Answers its size.
    ///
    /// # Panics
    /// If `out` is shorter than [`REPLY_HEAD_SIZE_MAX`].
    pub fn refused(
        &self,
        out: &mut [u8],
        refusal: Refusal,
        head_only: bool,
        connection: Connection,
    ) -> usize {
        let mut writer = self.begin(room(out), refusal.status());
        writer.put(refusal.fields().as_bytes());
        writer.json(refusal.body().as_bytes(), head_only, connection)
    }

    /// The status line, the date and the shard.
    fn begin<'a>(&self, out: &'a mut [u8; REPLY_HEAD_SIZE_MAX], status: &str) -> Writer<'a> {
        let mut writer = Writer { out, size: 0 };
        writer.field("HTTP/1.1 ", status.as_bytes());
        writer.field("Date: ", self.date.text());
        if let Some((index, count)) = self.policy.shard {
            writer.put(b"Shard: ");
            writer.number(index.into());
            writer.put(b"/");
            writer.number(count.into());
            writer.put(b"\r\n");
        }
        writer
    }

    /// Cache-Status, Cache-Control and Age.
    fn caching(&self, writer: &mut Writer<'_>, term: Term, beyond: Beyond, source: Source) {
        let (lifetime_s, age_s) = match term {
            Term::Ever => (self.policy.max_age_s, 0),
            Term::Ends { lifetime_s, age_s } => (lifetime_s, age_s),
        };
        if self.policy.cache_status {
            writer.put(match source {
                Source::Hit => b"Cache-Status: pelton; hit; ttl=",
                Source::Fetched => b"Cache-Status: pelton; fwd=miss; stored; ttl=".as_slice(),
                Source::Collapsed => b"Cache-Status: pelton; fwd=miss; collapsed; ttl=",
                Source::Kept(failure) => kept(failure).0,
            });
            if age_s > lifetime_s {
                writer.put(b"-");
            }
            writer.number(u64::from(lifetime_s.abs_diff(age_s)));
            if let Source::Kept(failure) = source {
                writer.put(kept(failure).1);
            }
            writer.put(b"\r\n");
        }
        if self.policy.cache_control {
            writer.put(b"Cache-Control: max-age=");
            writer.number(u64::from(lifetime_s));
            let stale_s = match beyond {
                Beyond::AS_CONFIGURED => self.policy.stale_while_revalidate_s,
                Beyond::NEVER => 0,
                Beyond(stale_s) => stale_s,
            };
            if stale_s > 0 {
                writer.put(b", stale-while-revalidate=");
                writer.number(u64::from(stale_s));
            } else if beyond == Beyond::NEVER {
                writer.put(b", must-revalidate");
            }
            writer.put(b"\r\n");
        }
        writer.put(b"Age: ");
        writer.number(u64::from(age_s));
        writer.put(b"\r\n");
    }
}

/// How Cache-Status begins and ends where this failure lets a stale value be served. Without a
/// status the origin would be taken to have said that of the reply (RFC 9211 section 2.3): where it
/// failed, it is the one that a gateway has for that. What came and was too much has none, nor has
/// an origin that was not asked.
const fn kept(failure: FetchFailure) -> (&'static [u8], &'static [u8]) {
    const FAILED: &[u8] = b"Cache-Status: pelton; fwd=stale; fwd-status=502; ttl=";
    const TIMED_OUT: &[u8] = b"Cache-Status: pelton; fwd=stale; fwd-status=504; ttl=";
    const REFUSED: &[u8] = b"Cache-Status: pelton; fwd=stale; ttl=";
    match failure {
        FetchFailure::Unavailable => (FAILED, b""),
        FetchFailure::Timeout => (TIMED_OUT, b""),
        FetchFailure::TooLarge => (REFUSED, b"; detail=too_large"),
        FetchFailure::NoRoom => (REFUSED, b"; detail=no_room"),
    }
}

/// The first bytes of `out`, where a reply goes.
fn room(out: &mut [u8]) -> &mut [u8; REPLY_HEAD_SIZE_MAX] {
    out.first_chunk_mut().expect("the caller keeps REPLY_HEAD_SIZE_MAX bytes for a reply")
}

/// An offset in a template.
fn offset(size: usize) -> u16 {
    u16::try_from(size).expect("a template has REPLY_HEAD_SIZE_MAX bytes")
}

/// Appends to a reply.
struct Writer<'a> {
    out: &'a mut [u8; REPLY_HEAD_SIZE_MAX],
    size: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.size + bytes.len();
        self.out[self.size..end].copy_from_slice(bytes);
        self.size = end;
    }

    fn number(&mut self, number: u64) {
        self.put(itoa::Buffer::new().format(number).as_bytes());
    }

    /// A line: `name` with its colon and space, `value`, CRLF.
    fn field(&mut self, name: &str, value: &[u8]) {
        self.put(name.as_bytes());
        self.put(value);
        self.put(b"\r\n");
    }

    fn etag(&mut self, etag: Etag) {
        self.put(b"ETag: \"");
        self.put(&etag::digits(etag));
        self.put(b"\"\r\n");
    }

    fn connection(&mut self, connection: Connection) {
        match connection {
            Connection::Persistent => {}
            Connection::KeepAlive => self.put(b"Connection: keep-alive\r\n"),
            Connection::Close => self.put(b"Connection: close\r\n"),
        }
    }

    /// The end of a reply with a JSON body, which HEAD leaves out.
    fn json(mut self, body: &[u8], head_only: bool, connection: Connection) -> usize {
        self.field("Content-Type: ", JSON);
        self.connection(connection);
        self.put(b"Content-Length: ");
        self.number(u64::try_from(body.len()).expect("a body of this file is short"));
        self.put(b"\r\n\r\n");
        if !head_only {
            self.put(body);
        }
        self.size
    }
}

#[cfg(test)]
mod tests;
