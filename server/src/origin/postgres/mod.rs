//! PostgreSQL as the origin: each key in one of several databases, read and written by SQL that the
//! operator gives.
//!
//! A key belongs to one partition, by its CRC-32. Each partition has a guard, connections and a log
//! of its own: one that is down, locked or misconfigured costs only its own keys. Queries are
//! pipelined on a few connections; a write has one to itself while it lasts.
//!
//! Rows are read whole before their size is known: what the guards let in at a time bounds them.
#![expect(clippy::disallowed_types, reason = "one thread: connections share a server")]

mod fault;
mod lanes;
mod partition;
mod server;
mod session;
mod statement;
mod write;

use super::{Fetch, Origin, Room, Write, Writing, tls};
use crate::config::Config;
use crate::error::StartError;
use crate::mesh::OriginServer;
use crate::origin::secret::password;
use partition::Partition;
use server::Server;
use shard_cache::hash::Etag;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Databases that share the keys.
#[derive(Debug)]
pub struct Postgres {
    partitions: Box<[Partition]>,
}

impl Postgres {
    /// The databases that a configuration tells of. Nothing is sent yet.
    ///
    /// # Errors
    /// A URL is none, the password cannot be read, or there is no certificate to trust.
    pub fn new(config: &Config, room: &Room) -> Result<Self, StartError> {
        let tls = MakeRustlsConnect::new(tls::config(config.origin.tls_ca.as_deref())?);
        let file = config.postgres.password_file.as_deref();
        let password = password("postgres.password_file", file)?;
        let sql = Rc::new(statement::Sql::of(&config.postgres));
        let servers = config.postgres.urls.iter().enumerate().map(|(index, url)| {
            Server::parse(index, url, password.as_deref(), config.origin.timeout, tls.clone())
        });
        let partitions = servers
            .map(|server| Ok(Partition::new(server?, Rc::clone(&sql), config, room.clone())))
            .collect::<Result<_, StartError>>()?;
        Ok(Self { partitions })
    }

    fn partition(&self, key: &[u8]) -> &Partition {
        &self.partitions[partition_of(key, self.partitions.len())]
    }
}

/// Which of `count` partitions a key belongs to: its CRC-32 (that of zlib and PNG) modulo `count`,
/// so that whoever fills the databases can compute it.
fn partition_of(key: &[u8], count: usize) -> usize {
    crc32fast::hash(key) as usize % count
}

impl Origin for Postgres {
    fn describe(&self) -> String {
        match &*self.partitions {
            [partition] => format!("PostgreSQL {}", partition.name()),
            [first, ..] => {
                format!("PostgreSQL {} and {} more", first.name(), self.partitions.len() - 1)
            }
            [] => unreachable!("the table of parameters asks for a URL"),
        }
    }

    fn servers(&self) -> Vec<OriginServer> {
        self.partitions.iter().map(Partition::report).collect()
    }

    fn server_of(&self, key: &[u8]) -> Option<OriginServer> {
        Some(self.partition(key).report())
    }

    fn fetch<'a>(&'a self, key: &'a [u8], _known: Option<Etag>) -> Fetch<'a> {
        Box::pin(async move { self.partition(key).fetch(key).await.into() })
    }

    fn write(&self, write: Write) -> Writing<'_> {
        Box::pin(async move { self.partition(write.key.as_bytes()).write(&write).await })
    }

    /// At once: what a snapshot has brought back is served while a database is down.
    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        Box::pin(async { true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_the_partition_that_anybody_can_compute() {
        // python3 -c 'import zlib; print([zlib.crc32(b"k%d" % n) % 3 for n in range(8)])'
        let of_three: Vec<_> =
            (0..8).map(|number| partition_of(format!("k{number}").as_bytes(), 3)).collect();
        assert_eq!(of_three, [0, 1, 0, 2, 2, 1, 0, 1]);
        assert_eq!(partition_of(b"123456789", usize::MAX), 0xcbf4_3926, "the check value");
        assert_eq!(partition_of(b"\x00\xff", 1), 0);
    }
}
