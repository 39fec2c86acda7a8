//! How often each key is asked for.

use super::random::Random;
use std::str::FromStr;

/// A distribution over the keys of a file or of a made-up set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Distribution {
    /// All alike.
    Uniform,
    /// The key of rank r in proportion to r to the power of minus this.
    Zipf(f64),
    /// So many keys get that share of the requests, the others the rest.
    Hot { count: u32, share: f64 },
    /// One after the other, in the order of the file.
    Sequential,
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected uniform, sequential, zipf:EXPONENT such as zipf:0.99, or \
                        hot:COUNT:PERCENT such as hot:100:90%";
        let wrong = || format!("{text:?} is no distribution; {expected}");
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            ["uniform"] => Ok(Self::Uniform),
            ["sequential"] => Ok(Self::Sequential),
            ["zipf", exponent] => match exponent.parse() {
                Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(Self::Zipf(exponent)),
                _ => Err(wrong()),
            },
            ["hot", count, percent] => {
                let count = count.parse().ok().filter(|&count| count > 0);
                let percent = percent.strip_suffix('%').and_then(|text| text.parse::<f64>().ok());
                let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
                let both = count.zip(percent).ok_or_else(wrong)?;
                Ok(Self::Hot { count: both.0, share: both.1 / 100.0 })
            }
            _ => Err(wrong()),
        }
    }
}

/// Draws key indexes.
pub(crate) struct Sampler {
    count: u32,
    random: Random,
    /// The key of each rank: which keys are hot has nothing to do with their place in the file.
    /// Empty where ranks do not matter.
    ranks: Vec<u32>,
    shape: Shape,
}

enum Shape {
    Uniform,
    Sequential {
        next: u32,
    },
    /// The share of the requests that goes to this rank and those before it.
    Cumulative(Vec<f64>),
    Hot {
        count: u32,
        share: f64,
    },
}

impl Sampler {
    /// Over `count` keys, at least one. Which of them are hot does not depend on the seed: another
    /// run asks for the same keys in another order.
    pub(crate) fn new(distribution: Distribution, count: u32, seed: u64) -> Self {
        assert!(count > 0, "there are keys to draw from");
        let random = Random::new(seed);
        let shape = match distribution {
            Distribution::Uniform => Shape::Uniform,
            Distribution::Sequential => Shape::Sequential { next: 0 },
            Distribution::Zipf(exponent) => Shape::Cumulative(cumulative(count, exponent)),
            Distribution::Hot { count: hot, share } => Shape::Hot { count: hot.min(count), share },
        };
        let ranked = matches!(shape, Shape::Cumulative(_) | Shape::Hot { .. });
        let ranks = if ranked { shuffled(count) } else { Vec::new() };
        Self { count, random, ranks, shape }
    }

    pub(crate) fn draw(&mut self) -> u32 {
        let rank = match &mut self.shape {
            Shape::Uniform => return self.random.below(self.count),
            Shape::Sequential { next } => {
                let index = *next;
                *next = (index + 1) % self.count;
                return index;
            }
            Shape::Cumulative(upto) => {
                let share = self.random.share();
                upto.partition_point(|&upto| upto <= share).min(upto.len() - 1)
            }
            Shape::Hot { count, share } => {
                let (hot, rest) = (*count, self.count - *count);
                let rank = if rest == 0 || self.random.share() < *share {
                    self.random.below(hot)
                } else {
                    hot + self.random.below(rest)
                };
                rank as usize
            }
        };
        self.ranks[rank]
    }
}

/// The share of the requests for `count` keys that goes to the `hottest` of them.
pub(crate) fn mass(count: u32, exponent: f64, hottest: u32) -> f64 {
    let upto = cumulative(count, exponent);
    hottest.min(count).checked_sub(1).map_or(0.0, |last| upto[last as usize])
}

fn cumulative(count: u32, exponent: f64) -> Vec<f64> {
    let mut sum = 0.0;
    let mut upto: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        })
        .collect();
    for share in &mut upto {
        *share /= sum;
    }
    upto
}

/// The numbers below `count` in some order (Fisher and Yates).
fn shuffled(count: u32) -> Vec<u32> {
    let mut random = Random::new(0);
    let mut numbers: Vec<u32> = (0..count).collect();
    for last in (1..count).rev() {
        numbers.swap(last as usize, random.below(last + 1) as usize);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 200_000;

    /// How often each key was drawn, most often first.
    fn counts(distribution: Distribution, keys: u32) -> Vec<u32> {
        let mut sampler = Sampler::new(distribution, keys, 7);
        let mut counts = vec![0; keys as usize];
        (0..DRAWS).for_each(|_| counts[sampler.draw() as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts
    }

    /// Within five standard deviations of a binomial.
    fn is_near(count: u32, share: f64) -> bool {
        let mean = f64::from(DRAWS) * share;
        (f64::from(count) - mean).abs() < 5.0 * (mean * (1.0 - share)).sqrt() + 1.0
    }

    #[test]
    fn uniform_keys_come_alike() {
        assert!(counts(Distribution::Uniform, 10).iter().all(|&count| is_near(count, 0.1)));
    }

    #[test]
    fn zipf_ranks_come_by_the_formula() {
        let counts = counts(Distribution::Zipf(0.99), 1_000);
        let sum: f64 = (1..=1_000).map(|rank| f64::from(rank).powf(-0.99)).sum();
        for rank in [1_u32, 2, 3, 10] {
            let share = f64::from(rank).powf(-0.99) / sum;
            assert!(is_near(counts[rank as usize - 1], share), "rank {rank}");
        }
    }

    #[test]
    fn a_hot_set_gets_its_share() {
        let counts = counts(Distribution::Hot { count: 10, share: 0.9 }, 100);
        assert!(is_near(counts[..10].iter().sum(), 0.9));
        assert!(counts[..10].iter().all(|&count| is_near(count, 0.09)));
    }

    #[test]
    fn a_hot_set_may_be_everything() {
        let counts = counts(Distribution::Hot { count: 99, share: 0.5 }, 4);
        assert!(counts.iter().all(|&count| is_near(count, 0.25)));
    }

    #[test]
    fn another_seed_asks_for_the_same_keys_in_another_order() {
        let draw = |seed| {
            let mut sampler = Sampler::new(Distribution::Zipf(2.0), 1_000, seed);
            let drawn: Vec<u32> = (0..10_000).map(|_| sampler.draw()).collect();
            let often = |key: &u32| drawn.iter().filter(|&other| other == key).count();
            let hottest = (0..1_000).max_by_key(often).expect("there are keys");
            (hottest, drawn)
        };
        let ((first, one), (second, other)) = (draw(1), draw(2));
        assert_eq!(first, second);
        assert_ne!(one, other);
    }

    #[test]
    fn sequential_keys_go_round() {
        let mut sampler = Sampler::new(Distribution::Sequential, 3, 1);
        assert_eq!((0..7).map(|_| sampler.draw()).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn hot_keys_lie_anywhere_in_the_file() {
        let mut sampler = Sampler::new(Distribution::Zipf(2.0), 1_000, 3);
        assert!((0..100).any(|_| sampler.draw() > 100));
    }

    #[test]
    fn distributions_are_read() {
        let read = |text: &str| text.parse::<Distribution>();
        assert_eq!(read("uniform"), Ok(Distribution::Uniform));
        assert_eq!(read("zipf:0.99"), Ok(Distribution::Zipf(0.99)));
        assert_eq!(read("hot:100:90%"), Ok(Distribution::Hot { count: 100, share: 0.9 }));
        for wrong in ["", "zipf", "zipf:x", "zipf:-1", "hot:0:90%", "hot:1:90", "hot:1:101%"] {
            assert!(read(wrong).unwrap_err().contains("expected uniform"), "{wrong}");
        }
    }
}
