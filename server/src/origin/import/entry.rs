//! One line of an import file: from JSON text to a key and a value.
//!
//! `{"key": "..", "value": .., "content_type": "..", "ttl": "60s" or seconds}`. A JSON value is
//! kept exactly as it is written. With a content type that is not JSON the value is a string, and
//! the text it stands for is stored.

use crate::mesh::ContentType;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::Duration;

/// Declares [`BadLine`]: its variants and what each means.
macro_rules! bad_lines {
    ($($variant:ident, $sentence:literal;)+) => {
        /// Why a line was skipped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum BadLine { $(#[doc = $sentence] $variant,)+ }

        impl BadLine {
            /// Every reason, in the order of [`Report::bad_counts`](super::Report::bad_counts).
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// What it means.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

bad_lines! {
    Empty, "empty line";
    TooLong, "line too long";
    NotUtf8, "not UTF-8";
    NotJson, "not JSON";
    NotARecord, "not a record";
    Key, "key empty or too long";
    ContentType, "bad content type";
    Value, "value unfit for its content type";
    ValueTooLarge, "value too large";
    Ttl, "bad ttl";
}

/// What an entry is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryLimits {
    /// The longest key, bytes.
    pub key_size_max: usize,
    /// The largest value, bytes.
    pub value_size_max: usize,
}

/// A good line.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The key, without its escapes.
    pub key: Cow<'a, str>,
    /// What the value is.
    pub content_type: ContentType,
    /// How long it is fresh; `None` until it is replaced.
    pub ttl: Option<Duration>,
    value: Value<'a>,
}

/// A value as JSON text or as what a JSON string stands for.
#[derive(Debug)]
enum Value<'a> {
    Json(&'a str),
    Text(Cow<'a, str>),
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with key and value")]
struct Written<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
    #[serde(borrow)]
    content_type: Option<Cow<'a, str>>,
    ttl: Option<WrittenTtl>,
}

/// A ttl as it is written.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a ttl is seconds, or a number with a unit such as \"60s\"")]
enum WrittenTtl {
    Seconds(u32),
    Text(String),
}

/// A JSON string that may borrow from the line.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Why a line is bad, and what exactly is wrong with it.
type Bad = (BadLine, String);

impl<'a> Entry<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// Why it is bad, and what exactly is wrong with it.
    pub fn parse(line: &'a [u8], limits: EntryLimits) -> Result<Self, (BadLine, String)> {
        if line.trim_ascii().is_empty() {
            return Err((BadLine::Empty, String::new()));
        }
        let line = std::str::from_utf8(line)
            .map_err(|error| (BadLine::NotUtf8, format!("at byte {}", error.valid_up_to())))?;
        let written: Written<'_> = serde_json::from_str(line).map_err(|error| {
            let reason = if error.is_data() { BadLine::NotARecord } else { BadLine::NotJson };
            (reason, error.to_string())
        })?;
        if written.key.is_empty() || written.key.len() > limits.key_size_max {
            let detail = format!("{} bytes, not 1 to {}", written.key.len(), limits.key_size_max);
            return Err((BadLine::Key, detail));
        }
        let content_type = content_type(written.content_type.as_deref())?;
        let (value, content_type) = match value(written.value, content_type)? {
            // It was read through as a part of its line.
            value @ Value::Json(_) => (value, content_type.checked_json()),
            value @ Value::Text(_) => (value, content_type),
        };
        let ttl = written.ttl.as_ref().map(ttl).transpose()?;
        let entry = Self { key: written.key, content_type, ttl, value };
        if entry.value().len() > limits.value_size_max {
            let detail = format!("{} of {} bytes", entry.value().len(), limits.value_size_max);
            return Err((BadLine::ValueTooLarge, detail));
        }
        Ok(entry)
    }

    /// The bytes to store.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        match &self.value {
            Value::Json(text) => text.as_bytes(),
            Value::Text(text) => text.as_bytes(),
        }
    }
}

/// The content type of a line.
fn content_type(written: Option<&str>) -> Result<ContentType, Bad> {
    let Some(written) = written else { return Ok(ContentType::JSON) };
    ContentType::new(written).ok_or_else(|| {
        (BadLine::ContentType, "1 to 63 visible ASCII characters are allowed".to_owned())
    })
}

/// What is stored of a written value.
fn value(written: &RawValue, content_type: ContentType) -> Result<Value<'_>, Bad> {
    if content_type.names_json() {
        return Ok(Value::Json(written.get()));
    }
    let Text(text) = serde_json::from_str(written.get()).map_err(|_| {
        let detail = format!("a value of type {} is a string", content_type.as_str());
        (BadLine::Value, detail)
    })?;
    Ok(Value::Text(text))
}

/// A ttl of at least a millisecond, and of at most 2^32 - 1 seconds.
fn ttl(written: &WrittenTtl) -> Result<Duration, Bad> {
    let ttl = match written {
        WrittenTtl::Seconds(seconds) => Some(Duration::from_secs(u64::from(*seconds))),
        WrittenTtl::Text(text) => duration(text),
    };
    ttl.filter(|ttl| !ttl.is_zero()).ok_or_else(|| {
        (BadLine::Ttl, "a ttl is seconds, or a number with ms, s, m, h or d".to_owned())
    })
}

/// A whole number with a unit.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number = u64::from(number.parse::<u32>().ok()?);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        "h" => Some(Duration::from_secs(number * 3_600)),
        "d" => Some(Duration::from_secs(number * 86_400)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: EntryLimits = EntryLimits { key_size_max: 8, value_size_max: 40 };

    fn good(line: &str) -> Entry<'_> {
        Entry::parse(line.as_bytes(), LIMITS).expect("a good line")
    }

    fn reason(line: &[u8]) -> BadLine {
        Entry::parse(line, LIMITS).expect_err("a bad line").0
    }

    #[test]
    fn a_json_value_is_kept_as_it_is_written() {
        let entry = good(r#"{"key":"k","value":{ "b" : 1.50, "a":"\u00e9" }}"#);
        assert_eq!(entry.value(), br#"{ "b" : 1.50, "a":"\u00e9" }"#);
        assert_eq!((entry.content_type, entry.ttl), (ContentType::JSON.checked_json(), None));
        assert_eq!(good(r#"{"key":"k","value":null}"#).value(), b"null");
        let entry = good(r#"{"key":"k","value":"x","content_type":"application/geo+json; a=b"}"#);
        assert_eq!(entry.value(), br#""x""#);
    }

    #[test]
    fn a_value_of_another_type_is_the_text_it_stands_for() {
        let entry = good(r#"{"key":"k","value":"a\n\u00e9","content_type":"text/plain"}"#);
        assert_eq!(entry.value(), "a\n\u{e9}".as_bytes());
        assert_eq!(entry.content_type, ContentType::new("text/plain").expect("plain"));
    }

    #[test]
    fn keys_are_stored_without_their_escapes() {
        assert_eq!(good(r#"{"key":"\u00e9\"","value":1}"#).key, "\u{e9}\"");
    }

    #[test]
    fn ttls_are_seconds_or_carry_a_unit() {
        let units = [
            ("60", 60_000),
            (r#""5ms""#, 5),
            (r#""3s""#, 3_000),
            (r#""2m""#, 120_000),
            (r#""2h""#, 7_200_000),
            (r#""1d""#, 86_400_000),
        ];
        for (written, ms) in units {
            let line = format!(r#"{{"key":"k","value":1,"ttl":{written}}}"#);
            assert_eq!(good(&line).ttl, Some(Duration::from_millis(ms)), "{written}");
        }
        for written in ["0", r#""0s""#, r#""60""#, r#""s""#, r#""-1s""#, r#""9999999999s""#] {
            let line = format!(r#"{{"key":"k","value":1,"ttl":{written}}}"#);
            assert_eq!(reason(line.as_bytes()), BadLine::Ttl, "{written}");
        }
    }

    #[test]
    fn bad_lines_are_told_apart() {
        let long_value = format!(r#"{{"key":"k","value":"{}"}}"#, "x".repeat(40));
        let cases: &[(&[u8], BadLine)] = &[
            (b"", BadLine::Empty),
            (b" \r", BadLine::Empty),
            (b"{\"key\":\"\xff\",\"value\":1}", BadLine::NotUtf8),
            (b"{\"key\":\"k\",", BadLine::NotJson),
            (b"{\"key\":\"k\",\"value\":1} x", BadLine::NotJson),
            (b"{\"key\":\"k\"}", BadLine::NotARecord),
            (b"{\"key\":1,\"value\":1}", BadLine::NotARecord),
            (b"{\"key\":\"k\",\"value\":1,\"vlaue\":1}", BadLine::NotARecord),
            (b"{\"key\":\"k\",\"key\":\"k\",\"value\":1}", BadLine::NotARecord),
            (b"{\"key\":\"\",\"value\":1}", BadLine::Key),
            (b"{\"key\":\"123456789\",\"value\":1}", BadLine::Key),
            (b"{\"key\":\"k\",\"value\":1,\"content_type\":\"a\\nb\"}", BadLine::ContentType),
            (b"{\"key\":\"k\",\"value\":1,\"content_type\":\"text/plain\"}", BadLine::Value),
            (long_value.as_bytes(), BadLine::ValueTooLarge),
        ];
        for (line, wanted) in cases {
            assert_eq!(reason(line), *wanted, "{}", line.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(entry) = Entry::parse(&line, LIMITS) {
                prop_assert!(entry.value().len() <= LIMITS.value_size_max);
            }
        }
    }
}
