//! The origin plane's loop: orders of all shards in, exactly one answer an order back.
//!
//! Runs on the plane's one thread, on a tokio `current_thread` runtime inside a `LocalSet`, beside
//! the admin server. A pass takes a bounded number of orders and answers and then yields, so the
//! admin server answers under any load. A pass: take orders, take what the origin has answered,
//! flush each port that got an answer once. Shards write the eventfd only while the plane's flag
//! says that it sleeps: it is raised before the last look at the ports, so no order is overlooked.
//!
//! An origin that panics ends the process (`panic = "abort"`): the plane never dies unnoticed.
#![expect(clippy::disallowed_types, reason = "one thread: the origin is shared by its fetches")]

use super::explain::Explanations;
use super::sampler::Sampler;
use super::writes::{Late, LateWrites, write};
use super::{Changed, News, Origin, Room};
use crate::error::{FetchFailure, StartError};
use crate::mesh::{
    Delivery, ExplainRequest, FORGETS_MAX, FlightId, Key, Landing, Named, Order, OriginPort,
    Outcome, Owners, PurgeOrder, PurgeRequest, Purged, Sleep, Upload, Written,
};
use crate::metrics::SampleBoard;
use crate::sys::eventfd::EventFd;
use shard_cache::Force;
use shard_cache::hash::{Etag, KeyHasher};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// The most orders taken from all ports in one pass.
const ORDERS_PASS_MAX: usize = 1_024;

/// The most answers handed out in one pass.
const ENDED_PASS_MAX: usize = 1_024;

/// How long the origin is left alone after it said that it is not ready.
const READY_RETRY: Duration = Duration::from_millis(250);

/// What the plane applies around every fetch and write.
#[derive(Clone, Debug)]
pub struct PlaneLimits {
    /// `origin.timeout`.
    pub timeout: Duration,
    /// `cache.value_size_max`, bytes.
    pub value_size_max: usize,
    /// Room for what is written, on its way to the origin.
    pub written: Room,
    /// Writes that the origin may have beyond the timeout.
    pub late_writes_max: usize,
    /// Which shard owns a key, by its hash.
    pub owners: Owners,
    /// Hashes keys as the shards do.
    pub hasher: KeyHasher,
    /// Where samples of changed keys are counted; without it none are taken.
    pub samples: Option<SampleBoard>,
}

/// The plane before it runs.
pub struct Plane {
    origin: Rc<dyn Origin>,
    ports: Vec<OriginPort>,
    eventfd: AsyncFd<File>,
    sleep: Sleep,
    limits: PlaneLimits,
    ready: Arc<AtomicBool>,
    purges: Purges,
    purge: Option<Purging>,
    explanations: Explanations,
    sampler: Option<Sampler>,
    late: LateWrites,
    /// Keys that their owners have been told to drop, and have not yet.
    forgets: usize,
    /// Anything may have changed at the origin: all that is cached is to become stale.
    is_doubtful: bool,
}

/// What the admin port asks for.
#[derive(Debug)]
pub struct Requests {
    /// That something is forgotten.
    pub purges: Purges,
    /// Why a key is served as it is.
    pub explanations: mpsc::Receiver<ExplainRequest>,
}

/// Where purges come from.
pub struct Purges {
    /// From the admin port.
    pub requests: mpsc::Receiver<PurgeRequest>,
    /// Called before each: notes it where a snapshot could bring back what it names.
    pub note: Box<dyn Fn() -> io::Result<()>>,
}

impl fmt::Debug for Purges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purges").field("requests", &self.requests).finish_non_exhaustive()
    }
}

/// The purge that is under way.
struct Purging {
    order: PurgeOrder,
    /// Who asked for it; nobody where the origin did.
    answer: Option<oneshot::Sender<Purged>>,
    /// Shards that have not sent it back.
    waiting: usize,
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").field("origin", &self.origin.describe()).finish_non_exhaustive()
    }
}

/// What the origin was asked for, once it is to be heard of.
enum Ended {
    /// A fetch for this shard.
    Fetch(usize, Landing),
    /// A write for this shard, and what is left of it where it is late.
    Write(usize, Box<Upload>, Option<Late>),
    /// A write for this shard of this key that was late.
    Late(usize, Box<Key>),
}

impl Plane {
    /// A plane over the ports of all shards. `eventfd` is the one that all of them write while
    /// `sleep` says so. `ready` is set once the origin has said that it can answer.
    /// Call it inside the runtime that will run it.
    ///
    /// # Errors
    /// The eventfd cannot be watched.
    pub fn new(
        origin: Rc<dyn Origin>,
        ports: Vec<OriginPort>,
        eventfd: EventFd,
        sleep: Sleep,
        limits: PlaneLimits,
        ready: Arc<AtomicBool>,
        requests: Requests,
    ) -> Result<Self, StartError> {
        let eventfd = eventfd.watch().map_err(|error| {
            StartError::failed(
                format!("The origin plane cannot watch its eventfd: {error}."),
                "Raise the limit on open files (ulimit -n, or LimitNOFILE of the unit).",
            )
        })?;
        let late = LateWrites::default();
        let (purge, forgets, is_doubtful) = (None, 0, false);
        let Requests { purges, explanations } = requests;
        let sampler = |board| Sampler::new(Rc::clone(&origin), limits.timeout, board);
        let (sampler, samples) = limits.samples.clone().map(sampler).unzip();
        let samples = samples.unwrap_or_else(|| mpsc::channel(1).1);
        let explanations = Explanations::new(explanations, samples);
        Ok(Self {
            origin,
            ports,
            eventfd,
            sleep,
            limits,
            ready,
            purges,
            purge,
            explanations,
            sampler,
            late,
            forgets,
            is_doubtful,
        })
    }

    /// Runs until `stop` turns true or its sender is gone. Fetches under way are then dropped, and
    /// writes left to the origin: the shards have answered their clients before they let the plane
    /// stop. Must run inside a `LocalSet`.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let ready = tokio::task::spawn_local(until_ready(self.origin.clone(), self.ready.clone()));
        let mut asked = JoinSet::new();
        loop {
            self.sleep.prepare();
            if !self.ports.iter_mut().any(OriginPort::has_mail) {
                // Stopping comes first; whatever else woke us, the pass below does all work.
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => break,
                    Some(request) = self.purges.requests.recv(), if self.purge.is_none() => {
                        self.purge(request);
                    }
                    changed = changed(&*self.origin), if self.forgets < FORGETS_MAX => {
                        self.hear(changed);
                    }
                    Some(request) = self.explanations.next(), if self.explanations.have_room() => {
                        self.explain(request);
                    }
                    () = ordered(&self.eventfd) => {}
                    Some(ended) = asked.join_next() => self.end(joined(ended), &mut asked),
                }
            }
            self.sleep.end();
            while self.pass(&mut asked) {
                tokio::task::yield_now().await;
                if *stop.borrow() {
                    break;
                }
            }
        }
        ready.abort();
    }

    /// One pass of bounded work; the answer is whether there may be more to do at once.
    fn pass(&mut self, asked: &mut JoinSet<Ended>) -> bool {
        let more_orders = self.take_orders(asked);
        let mut count = 0;
        while count < ENDED_PASS_MAX {
            let Some(ended) = asked.try_join_next() else { break };
            self.end(joined(ended), asked);
            count += 1;
        }
        self.hear_all();
        while let Some(request) = self.explanations.try_next() {
            self.explain(request);
        }
        self.ports.iter_mut().for_each(OriginPort::flush);
        more_orders || count == ENDED_PASS_MAX
    }

    /// Asks the origin for each order; the answer is whether a port may hold more.
    fn take_orders(&mut self, asked: &mut JoinSet<Ended>) -> bool {
        let share = (ORDERS_PASS_MAX / self.ports.len().max(1)).max(1);
        let mut more = false;
        for index in 0..self.ports.len() {
            let mut count = 0;
            while count < share {
                let Some(order) = self.ports[index].next_order() else { break };
                self.take(index, order, asked);
                count += 1;
            }
            more |= count == share;
        }
        more
    }

    fn take(&mut self, index: usize, order: Order, asked: &mut JoinSet<Ended>) {
        match order {
            Order::Fetch { flight, key, known } => {
                let PlaneLimits { timeout, value_size_max, .. } = self.limits;
                let (origin, key) = (self.origin.clone(), key.as_bytes().into());
                let fetch = fetch(origin, timeout, value_size_max, index, flight, key, known);
                asked.spawn_local(fetch);
            }
            Order::Spent(found) => drop(found),
            Order::Write(mut upload) if self.late.count() >= self.limits.late_writes_max => {
                upload.outcome = Written::Failed(FetchFailure::NoRoom);
                self.ports[index].deliver(Delivery::Written(upload));
            }
            Order::Write(mut upload) => {
                let (origin, timeout) = (self.origin.clone(), self.limits.timeout);
                let room = self.limits.written.clone();
                asked.spawn_local(async move {
                    let late = write(origin, timeout, room, &mut upload).await;
                    Ended::Write(index, upload, late)
                });
            }
            Order::Purged(order) => self.purged(order.outcome),
            Order::Forgotten(_) => self.forgets -= 1,
            Order::Explained(explanation) => {
                let server = self.origin.server_of(explanation.key.as_bytes());
                self.explanations.end(index, explanation, server);
            }
        }
    }

    /// Begins a purge that was asked for.
    fn purge(&mut self, request: PurgeRequest) {
        if let Err(error) = (self.purges.note)() {
            tracing::error!("nothing is purged, since it cannot be noted for a restart: {error}");
            request.answer.send(Purged::NotNoted).ok();
            return;
        }
        self.begin_purge(request.order, Some(request.answer));
    }

    /// Sends a purge to every shard.
    fn begin_purge(&mut self, order: PurgeOrder, answer: Option<oneshot::Sender<Purged>>) {
        for port in &mut self.ports {
            port.deliver(Delivery::Purge(Box::new(order.clone())));
            port.flush();
        }
        self.purge = Some(Purging { order, answer, waiting: self.ports.len() });
    }

    /// A shard has sent the purge back: when all have, whoever asked is told.
    fn purged(&mut self, outcome: Purged) {
        let mut purge = self.purge.take().expect("a purge comes back from each shard once");
        purge.order.outcome = purge.order.outcome.max(outcome);
        purge.waiting -= 1;
        if purge.waiting > 0 {
            self.purge = Some(purge);
            return;
        }
        if let Some(answer) = purge.answer {
            // Whoever asked may have given up.
            answer.send(purge.order.outcome).ok();
        }
    }

    /// Lets owners drop what has changed, as far as there is room for that.
    fn hear_all(&mut self) {
        while self.forgets < FORGETS_MAX {
            if let Some((owner, key)) = self.late.next_ended() {
                self.forget(owner, key);
            } else if let Some(changed) = self.origin.news().and_then(News::try_next) {
                self.hear(changed);
            } else {
                break;
            }
        }
        if self.is_doubtful && self.purge.is_none() {
            self.is_doubtful = false;
            let (named, force) = (Named::Everything, Force::Soft);
            self.begin_purge(PurgeOrder { named, force, outcome: Purged::Done }, None);
        }
    }

    /// The origin has said that something has changed.
    fn hear(&mut self, changed: Changed) {
        match changed {
            Changed::Key(key) => {
                if let Some(sampler) = &mut self.sampler {
                    sampler.changed(&key);
                }
                self.forget(self.owner(&key), key);
            }
            Changed::Anything => self.is_doubtful = true,
        }
    }

    /// Asks the owner of a key why it is served as it is.
    fn explain(&mut self, request: ExplainRequest) {
        let ExplainRequest { explanation, answer } = request;
        let owner = self.owner(&explanation.key);
        self.explanations.begin(owner, answer);
        self.ports[owner].deliver(Delivery::Explain(explanation));
    }

    /// The shard that owns a key.
    fn owner(&self, key: &Key) -> usize {
        let hash = self.limits.hasher.hash(key.as_bytes());
        self.limits.owners.of(hash, key.as_bytes()).into()
    }

    fn forget(&mut self, owner: usize, key: Box<Key>) {
        self.forgets += 1;
        self.ports[owner].deliver(Delivery::Forget(key));
    }

    /// The origin is heard of; a shard is told by the pass that follows.
    fn end(&mut self, ended: Ended, asked: &mut JoinSet<Ended>) {
        match ended {
            Ended::Fetch(index, landing) => self.ports[index].deliver(Delivery::Landing(landing)),
            Ended::Write(index, upload, late) => {
                if let Some(late) = late {
                    self.late.begin();
                    let key = Box::new(upload.key().clone());
                    asked.spawn_local(async move {
                        late.await;
                        Ended::Late(index, key)
                    });
                }
                self.ports[index].deliver(Delivery::Written(upload));
            }
            Ended::Late(index, key) => self.late.end(index, key),
        }
    }
}

/// Waits until the origin says that something has changed.
async fn changed(origin: &dyn Origin) -> Changed {
    match origin.news() {
        Some(news) => news.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until a shard has written the eventfd, and resets its count.
async fn ordered(eventfd: &AsyncFd<File>) {
    let mut count = [0; 8];
    loop {
        // An eventfd that cannot be polled or read is a bug of ours: nothing outside causes it.
        let mut guard = eventfd.readable().await.expect("an open eventfd can be polled");
        if let Ok(read) = guard.try_io(|eventfd| eventfd.get_ref().read(&mut count)) {
            read.expect("an eventfd that is readable can be read");
            return;
        }
    }
}

/// One fetch with its deadline and bound: whatever the origin does, one landing comes of it.
///
/// The key is on the heap: a [`Key`] would make the task, which is copied into its place, ten times
/// as large.
async fn fetch(
    origin: Rc<dyn Origin>,
    timeout: Duration,
    value_size_max: usize,
    index: usize,
    flight: FlightId,
    key: Box<[u8]>,
    known: Option<Etag>,
) -> Ended {
    let outcome = match tokio::time::timeout(timeout, origin.fetch(&key, known)).await {
        Ok(Outcome::Found(found)) if found.value.len() > value_size_max => {
            Outcome::Failed(FetchFailure::TooLarge)
        }
        // It speaks of a value that nobody has told it of.
        Ok(Outcome::Unchanged(unchanged)) if known != Some(unchanged.etag) => {
            Outcome::Failed(FetchFailure::Unavailable)
        }
        Ok(outcome) => outcome,
        Err(_elapsed) => Outcome::Failed(FetchFailure::Timeout),
    };
    Ended::Fetch(index, Landing { flight, outcome })
}

/// The result of a task that cannot be cancelled and, since a panic ends the process, not panic.
fn joined(ended: Result<Ended, tokio::task::JoinError>) -> Ended {
    ended.expect("what was asked is neither cancelled nor does it outlive a panic")
}

/// Asks the origin until it is ready, and says so.
async fn until_ready(origin: Rc<dyn Origin>, ready: Arc<AtomicBool>) {
    while !origin.ready().await {
        tokio::time::sleep(READY_RETRY).await;
    }
    ready.store(true, Ordering::Release);
}

#[cfg(test)]
mod tests;
