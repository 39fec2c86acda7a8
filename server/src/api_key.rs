//! API keys of tenants: what a client shows, and what the server keeps of it.
//!
//! ```text
//! pk_0123456789abcdefghjkmnpqrstvwxyz...     48 bytes: pk_ and 45 letters of 32, 225 random bits
//! ```
//!
//! A key is made by [`ApiKey::new`], shown once, and kept nowhere: the configuration holds its
//! SHA-256. With so many random bits nobody gets from there back to the key, so a digest needs no
//! salt and no slow function. All keys have one size and one form; who brings his own might bring
//! a word that can be guessed.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;

/// Bytes of an API key.
pub const API_KEY_SIZE: usize = 48;

/// What every key begins with, so that one that lies about can be recognised.
const PREFIX: &[u8; 3] = b"pk_";

/// What stands for five bits: no letter that is taken for a digit (the alphabet of Crockford).
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What a digest begins with in a configuration.
const DIGEST_PREFIX: &str = "sha256:";

/// What a client shows.
pub type ApiKey = [u8; API_KEY_SIZE];

/// A key that is nobody's: it stands for whatever a client shows that has not the form of one.
pub const NOBODYS_KEY: &ApiKey = &[0; API_KEY_SIZE];

/// A new key.
///
/// # Panics
/// If the kernel has no random bytes.
#[must_use]
pub fn new_key() -> ApiKey {
    let mut key = [0; API_KEY_SIZE];
    SystemRandom::new().fill(&mut key).expect("the kernel has random bytes");
    for byte in &mut key {
        *byte = LETTERS[usize::from(*byte % 32)];
    }
    key[..PREFIX.len()].copy_from_slice(PREFIX);
    key
}

/// The key that `value`, of a header line, has the form of.
#[inline]
#[must_use]
pub fn key_in(value: &[u8]) -> &ApiKey {
    value.try_into().unwrap_or(NOBODYS_KEY)
}

/// The key that `value`, of an `Authorization`, has the form of (RFC 6750 section 2.1).
#[inline]
#[must_use]
pub fn key_in_authorization(value: &[u8]) -> &ApiKey {
    match value.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key_in(key),
        _ => NOBODYS_KEY,
    }
}

/// SHA-256 of a key. It is never shown: not in a log, not in `/config`, not by `Debug`.
#[derive(Clone, Copy, Eq)]
pub struct KeyDigest([u8; 32]);

impl PartialEq for KeyDigest {
    /// How long that takes does not tell where they differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(..)")
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DIGEST_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl KeyDigest {
    /// The digest of a key.
    #[must_use]
    pub fn of(key: &ApiKey) -> Self {
        Self(digest(&SHA256, key).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The digest that `text` is.
    ///
    /// # Errors
    /// Why it is none. The text is not repeated: it may be a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("pk_") {
            return Err("this is a key, and its digest belongs here: only the client has the \
                        key. It is known to who can read this file now; make a new one"
                .into());
        }
        let not = || format!("this is not {DIGEST_PREFIX} and 64 hex digits");
        let digits = text.strip_prefix(DIGEST_PREFIX).ok_or_else(not)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(not());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| not())?;
        }
        Ok(Self(bytes))
    }

    /// Bits of it, by which it can be found in a table.
    #[must_use]
    pub fn bits(&self) -> u64 {
        u64::from_le_bytes(*self.0.first_chunk().expect("32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_known_by_its_digest_alone() {
        let (one, other) = (new_key(), new_key());
        assert!(one.starts_with(b"pk_") && one.iter().all(u8::is_ascii_graphic));
        assert_ne!(one, other);
        let digest = KeyDigest::of(&one);
        assert!(digest == KeyDigest::of(&one) && digest != KeyDigest::of(&other));
        let read = KeyDigest::parse(&digest.to_string()).expect("it is printed as it is read");
        assert_eq!(read, digest);
        assert_eq!(format!("{digest:?}"), "KeyDigest(..)");
    }

    #[test]
    fn every_letter_comes_up() {
        let keys: Vec<ApiKey> = (0..50).map(|_| new_key()).collect();
        let letters = keys.iter().flat_map(|key| &key[PREFIX.len()..]);
        let seen: std::collections::BTreeSet<u8> = letters.copied().collect();
        assert_eq!(seen, LETTERS.iter().copied().collect());
    }

    #[test]
    fn the_digest_is_sha_256() {
        // printf %048d 0 | sha256sum
        let digest = KeyDigest::of(&[b'0'; API_KEY_SIZE]);
        assert_eq!(
            digest.to_string(),
            "sha256:f9a2ba511957122bfa67b029061c679703494540b35f02e0e0496a3b0cdcc46a"
        );
    }

    #[test]
    fn what_is_no_digest_is_refused_and_not_repeated() {
        let key = String::from_utf8(new_key().to_vec()).expect("ASCII");
        let error = KeyDigest::parse(&key).expect_err("a key");
        assert!(error.contains("digest belongs here") && !error.contains(&key[4..]), "{error}");
        for text in ["", "sha256:", "sha256:00", &"0".repeat(64), &format!("sha256:{:+>64}", 1)] {
            assert!(KeyDigest::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_has_not_the_form_of_a_key_is_nobodys() {
        let key = new_key();
        let bearer = |scheme: &str| [scheme.as_bytes(), &key].concat();
        assert_eq!(key_in(&key), &key);
        assert_eq!(key_in_authorization(&bearer("Bearer ")), &key);
        assert_eq!(key_in_authorization(&bearer("bEARER ")), &key);
        for wrong in [&b""[..], b"Bearer ", &bearer("Basic  "), &bearer("Bearer  "), &key] {
            assert_eq!(key_in_authorization(wrong), NOBODYS_KEY);
        }
        assert_eq!(key_in(&key[1..]), NOBODYS_KEY);
    }
}
