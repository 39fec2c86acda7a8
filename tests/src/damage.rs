//! Small changes to what was well formed.

use arbitrary::Arbitrary;

/// One change at one place.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Damage {
    /// Writes this byte over the one there.
    Replace(u8),
    /// Writes this byte before the one there.
    Insert(u8),
    /// Takes the byte away.
    Remove,
    /// Repeats what stands there, up to so many bytes.
    Repeat(u8),
}

impl Damage {
    /// Applies it to `bytes` at `at`, counted round and round.
    pub fn apply(self, bytes: &mut Vec<u8>, at: usize) {
        let at = at % bytes.len().max(1);
        match self {
            Self::Insert(byte) => bytes.insert(at, byte),
            _ if bytes.is_empty() => {}
            Self::Replace(byte) => bytes[at] = byte,
            Self::Remove => drop(bytes.remove(at)),
            Self::Repeat(size) => {
                let end = bytes.len().min(at + usize::from(size));
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Damage;

    fn damaged(text: &str, damage: Damage, at: usize) -> String {
        let mut bytes = text.as_bytes().to_vec();
        damage.apply(&mut bytes, at);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_change_is_what_it_says() {
        assert_eq!(damaged("abc", Damage::Replace(b'x'), 1), "axc");
        assert_eq!(damaged("abc", Damage::Insert(b'x'), 1), "axbc");
        assert_eq!(damaged("abc", Damage::Remove, 4), "ac");
        assert_eq!(damaged("abc", Damage::Repeat(9), 1), "abcbc");
        assert_eq!(damaged("", Damage::Insert(b'x'), 5), "x");
        assert_eq!(damaged("", Damage::Remove, 5), "");
    }
}
