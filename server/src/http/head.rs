//! Reads one head: the bytes of a request up to its blank line.
//!
//! One pass, no look-back: each line is taken when its CRLF is there. The first rule that is
//! broken decides the refusal. What the header lines say together (framing, Host, Expect) is
//! judged once, after the last line. Fields that do not concern us are checked and skipped.
//!
//! ```text
//! GET /lookup/42?x HTTP/1.1 CR LF       method SP target SP version
//! Host: a CR LF                         token ':' OWS value OWS
//! CR LF                                 end: `size` counts up to here
//! ```

use super::etag::EtagSet;
use super::refusal::Refusal;
use super::request::{HttpLimits, Request, Route};
use super::scan;
use crate::api_key::{ApiKey, NOBODYS_KEY, key_in, key_in_authorization};

/// The longest method that is looked at. The longest registered one has 17 bytes; a longer token
/// is none that we know (RFC 9112 section 3).
const METHOD_SIZE_MAX: usize = 32;

/// Digits of a Content-Length: the most that always fit 64 bits.
const CONTENT_LENGTH_DIGITS_MAX: usize = 19;

/// `HTTP/1.1` with its CRLF.
const VERSION_SIZE: usize = 10;

/// A complete head.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// What it asks for.
    pub(crate) request: Request<'a>,
    /// What follows it. A write and a batch have always a body, if only an empty one.
    pub(crate) body: Body,
    /// What is to be done; a lookup by another method than GET and HEAD is a write.
    pub(crate) method: Method,
    /// The client may wait with the body for an answer (RFC 9110 section 10.1.1).
    pub(crate) may_wait: bool,
    /// Its bytes, the blank line included.
    pub(crate) size: usize,
}

/// How the bytes after a head are framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The next head follows.
    None,
    /// So many bytes, at most `body_size_max`, belong to the request; none only to a write
    /// or a batch.
    Length(u32),
    /// Chunks belong to the request.
    Chunked,
}

/// The method, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Put,
    Delete,
    Post,
    /// Known and not served on any path.
    Other,
    Options,
    Connect,
    Unknown,
}

/// The first line.
#[derive(Clone, Copy, Debug)]
struct RequestLine<'a> {
    method: Method,
    target: &'a [u8],
    /// Whether the target has neither a query nor an escape.
    is_plain: bool,
    version_1_0: bool,
}

/// What the header lines say.
#[derive(Debug, Default)]
struct Fields<'a> {
    host: bool,
    close: bool,
    keep_alive: bool,
    content_length: Option<u64>,
    transfer_encoding: Option<TransferEncoding>,
    expect: Option<Expect>,
    if_none_match: EtagSet,
    credential: Option<&'a ApiKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransferEncoding {
    Chunked,
    /// Codings that we do not know, and then chunked: the body would have an end.
    Other,
    /// The last coding is not chunked: nobody knows where the body ends.
    Endless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Continue,
    Other,
}

/// Why there is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is not complete yet.
    Partial,
    /// It breaks a rule, and framing is lost with it.
    Refused(Refusal),
}

impl Head<'_> {
    /// Whether a client whose body is read is to be told so: HTTP/1.0 has no interim replies.
    pub(crate) const fn expects_continue(&self) -> bool {
        self.may_wait && !self.request.version_1_0
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads the head at the start of `input`.
///
/// # Errors
/// [`Stop`], for the first rule that is broken.
#[inline]
pub(crate) fn read<'a>(input: &'a [u8], limits: &HttpLimits) -> Result<Head<'a>, Stop> {
    let size_max = usize::try_from(limits.head_size_max).expect("usize has 32 bits or more");
    let mut lines = Lines { bytes: &input[..input.len().min(size_max)], at: 0 };
    match read_lines(&mut lines, limits) {
        Ok((line, fields)) => Ok(conclude(&line, &fields, lines.at, limits)?),
        // Before the first line has ended it is the target that has no end.
        Err(Stop::Partial) if input.len() >= size_max => Err(match lines.at {
            0 => Refusal::TargetTooLong.into(),
            _ => Refusal::HeadTooLarge.into(),
        }),
        Err(stop) => Err(stop),
    }
}

#[inline]
fn read_lines<'a>(
    lines: &mut Lines<'a>,
    limits: &HttpLimits,
) -> Result<(RequestLine<'a>, Fields<'a>), Stop> {
    let line = lines.request_line(limits)?;
    let mut fields = Fields::default();
    for _ in 0..=limits.headers_count_max {
        match lines.field()? {
            Some(Field { name, value }) => fields.note(name, value)?,
            None => return Ok((line, fields)),
        }
    }
    Err(Refusal::TooManyFields.into())
}

/// A line after the first; the value is without its optional space.
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The lines of a head; `at` is where the next one begins.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// Takes the request line.
    #[inline]
    fn request_line(&mut self, limits: &HttpLimits) -> Result<RequestLine<'a>, Stop> {
        let (method, target_at) = match self.bytes {
            [b'G', b'E', b'T', b' ', ..] => (Method::Get, 4),
            _ => self.method()?,
        };
        let (target, is_plain) = self.target(target_at, limits)?;
        let version_at = target_at + target.len() + 1;
        let rest = &self.bytes[version_at..];
        let version = rest.first_chunk().ok_or_else(|| unfinished_line(rest))?;
        let version_1_0 = version_1_0(version)?;
        self.at = version_at + version.len();
        Ok(RequestLine { method, target, is_plain, version_1_0 })
    }

    /// The method, and where the target begins.
    fn method(&self) -> Result<(Method, usize), Stop> {
        let window = &self.bytes[..self.bytes.len().min(METHOD_SIZE_MAX + 1)];
        let end = scan::token_end(window, 0);
        match window.get(end) {
            None if end > METHOD_SIZE_MAX => Err(Refusal::MethodUnknown.into()),
            None => Err(Stop::Partial),
            Some(b' ') if end > 0 => Ok((Method::of(&window[..end]), end + 1)),
            Some(_) => Err(Refusal::BadRequestLine.into()),
        }
    }

    /// The target that begins at `from` and ends with a space, and whether it is plain.
    #[inline]
    fn target(&self, from: usize, limits: &HttpLimits) -> Result<(&'a [u8], bool), Stop> {
        let plain_end = scan::path_end(self.bytes, from);
        let mut end = plain_end;
        while let Some(b'?' | b'%') = self.bytes.get(end) {
            end = scan::path_end(self.bytes, end + 1);
        }
        let size_max = usize::try_from(limits.target_size_max).expect("usize has 32 bits or more");
        if end - from > size_max {
            return Err(Refusal::TargetTooLong.into());
        }
        match self.bytes.get(end) {
            None => Err(Stop::Partial),
            Some(b' ') if end > from => Ok((&self.bytes[from..end], end == plain_end)),
            Some(_) => Err(Refusal::BadRequestLine.into()),
        }
    }

    /// Takes a line after the first; `None` for the blank line. Inlined although writes read their
    /// lines once more: every hit comes by here.
    #[inline(always)]
    fn field(&mut self) -> Result<Option<Field<'a>>, Stop> {
        let (bytes, name_at) = (self.bytes, self.at);
        if bytes.get(name_at) == Some(&b'\r') {
            self.at = line_end(bytes, name_at, Refusal::BadFieldName)?;
            return Ok(None);
        }
        let colon = scan::token_end(bytes, name_at);
        match bytes.get(colon) {
            Some(b':') if colon > name_at => {}
            Some(_) => return Err(Refusal::BadFieldName.into()),
            None => return Err(Stop::Partial),
        }
        let end = scan::value_end(bytes, colon + 1);
        self.at = line_end(bytes, end, Refusal::BadFieldValue)?;
        Ok(Some(Field { name: &bytes[name_at..colon], value: trim(&bytes[colon + 1..end]) }))
    }
}

/// Why there is no version in `rest`, which is too short for one.
#[cold]
fn unfinished_line(rest: &[u8]) -> Stop {
    if rest.contains(&b'\n') { Refusal::BadRequestLine.into() } else { Stop::Partial }
}

/// Where the line ends whose CRLF is due at `at`.
#[inline]
fn line_end(bytes: &[u8], at: usize, otherwise: Refusal) -> Result<usize, Stop> {
    match bytes[at..] {
        [b'\r', b'\n', ..] => Ok(at + 2),
        [] | [b'\r'] => Err(Stop::Partial),
        _ => Err(otherwise.into()),
    }
}

/// Whether the version is HTTP/1.0 and not HTTP/1.1.
#[inline]
fn version_1_0(version: &[u8; VERSION_SIZE]) -> Result<bool, Refusal> {
    if version == b"HTTP/1.1\r\n" {
        return Ok(false);
    }
    match version {
        b"HTTP/1.0\r\n" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b'\r', b'\n']
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::VersionUnknown)
        }
        _ => Err(Refusal::BadRequestLine),
    }
}

/// Without the SP and HTAB at both ends (OWS of RFC 9110 section 5.6.3).
#[inline]
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

impl Method {
    /// Methods are case-sensitive (RFC 9110 section 9.1).
    fn of(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"POST" => Self::Post,
            b"PATCH" | b"TRACE" => Self::Other,
            b"OPTIONS" => Self::Options,
            b"CONNECT" => Self::Connect,
            _ => Self::Unknown,
        }
    }
}

/// Whether the token `name` is `lower`, which is in lower case, whatever the case of its letters.
///
/// Of all tchars only a letter becomes a lower-case letter when this bit is set, and `-` has it.
#[inline]
fn is<const SIZE: usize>(name: &[u8], lower: &[u8; SIZE]) -> bool {
    name.first_chunk().is_some_and(|name: &[u8; SIZE]| {
        name.iter().zip(lower).fold(0, |wrong, (a, b)| wrong | ((a | 0x20) ^ b)) == 0
    })
}

impl TransferEncoding {
    /// What a value says. The names of codings know no case (RFC 9112 section 7).
    fn of(value: &[u8]) -> Self {
        let is_chunked = |coding: &[u8]| trim(coding).eq_ignore_ascii_case(b"chunked");
        match value.iter().rposition(|&byte| byte == b',') {
            None if is_chunked(value) => Self::Chunked,
            Some(comma) if is_chunked(&value[comma + 1..]) => Self::Other,
            None | Some(_) => Self::Endless,
        }
    }
}

impl<'a> Fields<'a> {
    /// Notes one line.
    #[inline]
    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        match name.len() {
            4 if is(name, b"host") => {
                if self.host || !is_host(value) {
                    return Err(Refusal::BadHost);
                }
                self.host = true;
            }
            6 if is(name, b"expect") => {
                let expect = if value.eq_ignore_ascii_case(b"100-continue") {
                    Expect::Continue
                } else {
                    Expect::Other
                };
                self.expect = self.expect.filter(|&seen| seen == Expect::Other).or(Some(expect));
            }
            10 if is(name, b"connection") => self.note_connection(value),
            13 if is(name, b"if-none-match") => self.if_none_match.read(value),
            14 if is(name, b"content-length") => {
                let repeated = self.content_length.is_some();
                self.content_length = Some(content_length(value)?);
                if repeated {
                    return Err(Refusal::BadContentLength);
                }
            }
            17 if is(name, b"transfer-encoding") => {
                if self.transfer_encoding.is_some() {
                    return Err(Refusal::BadTransferEncoding);
                }
                self.transfer_encoding = Some(TransferEncoding::of(value));
            }
            9 | 13 => {
                if let Some(key) = credential(name, value) {
                    // Who shows two keys is neither.
                    let is_first = self.credential.is_none();
                    self.credential = Some(if is_first { key } else { NOBODYS_KEY });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(trim) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// How the body is framed.
    fn body(&self, version_1_0: bool, limits: &HttpLimits) -> Result<Body, Refusal> {
        match (self.transfer_encoding, self.content_length) {
            (None, None | Some(0)) => Ok(Body::None),
            (None, Some(size)) => match u32::try_from(size) {
                Ok(size) if size <= limits.body_size_max => Ok(Body::Length(size)),
                _ => Err(Refusal::ContentTooLarge),
            },
            (Some(_), Some(_)) => Err(Refusal::BadTransferEncoding),
            (Some(_), None) if version_1_0 => Err(Refusal::BadTransferEncoding),
            (Some(TransferEncoding::Chunked), None) => Ok(Body::Chunked),
            (Some(TransferEncoding::Other), None) => Err(Refusal::CodingUnknown),
            (Some(TransferEncoding::Endless), None) => Err(Refusal::BadTransferEncoding),
        }
    }
}

/// The key that a line shows which may be one that does. Not inlined: the loop over the lines of
/// every head costs more with it, whether there is one or not.
#[inline(never)]
fn credential<'a>(name: &[u8], value: &'a [u8]) -> Option<&'a ApiKey> {
    if is(name, b"x-api-key") && name.len() == 9 {
        Some(key_in(value))
    } else if is(name, b"authorization") {
        Some(key_in_authorization(value))
    } else {
        None
    }
}

/// One Content-Length: digits and nothing else.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    if value.is_empty() || value.len() > CONTENT_LENGTH_DIGITS_MAX {
        return Err(Refusal::BadContentLength);
    }
    value.iter().try_fold(0, |size: u64, &byte| match byte {
        b'0'..=b'9' => Ok(size * 10 + u64::from(byte - b'0')),
        _ => Err(Refusal::BadContentLength),
    })
}

/// Whether `value` has only bytes of a host with its port.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|&byte| scan::is_host(byte))
}

/// Judges what only the whole head shows.
#[inline]
fn conclude<'a>(
    line: &RequestLine<'a>,
    fields: &Fields<'a>,
    size: usize,
    limits: &HttpLimits,
) -> Result<Head<'a>, Refusal> {
    if !fields.host && !line.version_1_0 {
        return Err(Refusal::BadHost);
    }
    let body = fields.body(line.version_1_0, limits)?;
    let served = matches!(line.method, Method::Get | Method::Head);
    if served && body != Body::None {
        return Err(Refusal::BodyNotAllowed);
    }
    let route = route(line, fields, limits)?;

    // The answer is known and it is an error, so that a client that waits to be told to send its
    // body gets it now. Whether the body still follows cannot be known (RFC 9110 10.1.1).
    let is_taken = !served && matches!(route, Route::Lookup { .. } | Route::Batch);
    let may_wait = body != Body::None && fields.expect.is_some();
    let body_withheld = may_wait && !is_taken;
    let persistent = if line.version_1_0 { fields.keep_alive } else { true };
    let request = Request {
        route,
        head_only: line.method == Method::Head,
        keep_alive: persistent && !fields.close && !body_withheld,
        version_1_0: line.version_1_0,
        if_none_match: fields.if_none_match,
        credential: fields.credential,
    };
    let body = match body {
        Body::None if is_taken => Body::Length(0),
        Body::Length(_) | Body::Chunked if body_withheld => Body::None,
        Body::None | Body::Length(_) | Body::Chunked => body,
    };
    Ok(Head { request, body, method: line.method, may_wait, size })
}

/// The lines after the first of a head that was read.
pub(super) fn fields(head: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let first_end = head.iter().position(|&byte| byte == b'\n').map_or(head.len(), |at| at + 1);
    let mut lines = Lines { bytes: head, at: first_end };
    std::iter::from_fn(move || lines.field().ok().flatten())
}

/// Where the request goes.
#[inline]
fn route<'a>(
    line: &RequestLine<'a>,
    fields: &Fields<'_>,
    limits: &HttpLimits,
) -> Result<Route<'a>, Refusal> {
    // What a client sends behind CONNECT is not HTTP, and its target is no path.
    if line.method == Method::Connect {
        return Err(Refusal::MethodUnknown);
    }
    let Some(path) = path(line)? else {
        return Ok(Route::Refused(Refusal::MethodNotAllowed));
    };
    if fields.expect == Some(Expect::Other) {
        return Ok(Route::Refused(Refusal::ExpectationFailed));
    }
    let route = Route::of(path, line.is_plain, limits);
    Ok(match line.method {
        Method::Get | Method::Head => route,
        Method::Unknown => Route::Refused(Refusal::MethodUnknown),
        Method::Post if route == Route::Refused(Refusal::MethodNotAllowedOfBatch) => Route::Batch,
        Method::Put
        | Method::Delete
        | Method::Post
        | Method::Other
        | Method::Options
        | Method::Connect => {
            let is_put_or_delete = matches!(line.method, Method::Put | Method::Delete);
            match (route, &limits.writes) {
                (Route::Lookup { .. }, Some(_)) if is_put_or_delete => route,
                (Route::Lookup { .. }, Some(_)) => Route::Refused(Refusal::MethodNotAllowedOfKey),
                (Route::Refused(refusal), _) => Route::Refused(refusal),
                (Route::Lookup { .. } | Route::Health | Route::Write | Route::Batch, _) => {
                    Route::Refused(Refusal::MethodNotAllowed)
                }
            }
        }
    })
}

/// The path of the target, its query cut off; `None` for the server as a whole, `OPTIONS *`.
#[inline]
fn path<'a>(line: &RequestLine<'a>) -> Result<Option<&'a [u8]>, Refusal> {
    let target = match line.target {
        [b'/', ..] => line.target,
        b"*" if line.method == Method::Options => return Ok(None),
        target => after_authority(target)?,
    };
    if line.is_plain {
        return Ok(Some(target));
    }
    let end = target.iter().position(|&byte| byte == b'?').unwrap_or(target.len());
    Ok(Some(&target[..end]))
}

/// What follows the authority of an absolute-form target (RFC 9112 section 3.2.2).
///
/// The authority replaces Host; neither decides anything here, but both have to be valid.
fn after_authority(target: &[u8]) -> Result<&[u8], Refusal> {
    let scheme = target.iter().position(|&byte| byte == b':').ok_or(Refusal::BadTarget)?;
    let (scheme, rest) = target.split_at(scheme);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Refusal::BadTarget);
    }
    let rest = rest.strip_prefix(b"://").ok_or(Refusal::BadTarget)?;
    let end = rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority) {
        return Err(Refusal::BadTarget);
    }
    Ok(path)
}
