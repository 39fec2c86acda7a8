//! Tells the admin port of the servers of the origin, when it asks.
#![expect(clippy::disallowed_types, reason = "one thread: the origin is shared with its plane")]

use super::Origin;
use crate::mesh::ServersRequest;
use std::rc::Rc;
use tokio::sync::mpsc;

/// Answers requests until nobody can send one any more.
pub async fn tell_servers(origin: Rc<dyn Origin>, mut requests: mpsc::Receiver<ServersRequest>) {
    while let Some(request) = requests.recv().await {
        // Whoever asked may have given up.
        request.send(origin.servers()).ok();
    }
}
