//! One Redis server: its connection, which is kept open, and what it says unasked.
//!
//! All requests share one connection and are pipelined on it; the guard bounds how many. The same
//! connection is told of changed keys (`CLIENT TRACKING` in broadcast mode), so a change that came
//! before an answer is heard before it. While there is no connection, changes are missed: anything
//! may have changed, once when it is lost and once when there is one again. A server that is asked
//! every second and does not answer within another is lost.

use super::key::Names;
use super::trouble::trouble;
use crate::origin::backoff::Backoff;
use crate::origin::guard::{Guard, Trouble};
use crate::origin::news::Teller;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, Pipeline, PushInfo, PushKind, RedisError,
    RedisResult, Value,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How often a server is asked whether it is there.
pub(super) const PING_EVERY: Duration = Duration::from_secs(1);

/// How long it may take to answer that.
pub(super) const PONG_WITHIN: Duration = Duration::from_secs(1);

/// How a server is spoken to.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    /// For opening a connection.
    pub(super) timeout: Duration,
    /// Who hears of changed keys; nobody where the server is not asked for them.
    pub(super) teller: Option<Teller>,
    pub(super) names: Names,
    /// It may be a replica in a cluster, which answers only who says that this is meant.
    pub(super) is_readonly: bool,
}

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    guard: Guard,
    line: watch::Receiver<Line>,
    keeper: JoinHandle<()>,
}

/// The connection to a server.
#[derive(Clone, Debug)]
enum Line {
    /// It is being opened for the first time.
    Opening,
    Open(MultiplexedConnection),
    Closed,
}

impl Server {
    /// A server; its connection is opened by a task of this thread.
    pub(super) fn new(client: Client, guard: Guard, manner: Manner) -> Self {
        let (to, line) = watch::channel(Line::Opening);
        let name = guard.name().to_owned();
        let keeper = tokio::task::spawn_local(keep(name, client, manner, to));
        Self { guard, line, keeper }
    }

    /// What stands before it.
    pub(super) const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Sends commands together, and reads their answers.
    pub(super) async fn ask<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Failed> {
        let mut connection = self.connection().await.ok_or(Failed::Trouble(Trouble::Unsent))?;
        let answer: RedisResult<T> = commands.query_async(&mut connection).await;
        answer.map_err(|error| Failed::of(&error))
    }

    async fn connection(&self) -> Option<MultiplexedConnection> {
        if let Line::Open(connection) = &*self.line.borrow() {
            return Some(connection.clone());
        }
        let mut line = self.line.clone();
        let line = line.wait_for(|line| !matches!(line, Line::Opening)).await;
        match &*line.ok()? {
            Line::Open(connection) => Some(connection.clone()),
            Line::Opening | Line::Closed => None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Why commands were not answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// Another server of the cluster has the key.
    Moved(String),
    /// Another server of the cluster may have the key already.
    Ask(String),
    /// There is no answer.
    Trouble(Trouble),
}

impl Failed {
    fn of(error: &RedisError) -> Self {
        let Some((address, _)) = error.redirect_node() else {
            return Self::Trouble(trouble(error));
        };
        let address = address.to_owned();
        match error.code() {
            Some("ASK") => Self::Ask(address),
            _ => Self::Moved(address),
        }
    }
}

/// Keeps a connection open as long as somebody wants it.
async fn keep(name: String, client: Client, manner: Manner, line: watch::Sender<Line>) {
    let backoff = Backoff::default();
    let mut told = String::new();
    loop {
        let closed = Arc::new(Notify::new());
        match timeout(manner.timeout, open(&client, &manner, &closed)).await {
            Ok(Ok(connection)) => {
                tracing::info!(server = %name, "connected to a Redis server");
                backoff.forget();
                told.clear();
                tell(&manner);
                line.send_replace(Line::Open(connection.clone()));
                let why = tokio::select! {
                    () = closed.notified() => "it was closed",
                    why = watch_over(connection) => why,
                };
                tracing::warn!(server = %name, "lost the connection to a Redis server: {why}");
                line.send_replace(Line::Closed);
                tell(&manner);
            }
            failed => {
                line.send_replace(Line::Closed);
                let error = match failed {
                    Ok(Err(error)) => error.to_string(),
                    Ok(Ok(_)) | Err(_) => "it does not answer".to_owned(),
                };
                if error != told {
                    tracing::warn!(server = %name, "cannot connect to a Redis server: {error}");
                    told = error;
                }
            }
        }
        sleep(backoff.next()).await;
    }
}

/// Changes may have been missed.
fn tell(manner: &Manner) {
    if let Some(teller) = &manner.teller {
        teller.anything();
    }
}

async fn open(
    client: &Client,
    manner: &Manner,
    closed: &Arc<Notify>,
) -> RedisResult<MultiplexedConnection> {
    let (teller, names) = (manner.teller.clone(), manner.names.clone());
    let closed = Arc::clone(closed);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(manner.timeout))
        .set_response_timeout(None)
        .set_push_sender(move |push: PushInfo| {
            match (push.kind, &teller) {
                (PushKind::Disconnection, _) => closed.notify_one(),
                (PushKind::Invalidate, Some(teller)) => hear(&push.data, &names, teller),
                _ => {}
            }
            Ok::<_, redis::aio::SendError>(())
        });
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    let mut setup = redis::pipe();
    if manner.is_readonly {
        setup.cmd("READONLY").ignore();
    }
    if manner.teller.is_some() {
        setup.cmd("CLIENT").arg(&["TRACKING", "ON", "BCAST", "NOLOOP"]);
        if !manner.names.prefix().is_empty() {
            setup.arg("PREFIX").arg(manner.names.prefix());
        }
        setup.ignore();
    }
    if !setup.is_empty() {
        let () = setup.query_async(&mut connection).await?;
    }
    Ok(connection)
}

/// The server says which keys have changed, or, after a FLUSHALL, all.
fn hear(data: &[Value], names: &Names, teller: &Teller) {
    for value in data {
        let Value::Array(changed) = value else {
            teller.anything();
            continue;
        };
        for name in changed {
            let Value::BulkString(name) = name else { continue };
            if let Some(key) = names.key(name) {
                teller.key(key);
            }
        }
    }
}

/// Asks whether the server is there, until it is not; says why that is.
async fn watch_over(mut connection: MultiplexedConnection) -> &'static str {
    loop {
        sleep(PING_EVERY).await;
        let ping = redis::cmd("PING");
        match timeout(PONG_WITHIN, ping.query_async::<Value>(&mut connection)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if !error.is_io_error() => {}
            Ok(Err(_)) => return "it failed",
            Err(_elapsed) => return "the server does not answer",
        }
    }
}
