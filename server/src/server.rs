//! The running server: builds the planes, connects them, and takes them down.
//!
//! The only module that knows all planes. Threads, in the order in which they start:
//!
//! - `origin`: the origin plane and the admin server, one async runtime;
//! - `shard-N`: one for each core given to the data plane, pinned;
//! - `populate`: faults the arenas in, piece by piece, and ends;
//! - `storage`: writes and reads snapshots, where there is a folder for them;
//! - `watchdog`: aborts the process when a shard has stopped turning.

#![expect(clippy::disallowed_methods, reason = "the start waits for what a dead process holds")]

mod parts;
mod threads;

use crate::config::Config;
use crate::error::StartError;
use crate::host::{self, Granted};
use crate::limits::{Bill, Limits};
use crate::mesh::Control;
use crate::origin::Origin;
use crate::sys::clock::Epoch;
use crate::sys::eventfd::EventFd;
use crate::sys::socket;
use parts::Parts;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use threads::{run_plane, run_shards, run_storage, run_watchdog};
use tokio::sync::watch;

/// How often, and how many times, an address is tried again that is in use: for two seconds.
const TRY_EVERY: Duration = Duration::from_millis(20);
const TRIES: u32 = 100;

/// Makes the origin, on the thread that it will live on; the limits say how much it may be asked.
pub type MakeOrigin = Box<dyn FnOnce(&Limits) -> Result<Box<dyn Origin>, StartError> + Send>;

/// What an operator wants to know of a server that has started.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Addresses of the data port, with the ports that were taken.
    pub addresses: Vec<SocketAddr>,
    /// Address of the admin port.
    pub admin: Option<SocketAddr>,
    /// The core of each shard.
    pub cores: Vec<u16>,
    /// What the memory is for.
    pub bill: Bill,
    /// What the origin is.
    pub origin: String,
}

/// A server that runs.
pub struct Server {
    facts: Facts,
    control: Control,
    wakes: Vec<Arc<EventFd>>,
    shards: Vec<JoinHandle<()>>,
    plane: JoinHandle<()>,
    stop_plane: watch::Sender<bool>,
    storage: Option<JoinHandle<()>>,
    stop_storage: mpsc::Sender<()>,
    /// The last snapshot is wanted.
    saves_on_exit: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts all planes. When it returns, the ports accept connections.
    ///
    /// Signals that are to be handled must be blocked before: threads inherit that.
    ///
    /// # Errors
    /// What keeps it from starting, with what to do about it.
    pub fn start(config: &Config, make_origin: MakeOrigin) -> Result<Self, StartError> {
        let Granted { cores, limits, bill } = host::grant(config)?;
        let (addresses, listeners) = listen(&config.server.listen, cores.len())?;
        let Parts { shards, plane, storage, control, boards, wakes } =
            Parts::new(config, &limits, Epoch::begin())?;
        let (stop_plane, stopped) = watch::channel(false);
        let (plane, facts) = run_plane(config, &limits, plane, make_origin, stopped)?;
        let shards = run_shards(&cores, shards, listeners)?;
        run_watchdog(boards, control.clone())?;
        let (stop_storage, stop) = mpsc::channel();
        let storage = run_storage(config, &cores, storage, stop)?;
        let facts = Facts { addresses, admin: facts.admin, cores, bill, origin: facts.origin };
        Ok(Self {
            facts,
            control,
            wakes,
            shards,
            plane,
            stop_plane,
            storage,
            stop_storage,
            saves_on_exit: config.snapshot.on_exit,
        })
    }

    /// What an operator wants to know of it.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Asks it to stop: no new connections, replies to what is in flight, a last snapshot, then the
    /// end.
    pub fn drain(&self) {
        // Before they are asked to stop: shards go on for a last snapshot.
        self.control.set_saving(self.saves_on_exit && self.storage.is_some());
        self.control.drain();
        // Without the plane there is nobody to be told.
        let _gone_already = self.stop_storage.send(());
        for wake in &self.wakes {
            wake.signal();
        }
    }

    /// Waits until it has stopped. Never returns unless it is drained.
    pub fn join(self) {
        for shard in self.shards {
            shard.join().expect("a shard that panics ends the process");
        }
        if let Some(storage) = self.storage {
            storage.join().expect("a plane that panics ends the process");
        }
        // The plane outlives the shards: it may be gone already only if it has failed to start.
        let _gone_already = self.stop_plane.send(true);
        self.plane.join().expect("a plane that panics ends the process");
    }
}

/// Listens on every address, once for each shard; the sockets of one shard stand together.
fn listen(
    wanted: &[SocketAddr],
    shards_count: usize,
) -> Result<(Vec<SocketAddr>, Vec<Vec<TcpListener>>), StartError> {
    let mut addresses = Vec::new();
    let mut listeners: Vec<Vec<TcpListener>> = (0..shards_count).map(|_| Vec::new()).collect();
    for &address in wanted {
        patiently(|| socket::check_free(address))
            .map_err(|error| cannot_listen(address, &why(&error)))?;
        let mut bound = address;
        for shard in &mut listeners {
            let listener =
                socket::listen(bound).map_err(|error| cannot_listen(address, &why(&error)))?;
            // The first shard's socket takes the port that the others share.
            bound = listener.local_addr().map_err(|error| cannot_listen(address, &why(&error)))?;
            shard.push(listener);
        }
        addresses.push(bound);
    }
    Ok((addresses, listeners))
}

/// Tries again for a while what is in use: a process that was killed is gone before the kernel has
/// taken its rings apart, and until then they hold its sockets.
fn patiently<T>(mut listen: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(TRY_EVERY),
            done => return done,
        }
    }
    listen()
}

fn why(error: &io::Error) -> String {
    match error.kind() == io::ErrorKind::AddrInUse {
        true => "another process listens there".to_owned(),
        false => error.to_string(),
    }
}

fn cannot_listen(address: SocketAddr, why: &str) -> StartError {
    StartError::failed(
        format!("Cannot listen on {address}: {why}."),
        format!(
            "Stop what holds it (ss -ltnp 'sport = :{}'), or choose another: --set \
             server.listen=[\"127.0.0.1:0\"].",
            address.port()
        ),
    )
}
