//! What a trace says of operations and completions.

use pelton::ring::{Completion, Event, Fault, Fd, Op};

/// What a trace calls an operation.
pub(super) const fn name(op: Op) -> &'static str {
    match op {
        Op::Accept { .. } => "accepts on",
        Op::AcceptOne { .. } => "accepts one on",
        Op::Recv { .. } => "receives from",
        Op::Send { .. } => "sends to (fd, bytes)",
        Op::Cancel { .. } => "cancels (slot, generation)",
        Op::Shutdown { .. } => "shuts",
        Op::Close { .. } => "closes",
        Op::Wake { .. } => "wakes",
        Op::Watch { .. } => "watches",
        Op::Signal { .. } => "signals",
    }
}

/// The words of an operation.
pub(super) fn words(op: Op) -> [u64; 2] {
    let number = |fd: Fd| u64::from(fd.0.unsigned_abs());
    match op {
        Op::Accept { listener } | Op::AcceptOne { listener } => [number(listener), 0],
        Op::Recv { fd } | Op::Close { fd } | Op::Shutdown { fd, .. } => [number(fd), 0],
        Op::Send { fd, spans } => [number(fd), spans.size()],
        Op::Cancel { target } => [target.slot().into(), target.generation().into()],
        Op::Wake { shard } => [shard.into(), 0],
        Op::Watch { eventfd } | Op::Signal { eventfd } => [number(eventfd), 0],
    }
}

/// What a trace says of a completion.
pub(super) fn describe(completion: &Completion) -> (&'static str, [u64; 2]) {
    let more = u64::from(completion.more);
    match &completion.event {
        Event::Accepted(fd) => ("accepted (fd, more)", [u64::from(fd.0.unsigned_abs()), more]),
        Event::Received { len, .. } => ("received (bytes, more)", [u64::from(*len), more]),
        Event::Ended => ("read the end", [0, more]),
        Event::Sent { len } => ("sent (bytes)", [u64::from(*len), more]),
        Event::Closed => ("closed", [0, more]),
        Event::Woken => ("woken", [0, more]),
        Event::Cancelled => ("cancellation done", [0, more]),
        Event::Failed(Fault::NoBuffers) => ("found no buffer", [0, more]),
        Event::Failed(Fault::Cancelled) => ("was cancelled", [0, more]),
        Event::Failed(Fault::NoDescriptors) => ("found no descriptor", [0, more]),
        Event::Failed(Fault::PeerGone) => ("found the peer gone", [0, more]),
        Event::Failed(Fault::Other(errno)) => ("failed", [u64::from(errno.unsigned_abs()), more]),
    }
}
