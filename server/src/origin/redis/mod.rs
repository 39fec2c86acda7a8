//! Redis as the origin: one server, with replicas or without, or a cluster.
//!
//! A value is read in two steps where it is large, so that room is held for it before it comes.
//! Servers tell of changed keys, which are dropped at once; where they are not asked to, values are
//! kept as long as `cache.ttl` and the key's own time to live say.

mod cluster;
mod key;
mod server;
mod settings;
mod topology;
mod trouble;
mod write;

use super::guard::Trouble;
use super::news::{News, news};
use super::store::checked;
use super::{Fetch, Fetched, Origin, Room, Write, Writing};
use crate::config::Config;
use crate::error::{FetchFailure, StartError};
use crate::mesh::{ContentType, Found, LEASE, Lifetime, OriginServer, Stale};
use key::Names;
use redis::{Cmd, Pipeline};
use server::{Failed, Server};
use shard_cache::hash::Etag;
use std::future::{Future, ready};
use std::pin::Pin;
use std::time::Duration;
use topology::{Called, Topology};

/// Bytes of a value that are asked for at first: most values are no larger, and a value that is
/// has to be asked for once more.
const FIRST_SIZE: usize = 64 << 10;

/// What PTTL says of a key that is not there.
const NO_KEY: i64 = -2;

/// Redis.
#[derive(Debug)]
pub struct Redis {
    topology: Topology,
    names: Names,
    content_type: ContentType,
    news: Option<News>,
    room: Room,
    value_size_max: usize,
    ttl: Duration,
    reads_replicas: bool,
}

impl Redis {
    /// The servers that a configuration tells of. Call it inside a `LocalSet`: connections are
    /// opened at once, and kept open.
    ///
    /// # Errors
    /// A URL is none, the password cannot be read, or the template of keys has no key.
    pub fn new(config: &Config, room: Room) -> Result<Self, StartError> {
        let (teller, news) = match config.redis.tracking {
            true => Some(news()).unzip(),
            false => (None, None),
        };
        let names = settings::names(config)?;
        let topology = Topology::new(config, &names, teller)?;
        let content_type = settings::content_type(config)?;
        let value_size_max = usize::try_from(config.cache.value_size_max).expect("below 4 GiB");
        let (ttl, reads_replicas) = (config.cache.ttl, config.redis.replicas);
        Ok(Self { topology, names, content_type, news, room, value_size_max, ttl, reads_replicas })
    }

    async fn read(&self, key: &[u8]) -> Fetched {
        let name = self.names.of(key);
        self.topology
            .read(&name, async |server, called| self.get(server, &name, called).await)
            .await
    }

    /// The value under `name`.
    async fn get(
        &self,
        server: &Server,
        name: &[u8],
        called: Called,
    ) -> Result<Option<Found>, Failed> {
        let first = self.value_size_max.min(FIRST_SIZE);
        let mut held = self.room.hold(first).await;
        let (mut ttl_ms, mut value): (i64, Vec<u8>) =
            server.ask(&ranged(name, first, called)).await?;
        if value.len() > first && first < self.value_size_max {
            drop(held);
            held = self.room.hold(self.value_size_max).await;
            let whole = ranged(name, self.value_size_max, called);
            (ttl_ms, value) = server.ask(&whole).await?;
        }
        if value.is_empty() {
            if ttl_ms == NO_KEY {
                return Ok(None);
            }
            // It is empty, or it was gone when the second command came.
            let mut get = called.pipeline();
            get.cmd("GET").arg(name);
            let (there,): (Option<Vec<u8>>,) = server.ask(&get).await?;
            let Some(there) = there else { return Ok(None) };
            value = there;
        }
        if value.len() > self.value_size_max {
            return Err(Failed::Trouble(Trouble::Useless(FetchFailure::TooLarge)));
        }
        let content_type = self.content_type;
        let etag = Etag::of(content_type.as_str(), &value);
        let content_type = checked(content_type, &value);
        let (lifetime, stale) = self.lifetime(ttl_ms);
        Ok(Some(Found { value: value.into(), content_type, etag, lifetime, stale, held }))
    }

    /// How long a value is fresh that has so long to live in Redis. What Redis has let go is served
    /// while Redis is down, and else not.
    fn lifetime(&self, ttl_ms: i64) -> (Lifetime, Stale) {
        match u64::try_from(ttl_ms).map(Duration::from_millis) {
            Ok(left) if left < self.ttl => {
                let stale = Stale { while_revalidate: Some(Duration::ZERO), if_error: None };
                (Lifetime::For(left), stale)
            }
            _ => (Lifetime::Default, Stale::default()),
        }
    }
}

/// Asks for how long a key has to live, and for its value's first bytes: one more than `size`.
fn ranged(name: &[u8], size: usize, called: Called) -> Pipeline {
    let mut commands = called.pipeline();
    commands.add_command(command("PTTL", name));
    called.again(&mut commands);
    commands.add_command(command("GETRANGE", name)).arg(0).arg(size);
    commands
}

/// A command about a key, with room for what else it says.
fn command(what: &str, name: &[u8]) -> Cmd {
    let mut command = Cmd::with_capacity(4, what.len() + name.len() + 16);
    command.arg(what).arg(name);
    command
}

impl Origin for Redis {
    fn describe(&self) -> String {
        self.topology.describe()
    }

    fn fetch<'a>(&'a self, key: &'a [u8], _known: Option<Etag>) -> Fetch<'a> {
        Box::pin(async move { self.read(key).await.into() })
    }

    fn write(&self, write: Write) -> Writing<'_> {
        Box::pin(self.change(write))
    }

    /// A change is missed while nobody knows that the connection is lost; then all becomes stale,
    /// once no shard serves copies by its lease. A replica may lag by any time.
    fn staleness_max(&self) -> Option<Duration> {
        let heard = self.news.as_ref().map(|_| server::PING_EVERY + server::PONG_WITHIN + LEASE);
        let within = heard.map_or(self.ttl, |heard| heard.min(self.ttl));
        (!self.reads_replicas).then_some(within)
    }

    fn servers(&self) -> Vec<OriginServer> {
        self.topology.servers()
    }

    fn server_of(&self, key: &[u8]) -> Option<OriginServer> {
        self.topology.server_of(&self.names.of(key))
    }

    fn news(&self) -> Option<&News> {
        self.news.as_ref()
    }

    /// At once: what a snapshot has brought back is served while Redis is down.
    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        Box::pin(ready(true))
    }
}
