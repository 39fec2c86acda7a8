//! Which shard owns a key: the one place where a key becomes the index of a shard.

use crate::http::LOOKUP_PATH;
use shard_cache::hash::KeyHash;

/// How keys are spread over the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerHash {
    /// By the high bits of the hash under a secret: nobody can aim at one shard.
    Keyed,
    /// By the CRC-32 of the path, as a proxy can compute it too. So can an attacker.
    Crc32,
}

/// Finds owners among so many shards.
#[derive(Clone, Copy, Debug)]
pub struct Owners {
    shards_count: u16,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Keyed,
    /// With the checksum of what stands before the key in a path.
    Crc32(u32),
}

impl Owners {
    /// The owners by `hash` among `shards_count` shards.
    #[must_use]
    pub fn new(hash: OwnerHash, shards_count: u16) -> Self {
        let rule = match hash {
            OwnerHash::Keyed => Rule::Keyed,
            OwnerHash::Crc32 => Rule::Crc32(crc32fast::hash(LOOKUP_PATH)),
        };
        Self { shards_count, rule }
    }

    /// The shard that owns `key`, whose hash under the secret is `hash`.
    #[must_use]
    #[inline]
    pub fn of(&self, hash: KeyHash, key: &[u8]) -> u16 {
        match self.rule {
            Rule::Keyed => keyed(hash, self.shards_count),
            Rule::Crc32(before) => crc32(before, key, self.shards_count),
        }
    }
}

/// The hash as a fraction of its range.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the product's high half is below the count")]
fn keyed(hash: KeyHash, shards_count: u16) -> u16 {
    ((u128::from(hash.bits()) * u128::from(shards_count)) >> 64) as u16
}

/// What NGINX's `hash $uri` picks of as many servers of equal weight: 15 bits of the checksum.
#[inline(never)]
fn crc32(before: u32, key: &[u8], shards_count: u16) -> u16 {
    let mut crc = crc32fast::Hasher::new_with_initial(before);
    crc.update(key);
    let bits = (crc.finalize() >> 16) & 0x7fff;
    u16::try_from(bits).expect("15 bits") % shards_count
}

#[cfg(test)]
mod tests {
    use super::*;
    use shard_cache::hash::KeyHasher;

    fn owner(hash: OwnerHash, key: &str, shards_count: u16) -> u16 {
        let key = key.as_bytes();
        Owners::new(hash, shards_count).of(KeyHasher::new([3, 4]).hash(key), key)
    }

    #[test]
    fn every_shard_owns_its_share() {
        for hash in [OwnerHash::Keyed, OwnerHash::Crc32] {
            let mut counts = [0; 7];
            for number in 0..70_000 {
                counts[usize::from(owner(hash, &format!("k{number}"), 7))] += 1;
            }
            assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_path() {
        for key in ["", "2643743", "a b/\u{fc}?#%"] {
            let crc = crc32fast::hash(format!("/lookup/{key}").as_bytes());
            let expected = u16::try_from(crc >> 16 & 0x7fff).unwrap() % 1000;
            assert_eq!(owner(OwnerHash::Crc32, key, 1000), expected, "{key}");
        }
        // Another implementation says 0x13ad_884b of "/lookup/2643743".
        assert_eq!(owner(OwnerHash::Crc32, "2643743", 1000), 0x13ad % 1000);
    }
}
