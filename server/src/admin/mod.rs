//! The port for operators: is it alive, is it ready, what does it do, how is it set.
//!
//! Runs beside the origin plane on the same thread. It reads what shards have published and asks
//! none of them, but for their hot keys and why one is served as it is; nobody stops for it. Only a
//! purge changes something; it needs the token.

mod explain;
mod hot;
mod key;
mod metrics;
mod purge;
mod stats;

pub use explain::{EntryReport, ExplainReport, FetchReport, FlightReport, OriginReport};
pub use hot::{HotKey, HotReport, TOP_MAX};
pub use key::{bounded as bounded_key, parse as parse_key, percent as percent_key};
pub use purge::Purger;

use crate::config::Config;
use crate::histograms::Histograms;
use crate::hot::Window;
use crate::limits::{Bill, Limits};
use crate::mesh::{Control, ExplainRequest, OriginServer, ServersRequest, Taker};
use crate::metrics::{Board, SampleBoard, SampleCounters, SnapshotBoard, SnapshotCounters};
use crate::sys::clock::Epoch;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

/// A shard that has published no turn for this long is not alive. It waits at most a quarter of
/// that, so a healthy one is well within.
const ALIVE_NS: u64 = 1_000_000_000;

/// Bytes of a request's body: a purge of the longest key, escaped, is a few kilobytes.
const BODY_SIZE_MAX: usize = 16 << 10;

/// What a shard hands over.
#[derive(Debug)]
pub struct Source {
    /// How long things took, since it last did.
    pub histograms: Taker<Histograms>,
    /// Its hot keys, for those who ask.
    pub hot_keys: Taker<Window>,
}

/// What the port shows.
#[derive(Debug)]
pub struct Admin {
    boards: Vec<Arc<Board>>,
    snapshots: SnapshotBoard,
    samples: SampleBoard,
    histograms: Mutex<Collected>,
    hot_keys: tokio::sync::Mutex<Vec<hot::Desk>>,
    servers: mpsc::Sender<ServersRequest>,
    explanations: mpsc::Sender<ExplainRequest>,
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
    /// The board of samples of changed keys.
    pub samples: SampleBoard,
    /// Times and hot keys, of each shard.
    pub sources: Vec<Source>,
    /// Who tells of the servers of the origin.
    pub servers: mpsc::Sender<ServersRequest>,
    /// Who explains keys.
    pub explanations: mpsc::Sender<ExplainRequest>,
}

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the origin is.
    pub origin: String,
    /// How long a value is called fresh at most after the origin has another one, if that is known.
    pub staleness_max: Option<Duration>,
    /// What the memory is for.
    pub bill: Bill,
    /// The effective configuration.
    pub config: serde_json::Value,
    /// The names of the tenants, by their index.
    pub tenants: Vec<String>,
}

impl Facts {
    /// Of a server with this configuration and this origin.
    #[must_use]
    pub fn new(
        config: &Config,
        limits: &Limits,
        origin: String,
        staleness_max: Option<Duration>,
    ) -> Self {
        Self {
            origin,
            staleness_max,
            bill: limits.bill(config),
            config: config.to_json(),
            tenants: config.tenants.iter().map(|tenant| tenant.name.clone()).collect(),
        }
    }
}

/// Histograms of all shards, added up since the start.
#[derive(Debug)]
struct Collected {
    sources: Vec<Taker<Histograms>>,
    total: Histograms,
}

impl Collected {
    /// Adds what the shards have handed over, and gives the boxes back.
    fn collect(&mut self) -> &Histograms {
        for source in &mut self.sources {
            while let Some(mut filled) = source.take() {
                self.total.add(&filled);
                filled.clear();
                source.give_back(filled);
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
        let Published { boards, snapshots, samples, sources, servers, explanations } = published;
        let (sources, desks) = sources
            .into_iter()
            .map(|source| (source.histograms, hot::Desk::new(source.hot_keys)))
            .unzip();
        let histograms = Mutex::new(Collected { sources, total: Histograms::new() });
        let hot_keys = tokio::sync::Mutex::new(desks);
        Self {
            boards,
            snapshots,
            samples,
            histograms,
            hot_keys,
            servers,
            explanations,
            control,
            epoch,
            origin_ready,
            purger,
            facts,
        }
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

    /// What samples of changed keys have shown.
    fn samples(&self) -> SampleCounters {
        *self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the servers of the origin; nothing where its plane has stopped.
    async fn servers(&self) -> Vec<OriginServer> {
        let (answer, answered) = oneshot::channel();
        if self.servers.send(answer).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
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
        .route("/hot", get(hot::hot))
        .route("/explain", get(explain::explain))
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
