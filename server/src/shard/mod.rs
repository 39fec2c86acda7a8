//! One shard: a core's connections, cache slice, replies and flights, owned by one thread.
//!
//! [`Shard::turn`] is one pass of its loop, in fixed order; each step has a bound from `limits`:
//!
//! ```text
//! wait       the only wait and the only clock          completions_max
//! dispatch   completions become facts                  completions_max
//! mail       other shards, then the origin plane       messages_per_peer_turn_max, landings_...
//! expire     connections whose time is over, slow ones sweep_per_turn_max
//! pump       parse all that is ready, then serve it    requests_per_turn_max, pumps_...
//! rush       wake the waiters of landed flights        rush_per_turn_max
//! maintain   reclaim ahead, snapshot, date, counters   one step of the cache each
//! ```
//!
//! Dispatch records, pump decides. No callback nests and nothing says "call me again": whoever has
//! more to do stands in the ready queue. All input, output and time pass through [`Ring`], so the
//! same code runs on the kernel and in the simulator.

mod accepts;
mod batches;
#[cfg(feature = "busy-cost")]
mod busy_cost;
mod census;
mod changes;
mod content_types;
mod deadlines;
mod directory;
mod dispatch;
mod early;
mod explain;
mod flights;
mod input;
mod jitter;
mod lending;
mod mailbox;
mod misses;
mod output;
mod overload;
mod parcels;
mod pump;
mod purge;
mod recent;
mod relief;
mod replicas;
mod replies;
mod requests;
mod retire;
mod serve;
mod setup;
mod slots;
mod snapshot;
mod tenants;
mod uploads;
mod writes;

pub use census::Census;
pub use overload::Level;
pub use recent::PAUSE_MAX;
pub use setup::{Settings, Setup, Slice, Timeouts};

use crate::histograms::{Histograms, Outcome};
use crate::hot::{HotKeys, Window};
use crate::http::Replies as Heads;
use crate::limits::Limits;
use crate::mesh::{
    Control, Giver, Landing, Leases, Loads, OriginLink, Owners, Peers, Sleep, StorageLink,
};
use crate::metrics::{Board, Counters};
use crate::ring::{Clock, Completions, Fd, Kind, Memory, Op, Ring, Token};
use accepts::Accepts;
use changes::Changes;
use content_types::ContentTypes;
use directory::Directory;
use flights::Flights;
use input::Input;
use lending::Lending;
use output::Output;
use overload::{LevelChanges, Overload, TurnFacts};
use parcels::Parcels;
use recent::Recent;
use replicas::Replicas;
use replies::Replies;
use requests::Requests;
use retire::Starving;
use shard_cache::Cache;
use shard_cache::hash::KeyHasher;
use shard_cache::time::{Instant, WallSeconds};
use slots::{Ready, Slots};
use snapshot::Work;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tenants::Tenants;
use writes::Writes;

/// The longest wait: a shard that has nothing to do shows that it lives four times a second.
const WAIT: Duration = Duration::from_millis(250);
/// The wait of a shard that cannot go on with something until others give something back.
const STARVED_WAIT: Duration = Duration::from_millis(1);
/// How long after a failed accept the next is tried.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// All slots are looked at once in this time.
const SWEEP: Duration = Duration::from_millis(500);
/// How long a connection may keep its last reply in the socket while the peer reads it.
const LINGER: Duration = Duration::from_secs(2);
/// How long a terminated connection may take to join before its receive is cancelled.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a draining server lets an idle connection send one more request.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How long a send may block before it is slow: while others starve for output it is closed then,
/// and what it holds of a condemned segment is copied out.
const BLOCKED_MAX: Duration = Duration::from_millis(100);
/// How long a send may block while slow readers hold too much of the cache. What it holds would
/// have been copied out by then if that could be.
const HOLD_MAX: Duration = Duration::from_millis(500);
/// How long a fetched value may wait for room in the cache.
const STORE_PATIENCE: Duration = Duration::from_millis(100);
/// How often counters are published at most.
const PUBLISH_NS: u64 = 1_000_000;

/// Index of the stale windows of values in the cache's table.
const WINDOWS_VALUE: u8 = 0;
/// Index of the stale windows of negative entries: none.
const WINDOWS_NEGATIVE: u8 = 1;
/// Index of the stale windows of values that are never served stale, and of those for whose own
/// windows there is no place.
const WINDOWS_NEVER: u8 = 2;

/// Replies written in the turn in which their requests arrived.
#[derive(Clone, Copy, Debug, Default)]
struct Replied {
    hits: u64,
    others: u64,
}

/// Whether a shard goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Take another turn.
    Continue,
    /// The shard was drained and has nothing left to do.
    Stopped,
}

/// One shard over a ring.
#[derive(Debug)]
pub struct Shard<R: Ring> {
    index: u16,
    limits: Limits,
    settings: Settings,
    hasher: KeyHasher,
    owners: Owners,
    ring: R,
    completions: Completions,

    now: Instant,
    wall: WallSeconds,
    turns: u64,
    watching: bool,
    wake_eventfd: Fd,
    plane_eventfd: Fd,
    accepts: Accepts,
    submissions_in_flight: u64,
    draining_since: Option<Instant>,
    /// It has told the others that it has no connection left.
    drained: bool,

    slots: Slots,
    ready: Ready,
    starving: Starving,
    /// Something that a request needs was used up in this turn.
    starved: bool,
    swept_at: Instant,
    sweep_cursor: u32,
    /// Bytes that may still be copied in this turn for slow readers.
    relief_bytes_left: usize,
    /// Bytes of bodies that may still be handed to the kernel in this turn.
    send_bytes_left: u64,
    pumped: Vec<u32>,
    input: Input,
    requests: Requests,
    replies: Replies,
    output: Output,

    cache: Cache<'static>,
    segments_ready: Arc<AtomicU32>,
    content_types: ContentTypes,
    heads: Heads,
    flights: Flights,
    recent: Recent,
    overload: Overload,
    tenants: Tenants,
    stalled: Option<Landing>,
    stalled_since: Option<Instant>,

    peers: Peers,
    loads: Loads,
    leases: Leases,
    replicas: Replicas,
    directory: Directory,
    parcels: Parcels,
    lending: Lending,
    changes: Changes,
    writes: Writes,
    link: OriginLink,
    storage: StorageLink,
    /// The page of a snapshot that it works on.
    snapshot: Option<Work>,
    sleep: Sleep,
    control: Control,

    counters: Counters,
    board: Arc<Board>,
    published_at: Instant,
    histograms: Box<Histograms>,
    histogram_port: Giver<Histograms>,
    handed_over_at: Instant,
    hot_keys: HotKeys,
    hot_port: Giver<Window>,
    replied: Replied,
    /// When the requests had arrived whose replies had to wait and were written in this turn.
    replied_late: Vec<Instant>,
}

impl<R: Ring> Shard<R> {
    /// The token of what belongs to no slot.
    const NO_SLOT: Token = Token::new(Kind::Close, Token::SLOTS_MAX - 1, 0);
    /// The token of the cancellation of an accept.
    const NO_SLOT_CANCEL: Token = Token::new(Kind::Cancel, Token::SLOTS_MAX - 1, 0);

    /// One pass of the loop.
    pub fn turn(&mut self) -> Flow {
        self.wait();
        self.dispatch();
        self.receive_mail();
        self.drain();
        self.expire();
        self.pump();
        self.rush();
        self.maintain();
        if !self.is_stopped() {
            return Flow::Continue;
        }
        // Nobody takes the rest of a snapshot that is being written.
        self.cache.end_walk();
        Flow::Stopped
    }

    /// Enters the ring: until the next completion, or not at all while there is work.
    fn wait(&mut self) {
        self.arm();
        let deadline = self.wait_deadline();
        let memory = Memory { output: self.output.memory(), arena: self.cache.arena() };
        let clock = self.ring.turn(memory, deadline, &mut self.completions);
        self.sleep.end();
        if self.turns > 0 {
            self.observe(clock);
            self.record(clock.entered);
            self.counters.busy_ns += clock.entered.ns_since(self.now);
        }
        self.counters.waited_ns += clock.woke.ns_since(clock.entered);
        self.now = clock.woke;
        self.wall = clock.wall;
        self.turns += 1;
        self.board.beat(self.turns, self.now.ns());
    }

    fn wait_deadline(&mut self) -> Instant {
        let is_busy = self.flights.is_rushing() || self.snapshot.is_some();
        if is_busy || (!self.ready.is_empty() && !self.starved) {
            return Instant::ZERO;
        }
        self.sleep.prepare();
        // Landings behind one that is stalled wait with it.
        let stalled = self.stalled.is_some();
        let has_landings = !stalled && self.link.has_mail();
        let has_mail = self.peers.has_mail() || self.leases.has_bell();
        let has_news = has_landings || self.storage.has_mail() || self.must_steer_accepts();
        if has_mail || has_news {
            return Instant::ZERO;
        }
        let is_blocked = stalled || self.changes.is_settling() || !self.ready.is_empty();
        let wait = if is_blocked { STARVED_WAIT } else { WAIT };
        (self.now + wait).min(self.accepts_at().unwrap_or(slots::NEVER))
    }

    /// Arms what must always be armed, and wakes those who sleep on what we have sent.
    fn arm(&mut self) {
        if !self.watching {
            self.watching = true;
            let eventfd = self.wake_eventfd;
            self.ring.push(Token::new(Kind::Watch, 0, 0), Op::Watch { eventfd });
        }
        self.arm_accepts();
        let Self { peers, ring, counters, .. } = self;
        peers.wake_sleepers(|shard| {
            counters.wakes_sent += 1;
            ring.push(Token::new(Kind::Wake, u32::from(shard), 0), Op::Wake { shard });
        });
        if self.link.must_wake() {
            let eventfd = self.plane_eventfd;
            self.ring.push(Self::NO_SLOT, Op::Signal { eventfd });
        }
    }

    /// Pushes an operation of a connection.
    fn submit(&mut self, index: u32, kind: Kind, op: Op) {
        let slot = &mut self.slots[index];
        slot.in_flight += 1;
        self.submissions_in_flight += 1;
        self.ring.push(Token::new(kind, index, slot.generation), op);
    }

    /// Lets the controller of overload see the turn that is over.
    fn observe(&mut self, clock: Clock) {
        let Replied { hits, others } = self.replied;
        // Who is starved waits for others, not for a turn.
        let waiting = if self.starved { 0 } else { self.ready.len() };
        self.overload.observe(&TurnFacts {
            now: clock.woke,
            turn_ns: clock.entered.ns_since(self.now),
            waited_ns: clock.woke.ns_since(clock.entered),
            replies: hits + others + self.replied_late.len() as u64,
            rounds: 1 + (waiting / self.pumped.capacity()) as u64,
            shortage: self.control.shortage(),
        });
    }

    /// Takes the times of the turn that ends as the ring is entered.
    fn record(&mut self, entered: Instant) {
        let histograms = &mut self.histograms;
        let turn_ns = entered.ns_since(self.now);
        histograms.record_loop_lag(turn_ns);
        let Replied { hits, others } = std::mem::take(&mut self.replied);
        if hits > 0 {
            histograms.record_latencies(Outcome::Hit, turn_ns, hits);
        }
        if others > 0 {
            histograms.record_latencies(Outcome::Other, turn_ns, others);
        }
        for arrived in self.replied_late.drain(..) {
            histograms.record_latency(Outcome::Miss, entered.ns_since(arrived));
        }
    }

    /// What is done a little at a time, every turn.
    fn maintain(&mut self) {
        self.cache.set_segments_ready(self.segments_ready.load(Ordering::Acquire));
        self.cache.step(self.now);
        self.replicas.step(self.now);
        self.work_on_snapshot();
        self.heads.set_date(self.wall);
        if self.now.ns_since(self.published_at) >= PUBLISH_NS {
            self.published_at = self.now;
            self.publish();
        }
    }

    fn publish(&mut self) {
        let ring = self.ring.counters();
        let cache = self.cache.statistics();
        let counters = &mut self.counters;
        counters.turns = self.turns;
        counters.overload_level = self.overload.level() as u64;
        counters.overload_lag_ns = self.overload.lag_ns();
        counters.accepts_paused = u64::from(self.accepts.paused);
        let LevelChanges { lag, busy, cpu, memory, calm } = self.overload.changes();
        (counters.overload_raised_lag, counters.overload_raised_busy) = (lag, busy);
        (counters.overload_raised_cpu, counters.overload_raised_memory) = (cpu, memory);
        counters.overload_lowered = calm;
        counters.connections_open = u64::from(self.slots.used());
        counters.handles_active = self.submissions_in_flight;
        counters.ring_enters = ring.enters;
        counters.ring_submissions = ring.submissions;
        counters.ring_completions = ring.completions;
        counters.ring_overflows = ring.overflows;
        counters.ring_submissions_delayed = ring.submissions_delayed;
        counters.buffers_held = u64::from(self.input.held());
        counters.flights_active = u64::from(self.flights.fetching());
        counters.cache_entries = cache.entries;
        counters.cache_bytes = cache.bytes;
        counters.cache_capacity_bytes = cache.capacity_bytes;
        counters.cache_stored = cache.stored;
        counters.cache_evicted = cache.evicted;
        counters.cache_expired = cache.expired;
        counters.cache_purged = cache.purged;
        counters.cache_replaced = cache.replaced;
        counters.cache_moved_bytes = cache.moved_bytes;
        counters.cache_condemned_bytes = cache.condemned_bytes;
        counters.cache_spilled_bytes = cache.spilled_bytes;
        (counters.replica_entries, counters.replica_bytes) = self.replicas.size();
        self.board.publish(counters);
        self.tenants.publish(&self.board, &self.cache);
        let histograms = &mut self.histograms;
        if self.now >= self.handed_over_at + setup::HAND_OVER
            && self.histogram_port.give(|empty| std::mem::swap(empty, histograms))
        {
            self.handed_over_at = self.now;
        }
        self.hot_keys.forget(self.now);
        self.hot_port.give(|window| self.hot_keys.copy_to(window, self.now));
    }
}
