//! What the admin port is told of the servers of the origin.

use crate::metrics::ServerCounters;
use tokio::sync::oneshot;

/// One server of the origin.
#[derive(Clone, Debug)]
pub struct OriginServer {
    /// Host and port.
    pub name: String,
    /// What its guard has seen, and how things are now.
    pub counters: ServerCounters,
}

/// Whoever sends this is told of all servers.
pub type ServersRequest = oneshot::Sender<Vec<OriginServer>>;
