//! The running server: builds the planes, connects them, and takes them down.
//!
//! The only module that knows all planes. Threads, in the order in which they start:
//!
//! - `origin`: the origin plane and the admin server, one async runtime;
//! - `shard-N`: one for each core given to the data plane, pinned;
//! - `populate`: faults the arenas in, piece by piece, and ends;
//! - `storage`: writes and reads snapshots, where there is a folder for them;
//! - `watchdog`: aborts the process when a shard has stopped turning.

mod parts;
mod ports;
mod shortage;
mod threads;

pub use ports::Ports;

use crate::config::Config;
use crate::error::StartError;
use crate::host::{self, Granted};
use crate::limits::{Bill, Limits};
use crate::mesh::Control;
use crate::origin::Origin;
use crate::sys::clock::Epoch;
use crate::sys::eventfd::EventFd;
use crate::sys::unix::SocketFile;
use crate::token::Token;
use parts::Parts;
use ports::Listening;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use threads::{run_plane, run_shards, run_storage, run_watchdog};
use tokio::sync::watch;

/// Makes the origin, on the thread that it will live on; the limits say how much it may be asked.
pub type MakeOrigin = Box<dyn FnOnce(&Limits) -> Result<Box<dyn Origin>, StartError> + Send>;

/// What an operator wants to know of a server that has started.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where the shards listen, with the ports that were taken.
    pub ports: Ports,
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
    /// The files of Unix sockets, until it drains.
    files: Vec<SocketFile>,
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
        #[cfg(feature = "busy-cost")]
        tracing::warn!(
            "THIS BUILD IS FOR TESTS OF OVERLOAD: it spins for each hit and each miss. Build it \
             without the feature busy-cost to serve"
        );
        let Granted { cores, limits, bill } = host::grant(config)?;
        let ports = Ports::new(config, limits.shards)?;
        let Listening { ports, sockets, files } = ports.listen(&cores)?;
        let token = Token::of(config)?;
        let Parts { shards, plane, mut storage, control, boards, wakes } =
            Parts::new(config, &limits, token.clone(), Epoch::begin())?;
        let (stop_plane, stopped) = watch::channel(false);
        let (plane, facts) = run_plane(config, &limits, plane, token, make_origin, stopped)?;
        storage.audit = facts.audit;
        let shards = run_shards(&cores, shards, sockets)?;
        run_watchdog(boards, control.clone())?;
        let (stop_storage, stop) = mpsc::channel();
        let storage = run_storage(config, &cores, storage, stop)?;
        let facts = Facts { ports, admin: facts.admin, cores, bill, origin: facts.origin };
        Ok(Self {
            facts,
            files,
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
    pub fn drain(&mut self) {
        // Now and not at the end: by then another server may have taken the paths.
        self.files.clear();
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
