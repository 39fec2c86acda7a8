//! What a shard is made of: all memory it will ever use is allocated here.

use super::{
    Accepts, Cache, Changes, Completions, ContentTypes, Counters, Directory, Flights, Input,
    Lending, Output, Overload, Parcels, Ready, Recent, Replicas, Replies, Requests, Shard, Slots,
    Starving, Tenants as Accounts, Writes,
};
use crate::config::Config;
use crate::histograms::Histograms;
use crate::hot::{HotKeys, Window};
use crate::http::{BatchLimits, HeadPolicy, HttpLimits, Replies as Heads, WriteLimits};
use crate::limits::{self, Limits};
use crate::mesh::{
    Addresses, Control, Giver, Leases, Loads, OriginLink, OwnerHash, Owners, Peers, Sleep,
    StorageLink, Tenants,
};
use crate::metrics::Board;
use crate::ring::{Fd, Ring};
use crate::token::Token;
use shard_cache::hash::KeyHasher;
use shard_cache::time::{Instant, WallSeconds};
use shard_cache::{Layout, StaleWindows};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// How often histograms are handed to whoever adds them up.
pub(super) const HAND_OVER: Duration = Duration::from_secs(1);

/// When a connection is closed for want of progress.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a head, or from accept, to its last byte.
    pub header: Duration,
    /// From the end of a head to the end of its body.
    pub body: Duration,
    /// From a reply to the next request.
    pub idle: Duration,
    /// Without a byte of a reply being taken.
    pub write: Duration,
}

/// Settings of the data plane, the same for all shards.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bounds of a request.
    pub http: HttpLimits,
    /// What reply heads say about caching.
    pub heads: HeadPolicy,
    /// Whether replies name their shard.
    pub shard_header: bool,
    /// When connections are closed.
    pub timeouts: Timeouts,
    /// Bytes of values in the reply to a batch.
    pub batch_bytes_max: u32,
    /// How long what has arrived should wait at most.
    pub lag_target: Duration,
    /// Connections a shard that have not sent a whole request; `None`: 10,240, or an
    /// eighth of all where that is more.
    pub connections_new_max: Option<u32>,
    /// Requests of a connection; 0: no bound.
    pub requests_per_connection_max: u32,
    /// New connections go to the shard with the fewest.
    pub balance: bool,
    /// How long a value is fresh whose origin does not say, milliseconds.
    pub ttl_ms: u32,
    /// How much of its lifetime a value may lose by jitter, in tenths of a percent.
    pub ttl_jitter_permille: u16,
    /// How long an absence is believed, milliseconds.
    pub negative_ttl_ms: u32,
    /// How long values may be served beyond their freshness.
    pub windows: StaleWindows,
    /// How long values are kept at least beyond it, so that the origin can say that they are
    /// unchanged, milliseconds; 0 where it never does.
    pub kept_ms: u32,
    /// The key of the hash that places keys; the same for all shards.
    pub hash_key: [u64; 2],
    /// How keys are spread over the shards.
    pub owner_hash: OwnerHash,
    /// Who may ask for what.
    pub tenants: Tenants,
}

impl Settings {
    /// The settings that `config` says; where it allows writes, to those who bear `token`.
    #[must_use]
    pub fn new(config: &Config, token: Option<Token>) -> Self {
        let ms = |duration: Duration| {
            u32::try_from(duration.as_millis()).expect("a week of milliseconds fits 32 bits")
        };
        let seconds = |duration: Duration| {
            u32::try_from(duration.as_secs()).expect("a week of seconds fits 32 bits")
        };
        let small = |size: u64| u32::try_from(size).expect("the parameter's bound is below 4 GiB");
        let http = &config.http;
        let cache = &config.cache;
        Self {
            http: HttpLimits {
                head_size_max: small(http.head_size_max),
                headers_count_max: HEADERS_COUNT_MAX,
                target_size_max: small(http.head_size_max),
                key_size_max: u16::try_from(http.key_size_max).expect("at most 512"),
                body_size_max: small(http.body_size_max),
                batch: BatchLimits {
                    keys_max: u16::try_from(http.batch_keys_max).expect("at most 1024"),
                    body_size_max: limits::batch_body_size(http.batch_keys_max),
                },
                writes: http.writes.then(|| WriteLimits {
                    token,
                    by_tenants: config.has_writing_tenants(),
                    value_size_max: small(cache.value_size_max),
                }),
            },
            heads: HeadPolicy {
                cache_control: http.cache_control,
                cache_status: http.cache_status,
                max_age_s: seconds(cache.ttl),
                stale_while_revalidate_s: seconds(cache.stale_while_revalidate),
                shard: None,
            },
            shard_header: http.shard_header,
            timeouts: Timeouts {
                header: http.header_timeout,
                body: http.body_timeout,
                idle: http.idle_timeout,
                write: http.write_timeout,
            },
            batch_bytes_max: small(http.batch_bytes_max),
            lag_target: config.overload.target,
            connections_new_max: config.server.connections_new_max,
            requests_per_connection_max: http.requests_per_connection_max,
            balance: config.server.balance,
            ttl_ms: ms(cache.ttl),
            ttl_jitter_permille: cache.ttl_jitter.permille(),
            negative_ttl_ms: ms(cache.negative_ttl),
            windows: StaleWindows {
                while_revalidate_ms: ms(cache.stale_while_revalidate),
                if_error_ms: ms(cache.stale_if_error),
            },
            kept_ms: match config.origin.kind {
                "http" => ms(cache.stale_while_revalidate.max(cache.stale_if_error)),
                _ => 0,
            },
            hash_key: cache.hash_key.unwrap_or_else(random_key),
            owner_hash: match config.server.owner_hash {
                "crc32" => OwnerHash::Crc32,
                _ => OwnerHash::Keyed,
            },
            tenants: Tenants::new(&config.tenants),
        }
    }
}

/// Lines of a request head; a browser sends about fifteen.
const HEADERS_COUNT_MAX: u16 = 64;

/// A secret that an attacker cannot guess: the standard library draws its keys from the kernel.
fn random_key() -> [u64; 2] {
    [0, 1].map(|word: u64| RandomState::new().hash_one(word))
}

/// The memory of a cache.
#[derive(Debug)]
pub struct Slice {
    /// How it is divided.
    pub layout: Layout,
    /// As much as the layout says, zeroed and aligned to a page.
    pub memory: &'static mut [u8],
    /// How many segments of the arena are populated.
    pub segments_ready: Arc<AtomicU32>,
}

/// Everything that a shard is given.
#[derive(Debug)]
pub struct Setup {
    /// Its index, below the number of peers.
    pub index: u16,
    /// Its bounds.
    pub limits: Limits,
    /// Settings shared by all shards.
    pub settings: Settings,
    /// Its listening sockets whose connections any shard may have.
    pub listeners: Vec<Fd>,
    /// Its listening sockets whose connections are for this shard.
    pub own_listeners: Vec<Fd>,
    /// What its cache lies in.
    pub cache: Slice,
    /// What copies of other shards' values lie in; none where there are none.
    pub replicas: Option<Slice>,
    /// Memory for output blocks.
    pub output: &'static mut [u8],
    /// The queues to and from the other shards.
    pub peers: Peers,
    /// How many connections each shard has.
    pub loads: Loads,
    /// How many connections each client address has.
    pub addresses: Addresses,
    /// How long copies may be served.
    pub leases: Leases,
    /// The queues to and from the origin plane.
    pub link: OriginLink,
    /// The queues to and from the storage plane.
    pub storage: StorageLink,
    /// The flag that says whether this shard sleeps.
    pub sleep: Sleep,
    /// The eventfd by which the other planes and the main thread wake this shard.
    pub wake_eventfd: Fd,
    /// The eventfd by which this shard wakes the origin plane.
    pub plane_eventfd: Fd,
    /// What the main thread says.
    pub control: Control,
    /// Where counters are published.
    pub board: Arc<Board>,
    /// Where histograms go.
    pub histogram_port: Giver<Histograms>,
    /// Where hot keys go, when somebody asks.
    pub hot_port: Giver<Window>,
}

impl<R: Ring> Shard<R> {
    /// Builds the shard. Its turns allocate nothing.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a list of fields")]
    pub fn new(setup: Setup, ring: R) -> Self {
        let Setup { index, limits, settings, listeners, cache, .. } = setup;
        let new_max = new_max(&settings, &limits);
        let heads = heads(&settings, index, limits.shards);
        let hasher = KeyHasher::new(settings.hash_key);
        let (cache, segments_ready) = new_cache(cache, hasher, &settings);
        Self {
            index,
            hasher,
            owners: Owners::new(settings.owner_hash, limits.shards),
            completions: Completions::with_capacity(limits.completions_max as usize),
            now: Instant::ZERO,
            wall: WallSeconds(0),
            turns: 0,
            watching: false,
            wake_eventfd: setup.wake_eventfd,
            plane_eventfd: setup.plane_eventfd,
            accepts: Accepts::new(listeners, setup.own_listeners, setup.addresses, new_max),
            submissions_in_flight: 0,
            draining_since: None,
            drained: false,
            slots: Slots::new(limits.connections_max),
            ready: Ready::new(limits.connections_max),
            starving: Starving::new(limits.connections_max),
            starved: false,
            swept_at: Instant::ZERO,
            sweep_cursor: 0,
            relief_bytes_left: 0,
            send_bytes_left: 0,
            pumped: Vec::with_capacity(limits.pumps_per_turn_max as usize),
            input: new_input(&limits, &ring),
            requests: Requests::new(limits.requests_per_turn_max as usize),
            replies: Replies::new(limits.replies_max),
            output: Output::new(setup.output, limits.output_block_size),
            cache,
            segments_ready,
            content_types: ContentTypes::new(limits.content_types_max, &heads),
            heads,
            flights: Flights::new(&limits),
            recent: Recent::new(&limits),
            overload: Overload::new(settings.lag_target, limits.misses_per_turn_max()),
            tenants: Accounts::new(settings.tenants.clone(), &limits),
            stalled: None,
            stalled_since: None,
            peers: setup.peers,
            loads: setup.loads,
            leases: setup.leases,
            replicas: Replicas::new(setup.replicas, hasher, &limits),
            directory: Directory::new(&limits),
            parcels: Parcels::new(&limits),
            lending: Lending::new(index, limits.lent_count()),
            changes: Changes::new(&limits),
            writes: Writes::new(index, &limits),
            link: setup.link,
            storage: setup.storage,
            snapshot: None,
            sleep: setup.sleep,
            control: setup.control,
            counters: Counters::default(),
            board: setup.board,
            published_at: Instant::ZERO,
            histograms: Box::new(Histograms::new()),
            histogram_port: setup.histogram_port,
            handed_over_at: Instant::ZERO,
            hot_keys: new_hot_keys(hasher, index),
            hot_port: setup.hot_port,
            replied: super::Replied::default(),
            replied_late: Vec::with_capacity(limits.replies_max as usize),
            limits,
            settings,
            ring,
        }
    }
}

/// Connections that may not have sent a whole request. What is not configured lets a load generator
/// open ten thousand before it sends anything.
fn new_max(settings: &Settings, limits: &Limits) -> u32 {
    let auto = (limits.connections_max / 8).max(NEW_AUTO_MIN);
    settings.connections_new_max.unwrap_or(auto)
}

const NEW_AUTO_MIN: u32 = 10_240;

/// An empty cache, which has the stale windows that are configured, and none at all.
fn new_cache(
    slice: Slice,
    hasher: KeyHasher,
    settings: &Settings,
) -> (Cache<'static>, Arc<AtomicU32>) {
    let none = StaleWindows::default();
    let mut windows = [none; 2];
    windows[usize::from(super::WINDOWS_VALUE)] = settings.windows;
    let mut cache = Cache::new(slice.layout, slice.memory, hasher, &windows);
    assert_eq!(cache.windows_index(none), Some(super::WINDOWS_NEVER), "it is the first of its own");
    cache.keep_for(settings.kept_ms);
    // Half of the shares is all that may be guaranteed.
    let share =
        |permille: &u16| 2 * slice.layout.guaranteed_bytes_max() * u64::from(*permille) / 1000;
    let shares: Vec<u64> = settings.tenants.cache_permilles().iter().map(share).collect();
    cache.guarantee(&shares);
    (cache, slice.segments_ready)
}

/// With a secret of its own: nobody can tell which lookups are counted.
fn new_hot_keys(hasher: KeyHasher, index: u16) -> HotKeys {
    HotKeys::new(hasher.hash(&index.to_le_bytes()).bits())
}

fn new_input(limits: &Limits, ring: &impl Ring) -> Input {
    Input::new(ring.buffers_count(), limits.carry_blocks_count, limits.carry_block_size)
}

/// What renders the replies of the shard `index` of `count`.
fn heads(settings: &Settings, index: u16, count: u16) -> Heads {
    let shard = settings.shard_header.then_some((index, count));
    Heads::new(HeadPolicy { shard, ..settings.heads }, WallSeconds(0))
}
