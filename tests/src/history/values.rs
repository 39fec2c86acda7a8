//! Keys and the bytes of their values: a value says of which key and version it is, and every byte
//! of it depends on both.

use super::Version;
use crate::prng::{Prng, mix};

/// Groups that the keys belong to, as a purge names them.
pub const GROUPS: usize = 4;

/// Bytes of filler in one word of chance.
const WORD_SIZE: usize = 8;

/// The name of the key with this number.
#[must_use]
pub fn key(number: usize) -> String {
    format!("{}:{number}", group(number))
}

/// The name of the group that the key with this number belongs to.
#[must_use]
pub fn group(number: usize) -> String {
    format!("g{}", number % GROUPS)
}

/// The value of a key at a version: JSON, of sizes that go by every way. Small ones are copied to
/// the reply; from 8 KiB on they are sent from where they lie; from 15 KiB on one receive buffer
/// does not hold them; others take many.
#[must_use]
pub fn value(number: usize, version: Version) -> Vec<u8> {
    let mut prng = Prng::new(mix(version) ^ number as u64);
    let size = match prng.below(100) {
        0..60 => prng.size(0, 600),
        60..75 => prng.size(8 << 10, 10 << 10),
        75..90 => prng.size(15 << 10, 17 << 10),
        90..99 => prng.size(20 << 10, 70 << 10),
        _ => prng.size(200 << 10, 300 << 10),
    };
    let mut value = head(number, version).into_bytes();
    value.reserve(size + WORD_SIZE);
    for _ in 0..size / WORD_SIZE {
        let word = prng.word().to_le_bytes();
        value.extend(word.map(|byte| b'a' + (byte & 15)));
    }
    value.extend(b"\"}");
    value
}

fn head(number: usize, version: Version) -> String {
    format!(r#"{{"key":{number},"version":{version},"filler":""#)
}

/// Which version of a key's value a body is, once every byte was compared.
///
/// # Errors
/// It is none of this key: what is wrong.
pub fn version_of(number: usize, body: &[u8]) -> Result<Version, String> {
    let shown = || String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    let version = std::str::from_utf8(body)
        .ok()
        .and_then(|text| text.strip_prefix(&format!(r#"{{"key":{number},"version":"#)))
        .and_then(|text| text.split(',').next()?.parse().ok())
        .ok_or_else(|| format!("no value of key {number}: {}", shown()))?;
    let expected = value(number, version);
    if body == expected {
        return Ok(version);
    }
    let same = expected.iter().zip(body).take_while(|(expected, byte)| expected == byte).count();
    Err(format!(
        "{} of {} bytes of key {number}, version {version}, differ from byte {same} on: {}",
        body.len(),
        expected.len(),
        shown()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_and_says_its_version() {
        for version in 0..200 {
            let value = value(7, version);
            serde_json::from_slice::<serde_json::Value>(&value).unwrap();
            assert_eq!(version_of(7, &value), Ok(version));
        }
    }

    #[test]
    fn values_go_by_every_way() {
        let sizes: Vec<usize> = (0..500).map(|version| value(3, version).len()).collect();
        for range in [0..700, 8 << 10..15 << 10, 15 << 10..20 << 10, 20 << 10..100 << 10] {
            assert!(sizes.iter().filter(|size| range.contains(*size)).count() > 20, "{range:?}");
        }
        assert!(sizes.iter().any(|size| *size > 200 << 10));
    }

    #[test]
    fn one_wrong_byte_another_key_and_a_missing_end_are_seen() {
        let whole = value(7, 5);
        for at in [0, 8, 17, whole.len() / 2, whole.len() - 1] {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert!(version_of(7, &wrong).is_err(), "byte {at}");
        }
        assert!(version_of(6, &whole).is_err());
        assert!(version_of(7, &whole[..whole.len() - 1]).is_err());
        assert!(version_of(7, b"").is_err());
    }
}
