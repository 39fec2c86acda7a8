//! The plane between two shards that a test plays, and an origin that follows a script.

mod samples;

use super::super::{Fetch, Teller, Write, Writing, news};
use super::*;
use crate::mesh::{
    Change, ContentType, EXPLANATIONS_MAX, Explanation, Found, Held, Lifetime, OriginLink,
    OwnerHash, ReplyRef, Stale, Stored, Unchanged, origin_link,
};
use crate::sys::eventfd;
use shard_cache::hash::{Etag, KeyHash};
use std::future::Future;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use tokio::sync::Notify;

/// Answers by the key's first letter.
struct Scripted {
    /// Lets writes of keys with an `h`, and fetches of keys with a `w`, end.
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

    fn fetch<'a>(&'a self, key: &'a [u8], _known: Option<Etag>) -> Fetch<'a> {
        Box::pin(async move {
            match key[0] {
                b'a' => Outcome::Absent,
                b'h' => std::future::pending().await,
                b'l' => Outcome::Found(found(vec![0; 11])),
                b's' => Outcome::Unchanged(UNCHANGED),
                b'u' => Outcome::Failed(FetchFailure::Unavailable),
                b'w' => {
                    self.released.notified().await;
                    Outcome::Found(found(b"late".to_vec()))
                }
                _ => Outcome::Found(found(key.to_vec())),
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

const UNCHANGED: Unchanged = Unchanged {
    etag: Etag::from_bits(2),
    lifetime: Lifetime::Default,
    stale: Stale { while_revalidate: None, if_error: None },
};

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
    // Who asks has what the origin says is unchanged, or something else.
    let known = key.as_bytes().ends_with(b"-known").then_some(UNCHANGED.etag);
    Order::Fetch { flight: FlightId { slot, generation: 7 }, key, known }
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

    async fn landing(&mut self, shard: usize) -> Landing {
        let Delivery::Landing(landing) = self.next(shard).await else { panic!("no landing") };
        landing
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
    run_with(None, test)
}

/// The same, and samples are counted where there is a board.
fn run_with<T>(samples: Option<SampleBoard>, test: impl AsyncFnOnce(&mut Shards) -> T) -> T {
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
            samples,
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
        tokio::task::yield_now().await;
        assert_eq!(Rc::strong_count(&shards.origin), 1, "what it has begun ends with it");
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
                landings[shard].push(shards.landing(shard).await);
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
    let keys = ["absent", "hang", "large", "same", "same-known", "unavailable", "value"];
    let orders = (0..).zip(keys.map(str::to_owned)).collect();
    let [mut landings, _] = fetch_all([orders, Vec::new()]);
    landings.sort_by_key(|landing| landing.flight.slot);
    let seen: Vec<_> = landings
        .iter()
        .map(|landing| match &landing.outcome {
            Outcome::Found(found) => format!("{:?}", found.value.escape_ascii().to_string()),
            Outcome::Absent => "absent".to_owned(),
            Outcome::Unchanged(unchanged) => format!("unchanged {:?}", unchanged.etag.bits()),
            Outcome::Failed(failure) => format!("{failure:?}"),
        })
        .collect();
    let same = ["Unavailable", "unchanged 2"];
    assert_eq!(seen[..3], ["absent", "Timeout", "TooLarge"]);
    assert_eq!(seen[3..5], same, "an origin that was told of nothing knows of nothing unchanged");
    assert_eq!(seen[5..], ["Unavailable", "\"value\""]);
}

#[test]
fn r05_an_answer_that_comes_after_its_time_reaches_nobody() {
    run(async |shards| {
        shards.send(0, order(1, "wait"));
        let landing = shards.landing(0).await;
        assert!(matches!(landing.outcome, Outcome::Failed(FetchFailure::Timeout)), "{landing:?}");
        shards.origin.released.notify_one();
        // By the time this one has landed, the answer to the other one would have, too.
        shards.send(0, order(2, "hang"));
        assert_eq!(shards.landing(0).await.flight.slot, 2);
    });
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
