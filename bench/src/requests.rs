//! What the load generator sends: a long sequence of requests, written out before it begins.
//!
//! Sending is then a matter of naming consecutive bytes, and the generator's cost does not depend
//! on how keys are drawn. After its end the sequence begins again.
//!
//! ```text
//! text    [ request 0 | request 1 | ... ]
//! starts  [ 0         , 61        , ... , text.len() ]
//! ```

use std::ops::Range;

/// How many requests a random sequence holds; at 100,000 a second, ten seconds.
const RANDOM_COUNT: usize = 1 << 20;

/// What to ask for.
pub(crate) enum Target<'a> {
    /// The same path every time.
    Path(&'a str),
    /// `/lookup/` and a key, drawn uniformly.
    Random { keys: &'a [String], seed: u64 },
    /// `/lookup/` and every key once, in order.
    Sweep { keys: &'a [String] },
}

/// A sequence of requests, for the rest of the process's life.
pub(crate) struct Requests {
    text: &'static [u8],
    starts: Vec<u32>,
    /// The index of each request's key; empty for a fixed path.
    keys: Vec<u32>,
}

impl Requests {
    /// Writes the sequence, its length a multiple of `batch`.
    pub(crate) fn new(target: &Target<'_>, host: &str, batch: usize) -> Self {
        let mut text = Vec::new();
        let mut starts = vec![0];
        let mut keys = Vec::new();
        let mut add = |path: &[u8]| {
            text.extend_from_slice(b"GET ");
            text.extend_from_slice(path);
            text.extend_from_slice(b" HTTP/1.1\r\nHost: ");
            text.extend_from_slice(host.as_bytes());
            text.extend_from_slice(b"\r\n\r\n");
            starts.push(u32::try_from(text.len()).expect("a million requests have under 4 GiB"));
        };
        match *target {
            Target::Path(path) => (0..batch).for_each(|_| add(path.as_bytes())),
            Target::Random { keys: all, seed } => {
                let count = all.len() as u64;
                let mut random = Random(seed);
                keys.extend((0..RANDOM_COUNT.next_multiple_of(batch)).map(|_| random.below(count)));
                keys.iter().for_each(|&key| add(&lookup(&all[key as usize])));
            }
            Target::Sweep { keys: all } => {
                let count = u32::try_from(all.len()).expect("keys are fewer than 4 billion");
                keys.extend((0..count).cycle().take(all.len().next_multiple_of(batch)));
                keys.iter().for_each(|&key| add(&lookup(&all[key as usize])));
            }
        }
        Self { text: Box::leak(text.into_boxed_slice()), starts, keys }
    }

    /// How many requests the sequence holds.
    pub(crate) fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The text of the requests of this range.
    pub(crate) fn text(&self, range: &Range<usize>) -> &'static [u8] {
        &self.text[self.starts[range.start] as usize..self.starts[range.end] as usize]
    }

    /// Which key a request asks for, or `None` for a fixed path.
    pub(crate) fn key(&self, index: usize) -> Option<usize> {
        self.keys.get(index).map(|&key| key as usize)
    }
}

/// The path of a key: everything but unreserved characters is percent-encoded.
fn lookup(key: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut path = b"/lookup/".to_vec();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(byte);
        } else {
            path.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    path
}

/// SplitMix64: a seed makes one sequence, everywhere.
struct Random(u64);

impl Random {
    /// A number below `count`, evenly but for one part in 2^64 / `count`.
    fn below(&mut self, count: u64) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let below = (u128::from(bits) * u128::from(count)) >> 64;
        u32::try_from(below).expect("keys are fewer than 4 billion")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_asks_for_every_key_and_fills_its_last_batch() {
        let keys = ["a", "b c", "d"].map(ToOwned::to_owned);
        let requests = Requests::new(&Target::Sweep { keys: &keys }, "h", 2);
        assert_eq!(requests.count(), 4);
        assert_eq!((0..4).filter_map(|i| requests.key(i)).collect::<Vec<_>>(), [0, 1, 2, 0]);
        assert_eq!(requests.text(&(1..2)), b"GET /lookup/b%20c HTTP/1.1\r\nHost: h\r\n\r\n");
    }

    #[test]
    fn a_range_is_consecutive_bytes() {
        let requests = Requests::new(&Target::Path("/x"), "h", 3);
        let one = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(requests.text(&(0..3)), one.repeat(3));
        assert_eq!(requests.key(0), None);
    }

    #[test]
    fn a_seed_makes_one_sequence_that_covers_the_keys() {
        let keys: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        let draw = |seed| Requests::new(&Target::Random { keys: &keys, seed }, "h", 16).keys;
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let share = |key| draw(1).iter().filter(|&&drawn| drawn == key).count();
        assert!((0..10).all(|key| (100_000..110_000).contains(&share(key))));
    }
}
