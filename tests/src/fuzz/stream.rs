//! What befalls a stream that was well formed: damage, bytes behind it, cuts.

use crate::damage::Damage;
use arbitrary::{Arbitrary, Result, Unstructured};

/// More of each would only be slower.
const DAMAGE_COUNT_MAX: usize = 8;
const CUTS_COUNT_MAX: usize = 16;

/// Drawn from the end of an input; what is left of it follows the stream.
#[derive(Debug)]
pub(super) struct Fate {
    cuts: Vec<u16>,
    damage: Vec<(u16, Damage)>,
    rest: Vec<u8>,
}

impl Fate {
    pub(super) fn draw(mut source: Unstructured<'_>) -> Result<Self> {
        let mut cuts: Vec<u16> = Arbitrary::arbitrary(&mut source)?;
        cuts.truncate(CUTS_COUNT_MAX);
        let mut damage: Vec<(u16, Damage)> = Arbitrary::arbitrary(&mut source)?;
        damage.truncate(DAMAGE_COUNT_MAX);
        Ok(Self { cuts, damage, rest: source.take_rest().to_vec() })
    }

    /// Does to `bytes` what is to be done to them.
    pub(super) fn befall(&self, bytes: &mut Vec<u8>) {
        for (at, damage) in &self.damage {
            damage.apply(bytes, usize::from(*at));
        }
        bytes.extend(&self.rest);
    }

    /// The pieces of `bytes` between the cuts.
    pub(super) fn cut<'a>(&self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut ends: Vec<usize> =
            self.cuts.iter().map(|cut| usize::from(*cut) % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut start = 0;
        ends.into_iter()
            .map(|end| {
                let piece = &bytes[start..end];
                start = end;
                piece
            })
            .collect()
    }
}
