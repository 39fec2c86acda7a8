//! Flags that several commands share: what is asked for, and over how many connections.

use crate::load::Stream;
use crate::report::parse_count;
use crate::traffic::{Distribution, Keys, Mix, Recipe, Records, Requests, Verify};
use clap::Args;
use std::io;
use std::path::PathBuf;

/// The path where keys are asked for and the URL has none.
const LOOKUP_PATH: &str = "/lookup/{key}";

#[derive(Args)]
pub(crate) struct Traffic {
    /// Requests sent at once on a connection.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) pipeline: u32,
    /// Requests after which a connection is closed and made anew; without it, they stay.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) churn: Option<u32>,
    /// Keys to ask for, where {key} stands in the path or body: one a line, or records with a key
    /// and a value (.jsonl); either may be compressed (.gz).
    #[arg(long, value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// So many made-up keys instead of a file, those that `data` writes.
    #[arg(long, value_name = "N", conflicts_with = "keys", value_parser = parse_count)]
    pub(crate) keys_count: Option<u32>,
    /// How often each key is asked for: uniform, sequential, zipf:EXPONENT or hot:COUNT:PERCENT.
    #[arg(long, value_name = "KIND", default_value = "uniform")]
    pub(crate) distribution: Distribution,
    /// Compare bodies: with the values of the records, or with the key and version in those that
    /// `data` writes (pattern); a version must never fall.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true,
          default_missing_value = "records")]
    pub(crate) verify: Option<Verify>,
    /// What draws keys and kinds.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What differs from one sequence to another.
pub(crate) struct Form<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) host: &'a str,
    pub(crate) headers: &'a [String],
    pub(crate) body: Option<&'a str>,
    pub(crate) cold: &'a [String],
    pub(crate) mix: Mix,
    pub(crate) seed: u64,
}

impl<'a> Form<'a> {
    /// Plain GETs.
    pub(crate) const fn get(path: &'a str, host: &'a str) -> Self {
        let (headers, cold) = (&[], &[]);
        Self { method: "GET", path, host, headers, body: None, cold, mix: Mix::HITS, seed: 0 }
    }
}

impl Traffic {
    /// The keys, and the values where there are some.
    pub(crate) fn records(&self) -> io::Result<Records> {
        let records = match (&self.keys, self.keys_count) {
            (Some(path), _) => Records::read(path)?,
            (None, Some(count)) => Records::generated(count),
            (None, None) => Records::default(),
        };
        let lacks = match self.verify {
            Some(Verify::Records) => records.bodies.is_empty(),
            Some(Verify::Pattern) => records.keys.is_empty(),
            None => false,
        };
        if lacks {
            let needs = "--verify needs records with values (--keys FILE.jsonl), and \
                         --verify=pattern needs keys";
            return Err(io::Error::other(needs));
        }
        Ok(records)
    }

    /// The path to ask for: that of the URL, or the one of lookups.
    pub(crate) fn path<'a>(&self, path: &'a str) -> &'a str {
        let asks_for_keys = self.keys.is_some() || self.keys_count.is_some();
        if asks_for_keys && matches!(path, "" | "/") { LOOKUP_PATH } else { path }
    }

    /// The sequence of requests.
    pub(crate) fn requests(&self, form: &Form<'_>, records: &Records) -> io::Result<Requests> {
        let portion = self.churn.unwrap_or(self.pipeline);
        let recipe = Recipe {
            method: form.method,
            path: form.path,
            host: form.host,
            headers: form.headers,
            body: form.body,
            keys: Keys { known: &records.keys, cold: form.cold },
            distribution: self.distribution,
            mix: form.mix,
            seed: self.seed.wrapping_add(form.seed),
            portion: portion as usize,
            closing: self.churn.is_some(),
            count: None,
        };
        Requests::new(&recipe).map_err(io::Error::other)
    }

    /// A stream that sends them.
    pub(crate) fn stream<'a>(
        &self,
        requests: &'a Requests,
        records: &'a Records,
        connections: usize,
        rate: Option<f64>,
    ) -> Stream<'a> {
        Stream {
            name: "all",
            connections,
            rate,
            pipeline: self.pipeline as usize,
            requests,
            first_request: 0,
            verify: self.verify.map(|verify| (verify, records)),
            bodiless: false,
        }
    }
}
