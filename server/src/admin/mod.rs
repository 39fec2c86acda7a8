//! The port for operators: is it alive, is it ready, what does it do, how is it set.
//!
//! Runs beside the origin plane on the same thread. It reads what shards have published and asks
//! none of them: a scrape stops nobody. Only a purge changes something; it needs the token.

mod metrics;
mod purge;
mod stats;
mod token;

pub use purge::Purger;
pub use token::Token;

use crate::histograms::Histograms;
use crate::limits::Bill;
use crate::mesh::Control;
use crate::metrics::{Board, SnapshotBoard, SnapshotCounters};
use crate::sys::clock::Epoch;
use crate::sys::spsc::{Consumer, Producer};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A shard that has published no turn for this long is not alive. It waits at most a quarter of
/// that, so a healthy one is well within.
const ALIVE_NS: u64 = 1_000_000_000;

/// Bytes of a request's body: a purge of the longest key, escaped, is a few kilobytes.
const BODY_SIZE_MAX: usize = 16 << 10;

/// The reader's end of a shard's histograms.
#[derive(Debug)]
pub struct HistogramSource {
    /// Full boxes of the shard.
    pub filled: Consumer<Box<Histograms>>,
    /// Where they go back, cleared.
    pub empties: Producer<Box<Histograms>>,
}

/// What the port shows.
#[derive(Debug)]
pub struct Admin {
    boards: Vec<Arc<Board>>,
    snapshots: SnapshotBoard,
    histograms: Mutex<Collected>,
    control: Control,
    epoch: Epoch,
    origin_ready: Arc<AtomicBool>,
    purger: Purger,
    facts: Facts,
}

/// What the other planes publish.
#[derive(Debug)]
pub struct Published {
    /// A board of each shard.
    pub boards: Vec<Arc<Board>>,
    /// The board of the storage plane.
    pub snapshots: SnapshotBoard,
    /// Times, of each shard.
    pub histograms: Vec<HistogramSource>,
}

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the origin is.
    pub origin: String,
    /// What the memory is for.
    pub bill: Bill,
    /// The effective configuration.
    pub config: serde_json::Value,
}

/// Histograms of all shards, added up since the start.
#[derive(Debug)]
struct Collected {
    sources: Vec<HistogramSource>,
    total: Histograms,
}

impl Collected {
    /// Adds what the shards have handed over, and gives the boxes back.
    fn collect(&mut self) -> &Histograms {
        for source in &mut self.sources {
            while let Some(mut filled) = source.filled.pop() {
                self.total.add(&filled);
                filled.clear();
                source.empties.push(filled);
            }
        }
        &self.total
    }
}

impl Admin {
    /// A port that shows these shards, and has them purge.
    #[must_use]
    pub fn new(
        published: Published,
        control: Control,
        epoch: Epoch,
        origin_ready: Arc<AtomicBool>,
        purger: Purger,
        facts: Facts,
    ) -> Self {
        let Published { boards, snapshots, histograms: sources } = published;
        let histograms = Mutex::new(Collected { sources, total: Histograms::new() });
        Self { boards, snapshots, histograms, control, epoch, origin_ready, purger, facts }
    }

    /// Serves on `listener` until `stop` turns true or its sender is gone.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let stopped = async move {
            // A sender that is gone means the same.
            let _stopped = stop.wait_for(|stop| *stop).await.is_ok();
        };
        axum::serve(listener, router(Arc::new(self))).with_graceful_shutdown(stopped).await
    }

    /// Runs `read` on the histograms added up so far.
    fn with_histograms<T>(&self, read: impl FnOnce(&Histograms) -> T) -> T {
        // Only this thread ever takes it; a panic ends the process before it could be poisoned.
        read(self.histograms.lock().unwrap_or_else(PoisonError::into_inner).collect())
    }

    /// What the storage plane has counted.
    fn snapshots(&self) -> SnapshotCounters {
        *self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shards that have made no turn for too long, by index.
    fn silent_shards(&self) -> Vec<usize> {
        let now_ns = self.epoch.now().ns();
        let is_silent = |board: &Board| now_ns.saturating_sub(board.woke_ns()) > ALIVE_NS;
        (0..)
            .zip(&self.boards)
            .filter(|(_, board)| is_silent(board))
            .map(|(index, _)| index)
            .collect()
    }
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/stats", get(stats::stats))
        .route("/config", get(config))
        .route("/purge", post(purge::purge))
        .layer(DefaultBodyLimit::max(BODY_SIZE_MAX))
        .with_state(admin)
}

/// 200 while every shard turns.
async fn livez(State(admin): State<Arc<Admin>>) -> Response {
    let silent = admin.silent_shards();
    if silent.is_empty() {
        return (StatusCode::OK, "ok\n").into_response();
    }
    let mut text = String::new();
    for shard in silent {
        writeln!(text, "shard {shard} has made no turn for 1 s").expect("a string grows");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// 200 once every shard has turned and the origin has answered, until the server stops.
async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let reasons = [
        (admin.control.is_draining(), "stopping\n"),
        (admin.boards.iter().any(|board| board.turns() == 0), "a shard has not turned yet\n"),
        (!admin.origin_ready.load(Ordering::Acquire), "the origin has not answered yet\n"),
    ];
    match reasons.iter().find(|(holds, _)| *holds) {
        Some((_, reason)) => (StatusCode::SERVICE_UNAVAILABLE, *reason).into_response(),
        None => (StatusCode::OK, "ready\n").into_response(),
    }
}

/// The effective configuration.
async fn config(State(admin): State<Arc<Admin>>) -> Response {
    json(&admin.facts.config)
}

fn json(value: &serde_json::Value) -> Response {
    let text = format!("{value:#}\n");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests;
