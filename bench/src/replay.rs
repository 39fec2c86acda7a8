//! `pelton-bench replay`: a shard that answers hits and does nothing else, for counting
//! instructions.
//!
//! Its ring is a replay: the next request of a connection arrives as soon as its last reply was
//! sent, and sends go nowhere. What remains is the server's own code for a hit, without a kernel.
//! Run it under a profiler that counts instructions, for two numbers of requests; the difference
//! divided by the difference of the numbers is the cost of a hit: start-up cancels out.

use crate::traffic::Records;
use pelton::config::Config;
use pelton::limits::{Grant, Limits};
use pelton::mesh::{
    ContentType, Control, Delivery, Found, Held, Landing, Lifetime, Loads, Order, OriginPort,
    Outcome, Sleep, boxes, origin_link, peers, storage_link,
};
use pelton::metrics::Board;
use pelton::ring::{
    BufferId, Clock, Completion, Completions, Event, Fd, Memory, Op, Ring, RingCounters, Token,
};
use pelton::shard::{Settings, Setup, Shard};
use pelton::sys::eventfd::EventFd;
use shard_cache::Layout;
use shard_cache::hash::Etag;
use shard_cache::time::{Instant, WallSeconds};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Time that passes in a turn: so that whatever is done once a millisecond is done as rarely as in
/// a busy server.
const TURN_NS: u64 = 50_000;

/// The body of each key.
type Bodies<'a> = BTreeMap<&'a [u8], &'a [u8]>;

/// Replays requests for `records` over `connections`, `requests` of them after each key was
/// fetched once. Returns how many hits were answered.
pub(crate) fn run(records: &Records, connections: u32, requests: u64) -> io::Result<u64> {
    let (mut shard, mut port, _keep) = shard(records, connections)?;
    let keys = records.keys.iter().map(String::as_bytes);
    let bodies: Bodies<'_> = keys.zip(records.bodies.iter().map(AsRef::as_ref)).collect();
    let warm_up = records.keys.len() as u64;
    for total in [warm_up, warm_up + requests] {
        while shard.ring().answered < total {
            shard.turn();
            fetch(&mut port, &bodies);
        }
    }
    Ok(shard.counters().requests_hit)
}

/// Answers what the shard has ordered.
fn fetch(port: &mut OriginPort, bodies: &Bodies<'_>) {
    while let Some(order) = port.next_order() {
        let Order::Fetch { flight, key } = order else { continue };
        let body = bodies[key.as_bytes()];
        let found = Found {
            value: body.into(),
            content_type: ContentType::JSON,
            etag: Etag::of(ContentType::JSON.as_str(), body),
            lifetime: Lifetime::Unlimited,
            held: Held::default(),
        };
        port.deliver(Delivery::Landing(Landing { flight, outcome: Outcome::Found(found) }));
    }
}

/// A shard over a replay, the origin's end of its queues, and what else must live as long.
fn shard(
    records: &Records,
    connections: u32,
) -> io::Result<(Shard<Replay>, OriginPort, impl Sized)> {
    let config = Config::default();
    let grant = Grant { shards: 1, descriptors_max: 1 << 20, memory_size: 4 << 30 };
    let limits = Limits::new(&config, &grant).map_err(io::Error::other)?;
    let layout = Layout::new(256 << 20, limits.value_size_max).map_err(io::Error::other)?;
    let (sleep, plane) = (Sleep::new(), Sleep::new());
    let wake = Arc::new(EventFd::for_ring()?);
    let (link, port) = origin_link(limits.flights_max as usize, &sleep, &plane, &wake);
    let (storage, storage_port) = storage_link(&sleep, &wake);
    // Nobody reads them.
    let (histogram_port, hot_port) = (boxes(1).0, boxes(1).0);
    let zeroed = |size: usize| {
        let memory = vec![0_u8; size + 64].leak();
        let skip = memory.as_ptr().align_offset(64);
        &mut memory[skip..][..size]
    };
    let setup = Setup {
        index: 0,
        settings: Settings::new(&config),
        listeners: vec![Fd(0)],
        own_listeners: Vec::new(),
        memory: zeroed(layout.memory_bytes()),
        segments_ready: Arc::new(AtomicU32::new(layout.segments_count())),
        layout,
        output: zeroed(limits.output_blocks_count as usize * limits.output_block_size as usize),
        peers: peers(std::slice::from_ref(&sleep), 1, 0).remove(0),
        loads: Loads::new(1),
        link,
        storage,
        sleep,
        wake_eventfd: Fd(0),
        plane_eventfd: Fd(0),
        control: Control::new(),
        board: Arc::new(Board::new()),
        histogram_port,
        hot_port,
        limits,
    };
    let ring = Replay::new(records, connections, limits.input_buffers_count);
    Ok((Shard::new(setup, ring), port, storage_port))
}

/// A ring on which every connection always has one more request.
#[derive(Debug)]
struct Replay {
    requests: Vec<Box<[u8]>>,
    next: usize,
    now: Instant,
    /// Completions due in the next turn.
    due: Vec<Completion>,
    /// The request that lies in each buffer on loan, and the buffers that are free.
    loans: Vec<usize>,
    free: Vec<u16>,
    /// The receive of each connection, by its descriptor.
    receives: Vec<Option<Token>>,
    connections: u32,
    answered: u64,
}

impl Replay {
    fn new(records: &Records, connections: u32, buffers_count: u16) -> Self {
        let request = |key: &String| {
            format!("GET /lookup/{key} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n").into_bytes()
        };
        Self {
            requests: records.keys.iter().map(|key| request(key).into()).collect(),
            next: 0,
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
        self.loans[usize::from(buffer)] = self.next;
        let len = u32::try_from(self.requests[self.next].len()).expect("a request is short");
        // A stride that is prime to the count visits all keys in an order that no cache likes.
        self.next = (self.next + 65_537) % self.requests.len();
        let event = Event::Received { buffer: BufferId::lend(buffer), len };
        self.due.push(Completion { token, event, more: true });
    }
}

impl Ring for Replay {
    fn push(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept { .. } => {
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

    fn buffers_count(&self) -> u16 {
        u16::try_from(self.loans.len()).expect("counted in 16 bits")
    }

    fn counters(&self) -> RingCounters {
        RingCounters::default()
    }
}
