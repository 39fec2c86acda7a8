//! What kinds of requests there are, and in which proportions.

use super::random::Random;
use std::str::FromStr;

/// What a request is meant to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A key drawn from the keys: found.
    Hit,
    /// The next of the cold keys, each asked for once: found, but not in memory.
    Miss,
    /// A key that nobody stored: 404.
    Absent,
    /// No request at all: refused, and the connection closed.
    Malformed,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Absent, Self::Malformed];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Absent => "absent",
            Self::Malformed => "malformed",
        }
    }

    /// Whether `status` is what such a request should meet.
    pub(crate) const fn expects(self, status: u16) -> bool {
        match self {
            Self::Hit | Self::Miss => matches!(status, 200..=399),
            Self::Absent => status == 404,
            Self::Malformed => matches!(status, 400..=499),
        }
    }
}

/// Weights of the kinds, in the order of [`Kind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mix([f64; 4]);

impl Mix {
    pub(crate) const HITS: Self = Self([1.0, 0.0, 0.0, 0.0]);

    /// The share of a kind among all requests.
    pub(crate) fn share(&self, kind: Kind) -> f64 {
        self.0[kind as usize] / self.0.iter().sum::<f64>()
    }

    pub(super) fn draw(&self, random: &mut Random) -> Kind {
        let mut left = random.share();
        for kind in Kind::ALL {
            left -= self.share(kind);
            if left < 0.0 {
                return kind;
            }
        }
        Kind::Hit
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [0.0; 4];
        for part in text.split(',') {
            let wrong = || {
                format!(
                    "{part:?} is no part of a mix; expected KIND=WEIGHT, where KIND is hit, miss, \
                     absent or malformed, such as hit=95,absent=5"
                )
            };
            let (name, weight) = part.split_once('=').ok_or_else(wrong)?;
            let kind = Kind::ALL.iter().find(|kind| kind.name() == name).ok_or_else(wrong)?;
            let weight = weight.trim_end_matches('%').parse::<f64>().map_err(|_| wrong())?;
            if !weight.is_finite() || weight < 0.0 {
                return Err(wrong());
            }
            weights[*kind as usize] = weight;
        }
        if weights.iter().sum::<f64>() > 0.0 {
            Ok(Self(weights))
        } else {
            Err("a mix needs a weight above zero".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_in_their_proportions() {
        let mix: Mix = "hit=70,miss=20,absent=10".parse().unwrap();
        let mut random = Random::new(1);
        let mut counts = [0.0; 4];
        (0..100_000).for_each(|_| counts[mix.draw(&mut random) as usize] += 1e-5);
        for kind in Kind::ALL {
            assert!((counts[kind as usize] - mix.share(kind)).abs() < 0.01, "{kind:?}");
        }
        assert_eq!(counts[Kind::Malformed as usize], 0.0);
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for wrong in ["", "hit", "hits=1", "hit=x", "hit=-1", "hit=inf", "hit=0"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
