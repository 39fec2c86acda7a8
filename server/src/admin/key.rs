//! Keys as operators read and write them.

use crate::http::{KEY_SIZE_MAX, RawKey, Refusal};
use crate::mesh::Key;
use std::fmt::Write as _;
use std::str;

/// A key and how it is shown: as `text`, or as it stands in a path (`percent`).
pub(super) fn shown(key: &[u8], is_cut: bool) -> (String, String) {
    match text(key, is_cut) {
        Some(text) => (text.to_owned(), "text".to_owned()),
        None => (percent(key), "percent".to_owned()),
    }
}

/// A key as text, if it is any. The end of one that was cut may lack a part of a character.
fn text(key: &[u8], is_cut: bool) -> Option<&str> {
    match str::from_utf8(key) {
        Ok(text) => Some(text),
        Err(error) if is_cut && error.error_len().is_none() => {
            str::from_utf8(&key[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

/// A key as it stands in a path: what is not unreserved (RFC 3986 section 2.3) as %XX.
#[must_use]
pub fn percent(key: &[u8]) -> String {
    let mut text = String::new();
    for &byte in key {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            write!(text, "%{byte:02X}").expect("a string grows");
        }
    }
    text
}

/// The key that stands so in a path.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &[u8]) -> Result<Key, String> {
    let raw = RawKey::parse(text).map_err(|refusal| {
        if refusal == Refusal::KeyTooLong {
            "no key has more than 512 bytes"
        } else {
            "a percent sign of the key is not followed by two hex digits"
        }
    })?;
    let mut room = [0; KEY_SIZE_MAX];
    let size = raw.copy_to(&mut room);
    bounded("key", &room[..size])
}

/// What was given as `what`, as a key.
///
/// # Errors
/// It has no byte, or too many.
pub fn bounded(what: &str, bytes: &[u8]) -> Result<Key, String> {
    Key::new(bytes).ok_or_else(|| match bytes.len() {
        0 => format!("the {what} is empty"),
        size => format!("the {what} has {size} bytes, and no key has more than 512"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_or_what_stands_in_a_path() {
        assert_eq!(text("k\u{e9}".as_bytes(), false), Some("k\u{e9}"));
        assert_eq!(text(b"k\xc3", true), Some("k"), "half a character at a cut");
        assert_eq!(text(b"k\xc3", false), None);
        assert_eq!(text(b"k\xff", true), None);
        assert_eq!(percent(b"a/\xff~%"), "a%2F%FF~%25");
    }

    #[test]
    fn what_stands_in_a_path_is_the_key_again() {
        let all: Vec<u8> = (0..=255).collect();
        for key in [&b"k"[..], b"a b&c=d+%", &all, &[b'%'; 512]] {
            assert_eq!(parse(percent(key).as_bytes()).unwrap().as_bytes(), key);
        }
        assert_eq!(parse(b"a+b").unwrap().as_bytes(), b"a+b", "a plus sign is one");
        for (wrong, why) in [
            (&b""[..], "empty"),
            (b"%", "two hex digits"),
            (b"%2", "two hex digits"),
            (b"k%zz", "two hex digits"),
            (&[b'x'; 513], "more than 512"),
        ] {
            assert!(parse(wrong).unwrap_err().contains(why), "{wrong:?}");
        }
    }
}
