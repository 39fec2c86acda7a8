//! From a seed to the options of a run: faults, bounds, settings, clients.

use super::badge::Badges;
use super::client::Manner;
use super::faults::{FETCH_NS_MAX, Faults, OriginFaults, STALLS_NS_MAX, some};
use super::write::TOKEN;
use crate::model::Ages;
use crate::prng::Prng;
use pelton::http::{BatchLimits, HeadPolicy, HttpLimits, WriteLimits};
use pelton::limits::{self, Limits, REPLY_HEAD_SIZE_MAX, SNAPSHOT_PAGE_SIZE_MIN};
use pelton::mesh::{OwnerHash, Tenants};
use pelton::shard::{Settings, Timeouts};
use pelton::token::Token;
use shard_cache::StaleWindows;
use std::time::Duration;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shards in the world.
    pub shards_count: u16,
    /// How likely a bound of a shard is to be tight, per mille.
    pub tight: u32,
    /// How likely a kind of fault is to be on, per mille.
    pub on: u32,
    /// Faults of the kernel.
    pub faults: Faults,
    /// Faults of the origin.
    pub origin_faults: OriginFaults,
    /// Bounds of each shard.
    pub limits: Limits,
    /// Settings of all shards.
    pub settings: Settings,
    /// Descriptors that the process may have.
    pub descriptors_max: usize,
    /// Connections that a listener keeps waiting.
    pub backlog_max: usize,
    /// How clients behave.
    pub manners: Vec<Manner>,
    /// Clients at one time.
    pub clients_max: usize,
    /// A client begins, per mille and tick.
    pub client_begins: u32,
    /// Of clients that begin, so many per mille do so with as many others as there may be.
    pub burst: u32,
    /// Requests of a client in flight.
    pub pipeline_max: usize,
    /// Keys that are asked for.
    pub keys_count: u32,
    /// Of 16 keys, so many have a large value.
    pub large_share: u64,
    /// How long values are fresh.
    pub ages: Ages,
    /// Clients write, per mille of their requests.
    pub writes: u32,
    /// Clients ask for many keys at once, per mille of their requests.
    pub batches: u32,
    /// What clients show, where the server knows tenants.
    pub badges: Option<Badges>,
    /// A value is replaced, per mille and tick.
    pub value_replaced: u32,
    /// A purge begins, per mille and tick.
    pub purged: u32,
    /// The origin tells that a key has changed, per mille and tick.
    pub told: u32,
    /// A key is to be explained, per mille and tick.
    pub explained: u32,
    /// Ticks of the storm, as a multiple of those asked for: rare paths of a world in which little
    /// is in the way are met by numbers.
    pub storm_factor: u64,
    /// Snapshots are written and read.
    pub snapshots: bool,
    /// An operation of the disk fails, per mille.
    pub disk_failure: u32,
    /// The server is told to drain while clients are at it.
    pub drain_early: bool,
}

impl Options {
    /// The options of a seed.
    #[must_use]
    pub fn draw(prng: &mut Prng) -> Self {
        let shards_count = prng.pick(&[1, 2, 2, 3, 4, 8]);
        // A run in which everything is tight and fails does little else than wait; one in which
        // nothing does never meets a bound. So both are drawn before the rest.
        let tight = prng.pick(&[ROOMY, ROOMY, 200, 700]);
        let on = prng.pick(&[CALM, CALM, 300, 600]);
        let limits = draw_limits(prng, shards_count, tight);
        let settings = draw_settings(prng, limits.value_size_max);
        let badges = Badges::of(settings.hash_key);
        let ttl = u64::from(settings.ttl_ms.max(settings.negative_ttl_ms));
        let windows = settings.windows;
        let stale = u64::from(windows.while_revalidate_ms.max(windows.if_error_ms));
        let faults = Faults::draw(prng, on);
        let within = Duration::from_millis(ttl + stale)
            + Duration::from_nanos(FETCH_NS_MAX + STALLS_MET * faults.stall_ns_max);
        let few = prng.chance(tight);
        let mut options = Self {
            shards_count,
            tight,
            on,
            faults,
            origin_faults: OriginFaults::draw(prng, on),
            limits,
            settings,
            descriptors_max: if few { 6 + 2 * usize::from(shards_count) } else { 1000 },
            backlog_max: prng.pick(&[1, 4, 64]),
            manners: draw_manners(prng, on),
            clients_max: prng.pick(&[1, 12, 32, 48]),
            client_begins: prng.pick(&[20, 100, 500]),
            burst: some(prng, on, 200),
            pipeline_max: prng.pick(&[1, 4, 32, 32]),
            keys_count: prng.pick(&[1, 5, 50, 500]),
            large_share: if prng.chance(80) { 14 } else { prng.pick(&[0, 0, 1]) },
            ages: if prng.coin() { Ages::Never } else { Ages::Within(within) },
            writes: some(prng, 600, 500),
            batches: some(prng, 600, 300),
            badges,
            value_replaced: some(prng, on, 50),
            purged: some(prng, on, 20),
            told: some(prng, on, 100),
            explained: prng.pick(&[0, 10, 100]),
            storm_factor: if tight == ROOMY && on == CALM { 4 } else { 1 },
            snapshots: prng.chance(250),
            disk_failure: some(prng, on, 200),
            drain_early: prng.chance(200),
        };
        if options.snapshots {
            // What is on the disk of a server that purges or writes is not read by the same
            // process.
            options.purged = 0;
            options.told = 0;
            options.writes = 0;
        }
        if prng.chance(100) {
            options.let_readers_hoard();
        } else if shards_count > 1 && prng.chance(150) {
            options.let_mail_lag(prng);
        }
        options
    }

    /// Shards are stalled often and for long, and take one message of each other a turn. So what
    /// they are told to forget stands behind much else, and they serve what they hold meanwhile.
    fn let_mail_lag(&mut self, prng: &mut Prng) {
        self.limits.messages_per_peer_turn_max = 1;
        self.faults.stall = 40;
        self.faults.stall_ns_max = STALLS_NS_MAX[3];
        self.origin_faults = OriginFaults { delay_ns_max: 100_000, ..OriginFaults::NONE };
        self.manners = vec![Manner::Honest];
        self.clients_max = 32;
        self.keys_count = prng.pick(&[5, 50]);
        self.large_share = 0;
        self.writes = prng.pick(&[0, 50, 200]);
        self.purged = prng.pick(&[0, 5]);
        self.told = prng.pick(&[0, 5, 50]);
        self.snapshots = false;
        let is_written = self.writes > 0;
        let age = Duration::from_nanos(STALLS_MET * STALLS_NS_MAX[3]) + Duration::from_secs(6);
        self.ages = if is_written { Ages::Never } else { Ages::Within(age) };
        self.value_replaced = if is_written { 0 } else { 50 };
    }

    /// Clients read slowly or not at all, and what they hold of the caches is soon forgotten.
    fn let_readers_hoard(&mut self) {
        self.manners = vec![Manner::Honest, Manner::Slow, Manner::Deaf];
        self.large_share = 14;
        self.settings.timeouts.write = Duration::from_secs(30);
        self.settings.ttl_ms = self.settings.ttl_ms.min(5);
        self.settings.windows = StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 };
    }
}

/// A lag that a few requests in a turn exceed.
const TIGHT_LAG: Duration = Duration::from_micros(10);

/// Honest clients always, others in some seeds.
fn draw_manners(prng: &mut Prng, rude: u32) -> Vec<Manner> {
    let mut manners = vec![Manner::Honest];
    manners.extend(Manner::ALL.iter().filter(|_| prng.chance(rude)));
    manners
}

fn draw_settings(prng: &mut Prng, value_size_max: u32) -> Settings {
    let token = Token::new(TOKEN).expect("it is long enough");
    let ms = |prng: &mut Prng| Duration::from_millis(prng.pick(&[50, 500, 5_000, 30_000]));
    let ttl = |prng: &mut Prng| prng.pick(&[0, 5, 100, 2_000]);
    let keys_max = prng.pick(&[1, 4, 30]);
    let mut settings = Settings {
        http: HttpLimits {
            head_size_max: HEAD_SIZE_MAX,
            headers_count_max: 64,
            target_size_max: 2048,
            key_size_max: 512,
            body_size_max: value_size_max,
            batch: BatchLimits {
                keys_max,
                body_size_max: limits::batch_body_size(keys_max.into()).min(value_size_max),
            },
            writes: Some(WriteLimits { token: Some(token), by_tenants: false, value_size_max }),
        },
        heads: HeadPolicy {
            cache_control: prng.coin(),
            cache_status: prng.coin(),
            max_age_s: 60,
            stale_while_revalidate_s: 30,
            shard: None,
        },
        shard_header: false,
        timeouts: Timeouts { header: ms(prng), body: ms(prng), idle: ms(prng), write: ms(prng) },
        batch_bytes_max: prng.pick(&[100, 5_000, 1 << 20]),
        lag_target: Duration::from_secs(1 << 20),
        connections_new_max: None,
        requests_per_connection_max: 0,
        balance: prng.coin(),
        ttl_ms: ttl(prng),
        ttl_jitter_permille: prng.pick(&[0, 50, 500]),
        negative_ttl_ms: ttl(prng),
        windows: StaleWindows { while_revalidate_ms: ttl(prng), if_error_ms: ttl(prng) },
        kept_ms: 0,
        hash_key: [prng.word(), prng.word()],
        owner_hash: OwnerHash::Keyed,
        tenants: Tenants::new(&[]),
    };
    if settings.hash_key[1].is_multiple_of(2) {
        settings.kept_ms = 1_000;
    }
    if settings.hash_key[0].is_multiple_of(4) {
        settings.owner_hash = OwnerHash::Crc32;
    }
    if settings.hash_key[1].is_multiple_of(4) {
        settings.lag_target = TIGHT_LAG;
    }
    if let Some(badges) = Badges::of(settings.hash_key) {
        settings.tenants = badges.tenants();
        settings.http.writes.iter_mut().for_each(|writes| writes.by_tenants = true);
    }
    settings
}

/// Bounds that are reached, and keep the relations that `limits` asserts of the real ones.
#[expect(clippy::too_many_lines, reason = "a list of bounds")]
fn draw_limits(prng: &mut Prng, shards: u16, tight: u32) -> Limits {
    let value_size_max = if prng.chance(100) { VALUE_SIZE_MAX } else { 20_000 };
    let mut bound = |least: u32, few: u32, many: u32| {
        if prng.chance(tight) { prng.pick(&[least, few]) } else { many }
    };
    let small = |count: u32| u16::try_from(count).expect("it is small");
    let connections_max = bound(2, 8, 64);
    let copy_threshold = bound(64, 8192, 1024);
    let replies_per_connection_max = bound(1, 4, 32);
    let requests_per_connection_turn_max = bound(1, 4, 32);
    let flights_max = bound(1, 8, 64);
    let input_buffers_count = bound(4, 16, 64);
    let completions_max = bound(2, 16, 256);
    let pumps_per_turn_max = bound(1, 4, 64);
    let starved_per_turn_max = bound(1, 4, 16);
    let sweep_per_turn_max = bound(1, 4, 64);
    let parcels_count = bound(1, 4, 64);
    let big_parcels_count = bound(0, 1, 4);
    let uploads_count = bound(1, 2, 8);
    let invalidations_max = bound(1, 2, 16);
    let boxes_count = parcels_count + big_parcels_count + uploads_count;
    let parcel_size = copy_threshold.max(bound(512, 512, 2048));
    Limits {
        shards,
        cache_size: REPLICAS_SIZE + u64::from(bound(11 << 18, 11 << 18, 4 << 20)),
        connections_max,
        completions_max,
        submissions_max: 0,
        pushes_per_turn_max: completions_max
            + 4 * pumps_per_turn_max
            + 2 * sweep_per_turn_max
            + starved_per_turn_max,
        pumps_per_turn_max,
        starved_per_turn_max,
        sweep_per_turn_max,
        requests_per_turn_max: requests_per_connection_turn_max * bound(1, 2, 16),
        requests_per_connection_turn_max,
        sends_size_turn_max: copy_threshold * pumps_per_turn_max,
        replies_per_connection_max,
        replies_max: replies_per_connection_max * bound(1, 4, 32),
        input_buffers_count: small(input_buffers_count),
        input_buffer_size: bound(64, 512, 4096),
        input_held_max: input_buffers_count / 4 * 3,
        input_held_per_connection_max: small(bound(1, 1, 2)),
        output_blocks_count: bound(1, 4, 32),
        output_block_size: (copy_threshold + REPLY_HEAD_SIZE_MAX) * bound(1, 1, 2),
        carry_blocks_count: bound(1, 4, connections_max),
        carry_block_size: HEAD_SIZE_MAX,
        flights_max,
        waiters_max: flights_max * bound(1, 2, 8),
        flight_waiters_max: bound(1, 4, 512),
        parcels_waiting_max: parcels_count - bound(1, 1, 0).min(parcels_count - 1),
        recent_count: 8,
        landings_per_turn_max: bound(1, 2, 16),
        fetched_size_max: 0,
        rush_per_turn_max: bound(1, 4, 64),
        parcels_count,
        parcel_size,
        big_parcels_count,
        big_parcel_size: 2 * parcel_size,
        uploads_count,
        upload_size: value_size_max,
        written_size_max: 0,
        late_writes_max: 0,
        value_size_max,
        replicas_size: REPLICAS_SIZE,
        replica_value_size_max: (copy_threshold - 1).min(parcel_size - KEY_SIZE_MAX),
        replica_seen_count: 64,
        directory_slots_count: 8 * bound(1, 1, 32),
        invalidations_max,
        messages_per_peer_max: (2 * (boxes_count + invalidations_max) + 1).next_power_of_two(),
        messages_per_peer_turn_max: bound(1, 4, 64),
        condemned_size_max: u64::from(bound(1 << 18, 1 << 19, 1 << 20)),
        copy_threshold,
        content_types_max: 8,
        snapshot_page_size: SNAPSHOT_PAGE_SIZE_MIN.max(value_size_max + 1024),
    }
}

/// The least of what [`Options::tight`] may be.
const ROOMY: u32 = 20;

/// The least of what [`Options::on`] may be.
const CALM: u32 = 50;

/// Bytes for copies: the least that a cache of small values lives in.
const REPLICAS_SIZE: u64 = 3 << 20;

/// Stalls that one fetch may meet: when it is ordered, where it lands, at each who has copies or
/// reads what came of it, and again.
const STALLS_MET: u64 = 6;

/// The longest key, bytes.
const KEY_SIZE_MAX: u32 = 512;

/// The longest head, bytes.
const HEAD_SIZE_MAX: u32 = 4096;

/// The largest value, bytes: more than a segment of the cache.
const VALUE_SIZE_MAX: u32 = 300_000;
