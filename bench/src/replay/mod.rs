//! Shards that run without a kernel, in one thread, one turn after the other.
//!
//! Each is a shard of the server over a ring that is a replay; queues, leases and loads between
//! them are the server's own. Nobody sleeps, so nobody is woken. What they ask of the origin is
//! answered at once. Time is made up and hashes have a fixed key, so a run can be repeated.

pub(crate) mod hits;
mod ring;

use pelton::config::Config;
use pelton::limits::{Grant, Limits};
use pelton::mesh::{
    Addresses, ContentType, Control, Delivery, Found, Held, Landing, Leases, Lifetime, Loads,
    Order, OriginPort, Outcome, Peers, Sleep, Stale, StoragePort, boxes, leases, origin_link,
    peers, storage_link,
};
use pelton::metrics::{Board, Counters};
use pelton::ring::Fd;
use pelton::shard::{Settings, Setup, Shard, Slice};
use pelton::sys::eventfd::EventFd;
use ring::Replay;
use shard_cache::Layout;
use shard_cache::hash::Etag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// The key of the hash that places keys.
const HASH_KEY: [u64; 2] = [1, 2];

/// Bytes to which a cache is aligned.
const ALIGN: usize = 64;

/// What the shards are, beside what they are asked for.
pub(crate) struct Plan {
    config: Config,
    pub(crate) limits: Limits,
    connections: u32,
}

impl Plan {
    /// So many shards as `--set` configures them, each with as many connections.
    pub(crate) fn new(shards: u16, sets: &[String], connections: u32) -> io::Result<Self> {
        let mut config = Config::parse("replay", "", sets).map_err(io::Error::other)?;
        config.cache.hash_key = Some(HASH_KEY);
        let grant = Grant { shards, descriptors_max: 1 << 20, memory_size: 64 << 30 };
        let limits = Limits::new(&config, &grant).map_err(io::Error::other)?;
        Ok(Self { config, limits, connections })
    }
}

/// Shards, and the other ends of their queues.
pub(crate) struct Shards<D: FnMut() -> usize> {
    shards: Vec<(Shard<Replay<D>>, OriginPort, StoragePort)>,
}

impl<D: FnMut() -> usize> Shards<D> {
    /// Shards that are asked for those of `keys` whose index is drawn, by `draw` of the shard.
    pub(crate) fn new(plan: &Plan, keys: &[String], draw: impl Fn(u16) -> D) -> io::Result<Self> {
        let Plan { config, limits, connections } = plan;
        let request = |key: &String| {
            format!("GET /lookup/{key} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n").into_bytes()
        };
        let requests: Arc<[Box<[u8]>]> = keys.iter().map(|key| request(key).into()).collect();
        let sleeps: Vec<Sleep> = (0..limits.shards).map(|_| Sleep::new()).collect();
        let messages_max = limits.messages_per_peer_max as usize;
        let all_peers = peers(&sleeps, messages_max, limits.messages_kept() as usize);
        let shared =
            (Loads::new(limits.shards.into(), limits.connections_max, 1, None), Control::new());
        let mut shards = Vec::new();
        let ends = all_peers.into_iter().zip(leases(limits.shards)).zip(sleeps);
        for (index, ((peers, leases), sleep)) in (0..).zip(ends) {
            let (setup, port, storage) =
                setup(index, (config, limits), &shared, (peers, leases, sleep))?;
            let requests = Arc::clone(&requests);
            let ring = Replay::new(requests, draw(index), *connections, limits.input_buffers_count);
            shards.push((Shard::new(setup, ring), port, storage));
        }
        Ok(Self { shards })
    }

    /// Turns until so many more requests are answered; what is fetched is `value` of its key.
    pub(crate) fn run<'a>(&mut self, requests: u64, value: impl Fn(&[u8]) -> &'a [u8]) {
        let end = self.answered() + requests;
        while self.answered() < end {
            for (shard, port, _) in &mut self.shards {
                shard.turn();
                fetch(port, &value);
            }
        }
    }

    fn answered(&self) -> u64 {
        self.shards.iter().map(|(shard, ..)| shard.ring().answered).sum()
    }

    /// How many requests each shard has answered, and its counters.
    pub(crate) fn counters(&self) -> Vec<(u64, Counters)> {
        let counters =
            self.shards.iter().map(|(shard, ..)| (shard.ring().answered, shard.counters()));
        counters.collect()
    }
}

/// Answers what a shard has ordered.
fn fetch<'a>(port: &mut OriginPort, value: impl Fn(&[u8]) -> &'a [u8]) {
    while let Some(order) = port.next_order() {
        let Order::Fetch { flight, key, .. } = order else { continue };
        let body = value(key.as_bytes());
        let found = Found {
            value: body.into(),
            content_type: ContentType::JSON,
            etag: Etag::of(ContentType::JSON.as_str(), body),
            lifetime: Lifetime::Unlimited,
            stale: Stale::default(),
            held: Held::default(),
        };
        port.deliver(Delivery::Landing(Landing { flight, outcome: Outcome::Found(found) }));
    }
}

/// What one shard is made of, and the other ends of its queues.
fn setup(
    index: u16,
    (config, limits): (&Config, &Limits),
    (loads, control): &(Loads, Control),
    (peers, leases, sleep): (Peers, Leases, Sleep),
) -> io::Result<(Setup, OriginPort, StoragePort)> {
    let wake = Arc::new(EventFd::for_ring()?);
    let (link, port) = origin_link(limits.flights_max as usize, 0, &sleep, &Sleep::new(), &wake);
    let (storage, storage_port) = storage_link(&sleep, &wake);
    // Nobody reads them.
    let (histogram_port, hot_port) = (boxes(1).0, boxes(1).0);
    let setup = Setup {
        index,
        settings: Settings::new(config, None),
        listeners: Vec::new(),
        own_listeners: vec![Fd(0)],
        cache: slice(limits.cache_layout().map_err(io::Error::other)?),
        replicas: limits.replicas_layout().map(slice),
        output: zeroed(limits.output_blocks_count as usize * limits.output_block_size as usize),
        peers,
        loads: loads.clone(),
        addresses: Addresses::new(0),
        leases,
        link,
        storage,
        sleep,
        wake_eventfd: Fd(0),
        plane_eventfd: Fd(0),
        control: control.clone(),
        board: Arc::new(Board::new()),
        histogram_port,
        hot_port,
        limits: *limits,
    };
    Ok((setup, port, storage_port))
}

/// The memory of a cache. It is never given back: a shard has its memory for good.
fn slice(layout: Layout) -> Slice {
    Slice {
        memory: zeroed(layout.memory_bytes()),
        segments_ready: Arc::new(AtomicU32::new(layout.segments_count())),
        layout,
    }
}

fn zeroed(size: usize) -> &'static mut [u8] {
    let memory = vec![0_u8; size + ALIGN].leak();
    let skip = memory.as_ptr().align_offset(ALIGN);
    &mut memory[skip..][..size]
}
