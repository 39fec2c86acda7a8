//! The real binary as a stage.

use super::stage::{Received, Source, Stage};
use super::writes::TOKEN;
use super::{Pieces, Script};
use crate::fixture::Fixture;
use crate::process::Process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

/// How often a metric is read before it counts as wrong.
const LOOKS_MAX: u32 = 20_000;

/// More capacity than one of the two shards can have: both can store. Until then a miss may be
/// answered 503.
const SHARE_OF_ONE: u64 = 8 << 20;

/// A server, and connections to it.
#[derive(Debug)]
pub struct ProcessStage {
    process: Process,
    streams: Vec<TcpStream>,
    pieces: Pieces,
    _fixture: Fixture,
}

impl ProcessStage {
    /// A server whose store has what the `scripts` say, with the settings of the first of them.
    ///
    /// # Panics
    /// If it does not start, or if two scripts say different things about a key.
    #[must_use]
    pub fn start(scripts: &[&Script]) -> Self {
        let fixture = Fixture::empty();
        let mut lines = String::new();
        let mut seen = std::collections::BTreeMap::new();
        for script in scripts {
            for (key, source) in script.sources() {
                let before = seen.insert(key, source);
                let agree = before.is_none_or(|before| before == source);
                assert!(agree, "{}: another script says otherwise about {key}", script.name);
                if let (None, Source::Has(value)) = (before, source) {
                    let value = String::from_utf8_lossy(value);
                    writeln!(lines, r#"{{"key":"{key}","value":{value}}}"#).expect("it grows");
                }
            }
        }
        let output = fixture.import(&lines);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let first = scripts.first().expect("at least one script");
        let token_file = fixture.token_file(TOKEN);
        let mut sets = vec!["cache.memory=16MiB", "cache.ttl_jitter=0%", &*token_file];
        sets.extend(first.config.iter().map(String::as_str));
        let file = fixture.path("pelton.toml");
        std::fs::write(&file, &first.file).expect("the folder is writable");
        let process = Process::start_with(&file, &fixture.store(), &sets);
        let name = "pelton_cache_capacity_bytes";
        let is_ready = (0..LOOKS_MAX).any(|_| process.metric(name, "") > SHARE_OF_ONE);
        assert!(is_ready, "the caches are not populated");
        Self { process, streams: Vec::new(), pieces: Pieces(usize::MAX), _fixture: fixture }
    }

    /// Cuts what is sent from now on.
    pub fn cut(&mut self, pieces: Pieces) {
        self.pieces = pieces;
        self.streams.clear();
    }
}

impl Stage for ProcessStage {
    fn connect(&mut self) -> usize {
        self.streams.push(self.process.connect());
        self.streams.len() - 1
    }

    fn write(&mut self, client: usize, bytes: &[u8]) {
        for piece in bytes.chunks(self.pieces.0) {
            // A server that has closed shows in what is read.
            if self.streams[client].write_all(piece).is_err() {
                break;
            }
        }
    }

    fn read(&mut self, client: usize) -> Received {
        let mut bytes = vec![0; 65_536];
        match self.streams[client].read(&mut bytes) {
            Ok(0) => Received::End,
            Ok(size) => Received::Bytes(bytes[..size].to_vec()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Received::Reset,
            Err(_) => Received::Nothing,
        }
    }

    fn finish(&mut self, client: usize) {
        // It fails where the server has ended, which shows in what is read.
        let _ended = self.streams[client].shutdown(Shutdown::Write);
    }

    fn source(&mut self, _key: &str, _source: &Source) {
        // Imported before the start.
    }

    fn hold(&mut self, _hold: bool) {
        unreachable!("the parser keeps such scripts on the simulator");
    }

    fn advance(&mut self, _ms: u64) {
        unreachable!("the parser keeps such scripts on the simulator");
    }

    fn drain(&mut self) {
        kill(Pid::from_raw(self.process.id()), Signal::SIGTERM).expect("it runs");
    }

    fn has_exited(&mut self) -> bool {
        self.process.wait().success()
    }

    fn counter(&mut self, name: &str, label: &str, expected: u64) -> u64 {
        // Shards publish once a millisecond, and each look takes a part of one.
        let mut looks = (0..LOOKS_MAX).map(|_| self.process.metric(name, label));
        looks.find(|&value| value == expected).unwrap_or_else(|| self.process.metric(name, label))
    }
}
