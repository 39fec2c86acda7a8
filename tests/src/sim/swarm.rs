//! From a seed to the options of a run: faults, bounds, settings, clients.

use super::client::Manner;
use super::faults::{FETCH_NS_MAX, Faults, OriginFaults, some};
use crate::model::Ages;
use crate::prng::Prng;
use pelton::http::{HeadPolicy, HttpLimits};
use pelton::limits::{Limits, REPLY_HEAD_SIZE_MAX};
use pelton::shard::{Settings, Timeouts};
use shard_cache::StaleWindows;
use std::time::Duration;

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shards in the world.
    pub shards_count: u16,
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
    /// Requests of a client in flight.
    pub pipeline_max: usize,
    /// Keys that are asked for.
    pub keys_count: u32,
    /// Of 16 keys, so many have a large value.
    pub large_share: u64,
    /// How long values are fresh.
    pub ages: Ages,
    /// A value is replaced, per mille and tick.
    pub value_replaced: u32,
    /// The server is told to drain while clients are at it.
    pub drain_early: bool,
}

impl Options {
    /// The options of a seed.
    #[must_use]
    pub fn draw(prng: &mut Prng) -> Self {
        let shards_count = prng.pick(&[1, 1, 2, 3]);
        let limits = draw_limits(prng, shards_count);
        let settings = draw_settings(prng);
        let ttl = u64::from(settings.ttl_ms);
        let windows = settings.windows;
        let stale = u64::from(windows.while_revalidate_ms.max(windows.if_error_ms));
        let within = Duration::from_millis(ttl + stale) + Duration::from_nanos(FETCH_NS_MAX);
        let tight = prng.chance(300);
        Self {
            shards_count,
            faults: Faults::draw(prng),
            origin_faults: OriginFaults::draw(prng),
            limits,
            settings,
            descriptors_max: if tight { 12 } else { 1000 },
            backlog_max: prng.pick(&[1, 4, 64]),
            manners: draw_manners(prng),
            clients_max: prng.pick(&[1, 4, 12, 32]),
            client_begins: prng.pick(&[5, 20, 100]),
            pipeline_max: prng.pick(&[1, 4, 32]),
            keys_count: prng.pick(&[1, 5, 50, 500]),
            large_share: prng.pick(&[1, 3, 12]),
            ages: if prng.coin() { Ages::Never } else { Ages::Within(within) },
            value_replaced: some(prng, 50),
            drain_early: prng.chance(200),
        }
    }
}

/// Honest clients always, others every other time each.
fn draw_manners(prng: &mut Prng) -> Vec<Manner> {
    let mut manners = vec![Manner::Honest];
    manners.extend(Manner::ALL.iter().filter(|_| prng.coin()));
    manners
}

fn draw_settings(prng: &mut Prng) -> Settings {
    let ms = |prng: &mut Prng| Duration::from_millis(prng.pick(&[50, 500, 5_000, 30_000]));
    let ttl = |prng: &mut Prng| prng.pick(&[0, 5, 100, 2_000]);
    Settings {
        http: HttpLimits {
            head_size_max: HEAD_SIZE_MAX,
            headers_count_max: 64,
            target_size_max: 2048,
            key_size_max: 512,
            body_size_max: 1024,
        },
        heads: HeadPolicy {
            cache_control: prng.coin(),
            cache_status: prng.coin(),
            max_age_s: 60,
            stale_while_revalidate_s: 30,
        },
        timeouts: Timeouts { header: ms(prng), body: ms(prng), idle: ms(prng), write: ms(prng) },
        ttl_ms: ttl(prng),
        negative_ttl_ms: ttl(prng),
        windows: StaleWindows { while_revalidate_ms: ttl(prng), if_error_ms: ttl(prng) },
        hash_key: [prng.word(), prng.word()],
    }
}

/// Bounds that are reached, and keep the relations that `limits` asserts of the real ones.
fn draw_limits(prng: &mut Prng, shards: u16) -> Limits {
    let connections_max = prng.pick(&[2, 8, 64]);
    let copy_threshold = prng.pick(&[64, 1024, 8192]);
    let replies_per_connection_max = prng.pick(&[1, 4, 32]);
    let requests_per_connection_turn_max = prng.pick(&[1, 4, 32]);
    let flights_max = prng.pick(&[1, 8, 64]);
    let input_buffers_count: u16 = prng.pick(&[4, 16, 64]);
    let completions_max = prng.pick(&[2, 16, 256]);
    let pumps_per_turn_max = prng.pick(&[1, 16]);
    let starved_per_turn_max = prng.pick(&[1, 16]);
    let sweep_per_turn_max = prng.pick(&[1, 64]);
    let parcels_count = prng.pick(&[1, 4, 32]);
    let big_parcels_count = prng.pick(&[1, 4]);
    Limits {
        shards,
        cache_size: prng.pick(&[11 << 18, 4 << 20]),
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
        requests_per_turn_max: requests_per_connection_turn_max * prng.pick(&[1, 4]),
        requests_per_connection_turn_max,
        replies_per_connection_max,
        replies_max: replies_per_connection_max * prng.pick(&[1, 4, 32]),
        input_buffers_count,
        input_buffer_size: prng.pick(&[64, 512, 4096]),
        input_held_max: u32::from(input_buffers_count) / 4 * 3,
        input_held_per_connection_max: prng.pick(&[1, 2]),
        output_blocks_count: prng.pick(&[1, 4, 64]),
        output_block_size: (copy_threshold + REPLY_HEAD_SIZE_MAX) * prng.pick(&[1, 4]),
        carry_blocks_count: prng.pick(&[1, 4, connections_max]),
        carry_block_size: HEAD_SIZE_MAX,
        flights_max,
        waiters_max: flights_max * prng.pick(&[1, 8]),
        landings_per_turn_max: prng.pick(&[1, 16]),
        rush_per_turn_max: prng.pick(&[1, 16]),
        parcels_count,
        parcel_size: copy_threshold.max(prng.pick(&[512, 4096])),
        big_parcels_count,
        big_parcel_size: prng.pick(&[20_000, 20_000, VALUE_SIZE_MAX]),
        messages_per_peer_max: (2 * (parcels_count + big_parcels_count)).next_power_of_two(),
        messages_per_peer_turn_max: prng.pick(&[1, 16]),
        copy_threshold,
        content_types_max: 8,
    }
}

/// The longest head, bytes.
const HEAD_SIZE_MAX: u32 = 4096;

/// The largest value, bytes: more than a segment of the cache.
const VALUE_SIZE_MAX: u32 = 300_000;
