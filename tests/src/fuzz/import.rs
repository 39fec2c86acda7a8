//! Lines of an import file beside a general JSON parser.

use pelton::origin::import::{BadLine, Entry, EntryLimits};
use serde_json::Value;

/// Small, so that they are met.
const LIMITS: EntryLimits = EntryLimits { key_size_max: 16, value_size_max: 64 };

/// What the general parser refuses and the grammar of JSON allows: it reads values, and we keep
/// their text.
const TOO_MUCH_TO_READ: [&str; 4] = [
    "recursion limit",
    "number out of range",
    "lone leading surrogate",
    "unexpected end of hex escape",
];

/// The input is the lines of a file.
///
/// # Panics
/// If a line means something else to the two parsers.
pub fn import(input: &[u8]) {
    for line in input.split(|byte| *byte == b'\n') {
        check(line);
    }
}

fn check(line: &[u8]) {
    let json = serde_json::from_slice::<Value>(line);
    match (Entry::parse(line, LIMITS), json) {
        (Ok(entry), Ok(json)) => {
            assert_eq!(json["key"].as_str(), Some(&*entry.key));
            assert!((1..=LIMITS.key_size_max).contains(&entry.key.len()));
            assert!(entry.value().len() <= LIMITS.value_size_max);
            assert!(entry.ttl.is_none_or(|ttl| !ttl.is_zero()));
            let text = std::str::from_utf8(entry.value()).expect("JSON is text");
            let is_text = json["value"].as_str() == Some(text);
            let is_json =
                serde_json::from_str(text).is_ok_and(|value: Value| value == json["value"]);
            assert!(is_text || is_json, "{text:?} is another value");
        }
        (Ok(_), Err(error)) => {
            let error = error.to_string();
            let excused = TOO_MUCH_TO_READ.iter().any(|excuse| error.contains(excuse));
            assert!(excused, "taken although it is no JSON: {error}");
        }
        (Err((reason, detail)), json) => {
            assert!(reason == BadLine::Empty || !detail.is_empty(), "{reason:?} says why");
            let no_json = matches!(reason, BadLine::Empty | BadLine::NotUtf8 | BadLine::NotJson);
            assert!(!no_json || json.is_err(), "{reason:?} although it is JSON: {detail}");
        }
    }
}
