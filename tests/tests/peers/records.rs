//! The real data set, served by the real binary, and some thousand of its records as files that a
//! client's replies are compared with.

use flate2::read::MultiGzDecoder;
use pelton_tests::fixture::Fixture;
use pelton_tests::process::{self, Process};
use serde_json::value::RawValue;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

/// Times that the server's counters are looked at.
const LOOKS_MAX: u32 = 500;

/// Every so many-th record is asked for.
const STEP: usize = 40;

#[derive(serde::Deserialize)]
struct Line<'a> {
    key: String,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// The server and what it must answer.
pub(crate) struct Records {
    pub(crate) fixture: Fixture,
    pub(crate) server: Process,
    /// Key as it stands in a target, and value.
    pub(crate) records: Vec<(String, String)>,
}

impl Records {
    pub(crate) fn serve(sets: &[&str]) -> Self {
        let fixture = Fixture::empty();
        let file = process::root().join("data/cities.jsonl.gz");
        let output = fixture.import_file(file.to_str().unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // One key that has to be escaped, in every form that clients write.
        let odd = r#"{"key":"a b/\u00fc?#%","value":"odd"}"#;
        assert!(fixture.import(odd).status.success());
        let lines = BufReader::new(MultiGzDecoder::new(fs::File::open(file).unwrap())).lines();
        let mut records: Vec<(String, String)> = lines
            .step_by(STEP)
            .map(|line| {
                let line = line.unwrap();
                let line: Line<'_> = serde_json::from_str(&line).unwrap();
                (line.key, line.value.get().to_owned())
            })
            .collect();
        records.push(("a%20b%2F%C3%BC%3F%23%25".into(), "\"odd\"".into()));
        assert!(records.len() > 3_000);
        let server = Process::start(&fixture.store(), sets);
        Self { fixture, server, records }
    }

    /// A file with a line for each record: its key, a tab, its value.
    pub(crate) fn file(&self) -> PathBuf {
        let mut text = String::new();
        for (key, value) in &self.records {
            writeln!(text, "{key}\t{value}").unwrap();
        }
        let path = self.fixture.path("records.tsv");
        fs::write(&path, text).unwrap();
        path
    }

    /// Requests the server has answered so far, however, as last published.
    pub(crate) fn requests(&self) -> u64 {
        self.server.metric("pelton_requests_total", "")
    }

    /// Waits until the server says that it has answered so many, which it does a quarter of a
    /// second later at most.
    pub(crate) fn wait_for_at_least(&self, count: u64) {
        for _ in 0..LOOKS_MAX {
            if self.requests() >= count {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} requests answered instead of {count}", self.requests());
    }

    /// Waits until it says so, and it must be no more.
    pub(crate) fn wait_for(&self, count: u64) {
        self.wait_for_at_least(count);
        assert_eq!(self.requests(), count, "requests that the server has answered");
    }
}
