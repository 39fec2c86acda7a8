//! What the head of a write says beside what every head says: who writes, what, and when.
//!
//! These lines are read in a second pass over a head that is known to be well formed, so that no
//! other request pays for them. What a client says here and is not understood is refused: a write
//! that was done otherwise than asked cannot be taken back.

use super::etag::EtagSet;
use super::head::{self, Body, Field, Head, Method, trim};
use super::refusal::Refusal;
use super::request::{RawKey, WriteLimits};
use super::response::CONTENT_TYPE_SIZE_MAX;
use crate::api_key::ApiKey;

/// The most seconds that are told apart; more say "for ever" (RFC 9111 section 1.2.2).
const DELTA_SECONDS_MAX: u32 = 1 << 31;

/// The head of a PUT or DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// What is written.
    pub key: RawKey<'a>,
    /// What a PUT says of its value; none for DELETE.
    pub put: Option<Put<'a>>,
    /// If-Match.
    pub if_match: Option<EtagSet>,
    /// If-None-Match.
    pub if_none_match: EtagSet,
    /// The client waits to be told to send the body.
    pub expects_continue: bool,
    /// Who writes bears the token.
    pub bears_token: bool,
    /// The key that he shows.
    pub credential: Option<&'a ApiKey>,
}

/// What a PUT says of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put<'a> {
    /// What it is: 1 to [`CONTENT_TYPE_SIZE_MAX`] visible ASCII characters or spaces.
    pub content_type: &'a str,
    /// Cache-Control's `max-age`, seconds.
    pub max_age_s: Option<u32>,
    /// Cache-Control's `stale-while-revalidate`, seconds.
    pub stale_while_revalidate_s: Option<u32>,
    /// Cache-Control's `stale-if-error`, seconds.
    pub stale_if_error_s: Option<u32>,
}

impl Put<'_> {
    const JSON: Self = Self {
        content_type: "application/json",
        max_age_s: None,
        stale_while_revalidate_s: None,
        stale_if_error_s: None,
    };
}

/// What the lines say.
#[derive(Default)]
struct Lines<'a> {
    authorizations: u32,
    is_authorized: bool,
    if_match: Option<EtagSet>,
    if_none_match: Option<EtagSet>,
    content_type: Option<&'a [u8]>,
    content_range: bool,
    content_encoding: bool,
    is_broken: Option<Refusal>,
}

/// Reads what `text`, the head that was read as `head`, says of the write of `key`.
pub(super) fn read<'a>(
    text: &'a [u8],
    head: &Head<'a>,
    key: RawKey<'a>,
    limits: &WriteLimits,
) -> Result<Write<'a>, Refusal> {
    let mut put = Put::JSON;
    let mut lines = Lines::default();
    for field in head::fields(text) {
        if let Err(refusal) = lines.note(&field, &mut put, limits) {
            lines.is_broken.get_or_insert(refusal);
        }
    }
    // A stranger learns nothing else.
    let bears_token = lines.is_authorized && lines.authorizations == 1;
    if !bears_token && !limits.by_tenants {
        return Err(Refusal::Unauthorized);
    }
    if let Some(refusal) = lines.is_broken {
        return Err(refusal);
    }
    let put = if head.method == Method::Put {
        Some(lines.put(put, head.body, limits)?)
    } else if head.body == Body::Length(0) {
        None
    } else {
        return Err(Refusal::BodyNotAllowed);
    };
    Ok(Write {
        key,
        put,
        if_match: lines.if_match,
        if_none_match: lines.if_none_match.unwrap_or_default(),
        expects_continue: head.expects_continue(),
        bears_token,
        credential: head.request.credential,
    })
}

impl<'a> Lines<'a> {
    /// Notes one line.
    fn note(
        &mut self,
        field: &Field<'a>,
        put: &mut Put<'_>,
        limits: &WriteLimits,
    ) -> Result<(), Refusal> {
        let value = field.value;
        let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
        if is("authorization") {
            self.authorizations += 1;
            self.is_authorized = limits.token.as_ref().is_some_and(|token| token.is_in(value));
        } else if is("if-match") {
            let set = self.if_match.get_or_insert_default();
            if !set.read_whole(value, false) {
                return Err(Refusal::BadPrecondition);
            }
        } else if is("if-none-match") {
            let set = self.if_none_match.get_or_insert_default();
            if !set.read_whole(value, true) {
                return Err(Refusal::BadPrecondition);
            }
        } else if is("content-type") {
            if self.content_type.replace(value).is_some() {
                return Err(Refusal::ContentTypeUnsupported);
            }
        } else if is("content-range") {
            self.content_range = true;
        } else if is("content-encoding") {
            self.content_encoding = true;
        } else if is("cache-control") {
            put.note_cache_control(value)?;
        }
        Ok(())
    }

    /// What a PUT with these lines says.
    fn put(&self, said: Put<'a>, body: Body, limits: &WriteLimits) -> Result<Put<'a>, Refusal> {
        // The value would be a part of itself (RFC 9110 section 14.5).
        if self.content_range {
            return Err(Refusal::ContentRangeNotAllowed);
        }
        if self.content_encoding {
            return Err(Refusal::ContentEncodingUnsupported);
        }
        if matches!(body, Body::Length(size) if size > limits.value_size_max) {
            return Err(Refusal::ContentTooLarge);
        }
        let content_type = match self.content_type {
            None => said.content_type,
            Some(text) => content_type(text).ok_or(Refusal::ContentTypeUnsupported)?,
        };
        Ok(Put { content_type, ..said })
    }
}

/// A content type that a reply can carry.
fn content_type(text: &[u8]) -> Option<&str> {
    let is_sized = (1..=CONTENT_TYPE_SIZE_MAX).contains(&text.len());
    let is_visible = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if is_sized && is_visible { std::str::from_utf8(text).ok() } else { None }
}

impl Put<'_> {
    /// Notes the directives of one Cache-Control (RFC 9111 section 5.2, RFC 5861).
    fn note_cache_control(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let mut rest = value;
        while !rest.is_empty() {
            let (directive, after) = directive(rest).ok_or(Refusal::BadCacheControl)?;
            rest = after;
            let equals = directive.iter().position(|&byte| byte == b'=');
            let (name, argument) = directive.split_at(equals.unwrap_or(directive.len()));
            let is = |lower: &str| name.eq_ignore_ascii_case(lower.as_bytes());
            let place = if is("max-age") {
                &mut self.max_age_s
            } else if is("stale-while-revalidate") {
                &mut self.stale_while_revalidate_s
            } else if is("stale-if-error") {
                &mut self.stale_if_error_s
            } else {
                continue;
            };
            let seconds = delta_seconds(argument).ok_or(Refusal::BadCacheControl)?;
            if place.replace(seconds).is_some() {
                return Err(Refusal::BadCacheControl);
            }
        }
        Ok(())
    }
}

/// The first directive of a list, and what follows its comma. None if a quoted string has no end.
fn directive(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, &byte) in list.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return Some((trim(&list[..at]), &list[at + 1..])),
            _ => {}
        }
    }
    (!is_quoted).then(|| (trim(list), &[] as &[u8]))
}

/// The number behind `=`, as a token or in quotes.
fn delta_seconds(argument: &[u8]) -> Option<u32> {
    let ([b'=', b'"', digits @ .., b'"'] | [b'=', digits @ ..]) = argument else { return None };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, |seconds: u32, &byte| {
        let digit = char::from(byte).to_digit(10)?;
        Some(seconds.saturating_mul(10).saturating_add(digit).min(DELTA_SECONDS_MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_control(value: &str) -> Option<[Option<u32>; 3]> {
        let mut put = Put::JSON;
        put.note_cache_control(value.as_bytes()).ok()?;
        Some([put.max_age_s, put.stale_while_revalidate_s, put.stale_if_error_s])
    }

    #[test]
    fn lifetimes_are_read_among_other_directives() {
        for (value, seconds) in [
            ("", [None; 3]),
            ("max-age=60", [Some(60), None, None]),
            ("Max-Age=\"60\" , no-store", [Some(60), None, None]),
            ("stale-if-error=3,, max-age=1,stale-while-revalidate=2", [Some(1), Some(2), Some(3)]),
            ("private=\"max-age=1, x\\\"\", max-age=2", [Some(2), None, None]),
            ("max-age=99999999999999999999", [Some(DELTA_SECONDS_MAX), None, None]),
            ("s-maxage=1, immutable", [None; 3]),
        ] {
            assert_eq!(cache_control(value), Some(seconds), "{value}");
        }
    }

    #[test]
    fn a_lifetime_that_is_no_number_is_refused() {
        for value in
            ["max-age", "max-age=", "max-age=-1", "max-age=1s", "max-age=\"1", "max-age= 1"]
        {
            assert_eq!(cache_control(value), None, "{value}");
        }
        assert_eq!(cache_control("max-age=1, max-age=1"), None);
    }
}
