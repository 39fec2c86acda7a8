//! A send in the hands of the simulated kernel.
//!
//! Its bytes are read piece by piece, each as late as it is taken, from the memory of that turn. A
//! hash of all of them, taken when the send was submitted, tells whether the shard has changed any.

use super::host::Host;
use super::marks::Mark;
use super::net::SocketId;
use crate::prng::mix;
use pelton::ring::{Event, Fault, Memory, Region, Span, Spans};

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) socket: SocketId,
    spans: Spans,
    /// Of all bytes of `spans` when the send was submitted.
    hash: u64,
    /// Bytes taken so far.
    taken: u32,
    /// Turn of the submission.
    turn: u64,
}

/// What became of a send for now.
pub(super) enum Progress {
    /// The socket has no room.
    Blocked,
    /// Some bytes were taken.
    Taken,
    /// It has completed.
    Over(Event),
}

impl Sending {
    pub(super) fn new(socket: SocketId, spans: Spans, memory: Memory<'_>, turn: u64) -> Self {
        assert!(spans.size() > 0, "a send sends something");
        Self { socket, spans, hash: hash(&spans, memory), taken: 0, turn }
    }

    pub(super) fn arena_spans_count(&self) -> usize {
        self.spans.as_slice().iter().filter(|span| span.region == Region::Arena).count()
    }

    /// Lets the kernel go on with it, in a turn of this number.
    pub(super) fn go_on(
        &mut self,
        host: &mut Host,
        memory: Memory<'_>,
        turn: u64,
        cancelled: bool,
    ) -> Progress {
        let failure = match host.net.sendable(self.socket) {
            _ if cancelled => Fault::Cancelled,
            None => Fault::PeerGone,
            Some(0) => return Progress::Blocked,
            Some(room) => {
                host.marks.hit_if(turn > self.turn, Mark::SendLate);
                return self.take(host, memory, room);
            }
        };
        if self.taken > 0 {
            // The next send will fail.
            return self.complete(host, memory);
        }
        let mark = if cancelled { Mark::CancelWon } else { Mark::SendFailed };
        host.marks.hit(mark);
        Progress::Over(Event::Failed(failure))
    }

    /// Takes bytes for which there is room: all of them on a good day.
    fn take(&mut self, host: &mut Host, memory: Memory<'_>, room: usize) -> Progress {
        let size = u32::try_from(self.spans.size()).expect("a send is less than 4 GiB");
        let mut piece = u32::try_from(room).unwrap_or(u32::MAX).min(size - self.taken);
        let likelihood = host.faults.send_piece;
        if host.chance(likelihood) {
            piece = u32::try_from(host.prng.range(1, piece.into())).expect("it is at most a u32");
        }
        let mut rest = self.spans;
        rest.advance(self.taken);
        let mut bytes = Vec::with_capacity(piece as usize);
        for span in rest.as_slice() {
            let span = resolve(*span, memory);
            let left = piece as usize - bytes.len();
            bytes.extend_from_slice(&span[..left.min(span.len())]);
        }
        host.net.send(self.socket, &bytes);
        let whole = self.taken + piece == size;
        host.marks.hit_if(self.taken > 0 && whole, Mark::SendInPieces);
        self.taken += piece;
        let likelihood = host.faults.send_short;
        let short = !whole && host.chance(likelihood);
        host.marks.hit_if(short, Mark::SendShort);
        if whole || short { self.complete(host, memory) } else { Progress::Taken }
    }

    fn complete(&self, host: &mut Host, memory: Memory<'_>) -> Progress {
        host.sends_short += u64::from(u64::from(self.taken) < self.spans.size());
        assert_eq!(self.hash, hash(&self.spans, memory), "bytes being sent stay as they are");
        Progress::Over(Event::Sent { len: self.taken })
    }
}

fn resolve(span: Span, memory: Memory<'_>) -> &[u8] {
    let region = match span.region {
        Region::Output => memory.output,
        Region::Arena => memory.arena,
    };
    let start = usize::try_from(span.offset).expect("offsets fit the address space");
    &region[start..][..span.len as usize]
}

/// Four lanes, so that a processor works on all of them at a time.
fn hash(spans: &Spans, memory: Memory<'_>) -> u64 {
    let mut lanes = [0; 4];
    for span in spans.as_slice() {
        let bytes = resolve(*span, memory);
        let (chunks, rest) = bytes.as_chunks::<32>();
        for chunk in chunks {
            for lane in 0..4 {
                let word: [u8; 8] = std::array::from_fn(|byte| chunk[lane * 8 + byte]);
                lanes[lane] = step(lanes[lane], u64::from_le_bytes(word));
            }
        }
        for byte in rest {
            lanes[0] = step(lanes[0], (*byte).into());
        }
    }
    lanes.into_iter().fold(0, |hash, lane| mix(hash ^ lane))
}

/// Invertible in either argument: one changed word is always seen.
const fn step(lane: u64, word: u64) -> u64 {
    (lane ^ word).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
