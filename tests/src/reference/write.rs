//! What the head of a write says beside what every head says, in the words of RFC 9110 and 9111.

use super::body::Body;
use super::head::{Lines, tags, text, trim};
use super::size;
use crate::meaning::{ETAG, Event};
use pelton::http::{CONTENT_TYPE_SIZE_MAX, Connection, Refusal, WriteLimits};

/// Tags of the form of ours that a precondition may name.
const TAGS_COUNT_MAX: usize = 4;

/// RFC 9111 1.2.2: more seconds need not be told apart.
const SECONDS_MAX: u64 = 1 << 31;

/// The write of `key`, or the error that answers it; its body has not come.
pub(super) fn write(
    lines: &Lines,
    key: Vec<u8>,
    body: &Body,
    limits: &WriteLimits,
) -> Result<Event, Refusal> {
    // RFC 6750 2.1; one credential.
    match lines.values("authorization")[..] {
        [credentials] if limits.token.as_ref().is_some_and(|token| token.is_in(credentials)) => {}
        _ => return Err(Refusal::Unauthorized),
    }
    let mut said = Said::default();
    for (name, value) in lines.fields() {
        said.note(name, value)?;
    }
    let is_put = lines.is("PUT");
    if !is_put && *body != Body::None {
        return Err(Refusal::BodyNotAllowed);
    }
    let put = if is_put { Some(said.put(lines, body, limits)?) } else { None };
    Ok(Event::Write {
        key,
        put,
        if_match: said.if_match.map(|set| set.matches()),
        if_none_match: said.if_none_match.is_some_and(|set| set.matches()),
        waits: lines.waits(body),
        body: Vec::new(),
        connection: Connection::Persistent,
    })
}

#[derive(Default)]
struct Said {
    if_match: Option<Set>,
    if_none_match: Option<Set>,
    lifetimes: [Option<u32>; 3],
    has_content_type: bool,
}

/// The tags of a precondition.
#[derive(Default)]
struct Set {
    any: bool,
    ours: Vec<Vec<u8>>,
}

impl Set {
    /// `*` alone, or a list of tags; weak ones count where the comparison is weak: RFC 9110 13.1.
    fn note(&mut self, value: &[u8], is_weak: bool) -> Option<()> {
        if value == b"*" {
            let is_alone = !self.any && self.ours.is_empty();
            self.any = true;
            return is_alone.then_some(());
        }
        if self.any {
            return None;
        }
        for tag in tags(value)? {
            let digits = tag.opaque;
            let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let is_ours = digits.len() == 16 && digits.iter().all(is_hex);
            if is_ours && (is_weak || !tag.is_weak) {
                self.ours.push(digits.to_vec());
            }
        }
        (self.ours.len() <= TAGS_COUNT_MAX).then_some(())
    }

    fn matches(&self) -> bool {
        self.any || self.ours.contains(&format!("{:016x}", ETAG.bits()).into_bytes())
    }
}

impl Said {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let set = |set: &mut Option<Set>, is_weak| {
            set.get_or_insert_default().note(value, is_weak).ok_or(Refusal::BadPrecondition)
        };
        match name {
            "if-match" => set(&mut self.if_match, false),
            "if-none-match" => set(&mut self.if_none_match, true),
            "content-type" if std::mem::replace(&mut self.has_content_type, true) => {
                Err(Refusal::ContentTypeUnsupported)
            }
            "cache-control" => self.note_cache_control(value).ok_or(Refusal::BadCacheControl),
            _ => Ok(()),
        }
    }

    /// RFC 9111 5.2 and 5.2.2.1, RFC 5861.
    fn note_cache_control(&mut self, value: &[u8]) -> Option<()> {
        for directive in directives(value)? {
            let (name, argument) = match directive.iter().position(|byte| *byte == b'=') {
                Some(at) => (&directive[..at], Some(&directive[at + 1..])),
                None => (directive, None),
            };
            let names = ["max-age", "stale-while-revalidate", "stale-if-error"];
            let place = names.iter().position(|known| known.eq_ignore_ascii_case(&text(name)));
            let Some(place) = place else { continue };
            let argument = argument?;
            let quoted = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            let digits = quoted.unwrap_or(argument);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let seconds = text(digits).parse::<u64>().unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
            let seconds = u32::try_from(seconds).expect("it is bounded");
            if self.lifetimes[place].replace(seconds).is_some() {
                return None;
            }
        }
        Some(())
    }

    fn put(
        &self,
        lines: &Lines,
        body: &Body,
        limits: &WriteLimits,
    ) -> Result<(String, [Option<u32>; 3]), Refusal> {
        if !lines.values("content-range").is_empty() {
            return Err(Refusal::ContentRangeNotAllowed);
        }
        if !lines.values("content-encoding").is_empty() {
            return Err(Refusal::ContentEncodingUnsupported);
        }
        if matches!(body, Body::Length(length) if *length > size(limits.value_size_max)) {
            return Err(Refusal::ContentTooLarge);
        }
        let content_type = lines.values("content-type").first().map_or_else(
            || Ok("application/json".to_owned()),
            |value| {
                let is_sized = !value.is_empty() && value.len() <= CONTENT_TYPE_SIZE_MAX;
                let is_visible = value.iter().all(|byte| matches!(byte, b' '..=b'~'));
                if is_sized && is_visible {
                    Ok(text(value))
                } else {
                    Err(Refusal::ContentTypeUnsupported)
                }
            },
        )?;
        Ok((content_type, self.lifetimes))
    }
}

/// The parts between the commas that are not quoted; `None` if a quoted string has no end.
fn directives(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = value;
    let mut ends = Vec::new();
    while let [byte, after @ ..] = rest {
        if *byte == b'"' {
            let mut at = 1;
            while *rest.get(at)? != b'"' {
                at += if rest[at] == b'\\' { 2 } else { 1 };
            }
            rest = &rest[at + 1..];
            continue;
        }
        if *byte == b',' {
            ends.push(value.len() - rest.len());
        }
        rest = after;
    }
    ends.push(value.len());
    let mut start = 0;
    let mut all = Vec::new();
    for end in ends {
        all.push(trim(&value[start..end]));
        start = end + 1;
    }
    Some(all)
}
