//! The simulated world as a stage: real shards, simulated sockets and time, an obedient origin.

#![expect(clippy::disallowed_types, reason = "rings and stage share the host, in one thread")]

use super::stage::{Received, Source, Stage};
use super::writes::{self, TOKEN};
use super::{Pieces, Script};
use crate::prng::Prng;
use crate::sim::cluster::Cluster;
use crate::sim::faults::Faults;
use crate::sim::host::Host;
use crate::sim::net::{Net, Read, SocketId};
use pelton::config::Config;
use pelton::error::FetchFailure;
use pelton::limits::{Grant, Limits};
use pelton::mesh::{
    ContentType, Control, Delivery, FlightId, Found, Held, Landing, Lifetime, Order, Outcome,
    Stale, StoragePort, Unchanged, Upload,
};
use pelton::metrics::{Class, TABLE};
use pelton::shard::{Flow, Settings};
use pelton::token::Token;
use shard_cache::hash::Etag;
use shard_cache::time::Instant;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How long an expectation waits, in simulated time.
const PATIENCE: Duration = Duration::from_secs(3);

/// Acts for one expectation.
const ACTS_MAX: u32 = 1_000_000;

/// Bytes that may be on their way in each direction.
const WINDOW: usize = 1 << 20;

/// A world for one script.
#[derive(Debug)]
pub struct SimulatorStage {
    prng: Prng,
    pub(super) host: Rc<RefCell<Host>>,
    pub(super) cluster: Cluster,
    page_size: usize,
    pub(super) settings: Settings,
    pub(super) sockets: Vec<SocketId>,
    pieces: Pieces,
    pub(super) sources: BTreeMap<Vec<u8>, Source>,
    held: bool,
    /// Fetches under way, oldest first.
    pub(super) fetches: Vec<Fetch>,
    /// Writes under way, with their owners.
    writes: Vec<(usize, Box<Upload>)>,
    /// Changes and purges that shards were told of, and have not done yet.
    pub(super) told: usize,
}

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Fetch {
    shard: usize,
    flight: FlightId,
    pub(super) key: Vec<u8>,
    /// What the cache has.
    known: Option<Etag>,
    /// What the origin had when it was read, if that was before the fetch lands.
    pub(super) read: Option<Source>,
}

impl SimulatorStage {
    /// A world with the script's settings. Seed 0 has no faults; others have those that leave the
    /// server's contract whole.
    ///
    /// # Panics
    /// If the settings are wrong.
    #[must_use]
    pub fn new(script: &Script, seed: u64, pieces: Pieces) -> Self {
        Self::of_config((&script.file, &script.config), seed, pieces, 2, |_| {})
    }

    /// The same for a configuration file and settings as `section.key=value`, so many shards, and
    /// other limits, of which the settings know nothing.
    ///
    /// # Panics
    /// If the settings are wrong.
    #[must_use]
    pub fn of_config(
        (file, sets): (&str, &[String]),
        seed: u64,
        pieces: Pieces,
        shards: u16,
        change: impl FnOnce(&mut Limits),
    ) -> Self {
        let hash_key = format!("cache.hash_key=\"{seed:032x}\"");
        let own = ["cache.memory=16MiB", "cache.ttl_jitter=0%", &hash_key].map(str::to_owned);
        let config = Config::parse("simulated", file, &[&own, sets].concat());
        let config = config.unwrap_or_else(|error| panic!("{}", error.render(false)));
        let grant = Grant { shards, descriptors_max: 1024, memory_size: 4 << 30 };
        let limits = Limits::new(&config, &grant).expect("there is room");
        let mut limits = Limits {
            // Few enough that a world is quick to build; no script comes near them.
            input_buffers_count: 64,
            input_held_max: 48,
            ..limits
        };
        change(&mut limits);
        let mut prng = Prng::new(seed);
        let faults = match seed {
            0 => Faults::NONE,
            _ => {
                Faults { accept_failure: 0, wall_step: 0, stall: 0, ..Faults::draw(&mut prng, 500) }
            }
        };
        let net = Net::new(prng.fork(), 1024, 64);
        let host = Rc::new(RefCell::new(Host::new(prng.fork(), faults, net, limits.shards)));
        let settings = Settings::new(&config, Token::new(TOKEN).ok());
        let cluster = Cluster::build(&limits, &settings, &host);
        Self {
            prng,
            host,
            cluster,
            page_size: limits.snapshot_page_size as usize,
            settings,
            sockets: Vec::new(),
            pieces,
            sources: BTreeMap::new(),
            held: false,
            fetches: Vec::new(),
            writes: Vec::new(),
            told: 0,
        }
    }

    /// One act of whoever is next; false if nobody is before `until`, which is now then.
    pub(super) fn act(&mut self, until: Instant) -> bool {
        let next = {
            let host = &*self.host.borrow();
            let places = self.cluster.places.iter().enumerate();
            let running = places.filter(|(_, place)| !place.stopped.get());
            running.map(|(index, place)| (place.shard.borrow().ring().next_turn(host), index)).min()
        };
        let Some((at, _)) = next.filter(|(at, _)| *at <= until) else {
            self.host.borrow_mut().advance(until);
            return false;
        };
        self.host.borrow_mut().advance(at);
        let ready: Vec<usize> = {
            let host = &*self.host.borrow();
            let places = self.cluster.places.iter().enumerate();
            let due = places
                .filter(|(_, p)| !p.stopped.get() && p.shard.borrow().ring().next_turn(host) <= at);
            due.map(|(index, _)| index).collect()
        };
        let shard = self.prng.pick(&ready);
        self.turn(shard);
        true
    }

    /// A turn of one shard.
    pub(super) fn turn(&mut self, shard: usize) {
        let place = &self.cluster.places[shard];
        {
            let shard = &mut *place.shard.borrow_mut();
            place.stopped.set(shard.turn() == Flow::Stopped);
            shard.ring().keep_asleep();
            shard.check();
        }
        self.serve_origin();
    }

    /// Takes orders, and answers them unless they are held.
    fn serve_origin(&mut self) {
        let _was_written = self.host.borrow_mut().net.take_written(self.cluster.plane_eventfd);
        for (index, port) in self.cluster.ports.iter_mut().enumerate() {
            while let Some(order) = port.port.next_order() {
                match order {
                    Order::Fetch { flight, key, known } => {
                        let key = key.as_bytes().to_vec();
                        self.fetches.push(Fetch { shard: index, flight, key, known, read: None });
                    }
                    Order::Write(upload) => self.writes.push((index, upload)),
                    Order::Purged(_) | Order::Forgotten(_) => self.told -= 1,
                    Order::Spent(_) | Order::Explained(_) => {}
                }
            }
        }
        self.cluster.plane_sleep.prepare();
        if self.held {
            return;
        }
        let sources = &mut self.sources;
        let writes = self.writes.drain(..).map(|(index, mut upload)| {
            upload.outcome = writes::write(sources, &upload);
            (index, Delivery::Written(upload))
        });
        let writes: Vec<_> = writes.collect();
        writes.into_iter().for_each(|(index, delivery)| self.deliver(index, delivery));
        std::mem::take(&mut self.fetches).into_iter().for_each(|fetch| self.land(fetch));
    }

    /// Answers a fetch.
    pub(super) fn land(&mut self, fetch: Fetch) {
        let Fetch { shard, flight, key, known, read } = fetch;
        let now = || self.sources.get(&key).unwrap_or(&Source::Absent);
        let outcome = outcome(read.as_ref().unwrap_or_else(now), known);
        self.deliver(shard, Delivery::Landing(Landing { flight, outcome }));
    }

    /// Sends something to a shard.
    pub(super) fn deliver(&mut self, shard: usize, delivery: Delivery) {
        let port = &mut self.cluster.ports[shard];
        port.port.deliver(delivery);
        if port.sleep.must_wake() {
            self.host.borrow_mut().net.signal(port.eventfd);
        }
    }

    /// A connection to the listener of this shard, whose client reads `window` bytes ahead.
    pub(super) fn connect_to(&mut self, shard: usize, window: usize) -> usize {
        let socket = self.host.borrow_mut().net.connect(shard, [WINDOW, window]);
        self.sockets.push(socket.expect("there are few clients"));
        self.sockets.len() - 1
    }

    /// The storage plane's ends of the queues to all shards, what the main thread says to them,
    /// the bytes of a page, and the settings of the shards.
    pub fn storage(&mut self) -> (Vec<StoragePort>, Control, usize, Settings) {
        let desks = std::mem::take(&mut self.cluster.desks);
        let ports = desks.into_iter().map(|desk| desk.port).collect();
        (ports, self.cluster.control.clone(), self.page_size, self.settings.clone())
    }

    /// Sets the clock of a world in which nothing has happened yet.
    pub fn begin_at(&mut self, now: Instant) {
        self.host.borrow_mut().advance(now);
    }

    /// Time on the simulated clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.host.borrow().now()
    }

    fn sum(&self, name: &str, label: &str) -> u64 {
        let mut total = 0;
        let mut known = false;
        for (index, row) in TABLE.iter().enumerate() {
            let suffix = if matches!(row.class, Class::Counter) { "_total" } else { "" };
            if name.strip_suffix(suffix) == Some(row.name) && row.label.contains(label) {
                known = true;
                let values =
                    self.cluster.places.iter().map(|p| p.shard.borrow().counters().values()[index]);
                total += values.sum::<u64>();
            }
        }
        assert!(known, "there is no metric {name} with {label}");
        total
    }
}

fn outcome(source: &Source, known: Option<Etag>) -> Outcome {
    let etag = |value: &[u8]| Etag::of(ContentType::JSON.as_str(), value);
    let (lifetime, stale) = (Lifetime::Default, Stale::default());
    match source {
        Source::Keeps(value) if known == Some(etag(value)) => {
            Outcome::Unchanged(Unchanged { etag: etag(value), lifetime, stale })
        }
        Source::Has(value) | Source::Keeps(value) => Outcome::Found(Found {
            etag: etag(value),
            content_type: writes::content_type(ContentType::JSON, value),
            lifetime,
            stale,
            held: Held::default(),
            value: value.clone().into_boxed_slice(),
        }),
        Source::Absent => Outcome::Absent,
        Source::Failing => Outcome::Failed(FetchFailure::Unavailable),
        Source::Late => Outcome::Failed(FetchFailure::Timeout),
    }
}

impl Stage for SimulatorStage {
    fn connect(&mut self) -> usize {
        let listener = self.prng.index(self.host.borrow().net.listeners_count());
        self.connect_to(listener, WINDOW)
    }

    fn write(&mut self, client: usize, bytes: &[u8]) {
        let socket = self.sockets[client];
        for piece in bytes.chunks(self.pieces.0) {
            let mut rest = piece;
            while !rest.is_empty() {
                let written = self.host.borrow_mut().net.write(socket, rest);
                rest = &rest[written..];
                // Whether the server looks between two pieces is up to the seed.
                for _ in 0..self.prng.below(4) + u64::from(written == 0) {
                    let now = self.now();
                    self.act(now);
                }
            }
        }
    }

    fn read(&mut self, client: usize) -> Received {
        let until = self.now() + PATIENCE;
        let mut bytes = Vec::new();
        for _ in 0..ACTS_MAX {
            let read = self.host.borrow_mut().net.read(self.sockets[client], WINDOW, &mut bytes);
            match read {
                Read::Bytes(_) => return Received::Bytes(bytes),
                Read::End => return Received::End,
                Read::Reset => return Received::Reset,
                Read::Nothing if !self.act(until) => return Received::Nothing,
                Read::Nothing => {}
            }
        }
        panic!("nothing came to rest in {ACTS_MAX} acts");
    }

    fn finish(&mut self, client: usize) {
        self.host.borrow_mut().net.finish(self.sockets[client]);
    }

    fn source(&mut self, key: &str, source: &Source) {
        self.sources.insert(key.as_bytes().to_vec(), source.clone());
    }

    fn hold(&mut self, hold: bool) {
        self.held = hold;
        self.serve_origin();
    }

    fn advance(&mut self, ms: u64) {
        let until = self.now() + Duration::from_millis(ms);
        while self.act(until) {}
    }

    fn drain(&mut self) {
        self.cluster.control.drain();
        let host = &mut *self.host.borrow_mut();
        for place in &self.cluster.places {
            host.net.signal(place.wake);
        }
    }

    fn has_exited(&mut self) -> bool {
        let until = self.now() + 10 * PATIENCE;
        while self.act(until) {}
        self.cluster.places.iter().all(|place| place.stopped.get())
    }

    fn counter(&mut self, name: &str, label: &str, _expected: u64) -> u64 {
        self.sum(name, label)
    }
}
