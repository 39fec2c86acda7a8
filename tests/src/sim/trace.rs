//! What happened in a run: a hash of everything, and the last lines in readable form.
//!
//! Two runs of one seed must give the same hash. When a run fails, the tail says what led there.

use crate::prng::mix;
use pelton::ring::Token;
use shard_cache::time::Instant;
use std::collections::VecDeque;
use std::fmt;

/// How many lines a trace keeps.
const TAIL_MAX: usize = 120;

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The ring of a shard.
    Ring(u16),
    /// A client, by its number.
    Client(u32),
    /// The origin plane.
    Origin,
    /// The world around them.
    World,
}

impl Who {
    const fn bits(self) -> u64 {
        match self {
            Self::Ring(shard) => 1 << 32 | shard as u64,
            Self::Client(number) => 2 << 32 | number as u64,
            Self::Origin => 3 << 32,
            Self::World => 4 << 32,
        }
    }
}

/// One line: at `at`, `who` did `what`; the words mean what the line's writer says.
#[derive(Clone, Copy, Debug)]
struct Line {
    at: Instant,
    who: Who,
    what: &'static str,
    token: Option<Token>,
    words: [u64; 2],
}

/// The trace of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    pub(super) lines_count: u64,
    tail: VecDeque<Line>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0, lines_count: 0, tail: VecDeque::with_capacity(TAIL_MAX) }
    }
}

impl Trace {
    /// Writes a line without a token.
    pub fn note(&mut self, at: Instant, who: Who, what: &'static str, words: [u64; 2]) {
        self.write(Line { at, who, what, token: None, words });
    }

    /// Writes a line about a submission.
    pub fn note_token(
        &mut self,
        at: Instant,
        who: Who,
        what: &'static str,
        token: Token,
        words: [u64; 2],
    ) {
        self.write(Line { at, who, what, token: Some(token), words });
    }

    fn write(&mut self, line: Line) {
        let token = line.token.map_or(u64::MAX, Token::bits);
        for word in [line.at.ns(), line.who.bits(), token, line.words[0], line.words[1]] {
            self.hash = mix(self.hash ^ word).wrapping_add(1);
        }
        let first = line.what.as_bytes().first().copied().unwrap_or_default();
        self.hash = self.hash.rotate_left(5) ^ u64::from(first) << 32 ^ line.what.len() as u64;
        self.lines_count += 1;
        if self.tail.len() == TAIL_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The hash of all lines so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "last {} of {} lines:", self.tail.len(), self.lines_count)?;
        self.tail.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, who, what, token, words: [first, second] } = self;
        let (seconds, ns) = (at.ns() / 1_000_000_000, at.ns() % 1_000_000_000);
        write!(f, "{seconds:>4}.{ns:09} ")?;
        match who {
            Who::Ring(shard) => write!(f, "ring {shard}    ")?,
            Who::Client(number) => write!(f, "client {number:<3}")?,
            Who::Origin => write!(f, "origin    ")?,
            Who::World => write!(f, "world     ")?,
        }
        if let Some(token) = token {
            let (kind, slot, generation) = (token.kind(), token.slot(), token.generation());
            write!(f, " {:<14}", format!("{kind:?}/{slot}/{generation}"))?;
        }
        write!(f, " {what} {first} {second}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_hashes_everything_and_keeps_the_end() {
        let mut traces = [Trace::default(), Trace::default()];
        for trace in &mut traces {
            for line in 0..1000 {
                trace.note(Instant::from_ns(line), Who::World, "step", [line, 0]);
            }
        }
        let [mut first, second] = traces;
        assert_eq!(first.hash(), second.hash());
        assert_eq!(first.to_string().lines().count(), 1 + TAIL_MAX);
        first.note(Instant::from_ns(1000), Who::Origin, "step", [0, 0]);
        assert_ne!(first.hash(), second.hash());
    }
}
