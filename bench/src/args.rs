//! Flags that several commands share: what is asked for, and over how many connections.

use crate::report::parse_count;
use crate::traffic::{Distribution, Recipe, Records, Requests, Verify};
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

    /// The sequence of requests by `recipe`, where the flags say nothing else.
    pub(crate) fn requests(&self, recipe: Recipe<'_>) -> io::Result<Requests> {
        let portion = self.churn.unwrap_or(self.pipeline);
        if !portion.is_multiple_of(self.pipeline) {
            let error = "--churn has to be a multiple of --pipeline: batches are sent whole";
            return Err(io::Error::other(error));
        }
        let recipe = Recipe {
            distribution: self.distribution,
            seed: self.seed.wrapping_add(recipe.seed),
            portion: portion as usize,
            closing: self.churn.is_some(),
            ..recipe
        };
        Requests::new(&recipe).map_err(io::Error::other)
    }
}
