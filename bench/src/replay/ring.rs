//! A ring without a kernel: each connection has its next request as soon as it is answered.
//!
//! Time is made up: a turn takes as long as in a busy server. Sends go nowhere.

use pelton::ring::{
    BufferId, Clock, Completion, Completions, Event, Fd, Memory, Op, Ring, RingCounters, Token,
};
use shard_cache::time::{Instant, WallSeconds};
use std::net::IpAddr;
use std::sync::Arc;

/// Time that passes in a turn: so that whatever is done once a millisecond is done as rarely as in
/// a busy server.
const TURN_NS: u64 = 50_000;

/// A ring on which every connection always has one more request.
pub(super) struct Replay<D> {
    requests: Arc<[Box<[u8]>]>,
    /// Draws the key that is asked for next.
    draw: D,
    now: Instant,
    /// Completions due in the next turn.
    due: Vec<Completion>,
    /// The request that lies in each buffer on loan, and the buffers that are free.
    loans: Vec<usize>,
    free: Vec<u16>,
    /// The receive of each connection, by its descriptor.
    receives: Vec<Option<Token>>,
    connections: u32,
    /// Replies sent.
    pub(super) answered: u64,
}

impl<D: FnMut() -> usize> Replay<D> {
    pub(super) fn new(
        requests: Arc<[Box<[u8]>]>,
        draw: D,
        connections: u32,
        buffers_count: u16,
    ) -> Self {
        Self {
            requests,
            draw,
            now: Instant::ZERO,
            due: Vec::new(),
            loans: vec![0; usize::from(buffers_count)],
            free: (0..buffers_count).collect(),
            receives: vec![None; connections as usize],
            connections,
            answered: 0,
        }
    }

    /// The next request arrives on the connection `fd`.
    fn arrive(&mut self, fd: usize) {
        let token = self.receives[fd].expect("a receive is armed before a reply is sent");
        let buffer = self.free.pop().expect("there are more buffers than connections");
        let next = (self.draw)();
        self.loans[usize::from(buffer)] = next;
        let len = u32::try_from(self.requests[next].len()).expect("a request is short");
        let event = Event::Received { buffer: BufferId::lend(buffer), len };
        self.due.push(Completion { token, event, more: true });
    }
}

impl<D: FnMut() -> usize> Ring for Replay<D> {
    fn push(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept { .. } | Op::AcceptOne { .. } => {
                for fd in 0..self.connections {
                    let fd = Fd(i32::try_from(fd).expect("a few connections"));
                    self.due.push(Completion { token, event: Event::Accepted(fd), more: true });
                }
            }
            Op::Recv { fd } => {
                let fd = usize::try_from(fd.0).expect("descriptors are positive");
                self.receives[fd] = Some(token);
                self.arrive(fd);
            }
            Op::Send { fd, spans } => {
                let len = u32::try_from(spans.size()).expect("a block is small");
                self.due.push(Completion { token, event: Event::Sent { len }, more: false });
                self.answered += 1;
                self.arrive(usize::try_from(fd.0).expect("descriptors are positive"));
            }
            Op::Close { .. } | Op::Cancel { .. } => unreachable!("nobody ends a connection"),
            Op::Shutdown { .. } | Op::Wake { .. } | Op::Watch { .. } | Op::Signal { .. } => {}
        }
    }

    fn turn(&mut self, _: Memory<'_>, _: Instant, completions: &mut Completions) -> Clock {
        for completion in self.due.drain(..) {
            completions.push(completion);
        }
        let entered = self.now;
        self.now = Instant::from_ns(entered.ns() + TURN_NS);
        Clock { entered, woke: self.now, wall: WallSeconds(1_700_000_000) }
    }

    fn bytes(&self, buffer: &BufferId, len: u32) -> &[u8] {
        &self.requests[self.loans[usize::from(buffer.index())]][..len as usize]
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.free.push(buffer.index());
    }

    fn peer(&self, _fd: Fd) -> Option<IpAddr> {
        None
    }

    fn buffers_count(&self) -> u16 {
        u16::try_from(self.loans.len()).expect("counted in 16 bits")
    }

    fn counters(&self) -> RingCounters {
        RingCounters::default()
    }
}
