//! Whether a body is the right one for its key.

use crate::traffic::Records;
use std::str::FromStr;

/// How bodies are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Byte for byte with the values of the records.
    Records,
    /// By key and version, as in a made-up record; a version never falls.
    Pattern,
}

impl FromStr for Verify {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "records" => Ok(Self::Records),
            "pattern" => Ok(Self::Pattern),
            _ => Err(format!("{text:?} is no way to verify; expected records or pattern")),
        }
    }
}

/// Checks bodies on one thread.
pub(crate) struct Verifier<'a> {
    records: &'a Records,
    verify: Verify,
    /// The highest version seen of each key; empty unless versions are compared.
    seen: Vec<u64>,
}

impl<'a> Verifier<'a> {
    pub(crate) fn new(verify: Verify, records: &'a Records) -> Self {
        let seen = match verify {
            Verify::Records => Vec::new(),
            Verify::Pattern => vec![0; records.keys.len()],
        };
        Self { records, verify, seen }
    }

    /// The newest version of a key that this thread has seen: what a read that starts now must not
    /// fall behind.
    pub(crate) fn version_seen(&self, key: usize) -> u64 {
        self.seen.get(key).copied().unwrap_or(0)
    }

    /// What is wrong with `body` as the value of the key of this index, whose version must be at
    /// least `version_min`.
    pub(crate) fn check(
        &mut self,
        key: usize,
        version_min: u64,
        body: &[u8],
    ) -> Result<(), String> {
        let name = &self.records.keys[key];
        match self.verify {
            Verify::Records if body == &*self.records.bodies[key] => Ok(()),
            Verify::Records => Err(format!("the body of {name:?} is not that of the records")),
            Verify::Pattern => {
                let version = version(name, body)
                    .ok_or_else(|| format!("the body of {name:?} does not name key and version"))?;
                if version < version_min {
                    return Err(format!("{name:?} fell from version {version_min} to {version}"));
                }
                self.seen[key] = self.seen[key].max(version);
                Ok(())
            }
        }
    }
}

/// The version in a made-up value of `key`.
fn version(key: &str, body: &[u8]) -> Option<u64> {
    let rest = body.strip_prefix(b"{\"key\":\"")?.strip_prefix(key.as_bytes())?;
    let rest = rest.strip_prefix(b"\",\"version\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let is_whole = rest[digits..].starts_with(b",\"fill\":\"") && rest.ends_with(b"\"}");
    std::str::from_utf8(&rest[..digits]).ok().filter(|_| is_whole)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_compared_byte_for_byte() {
        let records = Records { keys: vec!["a".to_owned()], bodies: vec![Box::from(*b"1")] };
        let mut verifier = Verifier::new(Verify::Records, &records);
        assert_eq!(verifier.check(0, 0, b"1"), Ok(()));
        assert!(verifier.check(0, 0, b"10").is_err());
    }

    #[test]
    fn versions_never_fall() {
        let records = Records::generated(2);
        let mut verifier = Verifier::new(Verify::Pattern, &records);
        let body =
            |version| format!("{{\"key\":\"key-00000001\",\"version\":{version},\"fill\":\"xx\"}}");
        assert_eq!(verifier.check(1, 0, body(5).as_bytes()), Ok(()));
        assert_eq!(verifier.version_seen(1), 5);
        // A read that began before version 5 was seen may still bring the one before.
        assert_eq!(verifier.check(1, 0, body(4).as_bytes()), Ok(()));
        assert!(verifier.check(1, 5, body(4).as_bytes()).unwrap_err().contains("fell"));
        assert!(verifier.check(0, 0, body(5).as_bytes()).is_err(), "another key's body");
    }

    #[test]
    fn a_cut_body_has_no_version() {
        let whole = b"{\"key\":\"k\",\"version\":12,\"fill\":\"xx\"}";
        assert_eq!(version("k", whole), Some(12));
        assert!((0..whole.len()).all(|size| version("k", &whole[..size]).is_none()));
    }
}
