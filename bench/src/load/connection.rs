//! What a generator knows of one connection.

#![expect(clippy::disallowed_types, reason = "a generator keeps its own time")]

use pelton_bench::replies::Replies;
use std::ops::Range;
use std::time::Instant;

/// Where a connection is in its life. It leaves `Ending` only when nothing of it is in the kernel,
/// so that no completion ever belongs to an earlier life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Connecting,
    Open,
    /// The last reply has come: the server is to close, since it closes first.
    Leaving,
    /// Shut down by us.
    Ending,
}

/// Requests that are due or in flight.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// When it was due.
    pub(super) due: Instant,
    /// When this generator turned to it.
    pub(super) started: Instant,
    /// Those that are not answered yet.
    pub(super) expected: Range<usize>,
    pub(super) is_sent: bool,
    pub(super) timed_out: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// Which of the plan's streams it belongs to.
    pub(super) stream: usize,
    pub(super) phase: Phase,
    pub(super) replies: Replies,
    /// What is left of the portion that it has taken.
    pub(super) portion: Range<usize>,
    pub(super) batch: Option<Batch>,
    pub(super) batches_started: u64,
    /// Replies with a status below 300 to batches that were due after the warm-up.
    pub(super) served: u64,
    /// The newest versions seen of the keys that the batch asks for, when it was sent.
    pub(super) versions: Vec<u64>,
    /// When the batch before was answered, or the phase changed.
    pub(super) since: Instant,
    /// What the kernel has not taken yet of the batch.
    pub(super) unsent: &'static [u8],
    pub(super) sending: bool,
    /// A receive is armed.
    pub(super) receiving: bool,
}

impl Connection {
    pub(super) fn new(stream: usize, replies: Replies, now: Instant) -> Self {
        Self {
            stream,
            phase: Phase::Closed,
            replies,
            portion: 0..0,
            batch: None,
            batches_started: 0,
            served: 0,
            versions: Vec::new(),
            since: now,
            unsent: &[],
            sending: false,
            receiving: false,
        }
    }

    /// Whether something of it is in the kernel.
    pub(super) fn is_held(&self) -> bool {
        self.sending || self.receiving || self.phase == Phase::Connecting
    }
}
