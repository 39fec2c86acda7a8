//! Everything that the planes are made of, built before any of their threads starts.

use crate::admin::Source;
use crate::config::Config;
use crate::error::StartError;
use crate::histograms::Histograms;
use crate::hot::Window;
use crate::limits::Limits;
use crate::mesh::{
    Addresses, Control, Giver, Leases, Loads, OriginLink, OriginPort, Owners, Peers, Sleep,
    StorageLink, boxes, leases, origin_link, peers, storage_link,
};
use crate::metrics::{Board, SnapshotBoard};
use crate::ring::Fd;
use crate::ring::kernel::{DisabledRing, Sizes};
use crate::shard::{Settings, Setup, Slice};
use crate::storage::{Arena, Storage};
use crate::sys::clock::Epoch;
use crate::sys::eventfd::EventFd;
use crate::sys::memory::{self, Mapping, Populate};
use crate::sys::socket;
use crate::token::Token;
use shard_cache::Layout;
use shard_cache::hash::KeyHasher;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// All parts, each to be moved to its thread.
pub(super) struct Parts {
    pub(super) shards: Vec<ShardParts>,
    pub(super) plane: PlaneParts,
    pub(super) storage: Storage,
    pub(super) control: Control,
    pub(super) boards: Vec<Arc<Board>>,
    pub(super) wakes: Vec<Arc<EventFd>>,
}

/// What one shard's thread is given.
pub(super) struct ShardParts {
    pub(super) setup: Setup,
    pub(super) ring: DisabledRing,
    pub(super) epoch: Epoch,
    /// For the cache, and for copies where there are any.
    pub(super) populate: (Populate, Option<Populate>),
}

/// What the origin plane's thread is given.
pub(super) struct PlaneParts {
    pub(super) ports: Vec<OriginPort>,
    pub(super) hasher: KeyHasher,
    pub(super) owners: Owners,
    pub(super) sleep: Sleep,
    pub(super) wake: EventFd,
    pub(super) sources: Vec<Source>,
    pub(super) boards: Vec<Arc<Board>>,
    pub(super) snapshots: SnapshotBoard,
    pub(super) control: Control,
    pub(super) epoch: Epoch,
}

impl Parts {
    pub(super) fn new(
        config: &Config,
        limits: &Limits,
        token: Option<Token>,
        epoch: Epoch,
    ) -> Result<Self, StartError> {
        let count = usize::from(limits.shards);
        let settings = Settings::new(config, token);
        let control = Control::new();
        let snapshots = SnapshotBoard::default();
        let plane_sleep = Sleep::new();
        let sleeps: Vec<Sleep> = (0..count).map(|_| Sleep::new()).collect();
        let board = || Arc::new(Board::with_tenants(config.tenants.len()));
        let boards: Vec<_> = (0..count).map(|_| board()).collect();
        let mut parts = Self {
            shards: Vec::with_capacity(count),
            plane: PlaneParts {
                ports: Vec::with_capacity(count),
                hasher: KeyHasher::new(settings.hash_key),
                owners: Owners::new(settings.owner_hash, limits.shards),
                sleep: plane_sleep.clone(),
                wake: EventFd::for_runtime().map_err(no_descriptors)?,
                sources: Vec::with_capacity(count),
                boards: boards.clone(),
                snapshots: Arc::clone(&snapshots),
                control: control.clone(),
                epoch,
            },
            storage: Storage {
                ports: Vec::with_capacity(count),
                arenas: Vec::with_capacity(count),
                epoch,
                hash_key: settings.hash_key,
                owner_hash: settings.owner_hash,
                page_size: limits.snapshot_page_size as usize,
                interval: config.snapshot.interval,
                rate: config.snapshot.rate,
                control: control.clone(),
                board: snapshots,
                audit: None,
            },
            control: control.clone(),
            boards,
            wakes: Vec::with_capacity(count),
        };
        let messages_max = limits.messages_per_peer_max as usize;
        let all_peers = peers(&sleeps, messages_max, limits.messages_kept() as usize);
        let total_max = config.server.connections_total_max;
        let backlog_max = socket::BACKLOG.into();
        let loads = Loads::new(count, limits.connections_max, backlog_max, total_max);
        let addresses = Addresses::new(config.server.connections_per_address_max);
        let all_leases = leases(limits.shards);
        for (((index, peers), sleep), leases) in (0..).zip(all_peers).zip(sleeps).zip(all_leases) {
            let wake = Arc::new(EventFd::for_ring().map_err(no_descriptors)?);
            let (flights, uploads) = (limits.flights_max as usize, limits.all_uploads_count());
            let (link, port) = origin_link(flights, uploads, &sleep, &plane_sleep, &wake);
            let (storage, storage_port) = storage_link(&sleep, &wake);
            parts.storage.ports.push(storage_port);
            let (givers, source) = sources();
            parts.plane.ports.push(port);
            parts.plane.sources.push(source);
            let board = Arc::clone(&parts.boards[usize::from(index)]);
            let wake_eventfd = Fd(wake.as_raw_fd());
            let loads = (loads.clone(), addresses.clone());
            let wiring =
                Wiring { index, peers, loads, leases, link, storage, sleep, wake_eventfd, board };
            let plane = parts.plane.wake.as_raw_fd();
            let shard = ShardParts::new(limits, &settings, wiring, plane, givers, &control, epoch)?;
            parts.storage.arenas.push(Arena {
                ready: Arc::clone(&shard.setup.cache.segments_ready),
                count: shard.setup.cache.layout.segments_count(),
            });
            parts.shards.push(shard);
            parts.wakes.push(wake);
        }
        Ok(parts)
    }
}

/// How one shard is connected.
struct Wiring {
    index: u16,
    peers: Peers,
    loads: (Loads, Addresses),
    leases: Leases,
    link: OriginLink,
    storage: StorageLink,
    sleep: Sleep,
    wake_eventfd: Fd,
    board: Arc<Board>,
}

impl ShardParts {
    fn new(
        limits: &Limits,
        settings: &Settings,
        wiring: Wiring,
        plane_wake: RawFd,
        (histogram_port, hot_port): (Giver<Histograms>, Giver<Window>),
        control: &Control,
        epoch: Epoch,
    ) -> Result<Self, StartError> {
        let layout = limits.cache_layout().map_err(|error| {
            StartError::failed(
                format!("cache.memory is too small: {error}."),
                "Raise cache.memory, or lower server.shards or cache.value_size_max.",
            )
        })?;
        let (cache, populate) = slice(layout)?;
        let replicas = limits.replicas_layout().map(slice).transpose()?;
        let (replicas, populate_replicas) = replicas.unzip();
        let output_size = limits.output_blocks_count as usize * limits.output_block_size as usize;
        let output = memory::map(output_size).map_err(no_memory)?.bytes;
        let ring = DisabledRing::new(sizes(limits)).map_err(no_ring)?;
        let setup = Setup {
            index: wiring.index,
            limits: *limits,
            settings: settings.clone(),
            listeners: Vec::new(),
            own_listeners: Vec::new(),
            cache,
            replicas,
            output,
            peers: wiring.peers,
            loads: wiring.loads.0,
            addresses: wiring.loads.1,
            leases: wiring.leases,
            link: wiring.link,
            storage: wiring.storage,
            sleep: wiring.sleep,
            wake_eventfd: wiring.wake_eventfd,
            plane_eventfd: Fd(plane_wake),
            control: control.clone(),
            board: wiring.board,
            histogram_port,
            hot_port,
        };
        Ok(Self { setup, ring, epoch, populate: (populate, populate_replicas) })
    }
}

/// Memory for a cache, and what populates it.
fn slice(layout: Layout) -> Result<(Slice, Populate), StartError> {
    let Mapping { bytes, populate } = memory::map(layout.memory_bytes()).map_err(no_memory)?;
    Ok((Slice { layout, memory: bytes, segments_ready: Arc::default() }, populate))
}

fn sizes(limits: &Limits) -> Sizes {
    Sizes {
        completions_max: limits.completions_max,
        submissions_max: limits.submissions_max,
        pushes_per_turn_max: limits.pushes_per_turn_max as usize,
        buffers_count: limits.input_buffers_count,
        buffer_size: limits.input_buffer_size,
    }
}

/// What a shard hands to the admin port, at both ends.
fn sources() -> ((Giver<Histograms>, Giver<Window>), Source) {
    // The shard makes a box of histograms itself, and exchanges it for this one.
    let (histogram_port, mut histograms) = boxes(1);
    histograms.give_back(Box::new(Histograms::new()));
    let (hot_port, hot_keys) = boxes(1);
    ((histogram_port, hot_port), Source { histograms, hot_keys })
}

fn no_descriptors(error: io::Error) -> StartError {
    StartError::failed(
        format!("Cannot make an eventfd: {error}."),
        "Raise the limit on open files (ulimit -n, or LimitNOFILE of the unit).",
    )
}

fn no_memory(error: io::Error) -> StartError {
    StartError::failed(
        format!("Cannot map the memory of a shard: {error}."),
        "Lower cache.memory, or raise the limit on address space (ulimit -v).",
    )
}

fn no_ring(error: io::Error) -> StartError {
    StartError::host(
        format!("Cannot make an io_uring of the size a shard needs: {error}."),
        "Run `pelton check`, which names the cause.",
    )
}
