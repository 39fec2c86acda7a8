//! Every bound of the server in one place, and the memory bill that follows from them.
//!
//! A bound is a number with a unit and a reason. Most are fixed; the others follow from the
//! configuration and from what the host grants, a [`Grant`]. All memory that a shard uses is taken
//! before it serves, so that the bill is known at start and a host that cannot pay it is refused.

use crate::config::{Config, Memory, size_text};
use crate::error::StartError;
use crate::hot;
use shard_cache::{Layout, LayoutError, SEGMENT_SIZE};
use std::fmt;

/// What the host grants this process. Found by `sys`, or made up in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Shards to run, at least one.
    pub shards: u16,
    /// Open files allowed, after the limit was raised as far as it goes.
    pub descriptors_max: u64,
    /// Bytes: the smaller of available memory and the cgroup's limit.
    pub memory_size: u64,
}

/// The bounds. Where nothing else is said, they are a shard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Shards.
    pub shards: u16,
    /// Bytes of the cache's share: index, arena and all.
    pub cache_size: u64,
    /// Open connections. `auto`: 65,536, or an equal part of the open files allowed.
    pub connections_max: u32,
    /// Completions taken in a turn: the size of the completion queue. Every buffer, a send of a
    /// full pump and the rest have room, so that the queue overflows only after a long stall.
    pub completions_max: u32,
    /// Entries of the submission queue: handed to the kernel at once; more go in further rounds.
    pub submissions_max: u32,
    /// Operations pushed in a turn: a few for each connection that is pumped, expired or refused.
    pub pushes_per_turn_max: u32,
    /// Ready connections that are looked at in a turn.
    pub pumps_per_turn_max: u32,
    /// Receives that found no buffer and are armed again in a turn.
    pub starved_per_turn_max: u32,
    /// Slots whose deadline is looked at in a turn.
    pub sweep_per_turn_max: u32,
    /// Requests served in a turn: about 0.5 ms of work, which bounds the loop's lag.
    pub requests_per_turn_max: u32,
    /// Requests served in a turn for one connection: a deep pipeline waits for its neighbours.
    pub requests_per_connection_turn_max: u32,
    /// Bytes of bodies handed to the kernel for sending in a turn; the last may exceed that.
    /// Without it a thousand large ones at once held a shard up for more than half a second.
    pub sends_size_turn_max: u32,
    /// Replies of one connection that are owed; further requests stay unread.
    pub replies_per_connection_max: u32,
    /// Replies that are owed, all connections together.
    pub replies_max: u32,
    /// Receive buffers; a power of two, which the kernel's buffer ring asks for.
    pub input_buffers_count: u16,
    /// Bytes of a receive buffer: a page, and more than nearly every request.
    pub input_buffer_size: u32,
    /// Receive buffers that may hold unread input; the rest stay free for those who read on.
    pub input_held_max: u32,
    /// Receive buffers that one connection may hold before its receive is cancelled.
    pub input_held_per_connection_max: u16,
    /// Output blocks: replies on their way to the kernel.
    pub output_blocks_count: u32,
    /// Bytes of an output block: the largest copied reply fits, or some sixty small ones.
    pub output_block_size: u32,
    /// Carry blocks: request heads that arrive in pieces are put together in them.
    pub carry_blocks_count: u32,
    /// Bytes of a carry block: `http.head_size_max`.
    pub carry_block_size: u32,
    /// Fetches under way. The queues to the origin plane and back, which are powers of two, have
    /// room for a little else.
    pub flights_max: u32,
    /// Requests that wait for a fetch.
    pub waiters_max: u32,
    /// Requests that wait for the same one: `origin.flight_waiters_max`.
    pub flight_waiters_max: u32,
    /// Parcels of one other shard that wait for fetches, before it may follow no more of them: with
    /// the rest it reads what is in memory.
    pub parcels_waiting_max: u32,
    /// Last fetches that are remembered; a power of two.
    pub recent_count: u32,
    /// Fetched values stored in a turn: each may cost a copy of `cache.value_size_max`.
    pub landings_per_turn_max: u32,
    /// Bytes of fetched values on their way to the shards, all shards together; a single value may
    /// be larger.
    pub fetched_size_max: u32,
    /// Waiters answered in a turn.
    pub rush_per_turn_max: u32,
    /// Parcels: values on their way to other shards.
    pub parcels_count: u32,
    /// Bytes of a parcel: what fits an output block behind a head. Larger values come in pieces.
    pub parcel_size: u32,
    /// Big parcels, for the further pieces of values; without one, a small one does.
    pub big_parcels_count: u32,
    /// Bytes of a big parcel: fewer ways there and back a value.
    pub big_parcel_size: u32,
    /// Requests with a body that are under way at a time.
    pub uploads_count: u32,
    /// Bytes of the largest such body: of a batch, and where writes are allowed, of a value.
    pub upload_size: u32,
    /// Bytes of such bodies on their way to the origin, all shards together; a single one may be
    /// larger.
    pub written_size_max: u32,
    /// Writes that the origin may have beyond `origin.timeout`.
    pub late_writes_max: u32,
    /// Bytes of the largest value: `cache.value_size_max`.
    pub value_size_max: u32,
    /// Bytes of the cache's share for copies of other shards' values, and the directory of those
    /// that others have of ours; 0 where there are none.
    pub replicas_size: u64,
    /// Bytes of the largest value that is copied: larger ones are sent from the arena, and a way to
    /// their owner costs little beside that.
    pub replica_value_size_max: u32,
    /// Keys that are remembered to have been read once: a power of two.
    pub replica_seen_count: u32,
    /// Slots of the directory, in sets of eight.
    pub directory_slots_count: u32,
    /// Requests to drop a copy that one holder has not answered; beyond, all his copies go.
    pub invalidations_max: u32,
    /// Messages in the queue from one shard to one other: the sender's parcels and the receiver's.
    pub messages_per_peer_max: u32,
    /// Messages taken from one other shard in a turn.
    pub messages_per_peer_turn_max: u32,
    /// Bytes of the arena that slow readers may hold beyond the life of what lies there: an eighth,
    /// and room for the largest value beside what is copied out for others.
    pub condemned_size_max: u64,
    /// Bytes from which on a body is sent from the arena and not copied.
    pub copy_threshold: u32,
    /// Content types that are told apart; an entry holds its index in a byte.
    pub content_types_max: u8,
    /// Bytes of a page of a snapshot: the record of the largest value fits, and what was purged or
    /// removed while a snapshot was written.
    pub snapshot_page_size: u32,
}

/// Open connections that `auto` stops at.
const CONNECTIONS_AUTO_MAX: u32 = 65_536;

/// Fewest connections a shard that make sense; with less, the server does not start.
const CONNECTIONS_MIN: u32 = 16;

/// Descriptors kept for all that is no connection: standard streams, store, admin, runtime.
const DESCRIPTORS_RESERVE: u64 = 128;

/// Descriptors of a shard that are no connections: ring, eventfds, a listener an address, and one
/// to accept and close where no slot is free.
const DESCRIPTORS_PER_SHARD: u64 = 32;

/// Bytes of the slot of a connection: at most; the shard asserts it.
pub const CONNECTION_SLOT_SIZE_MAX: u64 = 512;

/// Bytes of an owed reply: at most; the shard asserts it.
pub const REPLY_SIZE_MAX: u64 = 128;

/// Bytes of a flight with its key: at most; the shard asserts it.
pub const FLIGHT_SIZE_MAX: u64 = 640;

/// Bytes of a waiter: at most; the shard asserts it.
pub const WAITER_SIZE_MAX: u64 = 32;

/// Bytes of a miss that is put off to the end of its turn: at most; the shard asserts it.
pub const MISS_SIZE_MAX: u64 = 48;

/// Bytes of what a shard has of a tenant, and of a key in a table that is a quarter full: at most.
pub const TENANT_SIZE_MAX: u32 = 128;
pub const KNOWN_KEY_SIZE_MAX: u32 = 256;

/// Bytes of what is remembered of the last fetch of a key: at most; the shard asserts it.
pub const RECENT_SIZE_MAX: u64 = 96;

/// Bytes of what is kept of a value that another shard reads in pieces, and of its free place: at
/// most; the shard asserts it.
pub const LENT_SIZE_MAX: u32 = 40;

/// Bytes of a message between shards: what it is, and its box.
pub const MESSAGE_SIZE: u64 = 16;

/// Bytes of a completion and of a submission, as the kernel lays them out.
const COMPLETION_SIZE: u64 = 16;
const SUBMISSION_SIZE: u64 = 64;

/// Bytes of an operation that was pushed and not yet handed over.
const PUSH_SIZE: u64 = 168;

/// Bytes of all that is not counted one by one: code, stacks, runtime, logs, admin.
const PROCESS_SIZE: u64 = 24 << 20;

/// Bytes of what a connection to a server of the origin has read and not yet handed on, at most.
pub const ORIGIN_CONNECTION_SIZE: u32 = 32 << 10;

/// Bytes of what is remembered of a value of the HTTP server: at most; the origin asserts it.
pub const VALIDATOR_SIZE_MAX: u32 = 320;

/// Longest reply head, in bytes.
pub const REPLY_HEAD_SIZE_MAX: u32 = 1024;

/// Bytes of a key in the body of a batch, with what separates it from the next.
const BATCH_KEY_SIZE: u32 = 512 + 8;

/// Smallest share of a shard of the cache, in bytes: its log needs a few segments.
const CACHE_SIZE_MIN: u64 = 2 << 20;

/// Smallest share for copies, in bytes: what a log of small values needs.
const REPLICAS_SIZE_MIN: u64 = 3 << 20;

/// Bytes of the share for copies a slot of the directory: copies of typical entries take 160 each,
/// and other shards have as many of ours as we have of theirs.
const DIRECTORY_BYTES_PER_SLOT: u64 = 128;

/// Slots of a directory at most: a share for copies that has more use for them takes 32 GiB.
const DIRECTORY_SLOTS_MAX: u64 = 1 << 28;

/// Bytes of a slot of the directory; the shard asserts it.
pub const DIRECTORY_SLOT_SIZE: usize = 16;

/// Bytes of a remembered read; the shard asserts it.
pub const SEEN_SIZE: usize = 4;

/// Bytes that stand before the value of a copy; the shard asserts it.
pub const COPY_FACTS_SIZE: u32 = 12;

/// Bytes of a page of a snapshot at least: 4,096 removed keys, 1,024 purged groups and 32 prefixes.
pub const SNAPSHOT_PAGE_SIZE_MIN: u32 = 256 << 10;

/// Bytes of the record of an entry beside its value: a key, a content type, and the rest.
const SNAPSHOT_RECORD_SIZE_MAX: u32 = 1024;

/// Pages of a snapshot that a shard and the storage plane have between them.
const SNAPSHOT_PAGES: u32 = 2;

/// The fixed bounds; what the configuration and the host decide is zero.
const FIXED: Limits = Limits {
    shards: 0,
    cache_size: 0,
    connections_max: 0,
    completions_max: 4096,
    submissions_max: 1024,
    pushes_per_turn_max: 16_384,
    pumps_per_turn_max: 1024,
    starved_per_turn_max: 256,
    sweep_per_turn_max: 2048,
    requests_per_turn_max: 1024,
    requests_per_connection_turn_max: 64,
    sends_size_turn_max: 8 << 20,
    replies_per_connection_max: 64,
    replies_max: 16_384,
    input_buffers_count: 2048,
    input_buffer_size: 4096,
    input_held_max: 1536,
    input_held_per_connection_max: 8,
    output_blocks_count: 1024,
    output_block_size: 16_384,
    carry_blocks_count: 1024,
    carry_block_size: 0,
    flights_max: 1016,
    waiters_max: 8192,
    flight_waiters_max: 0,
    parcels_waiting_max: 448,
    recent_count: 1024,
    landings_per_turn_max: 64,
    fetched_size_max: 16 << 20,
    rush_per_turn_max: 256,
    parcels_count: 512,
    parcel_size: 15_360,
    big_parcels_count: 32,
    big_parcel_size: 65_536,
    uploads_count: 16,
    upload_size: 0,
    written_size_max: 4 << 20,
    late_writes_max: 64,
    value_size_max: 0,
    replicas_size: 0,
    replica_value_size_max: 8191,
    replica_seen_count: 0,
    directory_slots_count: 0,
    invalidations_max: 64,
    messages_per_peer_max: 2048,
    messages_per_peer_turn_max: 512,
    condemned_size_max: 0,
    copy_threshold: 8192,
    content_types_max: 255,
    snapshot_page_size: 0,
};

const _: () = {
    let l = FIXED;
    assert!(l.completions_max.is_power_of_two(), "the kernel rounds up, the bill would be wrong");
    assert!(l.submissions_max.is_power_of_two(), "the kernel rounds up");
    assert!(l.submissions_max <= l.completions_max, "a round completes without overflow");
    assert!(l.input_buffers_count.is_power_of_two(), "the buffer ring asks for it");
    assert!(l.input_buffers_count <= 1 << 15, "the buffer ring has 15 bits");
    assert!((l.input_buffers_count as u32) < l.completions_max, "a completion for each buffer");
    assert!(l.input_held_max == l.input_buffers_count as u32 / 4 * 3, "three quarters may be held");
    assert!((l.input_held_per_connection_max as u32) < l.input_held_max, "one cannot hold all");
    assert!(l.copy_threshold + REPLY_HEAD_SIZE_MAX <= l.output_block_size, "a reply fits a block");
    assert!(l.parcel_size + REPLY_HEAD_SIZE_MAX <= l.output_block_size, "a piece fits a block");
    assert!(l.requests_per_connection_turn_max <= l.requests_per_turn_max, "one is a part");
    assert!(l.replies_per_connection_max <= l.replies_max, "one is a part");
    assert!(l.flights_max <= l.waiters_max, "every flight has a waiter");
    assert!(l.recent_count.is_power_of_two(), "the table masks its index");
    assert!(l.parcels_waiting_max < l.parcels_count, "a read of what is in memory finds a parcel");
    assert!(l.replica_value_size_max < l.copy_threshold, "a copy is never sent from its cache");
    assert!(l.replica_value_size_max + 512 <= l.parcel_size, "a copy's key lies behind its value");
    assert!(l.messages_per_peer_max.is_power_of_two(), "the queue masks its index");
    assert!(l.messages_per_peer_max >= l.messages_kept(), "a push always finds room");
    let pushes = l.completions_max + 4 * l.pumps_per_turn_max + 2 * l.sweep_per_turn_max;
    assert!(l.pushes_per_turn_max >= pushes + l.starved_per_turn_max, "a push always finds room");
};

impl Limits {
    /// The bounds that follow from `config` on a host that gives `grant`.
    ///
    /// # Errors
    /// The host grants too little; the remedy says of what.
    pub fn new(config: &Config, grant: &Grant) -> Result<Self, StartError> {
        assert!(grant.shards > 0, "there is at least one shard");
        let cache_size = cache_size(config, grant)?;
        let (replicas_size, slots_count, seen_count) = replicas(config, grant, cache_size);
        let held_size_min = config.cache.value_size_max + 2 * SEGMENT_SIZE as u64;
        let limits = Self {
            shards: grant.shards,
            cache_size,
            replicas_size,
            replica_seen_count: seen_count,
            directory_slots_count: slots_count,
            condemned_size_max: held_size_min.max(cache_size / 8),
            connections_max: connections_max(config, grant)?,
            carry_block_size: small(config.http.head_size_max),
            value_size_max: small(config.cache.value_size_max),
            flight_waiters_max: config.origin.flight_waiters_max,
            upload_size: upload_size(config),
            snapshot_page_size: SNAPSHOT_PAGE_SIZE_MIN
                .max(small(config.cache.value_size_max) + SNAPSHOT_RECORD_SIZE_MAX),
            ..FIXED
        };
        let bill = limits.bill(config);
        if bill.total() > grant.memory_size {
            return Err(StartError::host(
                format!(
                    "the memory bill of {} exceeds the {} that this host grants\n{bill}",
                    size_text_short(bill.total()),
                    size_text_short(grant.memory_size)
                ),
                "Lower cache.memory, origin.cache or server.shards, or raise the cgroup's limit.",
            ));
        }
        Ok(limits)
    }

    /// How the cache of a shard is laid out, what is for copies aside.
    ///
    /// # Errors
    /// It is too small.
    pub fn cache_layout(&self) -> Result<Layout, LayoutError> {
        Layout::new(bytes(self.cache_size - self.replicas_size), self.value_size_max)
    }

    /// How the cache of copies is laid out; none where there are no copies.
    #[must_use]
    pub fn replicas_layout(&self) -> Option<Layout> {
        let slots_size = self.directory_slots_count as usize * DIRECTORY_SLOT_SIZE;
        let seen_size = self.replica_seen_count as usize * SEEN_SIZE;
        let size = bytes(self.replicas_size).checked_sub(slots_size + seen_size)?;
        Layout::new(size, self.replica_value_size_max + COPY_FACTS_SIZE).ok()
    }

    /// Parcels of both sizes.
    #[must_use]
    pub const fn all_parcels_count(&self) -> u32 {
        self.parcels_count + self.big_parcels_count
    }

    /// Uploads of all shards together.
    #[must_use]
    pub fn all_uploads_count(&self) -> usize {
        self.uploads_count as usize * usize::from(self.shards)
    }

    /// Writes that the origin may have at a time: those of all uploads, and those that are late,
    /// of which all uploads may be the last ones.
    #[must_use]
    pub fn writes_count_max(&self) -> usize {
        self.late_writes_max as usize + 2 * self.all_uploads_count()
    }

    /// What a shard sends to others and gets back: parcels and uploads.
    #[must_use]
    pub const fn boxes_count(&self) -> u32 {
        self.all_parcels_count() + self.uploads_count
    }

    /// Messages in a queue between two shards that cannot be refused: what either sends of its own
    /// and back of the other's, requests to drop copies, and answers to those.
    #[must_use]
    pub const fn messages_kept(&self) -> u32 {
        2 * (self.boxes_count() + self.invalidations_max)
    }

    /// Misses that a turn may meet: of its own requests, and of those of the others.
    #[must_use]
    pub fn misses_per_turn_max(&self) -> u32 {
        let of_peers = self.messages_per_peer_turn_max * u32::from(self.shards - 1);
        self.requests_per_turn_max + of_peers
    }

    /// Values that other shards may be reading in pieces: one for each of their parcels.
    #[must_use]
    pub fn lent_count(&self) -> u32 {
        self.all_parcels_count() * u32::from(self.shards - 1)
    }

    /// What the process will use, line by line.
    #[must_use]
    pub fn bill(&self, config: &Config) -> Bill {
        let times = |count: u32, size: u32| u64::from(count) * u64::from(size);
        let ring = u64::from(self.completions_max) * COMPLETION_SIZE
            + u64::from(self.submissions_max) * SUBMISSION_SIZE
            + u64::from(self.pushes_per_turn_max) * PUSH_SIZE;
        let slots = u64::from(self.connections_max) * CONNECTION_SLOT_SIZE_MAX
            + u64::from(self.replies_max) * REPLY_SIZE_MAX
            + u64::from(self.flights_max) * FLIGHT_SIZE_MAX
            + u64::from(self.waiters_max) * WAITER_SIZE_MAX
            + u64::from(self.recent_count) * RECENT_SIZE_MAX
            + u64::from(self.misses_per_turn_max()) * MISS_SIZE_MAX;
        let (tenants, keys) = config.tenants_count();
        let tenants = times(tenants, TENANT_SIZE_MAX) + times(keys, KNOWN_KEY_SIZE_MAX);
        let messages = u64::from(self.messages_per_peer_max) * MESSAGE_SIZE;
        let parcels = times(self.parcels_count, self.parcel_size)
            + times(self.big_parcels_count, self.big_parcel_size)
            + times(self.lent_count(), LENT_SIZE_MAX)
            + messages * u64::from(self.shards - 1);
        let shard = |what, size| Line { what, size, count: self.shards };
        let written = config.cache.value_size_max.max(self.written_size_max.into());
        let fetched = config.cache.value_size_max.max(self.fetched_size_max.into());
        let connections = times(config.origin.requests_max, ORIGIN_CONNECTION_SIZE);
        let asks = |kind: &str| {
            let of_tier =
                config.origin.kind == "tier" && config.tier.of.iter().any(|of| of == kind);
            config.origin.kind == kind || of_tier
        };
        let servers = [
            ("http", "connections to the HTTP server", 1),
            ("redis", "connections to a Redis server", config.redis.urls.len()),
            ("postgres", "connections to a PostgreSQL server", config.postgres.urls.len()),
        ];
        let servers =
            servers.into_iter().filter(|(kind, ..)| asks(kind)).map(|(_, what, count)| Line {
                what,
                size: connections,
                count: u16::try_from(count).expect("64 at most"),
            });
        let size = config.origin.cache;
        let store = Line { what: "store's page cache", size, count: 1 };
        let store = asks("embedded").then_some(store);
        let size = times(config.upstream.validators_max, VALIDATOR_SIZE_MAX);
        let validators = Line { what: "validators of HTTP values", size, count: 1 };
        let validators = asks("http").then_some(validators);
        let pages = shard("snapshot pages", times(SNAPSHOT_PAGES, self.snapshot_page_size));
        let mut bill = Bill {
            lines: vec![
                shard("cache", self.cache_size),
                shard(
                    "input buffers",
                    times(self.input_buffers_count.into(), self.input_buffer_size),
                ),
                shard("output blocks", times(self.output_blocks_count, self.output_block_size)),
                shard("carry blocks", times(self.carry_blocks_count, self.carry_block_size)),
                shard("connections, replies, flights", slots),
                shard("parcels and messages", parcels),
                shard("uploads", times(self.uploads_count, self.upload_size)),
                shard("tenants", tenants),
                shard("ring", ring),
                shard("hot keys", hot::SIZE as u64),
                Line { what: "fetched values", size: fetched, count: 1 },
                Line { what: "written values", size: written, count: 1 },
                Line { what: "process", size: PROCESS_SIZE, count: 1 },
            ],
        };
        bill.lines.extend(store.into_iter().chain(servers).chain(validators));
        bill.lines.extend(config.snapshot.path.is_some().then_some(pages));
        bill
    }
}

/// What the process will use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The items.
    pub lines: Vec<Line>,
}

/// One item of a [`Bill`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What uses it.
    pub what: &'static str,
    /// Bytes each.
    pub size: u64,
    /// How many: the number of shards, or one.
    pub count: u16,
}

impl Bill {
    /// Bytes of all lines.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lines.iter().map(|line| line.size.saturating_mul(line.count.into())).sum()
    }
}

impl fmt::Display for Bill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { what, size, count } in &self.lines {
            writeln!(f, "  {what:<30} {:>10} x {count}", size_text_short(*size))?;
        }
        write!(f, "  {:<30} {:>10}", "total", size_text_short(self.total()))
    }
}

/// A size for a reader: to a tenth of its unit.
#[must_use]
pub fn size_text_short(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return size_text(bytes);
    }
    let power = (bytes.ilog2() / 10).min(4);
    let tenths = u128::from(bytes) * 10 / (1 << (10 * power));
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power as usize])
}

/// A size that the table of parameters keeps below 4 GiB.
fn bytes(size: u64) -> usize {
    usize::try_from(size).expect("memory fits the address space")
}

fn small(size: u64) -> u32 {
    u32::try_from(size).expect("the parameter's bound is below 4 GiB")
}

/// Bytes of the cache a shard.
fn cache_size(config: &Config, grant: &Grant) -> Result<u64, StartError> {
    let total = match config.cache.memory {
        Memory::Bytes(bytes) => bytes,
        Memory::Percent(percent) => grant.memory_size / 100 * u64::from(percent),
    };
    let size = total / u64::from(grant.shards);
    if size < CACHE_SIZE_MIN {
        return Err(StartError::host(
            format!(
                "cache.memory gives {} to each of {} shards, and a shard needs {}",
                size_text_short(size),
                grant.shards,
                size_text_short(CACHE_SIZE_MIN)
            ),
            "Raise cache.memory, or lower server.shards.",
        ));
    }
    Ok(size)
}

/// Bytes of a shard's share for copies, slots of its directory, and keys that are remembered to
/// have been read once. Copies have the least that they can live in where their share is less, and
/// none where that would be more than a tenth of the cache.
fn replicas(config: &Config, grant: &Grant, cache_size: u64) -> (u64, u32, u32) {
    let share = u64::from(config.cache.replica_share.permille());
    let size = (cache_size / 1000 * share).max(REPLICAS_SIZE_MIN);
    let is_small = size > REPLICAS_SIZE_MIN || size <= cache_size / 10;
    if grant.shards == 1 || share == 0 || !is_small {
        return (0, 0, 0);
    }
    let count = small((size / DIRECTORY_BYTES_PER_SLOT).min(DIRECTORY_SLOTS_MAX));
    (size, count.next_multiple_of(8), count.next_power_of_two())
}

/// Bytes of the body of a batch of so many keys at most: each as long as it may be, as long as few
/// of its bytes are escaped.
#[must_use]
pub const fn batch_body_size(keys_max: u32) -> u32 {
    64 + keys_max * BATCH_KEY_SIZE
}

/// Bytes of the largest body that is read.
fn upload_size(config: &Config) -> u32 {
    let batch_size = batch_body_size(config.http.batch_keys_max);
    let value_size = small(config.cache.value_size_max);
    if config.http.writes { batch_size.max(value_size) } else { batch_size }
}

/// Open connections a shard.
fn connections_max(config: &Config, grant: &Grant) -> Result<u32, StartError> {
    let shards = u64::from(grant.shards);
    let reserve = DESCRIPTORS_RESERVE + DESCRIPTORS_PER_SHARD * shards;
    let room = grant.descriptors_max.saturating_sub(reserve) / shards;
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    let wanted = config.server.connections_max;
    let needed = wanted.unwrap_or(CONNECTIONS_MIN);
    if room < needed {
        return Err(StartError::host(
            format!(
                "{needed} connections a shard need {} open files, and {} are allowed",
                u64::from(needed) * shards + reserve,
                grant.descriptors_max
            ),
            "Raise the limit (ulimit -Hn, LimitNOFILE=), or lower server.connections_max.",
        ));
    }
    Ok(wanted.unwrap_or_else(|| room.min(CONNECTIONS_AUTO_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    const GRANT: Grant = Grant { shards: 2, descriptors_max: 1 << 20, memory_size: 4 << 30 };

    fn config(sets: &[&str]) -> Config {
        let sets: Vec<String> = sets.iter().map(|set| (*set).into()).collect();
        Config::parse("test", "", &sets).unwrap()
    }

    #[test]
    fn auto_takes_a_quarter_of_the_memory_and_65536_connections() {
        let limits = Limits::new(&config(&[]), &GRANT).unwrap();
        assert_eq!(limits.cache_size, (4 << 30) / 100 * 25 / 2);
        assert_eq!(limits.connections_max, 65_536);
    }

    #[test]
    fn few_descriptors_bound_the_connections() {
        let grant = Grant { descriptors_max: 1024, ..GRANT };
        let limits = Limits::new(&config(&[]), &grant).unwrap();
        assert_eq!(limits.connections_max, (1024 - 128 - 64) / 2);
        let refused = Limits::new(&config(&["server.connections_max=500"]), &grant).unwrap_err();
        assert!(refused.what.contains("1192 open files"), "{refused}");
        assert!(Limits::new(&config(&[]), &Grant { descriptors_max: 200, ..GRANT }).is_err());
    }

    #[test]
    fn copies_have_their_share_or_the_least_that_they_live_in_or_nothing() {
        let replicas = |sets: &[&str], shards| {
            let grant = Grant { shards, ..GRANT };
            Limits::new(&config(sets), &grant).unwrap().replicas_layout()
        };
        let mib = |layout: Option<Layout>| layout.map_or(0, |layout| layout.total_bytes() >> 20);
        assert_eq!(mib(replicas(&["cache.memory=2GiB", "cache.replica_share=10%"], 2)), 85);
        assert_eq!(mib(replicas(&["cache.memory=64MiB"], 2)), 2);
        assert_eq!(mib(replicas(&["cache.memory=40MiB"], 2)), 0);
        assert_eq!(mib(replicas(&["cache.memory=2GiB", "cache.replica_share=0%"], 2)), 0);
        assert_eq!(mib(replicas(&["cache.memory=2GiB"], 1)), 0);
    }

    #[test]
    fn a_bill_beyond_the_memory_is_refused_with_its_lines() {
        let refused = Limits::new(&config(&["cache.memory=5GiB"]), &GRANT).unwrap_err();
        assert_eq!(refused.exit, Exit::Findings);
        assert!(refused.what.contains("store's page cache"), "{refused}");
        assert!(refused.remedy.contains("cache.memory"));
    }

    #[test]
    fn a_cache_too_small_for_its_shards_is_refused() {
        let refused = Limits::new(&config(&["cache.memory=3MiB"]), &GRANT).unwrap_err();
        assert!(refused.what.contains("1.5 MiB to each of 2 shards"), "{refused}");
    }

    #[test]
    fn the_bill_adds_up_and_follows_the_configuration() {
        let small = config(&["http.head_size_max=1KiB", "origin.cache=1MiB"]);
        let bill = Limits::new(&small, &GRANT).unwrap().bill(&small);
        let sum: u64 = bill.lines.iter().map(|line| line.size * u64::from(line.count)).sum();
        assert_eq!(bill.total(), sum);
        let usual = Limits::new(&config(&[]), &GRANT).unwrap().bill(&config(&[]));
        let saved = (63 << 20) + 2 * 1024 * (8192 - 1024);
        assert_eq!(usual.total() - bill.total(), saved);
    }

    #[test]
    fn the_bill_is_of_the_origin_that_there_is() {
        let line = |sets: &[&str], what| {
            let config = config(sets);
            let bill = Limits::new(&config, &GRANT).unwrap().bill(&config);
            bill.lines.iter().find(|line| line.what == what).map(|line| line.size)
        };
        let http = ["origin.kind=http", "origin.requests_max=1024"];
        assert_eq!(line(&http, "connections to the HTTP server"), Some(32 << 20));
        assert_eq!(line(&http, "validators of HTTP values"), Some(20 << 20));
        assert_eq!(line(&http, "store's page cache"), None);
        assert_eq!(line(&[], "connections to the HTTP server"), None);
        assert_eq!(line(&[], "store's page cache"), Some(64 << 20));
    }

    #[test]
    fn sizes_for_readers_are_short() {
        assert_eq!(size_text_short(1000), "1000B");
        assert_eq!(size_text_short(1536), "1.5 KiB");
        assert_eq!(size_text_short(5 << 30), "5.0 GiB");
        assert_eq!(size_text_short(u64::MAX), "16777215.9 TiB");
    }
}
