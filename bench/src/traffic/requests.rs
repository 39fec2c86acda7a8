//! A long sequence of requests, written out before a run begins.
//!
//! Sending is then a matter of naming consecutive bytes, and the generator's cost does not depend
//! on how keys are drawn. After its end the sequence begins again.
//!
//! ```text
//! text    [ request 0 | request 1 | ... ]
//! starts  [ 0         , 61        , ... , text.len() ]
//! asked   [ hit, key 17 | absent | ... ]
//! ```
//!
//! The sequence is cut into portions. A connection takes one at a time: a batch of pipelined
//! requests or, where connections are to end, all requests of a connection's life, the last of
//! which says `Connection: close`. What makes the server close stands at the end of a portion.

use super::distribution::Sampler;
use super::random::Random;
use super::{Distribution, Kind, Mix};
use std::ops::Range;

/// Most requests of a sequence; at 100,000 a second, ten seconds.
const REQUESTS_MAX: usize = 1 << 20;
/// Most bytes of a sequence: long bodies make it shorter.
const TEXT_SIZE_MAX: usize = 256 << 20;

/// What stands for a key in a path or body.
const PLACEHOLDER: &str = "{key}";

/// Requests that every server should refuse, and after which it should close.
const MALFORMED: [&[u8]; 4] = [
    b"GET /lookup/a HTTP/1.1\r\nHost : pelton\r\n\r\n",
    b"GET /lookup/a HTTP/1.1\r\nHost: pelton\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET /lookup/a\x01 HTTP/1.1\r\nHost: pelton\r\n\r\n",
    b"GET /lookup/a HTTP/1.1\r\nHost: pelton\r\nContent-Length: x\r\n\r\n",
];

/// Where keys come from.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// What hits are drawn from; none where path and body name no key.
    pub(crate) known: &'a [String],
    /// What misses take, one after the other.
    pub(crate) cold: &'a [String],
}

/// What a sequence is made of.
pub(crate) struct Recipe<'a> {
    pub(crate) method: &'a str,
    /// Path with query; `{key}` stands for a key.
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    /// `Name: value`, without an end of line.
    pub(crate) headers: &'a [String],
    /// Body; each `{key}` stands for a key, drawn anew.
    pub(crate) body: Option<&'a str>,
    pub(crate) keys: Keys<'a>,
    pub(crate) distribution: Distribution,
    pub(crate) mix: Mix,
    pub(crate) seed: u64,
    /// Requests that a connection takes at a time.
    pub(crate) portion: usize,
    /// The last request of a portion asks the server to close.
    pub(crate) closing: bool,
    /// Requests in all, rounded up to whole portions; as many as fit where there is none.
    pub(crate) count: Option<usize>,
}

impl<'a> Recipe<'a> {
    /// Plain GETs, one at a time.
    pub(crate) const fn get(path: &'a str, host: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            host,
            headers: &[],
            body: None,
            keys: Keys { known: &[], cold: &[] },
            distribution: Distribution::Uniform,
            mix: Mix::HITS,
            seed: 0,
            portion: 1,
            closing: false,
            count: None,
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    /// The index of its key among the known ones, if it asks for one of them.
    pub(crate) key: Option<u32>,
    /// The connection is over after the reply.
    pub(crate) closing: bool,
}

/// A sequence of requests, for the rest of the process's life.
pub(crate) struct Requests {
    text: &'static [u8],
    starts: Vec<u32>,
    asked: Vec<Asked>,
    portion: usize,
}

impl Requests {
    /// Writes the sequence.
    ///
    /// # Errors
    /// If keys are needed and there are none.
    pub(crate) fn new(recipe: &Recipe<'_>) -> Result<Self, String> {
        Writer::new(recipe)?.write()
    }

    /// How many requests the sequence holds: whole portions.
    pub(crate) fn count(&self) -> usize {
        self.asked.len()
    }

    /// Requests that a connection takes at a time.
    pub(crate) const fn portion(&self) -> usize {
        self.portion
    }

    /// The text of the requests of this range.
    pub(crate) fn text(&self, range: &Range<usize>) -> &'static [u8] {
        &self.text[self.starts[range.start] as usize..self.starts[range.end] as usize]
    }

    /// What a request asks for.
    pub(crate) fn asked(&self, index: usize) -> Asked {
        self.asked[index]
    }
}

struct Writer<'a> {
    recipe: &'a Recipe<'a>,
    random: Random,
    sampler: Option<Sampler>,
    cold: std::iter::Cycle<std::slice::Iter<'a, String>>,
    absent: u32,
    malformed: usize,
    text: Vec<u8>,
    starts: Vec<u32>,
    asked: Vec<Asked>,
}

impl<'a> Writer<'a> {
    fn new(recipe: &'a Recipe<'a>) -> Result<Self, String> {
        let Recipe { keys, mix, distribution, seed, .. } = *recipe;
        let names_key = [recipe.path, recipe.body.unwrap_or("")]
            .iter()
            .any(|template| template.contains(PLACEHOLDER));
        if !names_key && mix != Mix::HITS {
            return Err(format!("a mix needs {PLACEHOLDER} in the path or body"));
        }
        if names_key && keys.known.is_empty() && mix.share(Kind::Hit) > 0.0 {
            return Err(format!("{PLACEHOLDER} needs keys to draw from: --keys or --keys-count"));
        }
        if keys.cold.is_empty() && mix.share(Kind::Miss) > 0.0 {
            return Err("misses need keys that nobody asked for before: --cold-keys".to_owned());
        }
        let count = u32::try_from(keys.known.len()).map_err(|_| "there are too many keys")?;
        let is_drawn = names_key && count > 0;
        Ok(Self {
            recipe,
            random: Random::new(!seed),
            sampler: is_drawn.then(|| Sampler::new(distribution, count, seed)),
            cold: keys.cold.iter().cycle(),
            absent: 0,
            malformed: 0,
            text: Vec::new(),
            starts: vec![0],
            asked: Vec::new(),
        })
    }

    fn write(mut self) -> Result<Requests, String> {
        let portion = self.recipe.portion;
        let count = self.recipe.count.unwrap_or(REQUESTS_MAX).max(1);
        while self.asked.len() < count && self.text.len() < TEXT_SIZE_MAX {
            self.write_portion();
        }
        if self.recipe.count.is_some_and(|count| self.asked.len() < count) {
            return Err(format!("{count} requests are more than {TEXT_SIZE_MAX} bytes"));
        }
        let Self { text, starts, asked, .. } = self;
        Ok(Requests { text: Box::leak(text.into_boxed_slice()), starts, asked, portion })
    }

    /// Malformed requests that were drawn wait for the end of their portion; of several there, one
    /// is left.
    fn write_portion(&mut self) {
        let portion = self.recipe.portion;
        let mut kinds: Vec<Kind> =
            (0..portion).map(|_| self.recipe.mix.draw(&mut self.random)).collect();
        if let Some(at) = kinds.iter().position(|&kind| kind == Kind::Malformed) {
            kinds.swap(at, portion - 1);
            for kind in &mut kinds[..portion - 1] {
                if *kind == Kind::Malformed {
                    *kind = Kind::Hit;
                }
            }
        }
        for (index, kind) in kinds.into_iter().enumerate() {
            let is_last = index + 1 == portion;
            self.write_request(kind, is_last && self.recipe.closing);
        }
    }

    fn write_request(&mut self, kind: Kind, closing: bool) {
        let mut key = None;
        if kind == Kind::Malformed {
            self.text.extend_from_slice(MALFORMED[self.malformed % MALFORMED.len()]);
            self.malformed += 1;
        } else {
            let recipe = self.recipe;
            let path = self.fill(recipe.path, kind, percent_encode, &mut key);
            let body = recipe.body.map(|body| self.fill(body, kind, json_escape, &mut key));
            self.write_head(&path, body.as_deref(), closing);
            self.text.extend_from_slice(body.unwrap_or_default().as_bytes());
        }
        let size = u32::try_from(self.text.len()).expect("bounded, and a body is in memory");
        self.starts.push(size);
        let closing = closing || kind == Kind::Malformed;
        self.asked.push(Asked { kind, key, closing });
    }

    fn write_head(&mut self, path: &str, body: Option<&str>, closing: bool) {
        let Recipe { method, host, headers, .. } = self.recipe;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for header in *headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        if let Some(body) = body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        if closing {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        self.text.extend_from_slice(head.as_bytes());
    }

    /// The template with a key for every placeholder; notes the index of a known key.
    fn fill(
        &mut self,
        template: &str,
        kind: Kind,
        encode: fn(&str) -> String,
        key: &mut Option<u32>,
    ) -> String {
        let mut pieces = template.split(PLACEHOLDER);
        let mut filled = pieces.next().unwrap_or("").to_owned();
        for piece in pieces {
            let drawn = match kind {
                Kind::Miss => self.cold.next().cloned(),
                Kind::Absent => {
                    self.absent += 1;
                    Some(format!("absent-{}-{}", self.recipe.seed, self.absent))
                }
                Kind::Hit | Kind::Malformed => self.sampler.as_mut().map(|sampler| {
                    let index = sampler.draw();
                    *key = Some(index);
                    self.recipe.keys.known[index as usize].clone()
                }),
            };
            filled.push_str(&encode(&drawn.expect("checked before the first request")));
            filled.push_str(piece);
        }
        filled
    }
}

/// Everything but unreserved characters as percent and two digits (RFC 3986 section 2.3).
fn percent_encode(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// What stands between the quotes of a JSON string.
fn json_escape(key: &str) -> String {
    let quoted = serde_json::Value::from(key).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Keys<'_> = Keys { known: &[], cold: &[] };

    fn recipe<'a>(path: &'a str, keys: Keys<'a>) -> Recipe<'a> {
        let distribution = Distribution::Sequential;
        Recipe { keys, distribution, seed: 1, count: Some(1), ..Recipe::get(path, "h") }
    }

    fn text(requests: &Requests) -> &str {
        std::str::from_utf8(requests.text(&(0..requests.count()))).unwrap()
    }

    #[test]
    fn keys_are_encoded_and_the_last_portion_is_whole() {
        let known = ["a", "b c", "d"].map(ToOwned::to_owned);
        let keys = Keys { known: &known, cold: &[] };
        let recipe = Recipe { portion: 2, count: Some(3), ..recipe("/lookup/{key}", keys) };
        let requests = Requests::new(&recipe).unwrap();
        assert_eq!(requests.count(), 4);
        let keys: Vec<_> = (0..4).filter_map(|index| requests.asked(index).key).collect();
        assert_eq!(keys, [0, 1, 2, 0]);
        assert_eq!(requests.text(&(1..2)), b"GET /lookup/b%20c HTTP/1.1\r\nHost: h\r\n\r\n");
    }

    #[test]
    fn a_range_is_consecutive_bytes() {
        let recipe = Recipe { portion: 3, ..recipe("/x", NONE) };
        let requests = Requests::new(&recipe).unwrap();
        assert_eq!(text(&requests), "GET /x HTTP/1.1\r\nHost: h\r\n\r\n".repeat(3));
        assert_eq!(requests.asked(0).key, None);
    }

    #[test]
    fn bodies_have_their_length_and_keys_of_their_own() {
        let known = ["a\"".to_owned(), "b".to_owned()];
        let recipe = Recipe {
            method: "POST",
            headers: &["X-API-Key: 1".to_owned()],
            body: Some("{\"keys\":[\"{key}\",\"{key}\"]}"),
            ..recipe("/lookup", Keys { known: &known, cold: &[] })
        };
        let requests = Requests::new(&recipe).unwrap();
        assert_eq!(
            text(&requests),
            "POST /lookup HTTP/1.1\r\nHost: h\r\nX-API-Key: 1\r\nContent-Length: 20\r\n\r\n\
             {\"keys\":[\"a\\\"\",\"b\"]}"
        );
    }

    #[test]
    fn a_life_ends_with_a_request_to_close() {
        let recipe = Recipe { portion: 3, closing: true, count: Some(6), ..recipe("/x", NONE) };
        let requests = Requests::new(&recipe).unwrap();
        let closing: Vec<usize> = (0..6).filter(|&index| requests.asked(index).closing).collect();
        assert_eq!(closing, [2, 5]);
        assert_eq!(text(&requests).matches("Connection: close\r\n\r\n").count(), 2);
    }

    #[test]
    fn malformed_requests_stand_at_the_end_of_their_portion() {
        let known = ["a".to_owned()];
        let recipe = Recipe {
            mix: "hit=90,malformed=10".parse().unwrap(),
            portion: 4,
            count: Some(4_000),
            ..recipe("/{key}", Keys { known: &known, cold: &[] })
        };
        let requests = Requests::new(&recipe).unwrap();
        let is_malformed = |&index: &usize| requests.asked(index).kind == Kind::Malformed;
        let malformed: Vec<usize> = (0..4_000).filter(is_malformed).collect();
        assert!(malformed.len() > 300);
        assert!(malformed.iter().all(|index| index % 4 == 3 && requests.asked(*index).closing));
    }

    #[test]
    fn cold_keys_come_once_each_and_absent_ones_never_twice() {
        let cold: Vec<String> = (0..100).map(|number| format!("cold-{number}")).collect();
        let recipe = Recipe {
            mix: "miss=1,absent=1".parse().unwrap(),
            count: Some(150),
            ..recipe("/{key}", Keys { known: &[], cold: &cold })
        };
        let requests = Requests::new(&recipe).unwrap();
        let mut paths: Vec<&str> = text(&requests)
            .split("\r\n\r\n")
            .map(|head| &head[..head.find(" HTTP").unwrap_or(0)])
            .collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), 151);
    }

    #[test]
    fn keys_that_are_needed_and_not_there_are_asked_for() {
        let refused = |recipe: &Recipe<'_>| Requests::new(recipe).err().unwrap_or_default();
        assert!(refused(&recipe("/{key}", NONE)).contains("--keys"));
        let mix = "miss=1".parse().unwrap();
        assert!(refused(&Recipe { mix, ..recipe("/{key}", NONE) }).contains("--cold-keys"));
        let mix = "absent=1".parse().unwrap();
        assert!(refused(&Recipe { mix, ..recipe("/x", NONE) }).contains("{key}"));
    }

    #[test]
    fn a_seed_makes_one_sequence() {
        let known: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        let draw = |seed| {
            let keys = Keys { known: &known, cold: &[] };
            let distribution = Distribution::Uniform;
            let recipe = Recipe { distribution, seed, count: Some(100), ..recipe("/{key}", keys) };
            Requests::new(&recipe).unwrap().asked
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
