//! The threads of a server: what each runs, and how each ends.

#![expect(clippy::disallowed_methods, reason = "threads are started here")]
#![expect(clippy::disallowed_types, reason = "the origin is shared on the plane's one thread")]
#![expect(clippy::print_stderr, reason = "the last word of a process that aborts")]

use super::MakeOrigin;
use super::parts::{PlaneParts, ShardParts};
use super::ports::Sockets;
use super::shortage::ShortageWatch;
use crate::admin::{self, Admin, Published, Purger};
use crate::config::Config;
use crate::error::StartError;
use crate::limits::Limits;
use crate::mesh::{Audit, Control};
use crate::metrics::{Board, Counters, SampleBoard};
use crate::origin::{Origin, Plane, PlaneLimits, Purges, Requests, Room, tell_servers};
use crate::ring::Fd;
use crate::ring::kernel::DisabledRing;
use crate::shard::{Flow, Level, Shard};
use crate::storage::{self, Folder, Storage};
use crate::sys::memory::Populate;
use crate::sys::pressure::Gauges;
use crate::sys::{alloc, cpu};
use crate::token::Token;
use shard_cache::SEGMENT_SIZE;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tokio::sync::{self, watch};

/// Purges that wait for the one under way; further ones wait to wait.
const PURGES_WAITING_MAX: usize = 16;

/// Explanations that wait for those under way; further ones wait to wait.
const EXPLANATIONS_WAITING_MAX: usize = 16;

/// How often the watchdog looks at the shards.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// After so many looks without a turn the process ends. They are counted, not timed, so that a
/// pause of the whole process (a stopped virtual machine, a debugger) is no reason to end it.
const WATCH_LOOKS_MAX: u32 = 20;

/// Segments of each cache that are populated before a shard serves: 1 MiB of values.
const SEGMENTS_FIRST: usize = 4;

/// Starts one pinned thread for each shard. When it returns, all rings are enabled.
pub(super) fn run_shards(
    cores: &[u16],
    parts: Vec<ShardParts>,
    sockets: Vec<Sockets>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let descriptors: Vec<RawFd> =
        parts.iter().map(|parts| DisabledRing::descriptor(&parts.ring)).collect();
    let barrier = Arc::new(Barrier::new(parts.len()));
    let (report, reports) = mpsc::channel();
    let mut filling = Vec::new();
    let mut threads = Vec::new();
    for ((&core, mut parts), sockets) in cores.iter().zip(parts).zip(sockets) {
        parts.setup.listeners = fds(&sockets.shared);
        parts.setup.own_listeners = fds(&sockets.own);
        let (populate, populate_replicas) = parts.populate;
        let replicas = parts.setup.replicas.as_ref().zip(populate_replicas);
        for (slice, populate) in replicas.into_iter().chain([(&parts.setup.cache, populate)]) {
            let mut cache = Filling {
                populate,
                front_size: slice.layout.front_bytes(),
                ready: Arc::clone(&slice.segments_ready),
            };
            cache.begin()?;
            filling.push(cache);
        }
        let (setup, ring, epoch) = (parts.setup, parts.ring, parts.epoch);
        let peers = descriptors.clone().into_boxed_slice();
        let (barrier, report) = (Arc::clone(&barrier), report.clone());
        threads.push(spawn(format!("shard-{}", setup.index), move || {
            let enabled = cpu::pin(core).and_then(|()| {
                ring.enable(peers, epoch).map_err(|error| {
                    StartError::host(
                        format!("Cannot enable the ring of the shard on core {core}: {error}."),
                        "Run `pelton check`, which names the cause.",
                    )
                })
            });
            let ring = match enabled {
                Ok(ring) => ring,
                Err(error) => {
                    report.send(Err(error)).expect("start waits for every shard");
                    return;
                }
            };
            let mut shard = Shard::new(setup, ring);
            report.send(Ok(())).expect("start waits for every shard");
            // A ring that is not enabled yet cannot be woken.
            barrier.wait();
            alloc::forbid_on_this_thread();
            while shard.turn() == Flow::Continue {}
            alloc::allow_on_this_thread();
            drop(sockets);
        })?);
    }
    for _ in 0..threads.len() {
        reports.recv().expect("every shard reports")?;
    }
    spawn("populate".into(), move || fill(filling))?;
    Ok(threads)
}

fn fds(sockets: &[OwnedFd]) -> Vec<Fd> {
    sockets.iter().map(|socket| Fd(socket.as_raw_fd())).collect()
}

/// A cache whose memory is being populated.
struct Filling {
    populate: Populate,
    /// Bytes before the first segment.
    front_size: usize,
    /// Segments that the shard may use.
    ready: Arc<AtomicU32>,
}

impl Filling {
    /// Populates index and ghost, which nothing is stored without, and the first segments: a shard
    /// that serves has room for what it fetches.
    fn begin(&mut self) -> Result<(), StartError> {
        let populated = self.step(self.front_size + SEGMENTS_FIRST * SEGMENT_SIZE);
        populated.map(|_| ()).map_err(|error| {
            StartError::host(
                format!("The memory of a cache cannot be populated: {error}."),
                "Lower cache.memory, or raise the cgroup's limit.",
            )
        })
    }

    /// Populates so many more bytes; whether there were any.
    fn step(&mut self, size: usize) -> io::Result<bool> {
        let Some(populated) = self.populate.step(size)? else { return Ok(false) };
        let segments = populated.saturating_sub(self.front_size) / SEGMENT_SIZE;
        self.ready.store(u32::try_from(segments).unwrap_or(u32::MAX), Ordering::Release);
        Ok(true)
    }
}

/// Populates all caches, a segment of each in turn: none waits for another to be full.
fn fill(mut caches: Vec<Filling>) {
    while !caches.is_empty() {
        caches.retain_mut(|cache| match cache.step(SEGMENT_SIZE) {
            Ok(more) => more,
            Err(error) => {
                tracing::error!(
                    "cannot populate the cache: {error}; it stays smaller than cache.memory. \
                     Lower cache.memory, or raise the cgroup's limit"
                );
                false
            }
        });
    }
}

/// What the plane's thread has found out.
pub(super) struct PlaneFacts {
    pub(super) origin: String,
    pub(super) admin: Option<SocketAddr>,
    pub(super) audit: Option<Audit>,
}

/// Starts the thread of the origin plane and the admin server. When it returns, the admin port
/// answers.
pub(super) fn run_plane(
    config: &Config,
    limits: &Limits,
    parts: PlaneParts,
    token: Option<Token>,
    make_origin: MakeOrigin,
    stopped: watch::Receiver<bool>,
) -> Result<(JoinHandle<()>, PlaneFacts), StartError> {
    let (report, reports) = mpsc::channel();
    let (config, limits) = (config.clone(), *limits);
    let thread = spawn("origin".into(), move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("an epoll and an eventfd are to be had this early");
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let origin = match make_origin(&limits) {
                Ok(origin) => Rc::from(origin),
                Err(error) => return report.send(Err(error)).expect("start waits for the plane"),
            };
            match start_plane(&config, &limits, parts, origin, token, &stopped).await {
                Ok((plane, facts)) => {
                    report.send(Ok(facts)).expect("start waits for the plane");
                    plane.run(stopped).await;
                }
                Err(error) => report.send(Err(error)).expect("start waits for the plane"),
            }
        });
    })?;
    let facts = reports.recv().expect("the plane reports")?;
    Ok((thread, facts))
}

/// Makes the plane, and starts the admin server beside it.
async fn start_plane(
    config: &Config,
    limits: &Limits,
    parts: PlaneParts,
    origin: Rc<dyn Origin>,
    token: Option<Token>,
    stopped: &watch::Receiver<bool>,
) -> Result<(Plane, PlaneFacts), StartError> {
    let PlaneParts {
        ports,
        hasher,
        owners,
        sleep,
        wake,
        sources,
        boards,
        snapshots,
        control,
        epoch,
    } = parts;
    let samples = SampleBoard::default();
    let plane_limits = PlaneLimits {
        timeout: config.origin.timeout,
        value_size_max: usize::try_from(config.cache.value_size_max).expect("below 4 GiB"),
        written: Room::new(limits.written_size_max),
        late_writes_max: limits.late_writes_max as usize,
        owners,
        hasher,
        samples: config.origin.samples.then(|| Arc::clone(&samples)),
    };
    let (description, audit) = (origin.describe(), origin.audit());
    let staleness_max = origin.staleness_max();
    let ready = Arc::new(AtomicBool::new(false));
    let (requests, purges) = sync::mpsc::channel(PURGES_WAITING_MAX);
    let purges = Purges { requests: purges, note: note_purges(config, control.clone()) };
    let (explanations, asked) = sync::mpsc::channel(EXPLANATIONS_WAITING_MAX);
    let wanted = Requests { purges, explanations: asked };
    let plane = Plane::new(
        Rc::clone(&origin),
        ports,
        wake,
        sleep,
        plane_limits,
        Arc::clone(&ready),
        wanted,
    )?;
    let mut address = None;
    if let Some(wanted) = config.admin.listen {
        let cannot = |error: io::Error| {
            StartError::failed(
                format!("Cannot listen on {wanted} for the admin port: {error}."),
                "Stop what holds it (ss -ltnp), or choose another: --set \
                 admin.listen=127.0.0.1:0, or off.",
            )
        };
        let listener = tokio::net::TcpListener::bind(wanted).await.map_err(cannot)?;
        address = Some(listener.local_addr().map_err(cannot)?);
        let facts = admin::Facts::new(config, limits, description.clone(), staleness_max);
        let purger = Purger { requests, token };
        let (servers, asked) = sync::mpsc::channel(1);
        tokio::task::spawn_local(tell_servers(origin, asked));
        let published = Published { boards, snapshots, samples, sources, servers, explanations };
        let admin = Admin::new(published, control, epoch, ready, purger, facts);
        let serving = admin.serve(listener, stopped.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = serving.await {
                tracing::error!("the admin port has failed: {error}");
            }
        });
    }
    Ok((plane, PlaneFacts { origin: description, admin: address, audit }))
}

/// What is done before each purge: where snapshots are written, it is noted beside them.
fn note_purges(config: &Config, control: Control) -> Box<dyn Fn() -> io::Result<()>> {
    let folder = config.snapshot.path.clone();
    Box::new(move || {
        control.purge_begins();
        folder.as_deref().map_or(Ok(()), storage::note_purge)
    })
}

/// Starts the storage plane, if there is a folder for it: off the shards' cores, if there are
/// others; on them it gives way to shards.
pub(super) fn run_storage(
    config: &Config,
    cores: &[u16],
    storage: Storage,
    stop: mpsc::Receiver<()>,
) -> Result<Option<JoinHandle<()>>, StartError> {
    let Some(path) = &config.snapshot.path else { return Ok(None) };
    let folder = Folder::open(path).map_err(|error| {
        StartError::failed(
            format!("Cannot use {} for snapshots: {error}.", path.display()),
            "Give snapshot.path a folder that this process alone may write, or set it to off.",
        )
    })?;
    let spare = cpu::allowed().into_iter().find(|core| !cores.contains(core));
    let thread = spawn("storage".into(), move || {
        let placed = match spare {
            Some(core) => cpu::pin(core).map_err(|error| error.to_string()),
            None => cpu::give_way().map_err(|error| error.to_string()),
        };
        if let Err(error) = placed {
            tracing::warn!("snapshots may delay the shards: {error}");
        }
        storage.run(folder, &stop);
    })?;
    Ok(Some(thread))
}

/// Starts the watchdog, which ends with the process.
pub(super) fn run_watchdog(boards: Vec<Arc<Board>>, control: Control) -> Result<(), StartError> {
    spawn("watchdog".into(), move || {
        let mut seen: Vec<(u64, u32)> = boards.iter().map(|board| (board.turns(), 0)).collect();
        let mut told = vec![Counters::default(); boards.len()];
        let mut watch = ShortageWatch::new(Gauges::find(Path::new("/")));
        while !control.is_draining() {
            std::thread::sleep(WATCH_EVERY);
            control.set_shortage(watch.look());
            tell_levels(&boards, &mut told);
            for (shard, (board, (turns, looks))) in boards.iter().zip(&mut seen).enumerate() {
                let now = board.turns();
                *looks = if now == *turns { *looks + 1 } else { 0 };
                *turns = now;
                if *looks >= WATCH_LOOKS_MAX {
                    eprintln!("shard {shard} has made no turn for 2 s: ending the process");
                    std::process::abort();
                }
            }
        }
    })?;
    Ok(())
}

/// Tells of shards that are more loaded, or less, than when they were last looked at.
fn tell_levels(boards: &[Arc<Board>], told: &mut [Counters]) {
    for (shard, (board, told)) in boards.iter().zip(told).enumerate() {
        let now = board.read();
        let before = std::mem::replace(told, now);
        let is_now = |level: &&Level| **level as u64 == now.overload_level;
        let name = Level::ALL.iter().find(is_now).map_or("", |level| level.name());
        let lag_us = now.overload_lag_ns / 1_000;
        if now.overload_level > before.overload_level {
            let why = why_raised(&before, &now);
            tracing::warn!("overload: shard {shard} is {name} ({why}), with a lag of {lag_us} us");
        } else if now.overload_level < before.overload_level {
            tracing::info!("overload: shard {shard} is {name} again, with a lag of {lag_us} us");
        }
    }
}

/// The gravest reason for which a level rose meanwhile.
fn why_raised(before: &Counters, now: &Counters) -> &'static str {
    if now.overload_raised_memory > before.overload_raised_memory {
        "short of memory"
    } else if now.overload_raised_lag > before.overload_raised_lag {
        "long turns"
    } else if now.overload_raised_busy > before.overload_raised_busy {
        "busy"
    } else {
        "short of CPU time"
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    Builder::new().name(name.clone()).spawn(body).map_err(|error| {
        StartError::failed(
            format!("Cannot start the thread {name}: {error}."),
            "Raise the limit on processes (ulimit -u, or the cgroup's pids.max).",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory;

    #[test]
    fn every_cache_has_room_before_any_is_full() {
        let front_size = 64 << 10;
        let cache = |segments: usize| {
            let populate = memory::map(front_size + segments * SEGMENT_SIZE).unwrap().populate;
            Filling { populate, front_size, ready: Arc::new(AtomicU32::new(0)) }
        };
        let mut caches = vec![cache(16), cache(2)];
        let ready: Vec<_> = caches.iter().map(|cache| Arc::clone(&cache.ready)).collect();
        let read = || ready.iter().map(|ready| ready.load(Ordering::Acquire)).collect::<Vec<_>>();
        caches.iter_mut().for_each(|cache| cache.begin().unwrap());
        assert_eq!(read(), [4, 2]);
        fill(caches);
        assert_eq!(read(), [16, 2]);
    }
}
