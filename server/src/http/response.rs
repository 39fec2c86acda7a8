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
mod tests {
    use super::{
        Beyond, CONTENT_TYPE_SIZE_MAX, Connection, Etag, FetchFailure, HeadPolicy,
        REPLY_HEAD_SIZE_MAX, Refusal, Replies, Served, Source, Term, WallSeconds,
    };

    const POLICY: HeadPolicy = HeadPolicy {
        cache_control: true,
        cache_status: true,
        max_age_s: 60,
        stale_while_revalidate_s: 30,
        shard: None,
    };
    const ETAG: Etag = Etag::from_bits(0x00c0_ffee_00c0_ffee);
    const CONNECTIONS: [Connection; 3] =
        [Connection::Persistent, Connection::KeepAlive, Connection::Close];
    const SOURCES: [Source; 4] =
        [Source::Hit, Source::Fetched, Source::Collapsed, Source::Kept(FetchFailure::Unavailable)];

    fn replies(policy: HeadPolicy) -> Replies {
        Replies::new(policy, WallSeconds(784_111_777))
    }

    /// What `write` writes, which must not reach beyond the size it answers.
    fn text(write: impl FnOnce(&mut [u8]) -> usize) -> String {
        let mut out = [b'?'; REPLY_HEAD_SIZE_MAX + 64];
        let size = write(&mut out);
        assert!(out[size..].iter().all(|&byte| byte == b'?'), "nothing behind the reply");
        String::from_utf8(out[..size].to_vec()).expect("ASCII")
    }

    fn served(term: Term, source: Source) -> Served {
        Served { etag: ETAG, term, beyond: Beyond::AS_CONFIGURED, source }
    }

    fn ends(lifetime_s: u32, age_s: u32) -> Term {
        Term::Ends { lifetime_s, age_s }
    }

    fn found(policy: HeadPolicy, term: Term, source: Source, connection: Connection) -> String {
        let replies = replies(policy);
        let template = replies.template(b"text/plain");
        text(|out| replies.found(out, &template, &served(term, source), 153, connection))
    }

    #[test]
    fn a_hit_of_an_entry_that_never_expires_is_as_new() {
        assert_eq!(
            found(POLICY, Term::Ever, Source::Hit, Connection::Persistent),
            "HTTP/1.1 200 OK\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/plain\r\n\
             ETag: \"00c0ffee00c0ffee\"\r\n\
             Cache-Status: pelton; hit; ttl=60\r\n\
             Cache-Control: max-age=60, stale-while-revalidate=30\r\n\
             Age: 0\r\n\
             Content-Length: 153\r\n\r\n"
        );
    }

    #[test]
    fn what_is_left_is_max_age_less_age() {
        for (term, lines) in [
            (ends(60, 0), ["hit; ttl=60", "max-age=60,", "Age: 0\r"]),
            (ends(60, 12), ["hit; ttl=48", "max-age=60,", "Age: 12\r"]),
            (ends(60, 60), ["hit; ttl=0", "max-age=60,", "Age: 60\r"]),
            (ends(60, 63), ["hit; ttl=-3", "max-age=60,", "Age: 63\r"]),
        ] {
            let head = found(POLICY, term, Source::Hit, Connection::Persistent);
            assert!(lines.iter().all(|line| head.contains(line)), "{head}");
        }
    }

    #[test]
    fn a_value_is_sent_with_its_own_words_where_it_has_some() {
        let replies = replies(POLICY);
        let template = replies.template(b"text/plain");
        for (beyond, words) in [
            (Beyond::AS_CONFIGURED, "60, stale-while-revalidate=30"),
            (Beyond(7), "60, stale-while-revalidate=7"),
            (Beyond(0), "60"),
            (Beyond::NEVER, "60, must-revalidate"),
        ] {
            for term in [Term::Ever, ends(60, 0)] {
                let served = Served { beyond, ..served(term, Source::Hit) };
                let [connection, ..] = CONNECTIONS;
                let found = text(|out| replies.found(out, &template, &served, 153, connection));
                let unchanged = text(|out| replies.not_modified(out, &served, connection));
                for head in [found, unchanged] {
                    let line = format!("\r\nCache-Control: max-age={words}\r\n");
                    assert!(head.contains(&line), "{head}");
                }
            }
        }
    }

    #[test]
    fn the_source_and_the_connection_are_named() {
        let fetched = found(POLICY, ends(60, 0), Source::Fetched, Connection::Close);
        assert!(fetched.contains("\r\nCache-Status: pelton; fwd=miss; stored; ttl=60\r\n"));
        assert!(fetched.contains("\r\nConnection: close\r\n"));
        let collapsed = found(POLICY, Term::Ever, Source::Collapsed, Connection::KeepAlive);
        assert!(collapsed.contains("\r\nCache-Status: pelton; fwd=miss; collapsed; ttl=60\r\n"));
        assert!(collapsed.contains("\r\nConnection: keep-alive\r\n"));
    }

    #[test]
    fn what_was_kept_for_errors_is_served_with_the_error() {
        for (failure, status) in [
            (FetchFailure::Timeout, "fwd=stale; fwd-status=504; ttl=-3"),
            (FetchFailure::Unavailable, "fwd=stale; fwd-status=502; ttl=-3"),
            (FetchFailure::TooLarge, "fwd=stale; ttl=-3; detail=too_large"),
            (FetchFailure::NoRoom, "fwd=stale; ttl=-3; detail=no_room"),
        ] {
            let source = Source::Kept(failure);
            let head = found(POLICY, ends(60, 63), source, Connection::Persistent);
            assert!(head.contains(&format!("\r\nCache-Status: pelton; {status}\r\n")), "{head}");
        }
    }

    #[test]
    fn the_template_is_what_would_be_written_line_by_line() {
        let at_once = found(POLICY, Term::Ever, Source::Hit, Connection::Persistent);
        let by_line = found(POLICY, ends(60, 0), Source::Hit, Connection::Persistent);
        assert_eq!(at_once, by_line);
    }

    #[test]
    fn the_policy_leaves_lines_out() {
        for term in [Term::Ever, ends(9, 1)] {
            let policy = HeadPolicy { cache_control: false, ..POLICY };
            let head = found(policy, term, Source::Hit, Connection::Persistent);
            assert!(!head.contains("Cache-Control") && head.contains("\r\nAge: "), "{head}");
            let policy = HeadPolicy { cache_status: false, ..POLICY };
            let head = found(policy, term, Source::Hit, Connection::Persistent);
            assert!(!head.contains("Cache-Status"), "{head}");
            let policy = HeadPolicy { stale_while_revalidate_s: 0, ..POLICY };
            let head = found(policy, term, Source::Hit, Connection::Persistent);
            assert!(!head.contains("stale-while") && head.contains("max-age="), "{head}");
        }
    }

    #[test]
    fn every_reply_names_its_shard_where_that_is_wanted() {
        let policy = HeadPolicy { shard: Some((3, 16)), ..POLICY };
        let replies = replies(policy);
        let served = served(Term::Ever, Source::Hit);
        let [persistent, ..] = CONNECTIONS;
        for head in [
            found(policy, Term::Ever, Source::Hit, persistent),
            found(policy, ends(9, 1), Source::Fetched, Connection::Close),
            text(|out| replies.not_modified(out, &served, persistent)),
            text(|out| replies.absent(out, Term::Ever, Source::Hit, false, persistent)),
            text(|out| replies.refused(out, Refusal::Overloaded, false, persistent)),
            text(|out| replies.health(out, false, persistent)),
        ] {
            assert!(head.contains(" GMT\r\nShard: 3/16\r\n"), "{head}");
        }
    }

    #[test]
    fn not_modified_has_no_body_and_no_length() {
        let replies = replies(POLICY);
        let connection = Connection::Persistent;
        assert_eq!(
            text(|out| replies.not_modified(out, &served(ends(9, 1), Source::Hit), connection)),
            "HTTP/1.1 304 Not Modified\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             ETag: \"00c0ffee00c0ffee\"\r\n\
             Cache-Status: pelton; hit; ttl=8\r\n\
             Cache-Control: max-age=9, stale-while-revalidate=30\r\n\
             Age: 1\r\n\r\n"
        );
    }

    #[test]
    fn an_absent_key_is_a_404_that_may_be_cached() {
        let replies = replies(POLICY);
        assert_eq!(
            text(|out| replies.absent(out, ends(2, 0), Source::Hit, false, Connection::Close)),
            "HTTP/1.1 404 Not Found\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Cache-Status: pelton; hit; ttl=2\r\n\
             Cache-Control: max-age=2\r\n\
             Age: 0\r\n\
             Content-Type: application/json\r\n\
             Connection: close\r\n\
             Content-Length: 21\r\n\r\n\
             {\"error\":\"not_found\"}"
        );
    }

    #[test]
    fn every_refusal_is_framed_and_head_has_no_body() {
        let replies = replies(POLICY);
        for &refusal in Refusal::ALL {
            let [whole, head] = [false, true].map(|head_only| {
                text(|out| replies.refused(out, refusal, head_only, CONNECTIONS[0]))
            });
            let (lines, body) = whole.split_once("\r\n\r\n").expect("a blank line");
            assert_eq!(head, format!("{lines}\r\n\r\n"));
            assert_eq!(body, refusal.body());
            assert!(lines.starts_with(&format!("HTTP/1.1 {}\r\nDate: ", refusal.status())));
            assert!(lines.ends_with(&format!("\r\nContent-Length: {}", body.len())));
            let needs = |status: &str, line: &str| {
                assert_eq!(refusal.status().starts_with(status), lines.contains(line), "{lines}");
            };
            needs("401", "\r\nWWW-Authenticate: Bearer\r\n");
            needs("405", "\r\nAllow: ");
            needs("503", "\r\nRetry-After: 1\r\n");
        }
        let health = text(|out| replies.health(out, false, CONNECTIONS[0]));
        assert!(health.starts_with("HTTP/1.1 200 OK\r\nDate: "));
        assert!(health.ends_with("\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"));
    }

    #[test]
    fn a_write_is_answered_without_a_body_and_a_batch_without_a_length() {
        let replies = replies(POLICY);
        let [persistent, _, close] = CONNECTIONS;
        let created = text(|out| replies.stored(out, ETAG, true, persistent));
        assert!(created.starts_with("HTTP/1.1 201 Created\r\n"));
        assert!(created.ends_with("\r\nETag: \"00c0ffee00c0ffee\"\r\nContent-Length: 0\r\n\r\n"));
        for empty in [
            text(|out| replies.stored(out, ETAG, false, close)),
            text(|out| replies.deleted(out, close)),
        ] {
            assert!(empty.starts_with("HTTP/1.1 204 ") && !empty.contains("Content-Length"));
            assert!(empty.ends_with("\r\nConnection: close\r\n\r\n"), "{empty}");
        }
        assert_eq!(text(|out| replies.go_on(out)), "HTTP/1.1 100 Continue\r\n\r\n");
        let chunked = text(|out| replies.items(out, persistent, true));
        assert!(chunked.ends_with("no-store\r\nTransfer-Encoding: chunked\r\n\r\n"), "{chunked}");
        let old = text(|out| replies.items(out, close, false));
        assert!(old.ends_with("no-store\r\nConnection: close\r\n\r\n"), "{old}");
    }

    #[test]
    fn the_date_of_a_reply_follows_the_clock() {
        let mut replies = replies(POLICY);
        let template = replies.template(b"a/b");
        replies.set_date(WallSeconds(0));
        let served = served(Term::Ever, Source::Hit);
        let head = text(|out| replies.found(out, &template, &served, 0, CONNECTIONS[0]));
        assert!(head.contains("\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
    }

    #[test]
    fn no_reply_needs_more_room_than_the_bound_and_the_longest_needs_most_of_it() {
        let policy = HeadPolicy {
            max_age_s: u32::MAX,
            // The table of parameters allows a week.
            stale_while_revalidate_s: 7 * 24 * 3600,
            shard: Some((1023, 1024)),
            ..POLICY
        };
        let replies = replies(policy);
        let template = replies.template(&[b'x'; CONTENT_TYPE_SIZE_MAX]);
        let mut longest = 0;
        for connection in CONNECTIONS {
            for source in SOURCES {
                for term in [Term::Ever, ends(0, u32::MAX), ends(u32::MAX, u32::MAX)] {
                    let served = served(term, source);
                    let found =
                        text(|out| replies.found(out, &template, &served, u32::MAX, connection));
                    let unchanged = text(|out| replies.not_modified(out, &served, connection));
                    let absent = text(|out| replies.absent(out, term, source, false, connection));
                    longest = longest.max(found.len()).max(unchanged.len()).max(absent.len());
                }
            }
            for &refusal in Refusal::ALL {
                let refused = text(|out| replies.refused(out, refusal, false, connection));
                longest = longest.max(refused.len());
            }
        }
        assert!(longest <= REPLY_HEAD_SIZE_MAX, "{longest}");
        assert!(longest > REPLY_HEAD_SIZE_MAX - 64, "{longest}");
    }
}
