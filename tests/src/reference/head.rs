//! What a whole head means: its lines one by one, then all of them together.

use super::body::Body;
use super::write::write;
use super::{is_token, is_value, run, size};
use crate::meaning::{ETAG, Event};
use pelton::http::{Connection, HttpLimits, Refusal};

/// Longest method, and digits of a length.
const METHOD_SIZE_MAX: usize = 32;
const LENGTH_DIGITS_MAX: usize = 19;

/// Tags of the form of ours that are looked at.
const TAGS_COUNT_MAX: usize = 4;

/// A head, its lines taken apart; names in lower case, values without the space around them.
#[derive(Debug)]
pub(super) struct Lines {
    method: String,
    target: String,
    version_1_0: bool,
    fields: Vec<(String, Vec<u8>)>,
}

/// Where a request goes.
enum Route {
    Health,
    Key(Vec<u8>),
    Batch,
}

/// What a head means.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) event: Event,
    pub(super) any_match: bool,
    pub(super) keep_alive: bool,
    pub(super) body: Body,
    /// Bytes of data that the body may have.
    pub(super) data_size_max: usize,
}

impl Lines {
    /// Takes apart `text`, which ends with its first blank line.
    pub(super) fn read(text: &[u8], limits: &HttpLimits) -> Result<Self, Refusal> {
        let text = text.strip_suffix(b"\r\n\r\n").expect("a head ends with a blank line");
        let mut lines = split(text, b"\r\n").into_iter();
        let mut head = Self::request_line(lines.next().expect("a split has a part"), limits)?;
        for (index, line) in lines.enumerate() {
            let field = field(line)?;
            head.check(&field)?;
            head.fields.push(field);
            if index >= usize::from(limits.headers_count_max) {
                return Err(Refusal::TooManyFields);
            }
        }
        Ok(head)
    }

    /// method SP target SP version: RFC 9112 3.
    fn request_line(line: &[u8], limits: &HttpLimits) -> Result<Self, Refusal> {
        let method = run(line, is_token);
        if method > METHOD_SIZE_MAX {
            return Err(Refusal::MethodUnknown);
        }
        if method == 0 || line.get(method) != Some(&b' ') {
            return Err(Refusal::BadRequestLine);
        }
        let (method, rest) = (&line[..method], &line[method + 1..]);
        let target = run(rest, |byte| byte.is_ascii_graphic() && byte != b'#');
        if target > size(limits.target_size_max) {
            return Err(Refusal::TargetTooLong);
        }
        if target == 0 || rest.get(target) != Some(&b' ') {
            return Err(Refusal::BadRequestLine);
        }
        let (target, version) = (&rest[..target], &rest[target + 1..]);
        let version_1_0 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(Refusal::VersionUnknown);
            }
            _ => return Err(Refusal::BadRequestLine),
        };
        Ok(Self { method: text(method), target: text(target), version_1_0, fields: Vec::new() })
    }

    /// Checks a field by itself and beside those before it.
    fn check(&self, (name, value): &(String, Vec<u8>)) -> Result<(), Refusal> {
        let is_repeated = !self.values(name).is_empty();
        let is_number =
            (1..=LENGTH_DIGITS_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        match name.as_str() {
            "host" if is_repeated || !is_host(value) => Err(Refusal::BadHost),
            "content-length" if is_repeated || !is_number => Err(Refusal::BadContentLength),
            "transfer-encoding" if is_repeated => Err(Refusal::BadTransferEncoding),
            _ => Ok(()),
        }
    }

    pub(super) fn is(&self, method: &str) -> bool {
        self.method == method
    }

    /// Names in lower case, and values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Whether it waits to be told to send `body`: RFC 9110 10.1.1.
    pub(super) fn waits(&self, body: &Body) -> bool {
        !self.version_1_0 && *body != Body::None && !self.values("expect").is_empty()
    }

    pub(super) fn values(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| &value[..]).collect()
    }

    /// What the lines mean together.
    pub(super) fn judge(&self, limits: &HttpLimits) -> Result<Head, Refusal> {
        if self.values("host").is_empty() && !self.version_1_0 {
            return Err(Refusal::BadHost);
        }
        let body = self.body(limits)?;
        let is_read = ["GET", "HEAD"].contains(&&*self.method);
        if is_read && body != Body::None {
            return Err(Refusal::BodyNotAllowed);
        }
        if self.method == "CONNECT" {
            return Err(Refusal::MethodUnknown);
        }
        let route = self.route(limits)?;
        let served = self.served(route, &body, limits);

        // RFC 9110 10.1.1: whether the body follows cannot be known.
        let is_withheld =
            served.is_err() && body != Body::None && !self.values("expect").is_empty();
        let body = if is_withheld { Body::None } else { body };
        let options = self.values("connection").join(&b',');
        let has_option = |option: &str| {
            split(&options, b",")
                .iter()
                .any(|one| trim(one).eq_ignore_ascii_case(option.as_bytes()))
        };
        let persists = !self.version_1_0 || has_option("keep-alive");
        let keep_alive = persists && !has_option("close") && !is_withheld;
        let connection = match (keep_alive, self.version_1_0) {
            (false, _) => Connection::Close,
            (true, true) => Connection::KeepAlive,
            (true, false) => Connection::Persistent,
        };

        let data_size_max = match &served {
            Ok(Event::Write { .. }) => limits.writes.as_ref().map(|writes| writes.value_size_max),
            Ok(Event::Batch { .. }) => Some(limits.batch.body_size_max),
            _ => None,
        };
        let data_size_max =
            data_size_max.map_or(limits.body_size_max, |own| own.min(limits.body_size_max));
        let any_match = self.matches().is_none();
        let event = match served {
            Ok(event) => on(event, connection),
            Err(refusal) => Event::Answered { refusal, connection },
        };
        Ok(Head { event, any_match, keep_alive, body, data_size_max: size(data_size_max) })
    }

    /// What it asks for, or the error that answers it. What it says of the connection comes later.
    fn served(
        &self,
        route: Result<Route, Refusal>,
        body: &Body,
        limits: &HttpLimits,
    ) -> Result<Event, Refusal> {
        let connection = Connection::Persistent;
        let head_only = self.is("HEAD");
        match (route?, &limits.writes) {
            (Route::Health, _) => Ok(Event::Health { connection, head_only }),
            (Route::Key(key), Some(writes)) if self.is("PUT") || self.is("DELETE") => {
                write(self, key, body, writes)
            }
            (Route::Key(key), _) => {
                let matches = self.matches() == Some(true);
                Ok(Event::Lookup { key, connection, head_only, matches })
            }
            (Route::Batch, _) => match body {
                Body::Length(length) if *length > size(limits.batch.body_size_max) => {
                    Err(Refusal::ContentTooLarge)
                }
                Body::None | Body::Length(_) | Body::Chunked => {
                    Ok(Event::Batch { waits: self.waits(body), body: Vec::new(), connection })
                }
            },
        }
    }

    /// RFC 9112 6.3; a list of codings that ends with chunked has an end, which is not looked for.
    fn body(&self, limits: &HttpLimits) -> Result<Body, Refusal> {
        let (codings, lengths) = (self.values("transfer-encoding"), self.values("content-length"));
        match (&codings[..], &lengths[..]) {
            ([], []) => Ok(Body::None),
            ([], [length, ..]) => {
                let length: u64 = text(length).parse().expect("19 digits fit");
                match usize::try_from(length) {
                    Ok(0) => Ok(Body::None),
                    Ok(length) if length <= size(limits.body_size_max) => Ok(Body::Length(length)),
                    _ => Err(Refusal::ContentTooLarge),
                }
            }
            ([_, ..], [_, ..]) => Err(Refusal::BadTransferEncoding),
            ([_, ..], []) if self.version_1_0 => Err(Refusal::BadTransferEncoding),
            ([coding, ..], []) => {
                let codings = split(coding, b",");
                let last = codings.last().expect("a split has a part");
                match (trim(last).eq_ignore_ascii_case(b"chunked"), codings.len()) {
                    (true, 1) => Ok(Body::Chunked),
                    (true, _) => Err(Refusal::CodingUnknown),
                    (false, _) => Err(Refusal::BadTransferEncoding),
                }
            }
        }
    }

    /// Where it goes, or the error that answers it.
    fn route(&self, limits: &HttpLimits) -> Result<Result<Route, Refusal>, Refusal> {
        if self.target == "*" && self.method == "OPTIONS" {
            return Ok(Err(Refusal::MethodNotAllowed));
        }
        let path = self.path()?;
        let expects = self.values("expect");
        if expects.iter().any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
            return Ok(Err(Refusal::ExpectationFailed));
        }
        let resource = match path.strip_prefix("/lookup/") {
            Some("") => Err(Refusal::NotFound),
            Some(escaped) => key(escaped, usize::from(limits.key_size_max)).map(Route::Key),
            None if path == "/healthz" => Ok(Route::Health),
            None if path == "/lookup" => Ok(Route::Batch),
            None => Err(Refusal::NotFound),
        };
        let is_write = ["PUT", "DELETE"].contains(&&*self.method);
        Ok(match (self.method.as_str(), resource) {
            (
                "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "OPTIONS",
                Err(other),
            ) => Err(other),
            ("POST", Ok(Route::Batch)) => Ok(Route::Batch),
            (
                "GET" | "HEAD" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "OPTIONS",
                Ok(Route::Batch),
            ) => Err(Refusal::MethodNotAllowedOfBatch),
            ("GET" | "HEAD", Ok(route)) => Ok(route),
            (_, Ok(Route::Key(key))) if is_write && limits.writes.is_some() => Ok(Route::Key(key)),
            ("POST" | "PATCH" | "TRACE" | "OPTIONS", Ok(Route::Key(_)))
                if limits.writes.is_some() =>
            {
                Err(Refusal::MethodNotAllowedOfKey)
            }
            ("POST" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "OPTIONS", Ok(_)) => {
                Err(Refusal::MethodNotAllowed)
            }
            _ => Err(Refusal::MethodUnknown),
        })
    }

    /// The path of a target in origin form or absolute form: RFC 9112 3.2.
    fn path(&self) -> Result<&str, Refusal> {
        let path = if self.target.starts_with('/') {
            &self.target
        } else {
            let (scheme, rest) = self.target.split_once("://").ok_or(Refusal::BadTarget)?;
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let is_http = ["http", "https"].contains(&&*scheme.to_ascii_lowercase());
            if !is_http || authority.is_empty() || !is_host(authority.as_bytes()) {
                return Err(Refusal::BadTarget);
            }
            path
        };
        Ok(path.split('?').next().expect("a split has a part"))
    }

    /// Whether `If-None-Match` names [`ETAG`]; `None` if it is malformed. RFC 9110 13.1.2.
    fn matches(&self) -> Option<bool> {
        let mut ours = Vec::new();
        let mut any = false;
        for value in self.values("if-none-match") {
            if value == b"*" {
                any = true;
                continue;
            }
            for tag in tags(value)?.into_iter().map(|tag| tag.opaque) {
                let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                if tag.len() == 16 && tag.iter().all(is_hex) {
                    ours.push(tag);
                }
            }
        }
        ours.truncate(TAGS_COUNT_MAX);
        Some(any || ours.contains(&format!("{:016x}", ETAG.bits()).as_bytes()))
    }
}

/// `event` of a request that says this about the connection.
fn on(mut event: Event, said: Connection) -> Event {
    match &mut event {
        Event::Health { connection, .. }
        | Event::Lookup { connection, .. }
        | Event::Write { connection, .. }
        | Event::Batch { connection, .. }
        | Event::Answered { connection, .. } => *connection = said,
        Event::Broken(_) => {}
    }
    event
}

/// name ":" OWS value OWS: RFC 9112 5.
fn field(line: &[u8]) -> Result<(String, Vec<u8>), Refusal> {
    let name = run(line, is_token);
    if name == 0 || line.get(name) != Some(&b':') {
        return Err(Refusal::BadFieldName);
    }
    let (name, value) = (&line[..name], &line[name + 1..]);
    if !value.iter().all(|byte| is_value(*byte)) {
        return Err(Refusal::BadFieldValue);
    }
    Ok((text(name).to_ascii_lowercase(), trim(value).to_vec()))
}

/// The key behind `escaped`: RFC 3986 2.1.
fn key(escaped: &str, size_max: usize) -> Result<Vec<u8>, Refusal> {
    let mut parts = escaped.split('%');
    let mut key = parts.next().expect("a split has a part").as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|two| two.bytes().all(|one| one.is_ascii_hexdigit()));
        let byte = u8::from_str_radix(digits.ok_or(Refusal::BadEscape)?, 16);
        key.push(byte.expect("two hex digits are a byte"));
        key.extend(&part.as_bytes()[2..]);
    }
    if key.len() > size_max { Err(Refusal::KeyTooLong) } else { Ok(key) }
}

/// One tag of a list, without its quotes.
pub(super) struct ListedTag<'a> {
    pub(super) opaque: &'a [u8],
    pub(super) is_weak: bool,
}

/// The tags of a list; `None` if it is none. RFC 9110 8.8.3 and 5.6.1.
pub(super) fn tags(list: &[u8]) -> Option<Vec<ListedTag<'_>>> {
    let mut tags = Vec::new();
    let mut rest = trim(list);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b",") {
            rest = trim(after);
            continue;
        }
        let quoted = rest.strip_prefix(b"W/").unwrap_or(rest).strip_prefix(b"\"")?;
        let size = run(quoted, |byte| byte == 0x21 || (byte > 0x22 && byte != 0x7f));
        tags.push(ListedTag { opaque: &quoted[..size], is_weak: rest.starts_with(b"W/") });
        rest = trim(quoted[size..].strip_prefix(b"\"")?);
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    Some(tags)
}

/// What a host with its port consists of: RFC 3986 3.2.2 and 3.2.3; no user information.
fn is_host(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%:[]!$&'()*+,;=".contains(byte))
}

/// Without the optional space at both ends: RFC 9110 5.6.3.
pub(super) fn trim(value: &[u8]) -> &[u8] {
    let start = run(value, |byte| byte == b' ' || byte == b'\t');
    let end = value.iter().rposition(|byte| *byte != b' ' && *byte != b'\t');
    end.map_or(&[], |end| &value[start..=end])
}

fn split<'a>(text: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(separator) {
            parts.push(&text[start..at]);
            at += separator.len();
            start = at;
        } else {
            at += 1;
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Text of visible ASCII.
pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}
