//! The world of one seed: who is in it, and who acts next.

#![expect(clippy::disallowed_types, reason = "rings and world share the host, in one thread")]

use super::client::{Client, Ending};
use super::faults::{Faults, OriginFaults};
use super::host::Host;
use super::marks::Marks;
use super::net::Net;
use super::oracle;
use super::origin::{Origin, Port};
use super::ring::{SimRing, Sizes};
use super::swarm::Options;
use super::trace::Who;
use crate::model::{Ages, Model};
use crate::prng::Prng;
use pelton::mesh::{Control, Lifetime, OriginLink, Peers, Sleep, origin_link, peers};
use pelton::metrics::{Board, Counters};
use pelton::ring::Fd;
use pelton::shard::{Flow, HistogramPort, Setup, Shard};
use pelton::sys::{eventfd::EventFd, spsc};
use shard_cache::Layout;
use shard_cache::time::Instant;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Everything must be at rest this many ticks after the storm.
const REST_TICKS_MAX: u64 = 400_000;

/// Clients of the exam, one after the other.
const EXAMINERS: u32 = 8;

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

/// A shard and what the world knows of it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shard: Shard<SimRing>,
    pub(super) wake: Fd,
    pub(super) stopped: bool,
}

/// Who may act next.
#[derive(Clone, Copy, Debug)]
enum Actor {
    Shard(usize),
    Client(usize),
    Origin,
}

/// The world.
#[derive(Debug)]
pub struct World {
    pub(super) options: Options,
    prng: Prng,
    pub(super) host: Rc<RefCell<Host>>,
    pub(super) places: Vec<Place>,
    pub(super) origin: Origin,
    pub(super) model: Model,
    pub(super) clients: Vec<Client>,
    clients_begun: u32,
    pub(super) cut_offs: u64,
    replies_count: u64,
    control: Control,
    pub(super) ticks: u64,
}

impl World {
    /// The world of a seed, before anything happens.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let options = Options::draw(&mut prng);
        let shards = usize::from(options.shards_count);
        let mut net = Net::new(prng.fork(), options.descriptors_max, options.backlog_max);
        let listeners: Vec<Fd> = (0..shards).map(|_| net.listen()).collect();
        let wakes: Vec<Fd> = (0..shards).map(|_| net.eventfd()).collect();
        let plane_eventfd = net.eventfd();
        let host = Host::new(prng.fork(), options.faults, net, options.shards_count);
        let host = Rc::new(RefCell::new(host));

        let sleeps: Vec<Sleep> = (0..shards).map(|_| Sleep::new()).collect();
        let plane_sleep = Sleep::new();
        let real = Arc::new(EventFd::for_ring().expect("a process may open an eventfd"));
        let messages_max = options.limits.messages_per_peer_max as usize;
        let mut all_peers = peers(&sleeps, messages_max).into_iter();
        let control = Control::new();
        let (mut places, mut ports) = (Vec::new(), Vec::new());
        for (index, sleep) in sleeps.iter().enumerate() {
            let flights = options.limits.flights_max as usize;
            let (link, port) = origin_link(flights, sleep, &plane_sleep, &real);
            ports.push(Port { port, sleep: sleep.clone(), eventfd: wakes[index] });
            let links = Links {
                peers: all_peers.next().expect("one for each shard"),
                link,
                sleep: sleep.clone(),
                wake: wakes[index],
                plane: plane_eventfd,
                control: control.clone(),
            };
            let number = u16::try_from(index).expect("there are few shards");
            let ring =
                SimRing::new(Rc::clone(&host), number, sleep.clone(), Sizes::of(&options.limits));
            let shard = Shard::new(setup(&options, number, listeners[index], links), ring);
            places.push(Place { shard, wake: wakes[index], stopped: false });
        }
        let lifetime = match options.ages {
            Ages::Never => Lifetime::Unlimited,
            Ages::Within(_) => Lifetime::Default,
        };
        let faults = options.origin_faults;
        let origin = Origin::new(prng.fork(), ports, plane_sleep, plane_eventfd, lifetime, faults);
        let size_max = options.limits.big_parcel_size as usize;
        let (keys, share) = (options.keys_count, options.large_share);
        let model = Model::new(prng.word(), keys, size_max, share, options.ages);
        Self {
            options,
            prng,
            host,
            places,
            origin,
            model,
            clients: Vec::new(),
            clients_begun: 0,
            cut_offs: 0,
            replies_count: 0,
            control,
            ticks: 0,
        }
    }

    /// Runs storm, calm, exam and drain.
    ///
    /// # Panics
    /// If an oracle finds something.
    pub fn run(&mut self, ticks: u64) -> Report {
        self.begin("storm");
        for _ in 0..ticks {
            self.disturb();
            self.tick();
        }
        if !self.options.drain_early {
            self.begin("calm");
            self.heal();
            self.run_to_rest();
            oracle::check_rest(self);
            self.begin("exam");
            for _ in 0..EXAMINERS {
                self.add_client(Client::examiner);
                self.run_to_rest();
            }
            oracle::check_rest(self);
        }
        self.begin("drain");
        self.heal();
        self.drain();
        self.run_until("the shards have stopped", |world| {
            world.places.iter().all(|place| place.stopped)
        });
        oracle::check_end(self);
        self.report()
    }

    /// Acts so far.
    #[must_use]
    pub const fn ticks(&self) -> u64 {
        self.ticks
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
            ticks: self.ticks,
            replies_count: self.replies_count,
            marks: host.marks.clone(),
            counters: oracle::sum_counters(self),
        }
    }

    fn begin(&self, part: &'static str) {
        let host = &mut *self.host.borrow_mut();
        host.trace.note(host.now(), Who::World, part, [self.ticks, 0]);
    }

    /// What happens in a storm besides the acts.
    fn disturb(&mut self) {
        if self.clients.len() < self.options.clients_max
            && (self.clients.is_empty() || self.prng.chance(self.options.client_begins))
        {
            let manner = self.prng.pick(&self.options.manners);
            self.add_client(|number, prng, options, now| {
                Client::new(number, prng, manner, options, now)
            });
        }
        if self.prng.chance(self.options.value_replaced) {
            let key = self.prng.below(self.options.keys_count.into());
            let key = u32::try_from(key).expect("it is below a u32");
            self.model.replace(key, self.host.borrow().now());
        }
    }

    fn add_client(&mut self, make: impl FnOnce(u32, Prng, &Options, Instant) -> Client) {
        let now = self.host.borrow().now();
        let client = make(self.clients_begun, self.prng.fork(), &self.options, now);
        self.clients_begun += 1;
        self.clients.push(client);
    }

    /// The faults stop.
    fn heal(&mut self) {
        let host = &mut *self.host.borrow_mut();
        host.faults = Faults::NONE;
        self.origin.faults = OriginFaults::NONE;
        for client in &mut self.clients {
            client.let_go(host);
        }
    }

    fn drain(&mut self) {
        self.control.drain();
        let host = &mut *self.host.borrow_mut();
        for place in &self.places {
            host.net.signal(place.wake);
        }
    }

    fn run_to_rest(&mut self) {
        self.run_until("everything is at rest", |world| {
            world.clients.is_empty() && oracle::is_at_rest(world)
        });
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let last = self.ticks + REST_TICKS_MAX;
        while !done(self) {
            if self.ticks >= last {
                panic!("not in {REST_TICKS_MAX} ticks: {what}");
            }
            self.tick();
        }
    }

    // Acts.

    /// One act of somebody who has something to do.
    fn tick(&mut self) {
        self.ticks += 1;
        match self.choose() {
            Some(Actor::Shard(index)) => self.turn(index),
            Some(Actor::Client(index)) => {
                let host = &mut *self.host.borrow_mut();
                self.clients[index].act(host, &mut self.model);
            }
            Some(Actor::Origin) => {
                let host = &mut *self.host.borrow_mut();
                self.origin.act(host, &self.model);
            }
            None => {}
        }
        self.touch();
        self.bury();
    }

    /// Lets time go on until somebody has something to do, and picks one of them.
    fn choose(&mut self) -> Option<Actor> {
        let host = &mut *self.host.borrow_mut();
        let mut plans: Vec<(Instant, Actor)> = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            if !place.stopped {
                plans.push((place.shard.ring().next_turn(host), Actor::Shard(index)));
            }
        }
        let clients = self.clients.iter().enumerate();
        plans.extend(clients.map(|(index, client)| (client.acts_at, Actor::Client(index))));
        plans.extend(self.origin.acts_at(host).map(|at| (at, Actor::Origin)));
        let first = plans.iter().map(|(at, _)| *at).min()?;
        host.advance(first);
        let now = host.now();
        plans.retain(|(at, _)| *at <= now);
        Some(plans[self.prng.index(plans.len())].1)
    }

    fn turn(&mut self, index: usize) {
        let place = &mut self.places[index];
        let flow = place.shard.turn();
        if flow == Flow::Stopped {
            place.stopped = true;
        }
        place.shard.ring().keep_asleep();
        oracle::check_turn(self, index);
    }

    /// Tells clients that something happened at their sockets.
    fn touch(&mut self) {
        let host = &mut *self.host.borrow_mut();
        for socket in host.net.take_touched() {
            let at = host.soon();
            if let Some(client) = self.clients.iter_mut().find(|c| c.socket() == Some(socket)) {
                client.touch(at);
            }
        }
    }

    /// Removes clients that are done.
    fn bury(&mut self) {
        for client in self.clients.extract_if(.., |client| client.ending().is_some()) {
            self.replies_count += u64::from(client.replies_count());
            self.cut_offs += u64::from(client.ending() == Some(Ending::CutOff));
        }
    }
}

/// What connects a shard to the others.
struct Links {
    peers: Peers,
    link: OriginLink,
    sleep: Sleep,
    wake: Fd,
    plane: Fd,
    control: Control,
}

fn setup(options: &Options, index: u16, listener: Fd, links: Links) -> Setup {
    let limits = options.limits;
    let cache_size = usize::try_from(limits.cache_size).expect("it fits the address space");
    let layout = Layout::new(cache_size, limits.big_parcel_size)
        .expect("the simulated caches are large enough");
    let leak = |size: usize| -> &'static mut [u8] {
        let memory = vec![0; size + 64].leak();
        let skip = memory.as_ptr().align_offset(64);
        &mut memory[skip..][..size]
    };
    let memory = leak(layout.memory_bytes());
    let output = leak(limits.output_blocks_count as usize * limits.output_block_size as usize);
    let (filled, _) = spsc::queue(1);
    let (_, empties) = spsc::queue(1);
    Setup {
        index,
        limits,
        settings: options.settings.clone(),
        listeners: vec![listener],
        layout,
        memory,
        segments_ready: Arc::new(AtomicU32::new(u32::MAX)),
        output,
        peers: links.peers,
        link: links.link,
        sleep: links.sleep,
        wake_eventfd: links.wake,
        plane_eventfd: links.plane,
        control: links.control,
        board: Arc::new(Board::new()),
        histogram_port: HistogramPort { filled, empties },
    }
}
