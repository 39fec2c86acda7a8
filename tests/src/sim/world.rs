//! The world of one seed: who is in it, and who acts next.

#![expect(clippy::disallowed_types, reason = "rings and world share the host, in one thread")]

use super::client::{Client, Ending, PATIENCE};
use super::cluster::{Cluster, Place};
use super::faults::{Faults, OriginFaults};
use super::host::{Host, Others};
use super::keeper::{Keeper, Terms};
use super::marks::{Mark, Marks};
use super::net::Net;
use super::oracle;
use super::origin::Origin;
use super::swarm::Options;
use super::trace::Who;
use crate::model::{Ages, Model};
use crate::prng::Prng;
use pelton::mesh::{Control, Lifetime, Owners, Shortage};
use pelton::metrics::Counters;
use pelton::shard::{Flow, Level, PAUSE_MAX};
use shard_cache::hash::KeyHasher;
use shard_cache::time::Instant;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Everything must be at rest this many ticks after the storm. Where a few tiny buffers are held by
/// heads that cannot be joined, only timeouts of 30 s free them, for some clients after the other,
/// and a shard that waits for that turns every millisecond.
const REST_TICKS_MAX: u64 = 2_000_000;

/// Acts of others while a shard is stalled: each takes at least this long, or else as many are too
/// many.
const STALL_TICK_NS: u64 = 1_000_000;

/// Acts of others while a shard is stalled, at least.
const STALL_TICKS_MIN: u64 = 200;

/// Clients of the exam, one after the other.
const EXAMINERS: u32 = 6;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Hash of everything that happened.
    pub hash: u64,
    /// Acts.
    pub ticks: u64,
    /// Replies that clients read to their end.
    pub replies_count: u64,
    /// Rare paths walked.
    pub marks: Marks,
    /// What the shards counted, added up.
    pub counters: Counters,
}

/// Who may act next.
#[derive(Clone, Copy, Debug)]
enum Actor {
    Shard(usize),
    Client(usize),
    Origin,
    Keeper,
}

/// The world. Whoever acts borrows its own part of it: in the middle of a shard's turn others may
/// act.
#[derive(Debug)]
pub struct World {
    pub(super) options: Options,
    pub(super) host: Rc<RefCell<Host>>,
    pub(super) places: Vec<Place>,
    pub(super) cast: RefCell<Cast>,
    control: Control,
    ticks: Cell<u64>,
}

/// Everyone but the shards.
#[derive(Debug)]
pub(super) struct Cast {
    prng: Prng,
    pub(super) origin: Origin,
    pub(super) keeper: Option<Keeper>,
    pub(super) model: Model,
    pub(super) clients: Vec<Client>,
    clients_begun: u32,
    pub(super) cut_offs: u64,
    /// Those of them that a refusal may be the reason of.
    pub(super) cut_offs_refused: u64,
    replies_count: u64,
    /// Those who may act now; kept for its memory.
    plans: Vec<Actor>,
}

impl World {
    /// The world of a seed, before anything happens.
    #[must_use]
    pub fn new(seed: u64) -> Rc<Self> {
        let mut prng = Prng::new(seed);
        let options = Options::draw(&mut prng);
        let net = Net::new(prng.fork(), options.descriptors_max, options.backlog_max);
        let host = Host::new(prng.fork(), options.faults, net, options.shards_count);
        let host = Rc::new(RefCell::new(host));
        let cluster = Cluster::build(&options.limits, &options.settings, &host);
        let Cluster { places, ports, desks, plane_sleep, plane_eventfd, control } = cluster;
        let lifetime = match options.ages {
            Ages::Never => Lifetime::Unlimited,
            Ages::Within(_) => Lifetime::Default,
        };
        let fork = prng.fork();
        let origin = Origin::new(fork, ports, plane_sleep, plane_eventfd, lifetime, &options);
        let fork = prng.fork();
        let keeper = options.snapshots.then(|| {
            let terms = Terms {
                page_size: options.limits.snapshot_page_size as usize,
                hash_key: options.settings.hash_key,
                owner_hash: options.settings.owner_hash,
                disk_failure: options.disk_failure,
            };
            Keeper::new(fork, desks, control.clone(), terms)
        });
        let size_max = options.limits.value_size_max as usize;
        let (keys, share) = (options.keys_count, options.large_share);
        let mut model = Model::new(prng.word(), keys, size_max, share, options.ages);
        model.is_strict = options.writes == 0 && !options.snapshots;
        model.owners = owners(&model, &options);
        let cast = Cast {
            prng,
            origin,
            keeper,
            model,
            clients: Vec::new(),
            clients_begun: 0,
            cut_offs: 0,
            cut_offs_refused: 0,
            replies_count: 0,
            plans: Vec::new(),
        };
        let (cast, ticks) = (RefCell::new(cast), Cell::new(0));
        let world = Rc::new(Self { options, host, places, cast, control, ticks });
        let others: Weak<Self> = Rc::downgrade(&world);
        world.host.borrow_mut().others = Some(others);
        world
    }

    /// Runs storm, calm, exam and drain.
    ///
    /// # Panics
    /// If an oracle finds something.
    pub fn run(&self, ticks: u64) -> Report {
        self.begin("storm");
        while self.ticks.get() < ticks * self.options.storm_factor {
            self.disturb();
            self.tick();
        }
        if !self.options.drain_early {
            self.begin("calm");
            self.heal();
            self.run_to_rest();
            oracle::check_rest(self);
            self.forget_failures();
            self.begin("exam");
            self.host.borrow_mut().faults = Faults::STALLS;
            for _ in 0..EXAMINERS {
                self.add_client(Client::examiner);
                self.run_to_rest();
                self.purge_promptly();
            }
            oracle::check_rest(self);
        }
        self.begin("drain");
        self.heal();
        self.drain();
        self.run_until("the shards have stopped", |world| {
            world.places.iter().all(|place| place.stopped.get())
        });
        oracle::check_end(self);
        self.report()
    }

    /// What a failed run looks like: the last lines of its trace, and what is still under way.
    #[must_use]
    pub fn describe(&self) -> String {
        let options = &self.options;
        format!("{}{options:?}\n{}", self.host.borrow().trace, oracle::describe(self))
    }

    fn report(&self) -> Report {
        let host = self.host.borrow();
        Report {
            hash: host.trace.hash(),
            ticks: self.ticks.get(),
            replies_count: self.cast.borrow().replies_count,
            marks: host.marks.clone(),
            counters: oracle::sum_counters(self),
        }
    }

    fn begin(&self, part: &'static str) {
        let host = &mut *self.host.borrow_mut();
        host.trace.note(host.now(), Who::World, part, [self.ticks.get(), 0]);
    }

    /// What happens in a storm besides the acts.
    fn disturb(&self) {
        let cast = &mut *self.cast.borrow_mut();
        let host = &mut *self.host.borrow_mut();
        let options = &self.options;
        let most = options.clients_max;
        // Those who are silent keep nobody away, up to a bound.
        let silent = cast.clients.iter().filter(|client| client.is_silent()).count().min(most);
        if cast.clients.len() < most + silent
            && (cast.clients.len() == silent || cast.prng.chance(options.client_begins))
        {
            let burst = cast.prng.chance(options.burst);
            host.marks.hit_if(burst && most > 1, Mark::ClientsInABurst);
            while cast.clients.len() < most + silent {
                let manner = cast.prng.pick(&options.manners);
                cast.add_client(host.now(), |number, prng, now| {
                    Client::new(number, prng, manner, options, now)
                });
                if !burst {
                    break;
                }
            }
        }
        if cast.prng.chance(options.value_replaced) {
            let key = cast.prng.below(options.keys_count.into());
            let key = u32::try_from(key).expect("it is below a u32");
            cast.model.replace(key, host.now());
        }
        if cast.prng.chance(options.purged) {
            cast.origin.purge(host, &cast.model);
        }
        if cast.prng.chance(options.told) {
            cast.origin.tell(host, &cast.model);
        }
        if cast.prng.chance(options.explained) {
            cast.origin.explain(host, &cast.model);
        }
        // Where misses may be refused anyway.
        let settings = &options.settings;
        if settings.lag_target < Duration::from_secs(1) && settings.hash_key[1].is_multiple_of(8) {
            self.control.set_shortage(match host.now().ns() / 100_000_000 % 32 {
                3 => Shortage::Cpu,
                9 => Shortage::Memory,
                _ => Shortage::Nothing,
            });
        }
    }

    fn add_client(&self, make: impl FnOnce(u32, Prng, &Options, Instant) -> Client) {
        let now = self.host.borrow().now();
        let make = |number, prng, now| make(number, prng, &self.options, now);
        self.cast.borrow_mut().add_client(now, make);
    }

    /// The faults stop.
    fn heal(&self) {
        let host = &mut *self.host.borrow_mut();
        let cast = &mut *self.cast.borrow_mut();
        host.faults = Faults::NONE;
        self.control.set_shortage(Shortage::Nothing);
        cast.origin.faults = OriginFaults::NONE;
        cast.keeper.iter().for_each(Keeper::rest);
        for index in (0..cast.clients.len()).rev() {
            cast.clients[index].let_go(host);
            cast.bury(index);
        }
    }

    fn drain(&self) {
        self.control.drain();
        let host = &mut *self.host.borrow_mut();
        for place in &self.places {
            host.net.signal(place.wake);
        }
    }

    /// Purges, unless there are snapshots. It is in force at once when nothing is slow: a shard
    /// that sleeps although it is to drop its copies is found here.
    fn purge_promptly(&self) {
        if self.options.snapshots {
            return;
        }
        let begun = self.host.borrow().now();
        {
            let Cast { origin, model, .. } = &mut *self.cast.borrow_mut();
            origin.purge(&mut self.host.borrow_mut(), model);
        }
        self.run_until("a purge is in force", |world| !world.cast.borrow().origin.is_purging());
        let is_late = begun + PATIENCE < self.host.borrow().now();
        assert!(!is_late, "a purge took too long");
    }

    /// Lets the time pass for which a key is left alone at most whose fetch has failed.
    fn forget_failures(&self) {
        let host = &mut *self.host.borrow_mut();
        let later = host.now() + PAUSE_MAX;
        host.advance(later);
    }

    fn run_to_rest(&self) {
        self.run_until("everything is at rest", |world| {
            world.cast.borrow().clients.is_empty() && oracle::is_at_rest(world)
        });
    }

    fn run_until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let last = self.ticks.get() + REST_TICKS_MAX;
        while !done(self) {
            if self.ticks.get() >= last {
                panic!("not in {REST_TICKS_MAX} ticks: {what}");
            }
            self.tick();
        }
    }

    // Acts.

    /// One act of somebody who has something to do.
    fn tick(&self) {
        self.ticks.set(self.ticks.get() + 1);
        if let Some(actor) = self.choose(Instant::from_ns(u64::MAX)) {
            self.act(actor);
        }
    }

    /// Lets time go on until somebody has something to do, and picks one of them; nobody, if that
    /// is after `until`.
    fn choose(&self, until: Instant) -> Option<Actor> {
        let host = &mut *self.host.borrow_mut();
        let Cast { prng, origin, keeper, clients, plans, .. } = &mut *self.cast.borrow_mut();
        plans.clear();
        let (now, mut first) = (host.now(), until);
        let mut plan = |at: Instant, actor: Actor| {
            let at = at.max(now);
            if at < first {
                first = at;
                plans.clear();
            }
            if at == first {
                plans.push(actor);
            }
        };
        for (index, place) in self.places.iter().enumerate() {
            if !place.stopped.get() && !place.in_turn.get() {
                plan(place.shard.borrow().ring().next_turn(host), Actor::Shard(index));
            }
        }
        for (index, client) in clients.iter().enumerate() {
            plan(client.acts_at, Actor::Client(index));
        }
        if let Some(at) = origin.acts_at(host) {
            plan(at, Actor::Origin);
        }
        if let Some(at) = keeper.as_ref().and_then(Keeper::acts_at) {
            plan(at, Actor::Keeper);
        }
        if plans.is_empty() {
            return None;
        }
        host.advance(first);
        Some(plans[prng.index(plans.len())])
    }

    fn act(&self, actor: Actor) {
        match actor {
            Actor::Shard(index) => self.turn(&self.places[index]),
            Actor::Client(index) => {
                let cast = &mut *self.cast.borrow_mut();
                cast.clients[index].act(&mut self.host.borrow_mut(), &mut cast.model);
                cast.bury(index);
            }
            Actor::Origin => {
                let Cast { origin, model, .. } = &mut *self.cast.borrow_mut();
                origin.act(&mut self.host.borrow_mut(), model);
            }
            Actor::Keeper => {
                let keeper = &mut self.cast.borrow_mut().keeper;
                let keeper = keeper.as_mut().expect("it has acted before");
                keeper.act(&mut self.host.borrow_mut());
            }
        }
        self.cast.borrow_mut().touch(&mut self.host.borrow_mut());
    }

    fn turn(&self, place: &Place) {
        let shard = &mut *place.shard.borrow_mut();
        place.in_turn.set(true);
        let level = shard.level();
        let flow = shard.turn();
        place.in_turn.set(false);
        place.stopped.set(flow == Flow::Stopped);
        shard.ring().keep_asleep();
        oracle::check_turn(shard);
        let census = shard.census();
        let host = &mut *self.host.borrow_mut();
        let is_outside = census.accepts_paused && host.net.connections_waiting() > 0;
        let marks = &mut host.marks;
        marks.hit_if(is_outside, Mark::AcceptAwaited);
        marks.hit_if(census.is_upload_wanted, Mark::UploadAwaited);
        let to = shard.level();
        let is_up = to > level;
        match to {
            _ if to == level => {}
            Level::Normal => marks.hit(Mark::LevelDownToNormal),
            Level::Elevated if is_up => marks.hit(Mark::LevelElevated),
            Level::Elevated => marks.hit(Mark::LevelDownToElevated),
            Level::Brownout if is_up => marks.hit(Mark::LevelBrownout),
            Level::Brownout => marks.hit(Mark::LevelDownToBrownout),
            Level::Shed if is_up => marks.hit(Mark::LevelShed),
            Level::Shed => marks.hit(Mark::LevelDownToShed),
            Level::Emergency => marks.hit(Mark::LevelEmergency),
        }
    }
}

/// Which shard each key belongs to.
fn owners(model: &Model, options: &Options) -> Vec<u16> {
    let hasher = KeyHasher::new(options.settings.hash_key);
    let owners = Owners::new(options.settings.owner_hash, options.shards_count);
    let keys = (0..model.keys_count()).map(|key| model.key(key));
    keys.map(|key| owners.of(hasher.hash(key), key)).collect()
}

impl Others for World {
    fn go_on(&self, until: Instant) {
        let stall_ns = until.ns_since(self.host.borrow().now());
        for _ in 0..STALL_TICKS_MIN.max(stall_ns / STALL_TICK_NS) {
            let Some(actor) = self.choose(until) else { break };
            self.act(actor);
        }
        self.host.borrow_mut().advance(until);
    }
}

impl Cast {
    fn add_client(&mut self, now: Instant, make: impl FnOnce(u32, Prng, Instant) -> Client) {
        let client = make(self.clients_begun, self.prng.fork(), now);
        self.clients_begun += 1;
        self.clients.push(client);
    }

    /// Tells clients that something happened at their sockets.
    fn touch(&mut self, host: &mut Host) {
        while let Some(socket) = host.net.next_touched() {
            let at = host.soon();
            if let Some(client) = self.clients.iter_mut().find(|c| c.socket() == Some(socket)) {
                client.touch(at);
            }
        }
    }

    /// Removes a client that is done.
    fn bury(&mut self, index: usize) {
        let Some(ending) = self.clients[index].ending() else { return };
        let client = self.clients.swap_remove(index);
        self.replies_count += u64::from(client.replies_count());
        if let Ending::CutOff { is_refused } = ending {
            self.cut_offs += 1;
            self.cut_offs_refused += u64::from(is_refused);
        }
    }
}
