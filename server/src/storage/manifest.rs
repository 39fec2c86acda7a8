//! The manifest of a snapshot: where its pages lie, and when and by whom they were written.
//!
//! ```text
//! 0        8          12      16      24        32
//! [ magic ][ version ][ zero ][ size ][ sum     ][ zero, to 64 ][ tables, `size` bytes ]
//! ```
//!
//! Numbers are little-endian; *sum* is the XXH3 of the tables. The version is looked at before
//! anything else is believed, the sum before the tables are read, and the tables are checked by
//! `rkyv` whatever the sum says: a sum keeps no forged offset out, and the checks find no flipped
//! bit in a number. What the tables say about pages is checked against the file of pages when it is
//! read.

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// What every manifest begins with.
const MAGIC: [u8; 8] = *b"PLTNSNAP";

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

const HEADER_SIZE: usize = 64;

/// A snapshot.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Names the file of its pages.
    pub id: u64,
    /// The key of the hash that placed its keys.
    pub hash_key: [u64; 2],
    /// When it was complete, by three clocks.
    pub written: Clocks,
    /// Its pages.
    pub pages: Vec<PageAt>,
    /// For each shard that wrote it, the page that says what was withdrawn meanwhile.
    pub withdrawn: Vec<Vec<u8>>,
}

/// A moment by three clocks, milliseconds.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Since the epoch of the process.
    pub process_ms: u64,
    /// Since 1970.
    pub wall_ms: u64,
    /// Since the machine was booted, also while it slept.
    pub boot_ms: u64,
    /// Which boot that was.
    pub boot_id: [u8; 16],
}

/// Where a page lies in the file.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageAt {
    /// Bytes before it.
    pub offset: u64,
    /// Bytes of its records.
    pub size: u32,
    /// Entries in it.
    pub entries: u32,
    /// XXH3 of its records.
    pub sum: u64,
    /// The shard that wrote it.
    pub shard: u16,
}

/// Why a manifest is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// It does not begin as one does.
    NoManifest,
    /// It has a version that is not read here.
    Version(u32),
    /// It has another size than it says.
    Size,
    /// Its sum is another.
    Sum,
    /// Its tables are broken.
    Tables,
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoManifest => f.write_str("it is no manifest of a snapshot"),
            Self::Version(version) => {
                write!(f, "it is of version {version}, and this program reads {VERSION}")
            }
            Self::Size => f.write_str("it is cut short, or has another size than it says"),
            Self::Sum => f.write_str("its checksum is wrong"),
            Self::Tables => f.write_str("its tables are broken"),
        }
    }
}

impl Manifest {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let tables = rkyv::to_bytes::<rancor::Error>(self).expect("memory holds the tables twice");
        let mut bytes = Vec::with_capacity(HEADER_SIZE + tables.len());
        bytes.extend(MAGIC);
        bytes.extend(u64::from(VERSION).to_le_bytes());
        bytes.extend((tables.len() as u64).to_le_bytes());
        bytes.extend(xxh3_64(&tables).to_le_bytes());
        bytes.resize(HEADER_SIZE, 0);
        bytes.extend_from_slice(&tables);
        bytes
    }

    /// Reads it from bytes that may be anything.
    ///
    /// # Errors
    /// Why they are not believed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Distrust> {
        let (header, tables) =
            bytes.split_first_chunk::<HEADER_SIZE>().ok_or(Distrust::NoManifest)?;
        let word =
            |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("within the header"));
        if header[..8] != MAGIC {
            return Err(Distrust::NoManifest);
        }
        let version = word(8);
        if version != u64::from(VERSION) {
            return Err(Distrust::Version(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        if word(16) != tables.len() as u64 || header[32..].iter().any(|byte| *byte != 0) {
            return Err(Distrust::Size);
        }
        if word(24) != xxh3_64(tables) {
            return Err(Distrust::Sum);
        }
        let mut aligned = AlignedVec::<16>::with_capacity(tables.len());
        aligned.extend_from_slice(tables);
        rkyv::from_bytes::<Self, rancor::Error>(&aligned).map_err(|_| Distrust::Tables)
    }

    /// The file of its pages.
    #[must_use]
    pub fn pages_name(&self) -> String {
        format!("{:016x}.pages", self.id)
    }

    /// Entries in all its pages.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.pages.iter().map(|page| u64::from(page.entries)).sum()
    }
}

/// How far the clocks of this process are ahead of those that wrote a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// To be added to a time on the writer's clock to have it on ours, milliseconds.
    pub ms: i64,
    /// The wall clock was set back meanwhile, and the machine booted: nobody knows for how long
    /// the snapshot has lain.
    pub is_unknown: bool,
}

impl Shift {
    /// From the clocks when it was written to those of now. What has gone by is what the wall clock
    /// says, or, where that was set back, what the machine has counted since it was booted.
    #[must_use]
    pub fn between(written: &Clocks, now: &Clocks) -> Self {
        let since = |now: u64, then: u64| now.checked_sub(then);
        let counted =
            since(now.boot_ms, written.boot_ms).filter(|_| now.boot_id == written.boot_id);
        let gone_by_ms = since(now.wall_ms, written.wall_ms).max(counted);
        let here = i128::from(now.process_ms) - i128::from(gone_by_ms.unwrap_or(0));
        let ms = here - i128::from(written.process_ms);
        Self { ms: i64::try_from(ms).unwrap_or(i64::MIN), is_unknown: gone_by_ms.is_none() }
    }

    /// A time of the writer's on our clock; what was before our epoch is at it.
    #[must_use]
    pub fn apply(self, ms: u64) -> u64 {
        ms.saturating_add_signed(self.ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let page = PageAt { offset: 4096, size: 100, entries: 3, sum: 0x1234_5678, shard: 1 };
        Manifest {
            id: 0xab,
            hash_key: [1, 2],
            written: Clocks { process_ms: 1, wall_ms: 2, boot_ms: 3, boot_id: [4; 16] },
            pages: vec![page, PageAt { offset: 0, ..page }],
            withdrawn: vec![b"one".to_vec(), Vec::new()],
        }
    }

    #[test]
    fn a_manifest_survives_its_bytes_and_no_flipped_bit_or_cut_does() {
        let good = manifest().to_bytes();
        assert_eq!(Manifest::from_bytes(&good), Ok(manifest()));
        assert_eq!(manifest().pages_name(), "00000000000000ab.pages");
        assert_eq!(manifest().entries(), 6);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(Manifest::from_bytes(&bad).is_err(), "bit {bit} of byte {at}");
            }
            assert!(Manifest::from_bytes(&good[..at]).is_err(), "the first {at} bytes");
        }
        assert!(Manifest::from_bytes(&[&good[..], b"x"].concat()).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut later = manifest().to_bytes();
        later[8] = 2;
        assert_eq!(Manifest::from_bytes(&later), Err(Distrust::Version(2)));
    }

    #[test]
    fn tables_that_are_forged_with_a_right_sum_are_checked() {
        let mut bytes = manifest().to_bytes();
        // Every relative pointer of the tables becomes a large one.
        for word in bytes[HEADER_SIZE..].chunks_exact_mut(4) {
            word.copy_from_slice(&0x7fff_fff0_u32.to_le_bytes());
        }
        let sum = xxh3_64(&bytes[HEADER_SIZE..]);
        bytes[24..32].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Manifest::from_bytes(&bytes), Err(Distrust::Tables));
    }

    #[test]
    fn time_goes_by_as_the_clocks_say_that_were_not_set_back() {
        let written =
            Clocks { process_ms: 5_000, wall_ms: 100_000, boot_ms: 7_000, boot_id: [1; 16] };
        let now =
            Clocks { process_ms: 10_000, wall_ms: 130_000, boot_ms: 37_000, boot_id: [1; 16] };
        let shift = Shift::between(&written, &now);
        assert_eq!(shift, Shift { ms: 10_000 - 30_000 - 5_000, is_unknown: false });
        assert_eq!((shift.apply(26_000), shift.apply(5_000)), (1_000, 0));
        let back = Clocks { wall_ms: 50_000, ..now };
        assert_eq!(Shift::between(&written, &back).ms, 10_000 - 30_000 - 5_000);
        let other = Clocks { boot_id: [2; 16], ..back };
        assert_eq!(Shift::between(&written, &other), Shift { ms: 5_000, is_unknown: true });
        let later = Clocks { boot_id: [2; 16], ..now };
        assert_eq!(Shift::between(&written, &later).ms, 10_000 - 30_000 - 5_000);
    }
}
