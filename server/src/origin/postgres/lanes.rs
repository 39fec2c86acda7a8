//! The connections to a server: opened when they are needed, and again when they are lost.
//!
//! A lane holds one session or none. Reads share a session, and their queries are pipelined on it;
//! a write has one alone. Who comes takes the lane with the least load, so a new connection is made
//! only where all others have something to do, and nobody waits behind a slow query without need.
//! A lane that could not connect rests for a while.
#![expect(clippy::disallowed_types, reason = "one thread: reads share a session")]

use super::fault::Fault;
use super::server::Server;
use super::session::Session;
use super::statement::Sql;
use crate::origin::backoff::Backoff;
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Some connections to a server.
#[derive(Debug)]
pub(super) struct Lanes {
    server: Rc<Server>,
    sql: Rc<Sql>,
    lanes: Box<[Lane]>,
}

#[derive(Debug, Default)]
struct Lane {
    session: Mutex<Option<Rc<Session>>>,
    /// Who uses it, or waits to.
    load: Cell<u32>,
    rest: Rest,
}

/// A session that others use too.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) session: Rc<Session>,
    _load: Load<'a>,
}

/// A session that nobody else uses while the lane's slot is held.
#[derive(Debug)]
pub(super) struct Alone<'a> {
    pub(super) session: Rc<Session>,
    slot: MutexGuard<'a, Option<Rc<Session>>>,
    _load: Load<'a>,
}

impl Lanes {
    /// So many connections to a server, once they are needed.
    pub(super) fn new(server: Rc<Server>, sql: Rc<Sql>, count: u32) -> Self {
        Self { server, sql, lanes: (0..count).map(|_| Lane::default()).collect() }
    }

    /// A session to send queries on.
    pub(super) async fn shared(&self) -> Result<Shared<'_>, Fault> {
        let Alone { session, slot, _load } = self.alone().await?;
        drop(slot);
        Ok(Shared { session, _load })
    }

    /// A session to write on.
    pub(super) async fn alone(&self) -> Result<Alone<'_>, Fault> {
        let now = Instant::now();
        let awake = self.lanes.iter().filter(|lane| !lane.rest.lasts(now));
        let lane = awake.min_by_key(|lane| lane.load.get()).ok_or(Fault::Unsent)?;
        let load = Load::on(&lane.load);
        let mut slot = lane.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| session.is_usable()) {
            return Ok(Alone { session: Rc::clone(session), slot, _load: load });
        }
        *slot = None;
        // Those who have waited for one attempt do not make another each.
        if lane.rest.lasts(Instant::now()) {
            return Err(Fault::Unsent);
        }
        let Some(client) = self.server.connect().await else {
            lane.rest.begin();
            return Err(Fault::Unsent);
        };
        lane.rest.forget();
        let session = Rc::new(Session::new(client, Rc::clone(&self.sql)));
        *slot = Some(Rc::clone(&session));
        Ok(Alone { session, slot, _load: load })
    }
}

/// One more on a lane, until it is dropped.
#[derive(Debug)]
struct Load<'a>(&'a Cell<u32>);

impl<'a> Load<'a> {
    fn on(load: &'a Cell<u32>) -> Self {
        load.set(load.get() + 1);
        Self(load)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// When a lane that could not connect tries again.
#[derive(Debug, Default)]
struct Rest {
    backoff: Backoff,
    until: Cell<Option<Instant>>,
}

impl Rest {
    fn lasts(&self, now: Instant) -> bool {
        self.until.get().is_some_and(|until| now < until)
    }

    fn begin(&self) {
        self.until.set(Some(Instant::now() + self.backoff.next()));
    }

    fn forget(&self) {
        self.backoff.forget();
        self.until.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_lane_rests_for_a_while_and_is_awake_once_it_has_connected() {
        let (lane, now) = (Rest::default(), Instant::now());
        assert!(!lane.lasts(now));
        lane.begin();
        assert!(lane.lasts(now) && !lane.lasts(now + Duration::from_secs(1)));
        lane.forget();
        assert!(!lane.lasts(now));
    }

    #[test]
    fn a_load_is_taken_off_when_it_is_dropped() {
        let load = Cell::new(0);
        let two = (Load::on(&load), Load::on(&load));
        assert_eq!(load.get(), 2);
        drop(two);
        assert_eq!(load.get(), 0);
    }
}
