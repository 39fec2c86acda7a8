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
use super::writes::{Late, LateWrites, write};
use super::{Changed, News, Origin, Room};
use crate::error::{FetchFailure, StartError};
use crate::mesh::{
    Delivery, ExplainRequest, FORGETS_MAX, FlightId, Found, Key, Landing, Named, Order, OriginPort,
    Outcome, Owners, PurgeOrder, PurgeRequest, Purged, Sleep, Upload, Written,
};
use crate::sys::eventfd::EventFd;
use shard_cache::Force;
use shard_cache::hash::KeyHasher;
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
        let explanations = Explanations::new(explanations);
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
            Order::Fetch { flight, key } => {
                let PlaneLimits { timeout, value_size_max, .. } = self.limits;
                let (origin, key) = (self.origin.clone(), key.as_bytes().into());
                asked.spawn_local(fetch(origin, timeout, value_size_max, index, flight, key));
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
            Changed::Key(key) => self.forget(self.owner(&key), key),
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
) -> Ended {
    let fetched = tokio::time::timeout(timeout, origin.fetch(&key)).await;
    let outcome = match fetched {
        Ok(Ok(Some(found))) => bounded(found, value_size_max),
        Ok(Ok(None)) => Outcome::Absent,
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(_elapsed) => Outcome::Failed(FetchFailure::Timeout),
    };
    Ended::Fetch(index, Landing { flight, outcome })
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
mod tests {
    use super::super::{Fetch, Teller, Write, Writing, news};
    use super::*;
    use crate::mesh::{
        Change, ContentType, EXPLANATIONS_MAX, Explanation, Held, Lifetime, OriginLink, OwnerHash,
        ReplyRef, Stale, Stored, origin_link,
    };
    use crate::sys::eventfd;
    use shard_cache::hash::{Etag, KeyHash};
    use std::future::Future;
    use std::os::fd::{AsRawFd, RawFd};
    use std::pin::Pin;
    use tokio::sync::Notify;

    /// Answers by the key's first letter.
    struct Scripted {
        /// Lets writes of keys with an `h` end.
        released: Notify,
        teller: Teller,
        news: News,
    }

    fn ownership() -> (KeyHasher, Owners) {
        (KeyHasher::new([1, 2]), Owners::new(OwnerHash::Keyed, 2))
    }

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

        fn write(&self, write: Write) -> Writing<'_> {
            Box::pin(async move {
                if write.key.as_bytes()[0] == b'h' {
                    self.released.notified().await;
                }
                assert_eq!(&*write.value, b"value");
                STORED
            })
        }

        fn news(&self) -> Option<&News> {
            Some(&self.news)
        }

        fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
            Box::pin(async { true })
        }
    }

    const STORED: Written = Written::Stored(Stored {
        content_type: ContentType::JSON,
        etag: Etag::from_bits(1),
        is_new: true,
        lifetime: Lifetime::Default,
        stale: Stale { while_revalidate: None, if_error: None },
    });

    fn found(value: Vec<u8>) -> Found {
        Found {
            value: value.into(),
            content_type: ContentType::JSON,
            etag: Etag::from_bits(1),
            lifetime: Lifetime::Default,
            stale: Stale::default(),
            held: Held::default(),
        }
    }

    const FLIGHTS_MAX: usize = 4_096;
    const UPLOADS_COUNT: usize = 4;

    fn order(slot: u32, key: &str) -> Order {
        let key = Key::new(key.as_bytes()).expect("short");
        Order::Fetch { flight: FlightId { slot, generation: 7 }, key }
    }

    /// The shards' side of a plane that runs.
    struct Shards {
        links: [OriginLink; 2],
        origin: Rc<Scripted>,
        wake: RawFd,
        ready: Arc<AtomicBool>,
        asker: mpsc::Sender<ExplainRequest>,
    }

    impl Shards {
        fn send(&mut self, shard: usize, order: Order) {
            let link = &mut self.links[shard];
            link.order(order);
            if link.must_wake() {
                eventfd::signal(self.wake);
            }
        }

        fn write(&mut self, shard: usize, key: &str) {
            let mut upload = Upload::new(0, 5);
            let reply = ReplyRef { index: 0, generation: 0 };
            upload.address(reply, KeyHash::from_bits(0), key.as_bytes());
            upload.change = Change::Put {
                content_type: ContentType::JSON,
                lifetime: Lifetime::Default,
                stale: Stale::default(),
            };
            assert!(upload.append(b"value"));
            self.send(shard, Order::Write(upload));
        }

        async fn next(&mut self, shard: usize) -> Delivery {
            loop {
                match self.links[shard].next_delivery() {
                    Some(delivery) => return delivery,
                    None => tokio::task::yield_now().await,
                }
            }
        }

        async fn written(&mut self, shard: usize) -> Written {
            let Delivery::Written(upload) = self.next(shard).await else { panic!("no answer") };
            upload.outcome
        }

        /// The key that a shard is told to drop.
        async fn forgets(&mut self, shard: usize) -> Box<Key> {
            let Delivery::Forget(key) = self.next(shard).await else { panic!("nothing to drop") };
            key
        }

        /// A shard drops a key, as it is told to.
        async fn forget(&mut self, shard: usize, key: &str) {
            let told = self.forgets(shard).await;
            assert_eq!(told.as_bytes(), key.as_bytes());
            self.send(shard, Order::Forgotten(told));
        }

        fn has_mail(&mut self) -> bool {
            self.links.iter_mut().any(OriginLink::has_mail)
        }
    }

    /// Runs a plane over two ports, of which one write may be late, while `test` runs.
    fn run<T>(test: impl AsyncFnOnce(&mut Shards) -> T) -> T {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let wake = EventFd::for_runtime().expect("an eventfd");
        let wake_fd = wake.as_raw_fd();
        let (sleep, shard_sleep) = (Sleep::new(), Sleep::new());
        let shard_wake = Arc::new(EventFd::for_ring().expect("an eventfd"));
        let link = || origin_link(FLIGHTS_MAX, UPLOADS_COUNT, &shard_sleep, &sleep, &shard_wake);
        let ((first, one), (second, two)) = (link(), link());
        let ready = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = watch::channel(false);
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let limits = PlaneLimits {
                timeout: Duration::from_millis(5),
                value_size_max: 10,
                written: Room::new(10),
                late_writes_max: 1,
                hasher: ownership().0,
                owners: ownership().1,
            };
            let (teller, news) = news();
            let origin = Rc::new(Scripted { released: Notify::new(), teller, news });
            let (_nobody, requests) = mpsc::channel(1);
            let (asker, explanations) = mpsc::channel(16);
            let purges = Purges { requests, note: Box::new(|| Ok(())) };
            let requests = Requests { purges, explanations };
            let ports = vec![one, two];
            let (sleep, is_ready) = (sleep.clone(), Arc::clone(&ready));
            let plane = Plane::new(origin.clone(), ports, wake, sleep, limits, is_ready, requests)
                .expect("made");
            let plane = tokio::task::spawn_local(plane.run(stopped));
            // The plane sleeps before the first order, so that it must be woken.
            tokio::task::yield_now().await;
            let links = [first, second];
            let mut shards = Shards { links, origin, wake: wake_fd, ready, asker };
            let result = test(&mut shards).await;
            stop.send(true).expect("the plane runs");
            plane.await.expect("the plane ends");
            assert!(!shards.has_mail(), "nothing is answered twice");
            result
        })
    }

    /// Has all `orders` landed; the landings of each port.
    fn fetch_all(orders: [Vec<(u32, String)>; 2]) -> [Vec<Landing>; 2] {
        run(async |shards| {
            let mut landings = [Vec::new(), Vec::new()];
            for (shard, orders) in orders.iter().enumerate() {
                for (slot, key) in orders {
                    shards.send(shard, order(*slot, key));
                }
                shards.send(shard, Order::Spent(found(vec![1])));
            }
            for (shard, orders) in orders.iter().enumerate() {
                for _ in orders {
                    let delivery = shards.next(shard).await;
                    let Delivery::Landing(landing) = delivery else { panic!("no landing") };
                    landings[shard].push(landing);
                }
            }
            assert!(shards.ready.load(Ordering::Acquire));
            landings
        })
    }

    #[test]
    fn the_owner_of_a_key_explains_it_and_few_explanations_are_under_way() {
        run(async |shards| {
            let key = |number| Key::new(format!("k{number}").as_bytes()).expect("short");
            let mut answers = Vec::new();
            for number in 0..3 * EXPLANATIONS_MAX {
                let (answer, answered) = oneshot::channel();
                let explanation = Box::new(Explanation::of(key(number)));
                let request = ExplainRequest { explanation, answer };
                shards.asker.send(request).await.expect("the plane runs");
                answers.push(answered);
            }
            let mut told = 0;
            while told < answers.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let mut asked = Vec::new();
                for (shard, link) in (0..).zip(&mut shards.links) {
                    while let Some(Delivery::Explain(mut explanation)) = link.next_delivery() {
                        explanation.owner = shard;
                        asked.push(explanation);
                    }
                }
                assert!(asked.len() <= EXPLANATIONS_MAX, "{}", asked.len());
                told += asked.len();
                for explanation in asked {
                    shards.send(explanation.owner.into(), Order::Explained(explanation));
                }
            }
            let (hasher, owners) = ownership();
            for (number, answer) in answers.into_iter().enumerate() {
                let explained = answer.await.expect("each is told");
                let (asked, key) = (explained.explanation, key(number));
                let owner = owners.of(hasher.hash(key.as_bytes()), key.as_bytes());
                assert_eq!((asked.owner, &asked.key), (owner, &key));
            }
        });
    }

    #[test]
    fn every_outcome_of_a_fetch_becomes_one_landing() {
        let keys = ["absent", "hang", "large", "unavailable", "value"];
        let orders = (0..).zip(keys.map(str::to_owned)).collect();
        let [mut landings, _] = fetch_all([orders, Vec::new()]);
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
        let landings = fetch_all([orders(0), orders(10_000)]);
        for (landings, from) in landings.into_iter().zip([0, 10_000]) {
            let mut slots: Vec<_> = landings.iter().map(|landing| landing.flight.slot).collect();
            slots.sort_unstable();
            assert_eq!(slots, (from..from + 3_000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_write_is_answered_at_its_own_port_by_its_own_box() {
        run(async |shards| {
            shards.write(1, "quick");
            let Delivery::Written(upload) = shards.next(1).await else { panic!("no answer") };
            assert_eq!((upload.outcome, upload.key().as_bytes()), (STORED, &b"quick"[..]));
        });
    }

    #[test]
    fn a_late_write_is_unknown_at_once_and_its_key_dropped_once_it_is_done() {
        run(async |shards| {
            shards.write(0, "hang");
            assert_eq!(shards.written(0).await, Written::Unknown);
            shards.write(1, "quick");
            assert_eq!(shards.written(1).await, Written::Failed(FetchFailure::NoRoom));
            assert!(!shards.has_mail(), "it is not done yet");
            shards.origin.released.notify_one();
            shards.forget(0, "hang").await;
            shards.write(1, "quick");
            assert_eq!(shards.written(1).await, STORED);
        });
    }

    #[test]
    fn keys_of_late_writes_are_dropped_by_their_owners() {
        run(async |shards| {
            shards.write(0, "hang");
            shards.write(1, "hold");
            assert_eq!(shards.written(0).await, Written::Unknown);
            assert_eq!(shards.written(1).await, Written::Unknown);
            shards.origin.released.notify_waiters();
            shards.forget(0, "hang").await;
            shards.forget(1, "hold").await;
        });
    }

    #[test]
    fn what_has_changed_is_dropped_by_its_owner_and_no_more_at_a_time_than_there_is_room_for() {
        run(async |shards| {
            let count = FORGETS_MAX + 1;
            for number in 0..count {
                let key = Key::new(number.to_string().as_bytes()).expect("short");
                shards.origin.teller.key(key);
            }
            let mut told = Vec::new();
            while told.len() < FORGETS_MAX {
                for shard in [0, 1] {
                    while let Some(delivery) = shards.links[shard].next_delivery() {
                        let Delivery::Forget(key) = delivery else { panic!("{delivery:?}") };
                        told.push((shard, key));
                    }
                }
                tokio::task::yield_now().await;
            }
            assert!(!shards.has_mail(), "there is no room for another");
            let (shard, key) = told.pop().expect("many");
            shards.send(shard, Order::Forgotten(key));
            let (hasher, owners) = ownership();
            let last = (count - 1).to_string();
            let owner = owners.of(hasher.hash(last.as_bytes()), last.as_bytes());
            assert_eq!(shards.forgets(usize::from(owner)).await.as_bytes(), last.as_bytes());
            for (shard, key) in told {
                let owner = owners.of(hasher.hash(key.as_bytes()), key.as_bytes());
                assert_eq!(usize::from(owner), shard, "{key:?}");
            }
        });
    }

    #[test]
    fn where_anything_may_have_changed_all_becomes_stale() {
        run(async |shards| {
            shards.origin.teller.anything();
            for shard in [0, 1] {
                let Delivery::Purge(order) = shards.next(shard).await else { panic!("no purge") };
                assert_eq!((&order.named, order.force), (&Named::Everything, Force::Soft));
                shards.origin.teller.anything();
                shards.send(shard, Order::Purged(order));
            }
            for shard in [0, 1] {
                let Delivery::Purge(order) = shards.next(shard).await else { panic!("no purge") };
                shards.send(shard, Order::Purged(order));
            }
        });
    }

    #[test]
    fn a_write_that_finds_no_room_in_time_is_not_done() {
        run(async |shards| {
            // Two bodies fill the room.
            shards.write(0, "hang");
            shards.write(0, "hang");
            shards.write(1, "third");
            assert_eq!(shards.written(1).await, Written::Failed(FetchFailure::NoRoom));
            assert_eq!(shards.written(0).await, Written::Unknown);
            assert_eq!(shards.written(0).await, Written::Unknown);
        });
    }
}
