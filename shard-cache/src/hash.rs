//! Hashes: one that places keys and cannot be aimed at, and one that names values for ever.
//!
//! Both are SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), one
//! round a word and three at the end. Keys are hashed under a secret of the process; values under a
//! public key that never changes, so that every node gives the same value the same tag.

/// The hash of a key. Its low bits choose the bucket, its high bits the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The hash of these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Hashes keys under a secret.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    key: [u64; 2],
}

impl KeyHasher {
    /// A hasher with the secret `key`.
    #[must_use]
    pub const fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    /// The hash of `key`.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let mut sip = Sip::new(self.key);
        sip.write_last(key, key.len());
        KeyHash(sip.finish())
    }
}

/// A strong entity tag: the hash of a content type and a value, the same on every node and after
/// every restart. It is the entry's version as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Etag(u64);

impl Etag {
    /// The public key: any constant will do, and this one must never change.
    const KEY: [u64; 2] = [0x7065_6c74_6f6e_2065, 0x7461_6720_6b65_7931];

    /// The tag of these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The tag of `value` served as `content_type`.
    #[must_use]
    pub fn of(content_type: &str, value: &[u8]) -> Self {
        let mut sip = Sip::new(Self::KEY);
        let name = KeyHasher::new(Self::KEY).hash(content_type.as_bytes()).bits();
        sip.word(name);
        sip.write_last(value, value.len() + size_of::<u64>());
        Self(sip.finish())
    }
}

/// The state of SipHash-1-3.
struct Sip([u64; 4]);

impl Sip {
    const fn new([k0, k1]: [u64; 2]) -> Self {
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    const fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }

    const fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    /// Takes the last `bytes` of an input of `size` bytes, whose lowest byte ends the last word.
    fn write_last(&mut self, bytes: &[u8], size: usize) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last) | (size as u64) << 56);
    }

    const fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hasher as _};

    #[test]
    fn keys_hash_as_siphash_1_3_does() {
        // The standard library's default hasher is SipHash-1-3 with a key of zeroes.
        let input: Vec<u8> = (0..=255).collect();
        for size in 0..input.len() {
            let mut oracle = DefaultHasher::new();
            oracle.write(&input[..size]);
            let ours = KeyHasher::new([0, 0]).hash(&input[..size]);
            assert_eq!(ours.bits(), oracle.finish(), "size {size}");
        }
    }

    #[test]
    fn the_secret_matters() {
        let hash = |key| KeyHasher::new(key).hash(b"2643743");
        assert_ne!(hash([0, 0]), hash([1, 0]));
        assert_ne!(hash([0, 0]), hash([0, 1]));
    }

    #[test]
    fn tags_are_what_they_were() {
        let of = |content_type, value: &str| Etag::of(content_type, value.as_bytes()).bits();
        let golden = [
            (of("application/json", ""), GOLDEN[0]),
            (of("application/json", "{}"), GOLDEN[1]),
            (of("text/plain", "{}"), GOLDEN[2]),
        ];
        for (ours, was) in golden {
            assert_eq!(ours, was, "{ours:#x}");
        }
    }

    const GOLDEN: [u64; 3] = [0x56d2_bd98_d5e8_4158, 0x2a01_4de3_cacf_ef50, 0x031e_d2e9_2628_8f86];
}
