//! What a key is called in Redis, and which slot of a cluster it is in.

use crate::mesh::Key;

/// How keys are called in Redis: something before them and something behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    before: Box<[u8]>,
    behind: Box<[u8]>,
}

impl Names {
    /// The names that `template` makes, in which `{key}` stands for the key; `None` if it is not
    /// there just once.
    pub(super) fn parse(template: &str) -> Option<Self> {
        let (before, behind) = template.split_once("{key}")?;
        let is_once = !behind.contains("{key}");
        is_once.then(|| Self { before: before.as_bytes().into(), behind: behind.as_bytes().into() })
    }

    /// What all names begin with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.before
    }

    /// What a key is called.
    pub(super) fn of(&self, key: &[u8]) -> Vec<u8> {
        [&self.before, key, &self.behind].concat()
    }

    /// The key that is called so; `None` if none is.
    pub(super) fn key(&self, name: &[u8]) -> Option<Key> {
        Key::new(name.strip_prefix(&*self.before)?.strip_suffix(&*self.behind)?)
    }
}

/// How many slots a cluster has.
pub(super) const SLOTS_COUNT: usize = 16_384;

/// The slot of a name: of what is between its first `{` and the next `}`, or of all of it (Redis
/// Cluster specification, "Hash tags").
pub(super) fn slot(name: &[u8]) -> usize {
    let tag = || {
        let begin = name.iter().position(|byte| *byte == b'{')? + 1;
        let size = name[begin..].iter().position(|byte| *byte == b'}')?;
        (size > 0).then(|| &name[begin..begin + size])
    };
    usize::from(crc16(tag().unwrap_or(name))) % SLOTS_COUNT
}

/// CRC-16/XMODEM, which the specification takes: polynomial 0x1021, beginning with 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_and_taken_apart() {
        let names = Names::parse("user:{key}:json").expect("a template");
        assert_eq!((names.of(b"7"), names.prefix()), (b"user:7:json".to_vec(), &b"user:"[..]));
        assert_eq!(names.key(b"user:7:json"), Key::new(b"7"));
        for other in [&b"user:7"[..], b"7:json", b"user::json", b"user:json", b""] {
            assert_eq!(names.key(other), None, "{other:?}");
        }
        for bad in ["user", "{key}{key}", ""] {
            assert_eq!(Names::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), usize::from(crc16(b"foo{}{bar}")) % SLOTS_COUNT);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{{bar}"));
        assert_eq!(slot(b"foo{bar}{zap}"), slot(b"bar"));
    }
}
