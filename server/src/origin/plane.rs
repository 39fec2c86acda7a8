//! The origin plane's loop: orders of all shards in, exactly one landing an order back.
//!
//! Runs on the plane's one thread, on a tokio `current_thread` runtime inside a `LocalSet`, beside
//! the admin server. A pass takes a bounded number of orders and landings and then yields, so the
//! admin server answers under any load. A pass: take orders, take what fetches have ended, flush
//! each port that got a landing once. Shards write the eventfd only while the plane's flag says
//! that it sleeps: it is raised before the last look at the ports, so no order is overlooked.
//!
//! An origin that panics ends the process (`panic = "abort"`): the plane never dies unnoticed.
#![expect(clippy::disallowed_types, reason = "one thread: the origin is shared by its fetches")]

use super::Origin;
use crate::error::{FetchFailure, StartError};
use crate::mesh::{
    Delivery, FlightId, Found, Key, Landing, Order, OriginPort, Outcome, PurgeRequest, Purged,
    Sleep,
};
use crate::sys::eventfd::EventFd;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The most orders taken from all ports in one pass.
const ORDERS_PASS_MAX: usize = 1_024;

/// The most landings handed out in one pass.
const LANDINGS_PASS_MAX: usize = 1_024;

/// How long the origin is left alone after it said that it is not ready.
const READY_RETRY: Duration = Duration::from_millis(250);

/// What the plane applies around every fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneLimits {
    /// `origin.timeout`.
    pub timeout: Duration,
    /// `cache.value_size_max`, bytes.
    pub value_size_max: usize,
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
    request: PurgeRequest,
    /// Shards that have not sent it back.
    waiting: usize,
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").field("origin", &self.origin.describe()).finish_non_exhaustive()
    }
}

/// A fetch that ended: whose it is and what became of it.
type Ended = (usize, Landing);

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
        purges: Purges,
    ) -> Result<Self, StartError> {
        let eventfd = eventfd.watch().map_err(|error| {
            StartError::failed(
                format!("The origin plane cannot watch its eventfd: {error}."),
                "Raise the limit on open files (ulimit -n, or LimitNOFILE of the unit).",
            )
        })?;
        Ok(Self { origin, ports, eventfd, sleep, limits, ready, purges, purge: None })
    }

    /// Runs until `stop` turns true or its sender is gone. Fetches under way are then dropped:
    /// the shards have answered their clients before they let the plane stop.
    /// Must run inside a `LocalSet`.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let asked = tokio::task::spawn_local(until_ready(self.origin.clone(), self.ready.clone()));
        let mut fetches = JoinSet::new();
        let mut landed = vec![false; self.ports.len()];
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
                    () = ordered(&self.eventfd) => {}
                    Some(ended) = fetches.join_next() => self.land(joined(ended), &mut landed),
                }
            }
            self.sleep.end();
            while self.pass(&mut fetches, &mut landed) {
                tokio::task::yield_now().await;
                if *stop.borrow() {
                    break;
                }
            }
        }
        asked.abort();
    }

    /// One pass of bounded work; the answer is whether there may be more to do at once.
    fn pass(&mut self, fetches: &mut JoinSet<Ended>, landed: &mut [bool]) -> bool {
        let more_orders = self.take_orders(fetches);
        let mut count = 0;
        while count < LANDINGS_PASS_MAX {
            let Some(ended) = fetches.try_join_next() else { break };
            self.land(joined(ended), landed);
            count += 1;
        }
        for (port, landed) in self.ports.iter_mut().zip(landed) {
            if std::mem::take(landed) {
                port.flush();
            }
        }
        more_orders || count == LANDINGS_PASS_MAX
    }

    /// Starts a fetch for each order; the answer is whether a port may hold more.
    fn take_orders(&mut self, fetches: &mut JoinSet<Ended>) -> bool {
        let share = (ORDERS_PASS_MAX / self.ports.len().max(1)).max(1);
        let mut more = false;
        for index in 0..self.ports.len() {
            let mut count = 0;
            while count < share {
                match self.ports[index].next_order() {
                    Some(Order::Fetch { flight, key }) => {
                        let fetch = fetch(self.origin.clone(), self.limits, flight, key);
                        fetches.spawn_local(async move { (index, fetch.await) });
                    }
                    Some(Order::Spent(found)) => drop(found),
                    Some(Order::Purged(order)) => self.purged(order.outcome),
                    None => break,
                }
                count += 1;
            }
            more |= count == share;
        }
        more
    }

    /// Sends a purge to every shard.
    fn purge(&mut self, request: PurgeRequest) {
        if let Err(error) = (self.purges.note)() {
            tracing::error!("nothing is purged, since it cannot be noted for a restart: {error}");
            request.answer.send(Purged::NotNoted).ok();
            return;
        }
        for port in &mut self.ports {
            port.deliver(Delivery::Purge(Box::new(request.order.clone())));
            port.flush();
        }
        self.purge = Some(Purging { request, waiting: self.ports.len() });
    }

    /// A shard has sent the purge back: when all have, whoever asked is told.
    fn purged(&mut self, outcome: Purged) {
        let mut purge = self.purge.take().expect("a purge comes back from each shard once");
        purge.request.order.outcome = purge.request.order.outcome.max(outcome);
        purge.waiting -= 1;
        if purge.waiting > 0 {
            self.purge = Some(purge);
            return;
        }
        // Whoever asked may have given up.
        purge.request.answer.send(purge.request.order.outcome).ok();
    }

    /// Hands one landing to its shard; it is published by the pass that follows.
    fn land(&mut self, (index, landing): Ended, landed: &mut [bool]) {
        self.ports[index].deliver(Delivery::Landing(landing));
        landed[index] = true;
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
async fn fetch(origin: Rc<dyn Origin>, limits: PlaneLimits, flight: FlightId, key: Key) -> Landing {
    let fetched = tokio::time::timeout(limits.timeout, origin.fetch(key.as_bytes())).await;
    let outcome = match fetched {
        Ok(Ok(Some(found))) => bounded(found, limits.value_size_max),
        Ok(Ok(None)) => Outcome::Absent,
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(_elapsed) => Outcome::Failed(FetchFailure::Timeout),
    };
    Landing { flight, outcome }
}

/// A value, if it is not larger than the cache takes.
fn bounded(found: Found, value_size_max: usize) -> Outcome {
    if found.value.len() > value_size_max {
        return Outcome::Failed(FetchFailure::TooLarge);
    }
    Outcome::Found(found)
}

/// The result of a task that cannot be cancelled and, since a panic ends the process, not panic.
fn joined(ended: Result<Ended, tokio::task::JoinError>) -> Ended {
    ended.expect("a fetch is neither cancelled nor does it outlive a panic")
}

/// Asks the origin until it is ready, and says so.
async fn until_ready(origin: Rc<dyn Origin>, ready: Arc<AtomicBool>) {
    while !origin.ready().await {
        tokio::time::sleep(READY_RETRY).await;
    }
    ready.store(true, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::super::Fetch;
    use super::*;
    use crate::mesh::{ContentType, Held, Lifetime, origin_link};
    use crate::sys::eventfd;
    use shard_cache::hash::Etag;
    use std::future::Future;
    use std::os::fd::AsRawFd;
    use std::pin::Pin;

    /// Answers by the key's first letter.
    struct Scripted;

    impl Origin for Scripted {
        fn describe(&self) -> String {
            "scripted".to_owned()
        }

        fn fetch<'a>(&'a self, key: &'a [u8]) -> Fetch<'a> {
            Box::pin(async move {
                match key[0] {
                    b'a' => Ok(None),
                    b'h' => std::future::pending().await,
                    b'l' => Ok(Some(found(vec![0; 11]))),
                    b'u' => Err(FetchFailure::Unavailable),
                    _ => Ok(Some(found(key.to_vec()))),
                }
            })
        }

        fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
            Box::pin(async { true })
        }
    }

    fn found(value: Vec<u8>) -> Found {
        Found {
            value: value.into(),
            content_type: ContentType::JSON,
            etag: Etag::from_bits(1),
            lifetime: Lifetime::Default,
            held: Held::default(),
        }
    }

    const FLIGHTS_MAX: usize = 4_096;

    fn order(slot: u32, key: &str) -> Order {
        let key = Key::new(key.as_bytes()).expect("short");
        Order::Fetch { flight: FlightId { slot, generation: 7 }, key }
    }

    /// Runs a plane over two ports until `orders` have all been landed; landings of each port.
    fn run(orders: [Vec<(u32, String)>; 2]) -> [Vec<Landing>; 2] {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let wake = EventFd::for_runtime().expect("an eventfd");
        let wake_fd = wake.as_raw_fd();
        let (sleep, shard_sleep) = (Sleep::new(), Sleep::new());
        let shard_wake = Arc::new(EventFd::for_ring().expect("an eventfd"));
        let link = || origin_link(FLIGHTS_MAX, &shard_sleep, &sleep, &shard_wake);
        let (mut links, ports): (Vec<_>, Vec<_>) = [link(), link()].into_iter().unzip();
        let ready = Arc::new(AtomicBool::new(false));
        let wanted = [orders[0].len(), orders[1].len()];
        let (stop, stopped) = watch::channel(false);
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let limits = PlaneLimits { timeout: Duration::from_millis(5), value_size_max: 10 };
            let origin = Rc::new(Scripted);
            let (_nobody, requests) = mpsc::channel(1);
            let purges = Purges { requests, note: Box::new(|| Ok(())) };
            let plane =
                Plane::new(origin, ports, wake, sleep.clone(), limits, ready.clone(), purges)
                    .expect("made");
            let plane = tokio::task::spawn_local(plane.run(stopped));
            // The plane sleeps before the first order, so that it must be woken.
            tokio::task::yield_now().await;
            for (link, orders) in links.iter_mut().zip(orders) {
                for (slot, key) in orders {
                    link.order(order(slot, &key));
                }
                link.order(Order::Spent(found(vec![1])));
                if link.must_wake() {
                    eventfd::signal(wake_fd);
                }
            }
            let mut landings = [Vec::new(), Vec::new()];
            while landings[0].len() < wanted[0] || landings[1].len() < wanted[1] {
                for (landings, link) in landings.iter_mut().zip(&mut links) {
                    landings.extend(std::iter::from_fn(|| match link.next_delivery()? {
                        Delivery::Landing(landing) => Some(landing),
                        Delivery::Purge(_) => panic!("nobody purges"),
                    }));
                }
                tokio::task::yield_now().await;
            }
            assert!(ready.load(Ordering::Acquire));
            stop.send(true).expect("the plane runs");
            plane.await.expect("the plane ends");
            assert!(links.iter_mut().all(|link| !link.has_mail()), "nothing is landed twice");
            landings
        })
    }

    #[test]
    fn every_outcome_of_a_fetch_becomes_one_landing() {
        let keys = ["absent", "hang", "large", "unavailable", "value"];
        let orders = (0..).zip(keys.map(str::to_owned)).collect();
        let [mut landings, _] = run([orders, Vec::new()]);
        landings.sort_by_key(|landing| landing.flight.slot);
        let seen: Vec<_> = landings
            .iter()
            .map(|landing| match &landing.outcome {
                Outcome::Found(found) => format!("{:?}", found.value.escape_ascii().to_string()),
                Outcome::Absent => "absent".to_owned(),
                Outcome::Failed(failure) => format!("{failure:?}"),
            })
            .collect();
        assert_eq!(seen, ["absent", "Timeout", "TooLarge", "Unavailable", "\"value\""]);
    }

    #[test]
    fn more_orders_than_a_pass_takes_are_all_landed_at_their_own_port() {
        let orders = |from: u32| (from..from + 3_000).map(|slot| (slot, "v".to_owned())).collect();
        let landings = run([orders(0), orders(10_000)]);
        for (landings, from) in landings.into_iter().zip([0, 10_000]) {
            let mut slots: Vec<_> = landings.iter().map(|landing| landing.flight.slot).collect();
            slots.sort_unstable();
            assert_eq!(slots, (from..from + 3_000).collect::<Vec<_>>());
        }
    }
}
