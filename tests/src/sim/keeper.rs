//! The storage plane of a simulated world: the real one's code, on a disk in memory.
//!
//! It writes snapshots and reads them back, again and again, while the shards serve. In a server
//! one comes back once, into a cache that is nearly empty, which `tests/tests/snapshots.rs` plays;
//! here it meets newer versions and no room. What a client is given must be as true as without it.
//!
//! The plane is a future that is polled when its pause is over. Shards are woken only if it has
//! asked for that, so a wake-up that it forgets is found.

#![expect(clippy::disallowed_types, reason = "the plane's future and its actor share a clock")]

use super::host::Host;
use super::marks::Mark;
use crate::prng::Prng;
use pelton::mesh::{Control, OwnerHash, StoragePort};
use pelton::ring::Fd;
use pelton::storage::{Arena, Clocks, Folder, NotLoaded, NotSaved, Plain, SnapshotStore, Task};
use pelton::sys::eventfd::EventFd;
use shard_cache::time::Instant;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tempfile::TempDir;

/// What the plane has of one shard.
#[derive(Debug)]
pub struct Desk {
    /// Its end of the queues.
    pub port: StoragePort,
    /// What it writes to wake the shard, and the same in the simulated world.
    pub wakes: (Arc<EventFd>, Fd),
}

/// What a world's plane is to do.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Bytes of a page.
    pub page_size: usize,
    /// The key of the hash that places keys.
    pub hash_key: [u64; 2],
    /// How keys are spread over the shards.
    pub owner_hash: OwnerHash,
    /// An operation of the disk fails, per mille.
    pub disk_failure: u32,
}

/// The actor.
pub struct Keeper {
    /// None once it has ended.
    plane: Option<Pin<Box<dyn Future<Output = ()>>>>,
    shared: Rc<Shared>,
    wakes: Vec<(File, Fd)>,
    /// Removed at the end.
    _folder: TempDir,
}

/// What the actor tells its plane, and is told by it.
#[derive(Debug, Default)]
struct Shared {
    now: Cell<Instant>,
    /// The end of the pause that it makes.
    until: Cell<Instant>,
    /// It is to begin nothing more.
    rests: Cell<bool>,
    walked: RefCell<Vec<Mark>>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Keeper {
    /// The plane of these shards.
    ///
    /// # Panics
    /// If the machine has no place for temporary files.
    #[must_use]
    pub fn new(prng: Prng, desks: Vec<Desk>, control: Control, terms: Terms) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
        let folder = folder.expect("there is a place for temporary files");
        let plain = Plain::new(Folder::open(folder.path()).expect("it was made for us"));
        let shared = Rc::new(Shared::default());
        let (ports, wakes): (Vec<_>, Vec<_>) =
            desks.into_iter().map(|desk| (desk.port, desk.wakes)).unzip();
        let wakes = wakes.into_iter().map(|(real, simulated)| {
            let real = real.as_fd().try_clone_to_owned().expect("a descriptor is to be had");
            (File::from(real), simulated)
        });
        let wakes = wakes.collect();
        let failure = terms.disk_failure;
        let disk = Disk { plain, prng, failure, shared: Rc::clone(&shared) };
        let plane = Some(Box::pin(live(disk, ports, control, terms)) as _);
        Self { plane, shared, wakes, _folder: folder }
    }

    /// When it acts next; never, once it rests.
    #[must_use]
    pub fn acts_at(&self) -> Option<Instant> {
        self.plane.is_some().then(|| self.shared.until.get())
    }

    /// Tells it to begin nothing more.
    pub fn rest(&self) {
        self.shared.rests.set(true);
    }

    /// Goes on until its next pause.
    pub fn act(&mut self, host: &mut Host) {
        self.shared.now.set(host.now());
        let Some(plane) = &mut self.plane else { return };
        if plane.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            self.plane = None;
        }
        for (real, simulated) in &self.wakes {
            if (&*real).read(&mut [0; 8]).is_ok() {
                host.net.signal(*simulated);
            }
        }
        for mark in self.shared.walked.borrow_mut().drain(..) {
            host.marks.hit(mark);
        }
    }
}

/// Writes and reads snapshots until it is told to rest, or the server stops.
async fn live(mut disk: Disk, mut ports: Vec<StoragePort>, control: Control, terms: Terms) {
    let shared = Rc::clone(&disk.shared);
    let clocks = || {
        let ms = shared.now.get().ms();
        Clocks { process_ms: ms, wall_ms: ms + (1 << 40), boot_ms: ms, boot_id: [0; 16] }
    };
    let arenas = vec![Arena { ready: Arc::new(AtomicU32::new(1)), count: 1 }; ports.len()];
    let between_ms_max = disk.prng.pick(&[1, 20, 200]);
    loop {
        let between = Duration::from_millis(disk.prng.range(1, between_ms_max));
        disk.pause(between).await;
        if shared.rests.get() || control.is_draining() {
            return;
        }
        let saves = disk.prng.coin();
        let mut task = Task {
            store: &mut disk,
            ports: &mut ports,
            clocks: &clocks,
            page_size: terms.page_size,
            hash_key: terms.hash_key,
            owner_hash: terms.owner_hash,
            rate: None,
            control: &control,
            audit: None,
            is_last: false,
        };
        let mark = if saves {
            match task.save().await {
                Ok(_) => Mark::SnapshotWritten,
                Err(NotSaved::Disk(_)) => Mark::SnapshotFailed,
                Err(NotSaved::Stopped) => continue,
                Err(NotSaved::Spoiled) => unreachable!("a small world removes few keys"),
            }
        } else {
            match task.load(&arenas).await {
                Ok(_) => Mark::SnapshotRead,
                Err(NotLoaded::None | NotLoaded::Purged | NotLoaded::Stopped) => continue,
                Err(NotLoaded::Disk(_)) => Mark::SnapshotFailed,
                Err(error) => panic!("a snapshot of our own is not read: {error}"),
            }
        };
        shared.walked.borrow_mut().push(mark);
    }
}

/// A disk that fails now and then.
struct Disk {
    plain: Plain,
    prng: Prng,
    failure: u32,
    shared: Rc<Shared>,
}

impl Disk {
    fn operate(&mut self) -> io::Result<()> {
        if self.prng.chance(self.failure) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl SnapshotStore for Disk {
    async fn create(&mut self, name: &str) -> io::Result<()> {
        self.operate()?;
        self.plain.create(name).await
    }

    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.operate()?;
        self.plain.append(bytes).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.operate()?;
        self.plain.finish().await
    }

    async fn open(&mut self, name: &str) -> io::Result<u64> {
        self.operate()?;
        self.plain.open(name).await
    }

    async fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.operate()?;
        self.plain.read(offset, into).await
    }

    async fn close(&mut self) {
        self.plain.close().await;
    }

    async fn pause(&mut self, duration: Duration) {
        let shared = Rc::clone(&self.shared);
        shared.until.set(shared.now.get() + duration);
        let is_over = move |_: &mut Context<'_>| {
            if shared.now.get() < shared.until.get() { Poll::Pending } else { Poll::Ready(()) }
        };
        poll_fn(is_over).await;
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.operate()?;
        self.plain.put(name, bytes)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.operate()?;
        self.plain.rename(from, to)
    }

    fn folder(&self) -> &Folder {
        self.plain.folder()
    }
}
