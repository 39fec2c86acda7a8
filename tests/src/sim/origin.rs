//! Takes the origin plane's place behind the same queues: slow, failing, in any order.
//!
//! Checks single flight: no two shards, and no shard twice, may have a fetch of one key under way.
//! A fetch that a purge or a write has overtaken counts no more: it is *void*. A shard says when it
//! has purged; when it has taken the answer to a write can only be seen from what it has taken.
//! Sleeps as the plane does: it looks at its orders only when its eventfd was written or it is
//! awake, so a shard that forgets to wake it is found.

use super::explainer::Explainer;
use super::faults::OriginFaults;
use super::host::Host;
use super::marks::Mark;
use super::origin_writes::{Due, OriginWrites};
use super::swarm::Options;
use super::trace::Who;
use crate::model::{Content, Edition, KeyNumber, Model, Version};
use crate::prng::Prng;
use pelton::error::FetchFailure;
use pelton::mesh::{
    ContentType, Delivery, EXPLANATIONS_MAX, Explanation, FORGETS_MAX, FlightId, Found, Held, Key,
    Landing, Lifetime, Named, Order, OriginPort, Outcome, PurgeOrder, Purged, Sleep, Stale,
    Unchanged, Written,
};
use pelton::ring::Fd;
use shard_cache::Force;
use shard_cache::hash::Etag;
use shard_cache::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// One shard as the plane sees it.
#[derive(Debug)]
pub struct Port {
    /// The queues to and from the shard.
    pub port: OriginPort,
    /// The shard's flag.
    pub sleep: Sleep,
    /// The eventfd that the shard watches.
    pub eventfd: Fd,
    /// Answers to writes that the shard may not have taken yet.
    told: VecDeque<Told>,
    /// Keys that it was told to drop, with their versions then.
    forgets: VecDeque<(KeyNumber, Version)>,
    delivered: usize,
    /// Deliveries that find room when none is there.
    room: usize,
}

/// The answer to a write, on its way to its shard.
#[derive(Debug)]
struct Told {
    key: KeyNumber,
    /// How many deliveries it ends.
    delivered: usize,
    /// Fetches begun by then.
    fetches_count: u64,
}

/// The plane.
#[derive(Debug)]
pub struct Origin {
    prng: Prng,
    ports: Vec<Port>,
    sleep: Sleep,
    eventfd: Fd,
    asleep: bool,
    /// How long a value is fresh unless it is short-lived.
    lifetime: Lifetime,
    ttl_ms: u32,
    value_size_max: usize,
    /// What may go wrong.
    pub faults: OriginFaults,
    /// It fails until then.
    down_until: Instant,
    fetches: Vec<Fetch>,
    /// Fetches of values that were said to be unchanged: their shards may ask once more.
    unsure: Vec<Fetch>,
    writes: OriginWrites,
    purging: Option<Purging>,
    explainer: Explainer,
    /// Keys that are to be dropped for writes that were done late, with the versions of these.
    late: VecDeque<(KeyNumber, Version)>,
    /// Values landed that have not come back as spent.
    values_out: usize,
    /// Fetches so far.
    pub fetches_count: u64,
}

#[derive(Debug)]
struct Fetch {
    due: Instant,
    port: usize,
    flight: FlightId,
    key: KeyNumber,
    /// The tag of the value that the shard has.
    known: Option<Etag>,
    /// Read when the fetch began; a slow fetch may bring old news.
    version: Version,
    /// How many were begun before.
    number: u64,
    validity: Validity,
}

/// Whether another fetch of the same key may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    /// No.
    Valid,
    /// It was ordered about when its shard took the answer to a write of the key, before or after.
    Doubtful,
    /// Yes: its shard has purged the key since, or taken the answer to a write.
    Void,
}

/// A purge that is not in force everywhere yet.
#[derive(Debug)]
struct Purging {
    order: PurgeOrder,
    /// Shards that have not confirmed it.
    waiting: usize,
    /// The keys that it names, with their versions when it was asked for.
    keys: Vec<(KeyNumber, Version)>,
}

impl Origin {
    /// A plane for these shards, which wake it by `eventfd`.
    #[must_use]
    pub fn new(
        mut prng: Prng,
        ports: Vec<Port>,
        sleep: Sleep,
        eventfd: Fd,
        lifetime: Lifetime,
        options: &Options,
    ) -> Self {
        let writes = OriginWrites::new(prng.fork(), lifetime);
        Self {
            prng,
            ports,
            sleep,
            eventfd,
            asleep: false,
            lifetime,
            ttl_ms: options.settings.ttl_ms,
            value_size_max: options.limits.value_size_max as usize,
            faults: options.origin_faults,
            down_until: Instant::ZERO,
            fetches: Vec::new(),
            unsure: Vec::new(),
            writes,
            purging: None,
            explainer: Explainer::default(),
            late: VecDeque::new(),
            values_out: 0,
            fetches_count: 0,
        }
    }

    /// Fetches and writes under way and values that the shards hold.
    #[must_use]
    pub fn busy_count(&self) -> usize {
        let purges = self.late.len() + usize::from(self.purging.is_some());
        let explanations = self.explainer.count();
        self.fetches.len()
            + self.writes.count()
            + self.values_out
            + purges
            + self.forgets()
            + explanations
    }

    /// When it acts next, if nobody wakes it before.
    #[must_use]
    pub fn acts_at(&self, host: &mut Host) -> Option<Instant> {
        if !self.asleep || host.net.is_written(self.eventfd) {
            return Some(host.now());
        }
        let fetches = self.fetches.iter().map(|fetch| fetch.due);
        fetches.chain(self.writes.acts_at()).min()
    }

    /// Takes orders and lands what is due.
    ///
    /// # Panics
    /// If two fetches of one key are under way.
    pub fn act(&mut self, host: &mut Host, model: &mut Model) {
        if host.net.take_written(self.eventfd) {
            self.asleep = false;
        }
        if self.asleep && self.acts_at(host).is_none_or(|at| at > host.now()) {
            return;
        }
        self.sleep.end();
        self.take_orders(host, model);
        self.settle_told();
        self.land_due(host, model);
        self.write_due(host, model);
        // The plane's own rule: raise the flag, then look once more.
        self.sleep.prepare();
        self.asleep = !self.ports.iter_mut().any(|port| port.port.has_mail());
        if !self.asleep {
            self.sleep.end();
        }
    }

    fn take_orders(&mut self, host: &mut Host, model: &mut Model) {
        for port in 0..self.ports.len() {
            while let Some(order) = self.ports[port].port.next_order() {
                match order {
                    Order::Fetch { flight, key, known } => {
                        let key = model.find(key.as_bytes());
                        let key = key.expect("shards ask for keys that clients asked for");
                        self.begin(host, model, port, (flight, key, known));
                    }
                    Order::Spent(_) => {
                        assert!(self.values_out > 0, "a value comes back once");
                        self.values_out -= 1;
                    }
                    Order::Write(upload) => {
                        let is_down = self.is_down(host);
                        let (writes, faults) = (&mut self.writes, &self.faults);
                        writes.begin(host, model, port, upload, faults, is_down);
                    }
                    Order::Purged(order) => self.purged(host, model, port, &order),
                    Order::Forgotten(key) => self.forgotten(host, model, port, &key),
                    Order::Explained(explanation) => {
                        self.explainer.answer(host, model, port, &explanation);
                    }
                }
            }
        }
    }

    fn begin(
        &mut self,
        host: &mut Host,
        model: &Model,
        port: usize,
        (flight, key, known): (FlightId, KeyNumber, Option<Etag>),
    ) {
        let is_told = self.ports[port].told.iter().any(|told| told.key == key);
        let (mut number, mut validity) = (self.fetches_count, Validity::Valid);
        if let Some(before) = self.asked_again(host, port, flight) {
            assert_eq!((before.key, known), (key, None), "it is asked for what it has");
            (number, validity) = (before.number, before.validity);
        }
        let is_again = number < self.fetches_count;
        for twin in self.fetches.iter_mut().filter(|fetch| fetch.key == key) {
            if validity == Validity::Void || twin.validity == Validity::Void {
                continue;
            }
            let are_valid = [twin.validity, validity] == [Validity::Valid; 2];
            assert!(
                !are_valid || is_told && twin.port == port,
                "key {key} is being fetched already: single flight"
            );
            host.marks.hit(Mark::WrittenInFlight);
            // It is the one that was begun first.
            *(if is_again { &mut validity } else { &mut twin.validity }) = Validity::Void;
        }
        let delay_ns = self.prng.below(self.faults.delay_ns_max + 1);
        let due = host.now() + Duration::from_nanos(delay_ns);
        let version = model.newest(key);
        self.fetches.push(Fetch { due, port, flight, key, known, version, number, validity });
        self.fetches_count += 1;
        host.trace.note(host.now(), Who::Origin, "fetches (key)", [key.into(), 0]);
    }

    /// The fetch of this flight that was said to be unchanged, if its shard asks once more. Those
    /// of earlier lives of its slot were taken as they were.
    fn asked_again(&mut self, host: &mut Host, port: usize, flight: FlightId) -> Option<Fetch> {
        let is_of = |fetch: &Fetch| fetch.port == port && fetch.flight.slot == flight.slot;
        let place = self.unsure.iter().position(is_of)?;
        let before = self.unsure.swap_remove(place);
        let is_again = before.flight == flight;
        let is_renewed = !is_again && before.validity == Validity::Valid;
        host.marks.hit_if(is_again, Mark::UnchangedAskedAgain);
        host.marks.hit_if(is_renewed, Mark::UnchangedRenewed);
        is_again.then_some(before)
    }

    fn land_due(&mut self, host: &mut Host, model: &Model) {
        loop {
            let due = |fetch: &&Fetch| fetch.due <= host.now();
            let count = self.fetches.iter().filter(due).count();
            if count == 0 {
                break;
            }
            let nth = self.prng.index(count);
            let mut due = (0..self.fetches.len()).filter(|at| due(&&self.fetches[*at]));
            let index = due.nth(nth).expect("so many are due");
            let fetch = self.fetches.swap_remove(index);
            let outcome = self.outcome(host, model, &fetch);
            let is_unsure = matches!(outcome, Outcome::Unchanged(_));
            let landing = Landing { flight: fetch.flight, outcome };
            self.ports[fetch.port].deliver(host, Delivery::Landing(landing));
            self.unsure.extend(is_unsure.then_some(fetch));
        }
    }

    /// Lets the origin do what it was asked to write, and tells the shards.
    fn write_due(&mut self, host: &mut Host, model: &mut Model) {
        let Due { told, late } = self.writes.act(host, model, &self.faults);
        for (port, upload) in told {
            let key = model.find(upload.key().as_bytes()).expect("it was found before");
            let is_kept = matches!(upload.outcome, Written::Failed(_));
            let port = &mut self.ports[port];
            port.deliver(host, Delivery::Written(upload));
            if !is_kept {
                let (delivered, fetches_count) = (port.delivered, self.fetches_count);
                port.told.push_back(Told { key, delivered, fetches_count });
            }
        }
        self.late.extend(late);
        while self.forgets() < FORGETS_MAX
            && let Some((key, version)) = self.late.pop_front()
        {
            self.forget(host, model, key, version);
        }
    }

    /// Keys that were told to be dropped and are not yet.
    fn forgets(&self) -> usize {
        self.ports.iter().map(|port| port.forgets.len()).sum()
    }

    /// Tells the owner of a key that it has changed, or that it may have, if there is room.
    pub fn tell(&mut self, host: &mut Host, model: &Model) {
        if self.forgets() < FORGETS_MAX {
            let key = self.prng.below(model.keys_count().into());
            let key = u32::try_from(key).expect("it is below a u32");
            self.forget(host, model, key, model.newest(key));
        }
    }

    /// Asks the owner of a key why it is served as it is, if there is room.
    pub fn explain(&mut self, host: &mut Host, model: &Model) {
        if self.explainer.count() < EXPLANATIONS_MAX {
            let key = self.prng.below(model.keys_count().into());
            let key = u32::try_from(key).expect("it is below a u32");
            let owner = usize::from(model.owners[key as usize]);
            let name = Key::new(model.key(key)).expect("keys have bytes");
            self.explainer.ask(owner, key, host.now());
            let explanation = Box::new(Explanation::of(name));
            self.ports[owner].deliver(host, Delivery::Explain(explanation));
        }
    }

    fn forget(&mut self, host: &mut Host, model: &Model, key: KeyNumber, version: Version) {
        host.trace.note(
            host.now(),
            Who::Origin,
            "tells of (key, version)",
            [key.into(), version as u64],
        );
        let port = &mut self.ports[usize::from(model.owners[key as usize])];
        let name = Key::new(model.key(key)).expect("keys have bytes");
        port.forgets.push_back((key, version));
        port.deliver(host, Delivery::Forget(Box::new(name)));
    }

    /// A shard has dropped a key: nobody who asks may be given what was there before.
    fn forgotten(&mut self, host: &mut Host, model: &mut Model, port: usize, key: &Key) {
        let key = model.find(key.as_bytes()).expect("it was told of");
        let forgets = &mut self.ports[port].forgets;
        let place = forgets.iter().position(|(told, _)| *told == key);
        let place = place.expect("a key is dropped as often as it is told of");
        let (_, version) = forgets.remove(place).expect("it is there");
        void(&mut self.unsure, |fetch| fetch.key == key);
        let count = void(&mut self.fetches, |fetch| fetch.key == key);
        host.marks.hit_if(count > 0, Mark::ForgottenInFlight);
        model.forget_before(key, version, host.now());
    }

    /// What the shards have taken of the answers to writes has made fetches void that were begun
    /// before.
    fn settle_told(&mut self) {
        for (index, port) in self.ports.iter_mut().enumerate() {
            let taken = port.delivered - (port.room - port.port.room());
            while let Some(told) = port.told.pop_front_if(|told| told.delivered <= taken) {
                let is_of = |fetch: &&mut Fetch| fetch.key == told.key && fetch.port == index;
                let fetches = self.fetches.iter_mut().chain(&mut self.unsure);
                for fetch in fetches.filter(is_of) {
                    if fetch.number < told.fetches_count {
                        fetch.validity = Validity::Void;
                    } else if fetch.validity == Validity::Valid {
                        fetch.validity = Validity::Doubtful;
                    }
                }
            }
        }
    }

    /// Whether a purge is not in force everywhere yet.
    #[must_use]
    pub const fn is_purging(&self) -> bool {
        self.purging.is_some()
    }

    /// Begins to purge a key, some keys or all, unless a purge is under way.
    pub fn purge(&mut self, host: &mut Host, model: &Model) {
        if self.purging.is_some() {
            return;
        }
        let key = self.prng.below(model.keys_count().into());
        let name = model.key(u32::try_from(key).expect("it is below a u32"));
        let some = |size: usize| Key::new(&name[..size.min(name.len())]).expect("keys have bytes");
        let named = match self.prng.below(8) {
            0 => Named::Everything,
            1 => Named::Group(some(3)),
            2 | 3 => Named::Prefix(some(5)),
            _ => Named::Key(some(usize::MAX)),
        };
        let force = self.prng.pick(&[Force::Hard, Force::Soft]);
        let is_named = |key: &KeyNumber| names(&named, model.key(*key));
        let keys = (0..model.keys_count()).filter(is_named);
        let keys: Vec<_> = keys.map(|key| (key, model.newest(key))).collect();
        self.begin_purge(host, named, force, keys);
    }

    fn begin_purge(
        &mut self,
        host: &mut Host,
        named: Named,
        force: Force,
        keys: Vec<(KeyNumber, Version)>,
    ) {
        let order = PurgeOrder { named, force, outcome: Purged::Done };
        host.trace.note(host.now(), Who::Origin, "purges (keys)", [keys.len() as u64, 0]);
        for port in &mut self.ports {
            port.deliver(host, Delivery::Purge(Box::new(order.clone())));
        }
        self.purging = Some(Purging { order, waiting: self.ports.len(), keys });
    }

    /// A shard has purged. When all have, nobody who asks may be given what was there before.
    fn purged(&mut self, host: &mut Host, model: &mut Model, port: usize, order: &PurgeOrder) {
        let purging = self.purging.as_mut().expect("a purge comes back once from each shard");
        let is_named = |key| purging.keys.iter().any(|(named, _)| *named == key);
        if order.outcome == Purged::Refused {
            purging.order.outcome = Purged::Refused;
        } else {
            let is_of = |fetch: &Fetch| fetch.port == port && is_named(fetch.key);
            void(&mut self.unsure, is_of);
            let count = void(&mut self.fetches, is_of);
            host.marks.hit_if(count > 0, Mark::PurgedInFlight);
        }
        purging.waiting -= 1;
        if purging.waiting > 0 {
            return;
        }
        host.trace.note(host.now(), Who::Origin, "has purged", [0, 0]);
        let purging = self.purging.take().expect("it is under way");
        if (purging.order.outcome, purging.order.force) == (Purged::Done, Force::Hard) {
            for (key, version) in purging.keys {
                model.forget_before(key, version, host.now());
            }
        }
    }

    fn outcome(&mut self, host: &mut Host, model: &Model, fetch: &Fetch) -> Outcome {
        let key = fetch.key;
        let note = |host: &mut Host, what| {
            host.trace.note(host.now(), Who::Origin, what, [key.into(), fetch.version as u64]);
        };
        if self.is_down(host) {
            note(host, "is down (key)");
            host.marks.hit(Mark::OriginDown);
            return Outcome::Failed(FetchFailure::Unavailable);
        }
        if self.prng.chance(self.faults.failure) {
            note(host, "fails (key)");
            host.marks.hit(Mark::OriginFailed);
            let failures = [FetchFailure::Unavailable, FetchFailure::Timeout];
            return Outcome::Failed(self.prng.pick(&failures));
        }
        match model.at(key, fetch.version) {
            Content::Absent => {
                note(host, "does not have (key)");
                Outcome::Absent
            }
            Content::Failing => {
                note(host, "always fails (key)");
                Outcome::Failed(FetchFailure::Unavailable)
            }
            // The plane compares sizes, and so does the cache.
            Content::TooLarge if self.prng.coin() => {
                note(host, "has too much (key)");
                Outcome::Failed(FetchFailure::TooLarge)
            }
            Content::TooLarge => self.oversized(host, key),
            Content::Value(_) if self.prng.chance(self.faults.oversized) => {
                self.oversized(host, key)
            }
            Content::Value(_) if self.is_unchanged(model, fetch) => {
                note(host, "is unchanged (key, version)");
                let (etag, lifetime) = (fetch.known.expect("asked for"), self.lifetime(host));
                let none = Some(Duration::ZERO);
                let never = Stale { while_revalidate: none, if_error: none };
                let stale = self.prng.pick(&[Stale::default(), Stale::default(), never]);
                Outcome::Unchanged(Unchanged { etag, lifetime, stale })
            }
            Content::Value(edition) => {
                note(host, "lands (key, version)");
                host.marks.hit_if(fetch.version < model.newest(key), Mark::OldNewsLanded);
                let content_type = content_type(model, key, edition);
                self.found(host, content_type, model.value(key, edition))
            }
        }
    }

    /// Whether it says of the value that the shard has that it is still the one.
    fn is_unchanged(&mut self, model: &Model, fetch: &Fetch) -> bool {
        let tag = model.tag(fetch.key, model.at(fetch.key, fetch.version));
        let is_it = fetch.known.is_some_and(|known| tag == Some(known.bits()));
        is_it && self.prng.chance(self.faults.unchanged)
    }

    /// Whether the origin is down. Now and then it goes down for a while.
    fn is_down(&mut self, host: &Host) -> bool {
        if self.faults == OriginFaults::NONE {
            return false;
        }
        if self.prng.chance(self.faults.outage) {
            let outage_ns = self.prng.range(1, OUTAGE_NS_MAX);
            self.down_until = host.now() + Duration::from_nanos(outage_ns);
        }
        host.now() < self.down_until
    }

    fn oversized(&mut self, host: &mut Host, key: KeyNumber) -> Outcome {
        let excess = self.prng.pick(&[1, self.value_size_max]);
        host.trace.note(host.now(), Who::Origin, "lands too much (key)", [key.into(), 0]);
        host.marks.hit(Mark::OversizedLanded);
        let value = vec![b'!'; self.value_size_max + excess];
        self.found(host, ContentType::JSON, value.into_boxed_slice())
    }

    fn lifetime(&mut self, host: &mut Host) -> Lifetime {
        let short_lived = self.prng.chance(self.faults.short_lived);
        host.marks.hit_if(short_lived, Mark::ShortLivedLanded);
        match short_lived {
            true => Lifetime::For(Duration::from_millis(self.prng.range(0, self.ttl_ms.into()))),
            false => self.lifetime,
        }
    }

    fn found(&mut self, host: &mut Host, content_type: ContentType, value: Box<[u8]>) -> Outcome {
        let lifetime = self.lifetime(host);
        self.values_out += 1;
        Outcome::Found(Found {
            etag: Etag::of(content_type.as_str(), &value),
            content_type,
            lifetime,
            stale: Stale::default(),
            held: Held::default(),
            value,
        })
    }
}

impl Port {
    /// The plane's end of the queues to a shard that watches `eventfd`.
    #[must_use]
    pub fn new(mut port: OriginPort, sleep: Sleep, eventfd: Fd) -> Self {
        let room = port.room();
        let (told, forgets) = (VecDeque::new(), VecDeque::new());
        Self { port, sleep, eventfd, told, forgets, delivered: 0, room }
    }

    /// As `flush` does it, but for the eventfd, which is a simulated one.
    fn deliver(&mut self, host: &mut Host, delivery: Delivery) {
        self.port.deliver(delivery);
        self.delivered += 1;
        if self.sleep.must_wake() {
            host.net.signal(self.eventfd);
        }
    }
}

/// Another fetch of the same key may be under way. Returns how many there are.
fn void(fetches: &mut [Fetch], is_it: impl Fn(&Fetch) -> bool) -> usize {
    let those = fetches.iter_mut().filter(|fetch| is_it(fetch));
    those.map(|fetch| fetch.validity = Validity::Void).count()
}

/// The content type of a value, which says whether somebody has found JSON in it.
fn content_type(model: &Model, key: KeyNumber, edition: Edition) -> ContentType {
    let name = model.content_type(key, edition);
    let content_type = ContentType::new(name).expect("the model's are short");
    if model.is_json(key, edition) { content_type.checked_json() } else { content_type }
}

/// Whether a purge names a key.
fn names(named: &Named, key: &[u8]) -> bool {
    match named {
        Named::Key(named) => named.as_bytes() == key,
        Named::Prefix(prefix) => key.starts_with(prefix.as_bytes()),
        Named::Group(group) => key.split(|byte| *byte == b':').next() == Some(group.as_bytes()),
        Named::Everything => true,
    }
}

/// No outage is longer.
const OUTAGE_NS_MAX: u64 = 200_000_000;
