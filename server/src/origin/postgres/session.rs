//! One connection to a server, and the statements that are prepared on it.
//!
//! A statement is prepared when it is needed first, and anew when it no longer fits the schema.
//! What is asked and then dropped does no harm: its answer is read and forgotten.
#![expect(clippy::disallowed_types, reason = "one thread: sessions share their SQL")]

use super::fault::Fault;
use super::statement::{Change, Raw, Select, Sql, Text};
use crate::mesh::{self, ContentType, Lifetime};
use crate::origin::Write;
use shard_cache::hash::Etag;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Row, Statement};

/// The longest time that a value can be fresh: as in the configuration.
const WEEK_MS: i64 = 7 * 86_400_000;

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    sql: Rc<Sql>,
    query: Kept<Select>,
    locked: Kept<Select>,
    put: Kept<Change>,
    delete: Kept<Change>,
    /// A transaction has begun whose end has not been heard of.
    is_inside: Cell<bool>,
}

impl Session {
    pub(super) fn new(client: Client, sql: Rc<Sql>) -> Self {
        Self {
            client,
            sql,
            query: Kept::default(),
            locked: Kept::default(),
            put: Kept::default(),
            delete: Kept::default(),
            is_inside: Cell::new(false),
        }
    }

    /// Whether anybody can use it: the connection is up, and nobody has left in a transaction.
    pub(super) fn is_usable(&self) -> bool {
        !self.client.is_closed() && !self.is_inside.get()
    }

    /// Looks a key up.
    pub(super) async fn find(&self, key: &[u8]) -> Result<Look, Fault> {
        self.look(&self.query, &self.sql.query, key).await
    }

    /// Looks a key up and locks its row until the transaction ends.
    pub(super) async fn lock(&self, key: &[u8]) -> Result<Look, Fault> {
        self.look(&self.locked, &self.sql.locked, key).await
    }

    async fn look(
        &self,
        kept: &Kept<Select>,
        text: &Text<Select>,
        key: &[u8],
    ) -> Result<Look, Fault> {
        let (statement, select) = kept.get(&self.client, text).await?;
        if !select.key.takes(key) {
            return Ok(Look { select, row: None });
        }
        let asked = self.client.query_opt(&statement, &[&Raw(key)]).await;
        let row = kept.judge(asked).await?;
        let mut look = Look { select, row };
        if look.bytes()?.is_none() {
            look.row = None;
        }
        Ok(look)
    }

    /// Does what a write asks for, whatever is there; how many rows that has changed.
    pub(super) async fn change(&self, write: &Write) -> Result<u64, Fault> {
        let key = write.key.as_bytes();
        let (kept, text) = match write.change {
            mesh::Change::Put { .. } => (&self.put, &self.sql.put),
            mesh::Change::Delete => (&self.delete, &self.sql.delete),
        };
        let text = text.as_ref().ok_or_else(|| Fault::Wrong("it cannot be written".to_owned()))?;
        let (statement, change) = kept.get(&self.client, text).await?;
        if !change.key.takes(key) {
            return match write.change {
                mesh::Change::Delete => Ok(0),
                mesh::Change::Put { .. } => Err(Fault::Wrong("the key is no text".to_owned())),
            };
        }
        let (key, value) = (Raw(key), Raw(&write.value));
        let asked = match &write.change {
            mesh::Change::Delete => self.client.execute(&statement, &[&key]).await,
            mesh::Change::Put { content_type, .. } if change.takes_type => {
                let name = Raw(content_type.as_str().as_bytes());
                self.client.execute(&statement, &[&key, &value, &name]).await
            }
            mesh::Change::Put { .. } => self.client.execute(&statement, &[&key, &value]).await,
        };
        kept.judge(asked).await
    }

    /// What a value that is written as `content_type` is when it is read again.
    pub(super) async fn kept_type(
        &self,
        look: &Look,
        content_type: ContentType,
    ) -> Result<ContentType, Fault> {
        let takes_type = match &self.sql.put {
            Some(text) => self.put.get(&self.client, text).await?.1.takes_type,
            None => false,
        };
        let is_kept = takes_type && look.select.content_type.is_some();
        Ok(if is_kept { content_type } else { look.select.value_type })
    }

    /// Begins a transaction in which a row that others have changed since is a conflict.
    pub(super) async fn begin(&self) -> Result<(), Fault> {
        self.is_inside.set(true);
        self.command("BEGIN ISOLATION LEVEL REPEATABLE READ").await
    }

    /// Ends it, and keeps what was done.
    pub(super) async fn commit(&self) -> Result<(), Fault> {
        self.command("COMMIT").await?;
        self.is_inside.set(false);
        Ok(())
    }

    /// Ends it as if nothing had been. Where that fails nobody uses the session again.
    pub(super) async fn roll_back(&self) {
        let is_done = self.command("ROLLBACK").await.is_ok();
        self.is_inside.set(!is_done);
    }

    async fn command(&self, text: &str) -> Result<(), Fault> {
        self.client.batch_execute(text).await.map_err(Fault::Server)
    }
}

/// What the query has found.
#[derive(Debug)]
pub(super) struct Look {
    select: Select,
    /// A row with a value.
    row: Option<Row>,
}

impl Look {
    /// Whether the key is there.
    pub(super) const fn is_there(&self) -> bool {
        self.row.is_some()
    }

    /// The value's bytes; none where there is no row, or a value that is NULL.
    pub(super) fn bytes(&self) -> Result<Option<&[u8]>, Fault> {
        let Some(row) = &self.row else { return Ok(None) };
        let value = row.try_get::<_, Option<Raw<'_>>>(self.select.value);
        Ok(value.map_err(Fault::Server)?.map(|raw| raw.0))
    }

    /// What the value is.
    pub(super) fn content_type(&self) -> Result<ContentType, Fault> {
        let Some(name) = self.column::<Raw<'_>>(self.select.content_type)? else {
            return Ok(self.select.value_type);
        };
        let name = std::str::from_utf8(name.0).ok().and_then(ContentType::new);
        name.ok_or_else(|| Fault::Wrong("a row's content_type is none".to_owned()))
    }

    /// How long the value is fresh.
    pub(super) fn lifetime(&self) -> Result<Lifetime, Fault> {
        Ok(self.column::<i64>(self.select.ttl_ms)?.map_or(Lifetime::Default, |milliseconds| {
            let milliseconds = milliseconds.clamp(0, WEEK_MS).unsigned_abs();
            Lifetime::For(Duration::from_millis(milliseconds))
        }))
    }

    /// The value's tag, if there is a value.
    pub(super) fn etag(&self) -> Result<Option<Etag>, Fault> {
        let Some(value) = self.bytes()? else { return Ok(None) };
        Ok(Some(Etag::of(self.content_type()?.as_str(), value)))
    }

    fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
        &'a self,
        index: Option<usize>,
    ) -> Result<Option<T>, Fault> {
        let (Some(row), Some(index)) = (&self.row, index) else { return Ok(None) };
        row.try_get(index).map_err(Fault::Server)
    }
}

/// A statement of a session, once it is prepared.
#[derive(Debug)]
struct Kept<S> {
    prepared: Mutex<Option<(Statement, S)>>,
}

impl<S> Default for Kept<S> {
    fn default() -> Self {
        Self { prepared: Mutex::new(None) }
    }
}

impl<S: Copy> Kept<S> {
    /// The statement; those who need it at the same time wait for one preparation.
    async fn get(&self, client: &Client, text: &Text<S>) -> Result<(Statement, S), Fault> {
        let mut prepared = self.prepared.lock().await;
        if let Some(prepared) = &*prepared {
            return Ok(prepared.clone());
        }
        let statement =
            client.prepare(&text.sql).await.map_err(Fault::Server).map_err(|fault| {
                // Nothing of it was asked yet.
                if fault.is_lost() { Fault::Unsent } else { fault }
            })?;
        let wrong = |what| Fault::Wrong(format!("{} cannot be used: {what}", text.setting));
        let read = (text.read)(&statement).map_err(wrong)?;
        *prepared = Some((statement.clone(), read));
        Ok((statement, read))
    }

    /// Forgets the statement where it may be to blame.
    async fn judge<T>(&self, asked: Result<T, tokio_postgres::Error>) -> Result<T, Fault> {
        let asked = asked.map_err(Fault::Server);
        if asked.as_ref().is_err_and(Fault::is_of_statement) {
            *self.prepared.lock().await = None;
        }
        asked
    }
}
