//! What the contract leaves to the kernel.

use std::collections::BTreeMap;

/// A choice that the kernel has. The simulated ring must make each of them, or shards were never
/// seen to survive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Choice {
    /// An accept ends by itself with a connection.
    AcceptEnds,
    /// A descriptor is given out again before its close is seen to complete.
    DescriptorReused,
    /// A receive ends by itself with bytes.
    ReceiveEnds,
    /// A receive brings less than its buffer holds, and there is more.
    ReceiveShort,
    /// One receive completes more than once in a turn.
    ReceivesInOneTurn,
    /// A receive finds no buffer for bytes that are there.
    NoBuffers,
    /// A receive finds no buffer although nothing is there to be received.
    NoBuffersAtOnce,
    /// A receive that was cancelled brings bytes after all.
    CancelledReceives,
    /// A receive that was cancelled ends for another reason.
    CancelledEnds,
    /// A cancellation completes before its target does.
    CancelBeforeTarget,
    /// A cancellation completes after its target has.
    CancelAfterTarget,
    /// A send is short although the peer is there.
    SendShort,
    /// A send takes turns.
    SendLate,
    /// A send to a peer that has left is taken.
    SendToNobody,
    /// A send fails because the peer has left, or because we have ended.
    SendFails,
    /// Receiving from a peer that has left ends.
    LeftEnds,
    /// Receiving from a peer that has left fails.
    LeftFails,
    /// A receive ends after we have shut the connection both ways.
    ShutEnds,
    /// It fails instead, since bytes came after that.
    ShutFails,
    /// A reset throws away what the peer has not read.
    ResetLoses,
}

impl Choice {
    /// All of them.
    pub(crate) const ALL: [Self; 20] = [
        Self::AcceptEnds,
        Self::DescriptorReused,
        Self::ReceiveEnds,
        Self::ReceiveShort,
        Self::ReceivesInOneTurn,
        Self::NoBuffers,
        Self::NoBuffersAtOnce,
        Self::CancelledReceives,
        Self::CancelledEnds,
        Self::CancelBeforeTarget,
        Self::CancelAfterTarget,
        Self::SendShort,
        Self::SendLate,
        Self::SendToNobody,
        Self::SendFails,
        Self::LeftEnds,
        Self::LeftFails,
        Self::ShutEnds,
        Self::ShutFails,
        Self::ResetLoses,
    ];
}

/// How often each choice was made.
#[derive(Debug, Default)]
pub(crate) struct Choices(BTreeMap<Choice, u64>);

impl Choices {
    pub(crate) fn add(&mut self, choice: Choice) {
        *self.0.entry(choice).or_default() += 1;
    }

    pub(crate) fn append(&mut self, other: Self) {
        for (choice, count) in other.0 {
            *self.0.entry(choice).or_default() += count;
        }
    }

    pub(crate) fn count(&self, choice: Choice) -> u64 {
        self.0.get(&choice).copied().unwrap_or(0)
    }
}
