//! One partition: a server, its guard, and the ways to it.
#![expect(clippy::disallowed_types, reason = "one thread: connections share a server")]

use super::fault::{Fault, Seldom};
use super::lanes::Lanes;
use super::server::Server;
use super::session::Look;
use super::statement::Sql;
use super::write::{Broken, write};
use crate::config::Config;
use crate::error::FetchFailure;
use crate::mesh::{Found, OriginServer, Stale, Written};
use crate::origin::guard::{Guard, Trouble};
use crate::origin::store::checked;
use crate::origin::{Fetched, Room, Write};
use shard_cache::hash::Etag;
use std::rc::Rc;

/// How often a write is begun that others come before.
const WRITE_TRIES: u32 = 3;

/// A partition.
#[derive(Debug)]
pub(super) struct Partition {
    guard: Guard,
    readers: Lanes,
    writers: Lanes,
    room: Room,
    value_size_max: usize,
    complaint: Seldom,
}

impl Partition {
    pub(super) fn new(server: Server, sql: Rc<Sql>, config: &Config, room: Room) -> Self {
        let name = server.name().to_owned();
        let server = Rc::new(server);
        let lanes = || Lanes::new(Rc::clone(&server), Rc::clone(&sql), config.postgres.connections);
        Self {
            guard: Guard::new(name, config.origin.requests_max, config.origin.queue_max),
            readers: lanes(),
            writers: lanes(),
            room,
            value_size_max: usize::try_from(config.cache.value_size_max).expect("below 4 GiB"),
            complaint: Seldom::default(),
        }
    }

    /// What the server is called.
    pub(super) fn name(&self) -> &str {
        self.guard.name()
    }

    /// What its guard has seen.
    pub(super) fn report(&self) -> OriginServer {
        self.guard.report()
    }

    /// Reads a key.
    pub(super) async fn fetch(&self, key: &[u8]) -> Fetched {
        let get = async || self.get(key).await.map_err(|fault| self.trouble(&fault));
        self.guard.read(get).await
    }

    /// Writes a key.
    pub(super) async fn write(&self, write: &Write) -> Written {
        let mut written = Written::Pending;
        let asked = self.guard.once(async || {
            let done = self.put(write).await;
            written = match &done {
                Ok(written) => *written,
                Err(broken) if broken.is_undone => Written::Failed(FetchFailure::Unavailable),
                Err(_) => Written::Unknown,
            };
            done.map_err(|broken| self.trouble(&broken.fault))
        });
        match asked.await {
            Ok(_heard) => written,
            Err(failure) => Written::Failed(failure),
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Found>, Fault> {
        let shared = self.readers.shared().await?;
        let mut look = shared.session.find(key).await;
        if look.as_ref().is_err_and(Fault::is_outdated) {
            look = shared.session.find(key).await;
        }
        drop(shared);
        self.found(&look?).await
    }

    /// The value that was found, once there is room for it.
    async fn found(&self, look: &Look) -> Result<Option<Found>, Fault> {
        let Some(bytes) = look.bytes()? else { return Ok(None) };
        if bytes.len() > self.value_size_max {
            return Err(Fault::TooLarge);
        }
        let (content_type, lifetime) = (look.content_type()?, look.lifetime()?);
        let held = self.room.hold(bytes.len()).await;
        let etag = Etag::of(content_type.as_str(), bytes);
        let content_type = checked(content_type, bytes);
        let (value, stale) = (bytes.into(), Stale::default());
        Ok(Some(Found { value, content_type, etag, lifetime, stale, held }))
    }

    async fn put(&self, asked: &Write) -> Result<Written, Broken> {
        let mut tries = 1;
        loop {
            let alone = self.writers.alone().await?;
            match write(&alone.session, asked).await {
                Err(broken) if tries < WRITE_TRIES && broken.may_repeat() => tries += 1,
                done => return done,
            }
        }
    }

    /// What the guard is told of a fault. The log hears now and then of one; of connections it
    /// hears where they are made and end.
    fn trouble(&self, fault: &Fault) -> Trouble {
        let is_told = matches!(fault, Fault::Server(_) | Fault::Wrong(_)) && !fault.is_lost();
        if is_told && self.complaint.is_due() {
            tracing::warn!(server = %self.name(), "the origin cannot be asked: {fault}");
        }
        fault.trouble()
    }
}
