//! What is asked for: recorded traces, and made-up ones from a seed.
//!
//! The cache moves whole segments, so a cache of few objects says nothing about one of many. Traces
//! of few objects are therefore replayed as several users at once: copies of the trace under
//! numbers of their own, each somewhere else in it, their requests in turn. Reuse distances and
//! footprint grow alike, so at the same share of the footprint the hit ratio is that of one.

use super::caches::{KEY_SIZE, VALUE_SIZE_MAX};
use crate::traffic::{Distribution, Random, Records, Sampler};
use shard_cache::{SEGMENT_SIZE, entry_size};
use std::io;
use std::path::Path;

/// Segments of the smallest cache, and objects in each.
const SEGMENTS_MIN: usize = 64;
const OBJECTS_MIN: usize = 50;

/// Bytes of a value where objects are all alike: 51 entries fill a segment.
const VALUE_SIZE: u32 = 5_100;

/// An object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Bytes of its value.
    pub(super) value_size: u32,
    /// How long it is good; without it, for ever.
    pub(super) ttl_ms: Option<u32>,
}

impl Object {
    const ALIKE: Self = Self { value_size: VALUE_SIZE, ttl_ms: None };

    /// Bytes that it takes in a cache.
    pub(super) fn size(self) -> u32 {
        let size = entry_size(KEY_SIZE, self.value_size as usize);
        u32::try_from(size).expect("values are bounded")
    }
}

/// A trace.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// Object numbers in the order of access.
    pub(super) requests: Vec<u32>,
    pub(super) objects: Vec<Object>,
    /// Requests a second.
    pub(super) rate: u64,
}

impl Workload {
    fn new(name: &'static str, requests: Vec<u32>, objects: Vec<Object>) -> Self {
        Self { name, requests, objects, rate: 10_000 }
    }

    /// Bytes of all objects that are asked for.
    ///
    /// # Panics
    /// If 1% of them are few segments, or of few objects.
    pub(super) fn footprint(&self) -> u64 {
        let mut is_asked = vec![false; self.objects.len()];
        self.requests.iter().for_each(|&number| is_asked[number as usize] = true);
        let asked = self.objects.iter().zip(is_asked).filter(|(_, is_asked)| *is_asked);
        let sizes: Vec<u64> = asked.map(|(object, _)| object.size().into()).collect();
        let footprint: u64 = sizes.iter().sum();
        let segment = SEGMENT_SIZE as u64;
        assert!(footprint / 100 / segment >= SEGMENTS_MIN as u64, "{}: few segments", self.name);
        assert!(
            segment * sizes.len() as u64 / footprint >= OBJECTS_MIN as u64,
            "{}: few objects",
            self.name
        );
        footprint
    }
}

/// The recorded traces in `folder`.
pub(super) fn recorded(folder: &Path) -> io::Result<Vec<Workload>> {
    ["web07", "web12", "orm-busy"]
        .into_iter()
        .map(|name| {
            let records = Records::read(&folder.join(format!("{name}.txt.gz")))?;
            Ok(copies(name, &numbered(&records.keys)))
        })
        .collect()
}

/// Numbers from 0 on for names, in the order of their first use.
fn numbered(names: &[String]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&place| (&names[place], place));
    let mut first_use = vec![0; names.len()];
    for same in order.chunk_by(|&a, &b| names[a] == names[b]) {
        same.iter().for_each(|&place| first_use[place] = same[0]);
    }
    let mut numbers = vec![0; names.len()];
    let mut next = 0;
    for place in 0..names.len() {
        let first = first_use[place];
        if first == place {
            numbers[place] = next;
            next += 1;
        } else {
            numbers[place] = numbers[first];
        }
    }
    numbers
}

/// As many users at once as it takes for enough objects.
fn copies(name: &'static str, trace: &[u32]) -> Workload {
    let count = trace.iter().max().map_or(0, |&last| last + 1);
    let size = count as usize * Object::ALIKE.size() as usize;
    let copies = (100 * SEGMENTS_MIN * SEGMENT_SIZE).div_ceil(size);
    let mut requests = Vec::with_capacity(trace.len() * copies);
    for place in 0..trace.len() {
        for (copy, base) in (0..copies).zip((0..).step_by(count as usize)) {
            let start = copy * trace.len() / copies;
            requests.push(base + trace[(start + place) % trace.len()]);
        }
    }
    Workload::new(name, requests, vec![Object::ALIKE; count as usize * copies])
}

/// Objects of the made-up traces, and requests for them.
const COUNT: u32 = 500_000;
const REQUESTS: usize = 8_000_000;

/// The made-up traces, in three groups: popularity alone, popularity that changes, and sizes and
/// times to live as production caches have them.
pub(super) fn made_up(seed: u64) -> Vec<Workload> {
    vec![
        zipf("zipf 0.7", 0.7, COUNT, seed),
        zipf("zipf 0.9", 0.9, COUNT, seed),
        zipf("zipf 1.0", 1.0, COUNT, seed),
        // Most of these are never asked for.
        zipf("zipf 1.2", 1.2, 4 * COUNT, seed),
        hot_set_shift(seed),
        scans(seed),
        flash_crowds(seed),
        sizes(seed),
        short_lived(seed),
        one_hit_wonders(seed),
    ]
}

fn zipf(name: &'static str, exponent: f64, count: u32, seed: u64) -> Workload {
    let mut sampler = Sampler::new(Distribution::Zipf(exponent), count, seed);
    let requests = (0..REQUESTS).map(|_| sampler.draw()).collect();
    Workload::new(name, requests, vec![Object::ALIKE; count as usize])
}

/// What is popular moves on: every 100,000 requests, each object hands its popularity to one that
/// lies 1% further.
fn hot_set_shift(seed: u64) -> Workload {
    let mut sampler = Sampler::new(Distribution::Zipf(0.99), COUNT, seed);
    let requests = (0..REQUESTS)
        .map(|place| {
            let shift = u32::try_from(place / 100_000).expect("few") * (COUNT / 100);
            (sampler.draw() + shift) % COUNT
        })
        .collect();
    Workload::new("hot set shifts", requests, vec![Object::ALIKE; COUNT as usize])
}

/// Half of the objects are asked for by popularity; in every million requests, 100,000 of the other
/// half are read once, one after the other, with every second request.
fn scans(seed: u64) -> Workload {
    let popular = COUNT / 2;
    let mut sampler = Sampler::new(Distribution::Zipf(0.99), popular, seed);
    let mut scanned = (popular..COUNT).cycle();
    let requests = (0..REQUESTS)
        .map(|place| {
            let is_scan = place % 1_000_000 < 200_000 && place % 2 == 0;
            let next = if is_scan { scanned.next() } else { None };
            next.unwrap_or_else(|| sampler.draw())
        })
        .collect();
    Workload::new("scans", requests, vec![Object::ALIKE; COUNT as usize])
}

/// In every 400,000 requests, half of 100,000 go to 20 objects that nobody asked for before, and
/// nobody asks for again.
fn flash_crowds(seed: u64) -> Workload {
    let mut sampler = Sampler::new(Distribution::Zipf(0.9), COUNT, seed);
    let mut random = Random::new(seed);
    let requests: Vec<u32> = (0..REQUESTS)
        .map(|place| {
            let crowd = u32::try_from(place / 400_000).expect("few");
            let is_crowded = place % 400_000 < 100_000 && random.below(2) == 0;
            if is_crowded { COUNT + 20 * crowd + random.below(20) } else { sampler.draw() }
        })
        .collect();
    let last = requests.iter().max().expect("there are requests");
    let objects = vec![Object::ALIKE; *last as usize + 1];
    Workload::new("flash crowds", requests, objects)
}

/// Values of all sizes: log-normal, half of them below 512 bytes, a mean of 1 KiB, at most 64 KiB.
fn sizes(seed: u64) -> Workload {
    const COUNT: u32 = 2_800_000;
    let mut random = Random::new(seed);
    let objects = (0..COUNT)
        .map(|_| {
            let size = 512.0 * (1.2 * normal(&mut random)).exp();
            Object { value_size: whole(size.clamp(16.0, f64::from(VALUE_SIZE_MAX))), ttl_ms: None }
        })
        .collect();
    let mut sampler = Sampler::new(Distribution::Zipf(0.9), COUNT, seed);
    let requests = (0..REQUESTS).map(|_| sampler.draw()).collect();
    Workload::new("sizes", requests, objects)
}

/// Times to live of one and five minutes and values of 2.4 KB, as cluster 4 of Yang et al., "A
/// large scale analysis of hundreds of in-memory cache clusters at Twitter" (OSDI 2020), over a
/// quarter of an hour.
fn short_lived(seed: u64) -> Workload {
    const COUNT: u32 = 1_200_000;
    let mut random = Random::new(seed);
    let objects = (0..COUNT)
        .map(|_| {
            let ttl_ms = if random.below(2) == 0 { 60_000 } else { 300_000 };
            Object { value_size: 2_400, ttl_ms: Some(ttl_ms) }
        })
        .collect();
    let mut sampler = Sampler::new(Distribution::Zipf(1.0), COUNT, seed);
    let requests = (0..REQUESTS).map(|_| sampler.draw()).collect();
    Workload { rate: 8_800, ..Workload::new("short-lived", requests, objects) }
}

/// Four in five objects are asked for once, as in the clusters of that paper that are written more
/// than they are read.
fn one_hit_wonders(seed: u64) -> Workload {
    const POPULAR: u32 = 200_000;
    let object = Object { value_size: 1_500, ttl_ms: None };
    let mut sampler = Sampler::new(Distribution::Zipf(0.9), POPULAR, seed);
    let mut once = POPULAR..;
    let requests: Vec<u32> = (0..REQUESTS)
        .map(|place| if place % 5 == 0 { once.next() } else { None })
        .map(|next| next.unwrap_or_else(|| sampler.draw()))
        .collect();
    let objects = vec![object; once.start as usize];
    Workload::new("one-hit wonders", requests, objects)
}

/// A number from the standard normal distribution (Box and Muller).
fn normal(random: &mut Random) -> f64 {
    let radius = (-2.0 * (1.0 - random.share()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.share()).cos()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are bounded")]
fn whole(size: f64) -> u32 {
    size as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered_in_the_order_of_their_first_use() {
        let names = ["b", "a", "b", "c", "a"].map(str::to_owned);
        assert_eq!(numbered(&names), [0, 1, 0, 2, 1]);
    }

    #[test]
    fn each_copy_asks_for_objects_of_its_own_as_often_as_the_trace() {
        let trace: Vec<u32> = (0..1_000).map(|place| place % 500).collect();
        let workload = copies("test", &trace);
        assert_eq!(workload.objects.len(), 500 * 653);
        let mut counts = vec![0; workload.objects.len()];
        workload.requests.iter().for_each(|&number| counts[number as usize] += 1);
        assert!(counts.iter().all(|&count| count == 2));
        assert_eq!(workload.footprint(), u64::from(Object::ALIKE.size()) * 326_500);
    }

    #[test]
    fn half_of_what_is_drawn_from_a_normal_distribution_lies_within_two_thirds_of_its_deviation() {
        let mut random = Random::new(1);
        let near = (0..100_000).filter(|_| normal(&mut random).abs() < 0.6745).count();
        assert!((49_000..51_000).contains(&near), "{near}");
    }
}
