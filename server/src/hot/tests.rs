//! Sampling, forgetting, and both together on a stream whose truth is known.

use super::*;
use shard_cache::hash::KeyHasher;

/// A shard's lookups of numbered keys.
struct Stream {
    keys: HotKeys,
    hasher: KeyHasher,
}

impl Stream {
    fn new(seed: u64) -> Self {
        let mut keys = HotKeys::new(seed);
        keys.forget(Instant::ZERO);
        Self { keys, hasher: KeyHasher::new([1, 2]) }
    }

    fn offer(&mut self, number: u32) {
        let key = number.to_le_bytes();
        let hash = self.hasher.hash(&key);
        if self.keys.is_next() {
            let lookup = Lookup { hash, key: &key, owner: 0, is_remote: false };
            let sample = self.keys.count(&lookup);
            self.keys.add_bytes(sample, 10);
        }
    }

    fn window(&self) -> Window {
        let mut window = Window::new();
        self.keys.copy_to(&mut window, Instant::ZERO + HALF);
        window
    }
}

/// Which key it was, and its share of all, at least and at most.
fn top(window: &Window, count: usize) -> Vec<(u32, f64, f64)> {
    let mut ranking = Ranking::default();
    window.halves().iter().for_each(|table| ranking.add(table));
    let samples = float(ranking.samples());
    let row = |heavy: &Heavy<'_>| {
        let number = u32::from_le_bytes(heavy.counter.key().try_into().unwrap());
        let [least, most] = [heavy.count - heavy.error, heavy.count].map(float);
        (number, least / samples, most / samples)
    };
    ranking.top(count).iter().map(row).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a count for a share")]
fn float(count: u64) -> f64 {
    count as f64
}

/// How far a share may lie off in a sample of this size: four standard deviations.
fn off_max(share: f64, samples: u64) -> f64 {
    4.0 * (share * (1.0 - share) / float(samples)).sqrt()
}

#[test]
fn one_lookup_in_sixteen_is_counted_whatever_pattern_they_have() {
    for period in [2, 7, 16, 32, 64, 65] {
        let mut stream = Stream::new(u64::from(period));
        let lookups = 200_000;
        (0..lookups).for_each(|number| stream.offer(number % period));
        let window = stream.window();
        let samples = window.halves()[1].samples();
        let rate = float(samples) / f64::from(lookups);
        let expected = 1.0 / f64::from(SAMPLED_ONE_IN);
        assert!((rate - expected).abs() < off_max(expected, lookups.into()), "{period}: {rate}");
        assert_eq!(window.halves()[1].bytes(), 10 * samples);
        let rows = top(&window, 100);
        assert_eq!(rows.len(), period as usize);
        let share = 1.0 / f64::from(period);
        for (number, least, most) in rows {
            assert!(least >= most && (most - share).abs() < off_max(share, samples), "{number}");
        }
    }
}

#[test]
fn what_is_counted_depends_on_the_seed_alone() {
    let counted = |seed| {
        let mut stream = Stream::new(seed);
        (0..1000).for_each(|number| stream.offer(number));
        top(&stream.window(), usize::MAX).iter().map(|row| row.0).collect::<Vec<_>>()
    };
    assert_eq!(counted(5), counted(5));
    assert_ne!(counted(5), counted(6));
}

#[test]
fn what_lies_back_more_than_two_halves_is_forgotten_and_less_than_one_is_not() {
    let mut stream = Stream::new(9);
    let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
    let seen = |stream: &mut Stream, number: Option<u32>, seconds| {
        stream.keys.forget(at(seconds));
        (0..1000).for_each(|_| number.into_iter().for_each(|number| stream.offer(number)));
        let mut window = Window::new();
        stream.keys.copy_to(&mut window, at(seconds));
        let mut numbers: Vec<u32> = top(&window, 10).iter().map(|row| row.0).collect();
        numbers.sort_unstable();
        (numbers, window.duration().as_secs())
    };
    assert_eq!(seen(&mut stream, Some(1), 0), (vec![1], 0));
    assert_eq!(seen(&mut stream, Some(2), 9), (vec![1, 2], 9));
    assert_eq!(seen(&mut stream, Some(3), 10), (vec![1, 2, 3], 10));
    assert_eq!(seen(&mut stream, None, 19), (vec![1, 2, 3], 19));
    assert_eq!(seen(&mut stream, None, 20), (vec![3], 10));
    assert_eq!(seen(&mut stream, None, 30), (vec![], 10));
}

/// Zipf 0.99 over a million keys: the share of each key is known exactly.
#[test]
fn the_twenty_hottest_of_a_million_keys_are_found_with_their_shares() {
    let mut sums = Vec::with_capacity(1_000_000);
    let mut sum = 0.0;
    for rank in 1..=1_000_000_u32 {
        sum += f64::from(rank).powf(-0.99);
        sums.push(sum);
    }
    let mut stream = Stream::new(3);
    let mut draws = HotKeys::new(4);
    for _ in 0..2_000_000 {
        let fraction = float(draws.word() >> 11) / float(1 << 53);
        let number = sums.partition_point(|upper| *upper <= fraction * sum);
        stream.offer(u32::try_from(number).unwrap());
    }
    let window = stream.window();
    let samples = window.halves()[1].samples();
    let rows = top(&window, 40);
    for number in 0..20 {
        let share = f64::from(number + 1).powf(-0.99) / sum;
        let row = rows.iter().find(|row| row.0 == number);
        let Some((_, least, most)) = row else { panic!("{number} is missing in {rows:?}") };
        let off = off_max(share, samples);
        assert!(least - off <= share && share <= most + off, "{number}: {share}, {row:?}");
        assert!(most - least <= 1.0 / f64::from(COUNTERS_COUNT), "{row:?}");
    }
    assert!(rows[..5].iter().map(|row| row.0).eq(0..5), "{rows:?}");
}
