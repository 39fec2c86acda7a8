//! The shards of a world, built as the server builds them, on simulated rings.

#![expect(clippy::disallowed_types, reason = "the rings of a world share a host, in one thread")]

use super::host::Host;
use super::keeper::Desk;
use super::origin::Port;
use super::ring::{SimRing, Sizes};
use pelton::limits::Limits;
use pelton::mesh::{
    Addresses, Control, Leases, Loads, OriginLink, Peers, Sleep, StorageLink, boxes, leases,
    origin_link, peers, storage_link,
};
use pelton::metrics::Board;
use pelton::ring::Fd;
use pelton::shard::{Settings, Setup, Shard, Slice};
use pelton::sys::eventfd::EventFd;
use shard_cache::Layout;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// A shard and what the world knows of it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shard: RefCell<Shard<SimRing>>,
    /// The eventfd that it watches.
    pub(crate) wake: Fd,
    /// It is in the middle of a turn, stalled, while others act.
    pub(crate) in_turn: Cell<bool>,
    pub(crate) stopped: Cell<bool>,
}

/// All shards of a world, and the plane's ends of what connects them to it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) places: Vec<Place>,
    pub(crate) ports: Vec<Port>,
    pub(crate) desks: Vec<Desk>,
    pub(crate) plane_sleep: Sleep,
    pub(crate) plane_eventfd: Fd,
    pub(crate) control: Control,
}

impl Cluster {
    /// Shards that share `host`, each with a listener of its own.
    pub(crate) fn build(limits: &Limits, settings: &Settings, host: &Rc<RefCell<Host>>) -> Self {
        let shards = usize::from(limits.shards);
        let net = &mut host.borrow_mut().net;
        let listeners: Vec<Fd> = (0..shards).map(|_| net.listen()).collect();
        let wakes: Vec<Fd> = (0..shards).map(|_| net.eventfd()).collect();
        let plane_eventfd = net.eventfd();

        let sleeps: Vec<Sleep> = (0..shards).map(|_| Sleep::new()).collect();
        let plane_sleep = Sleep::new();
        let real = Arc::new(EventFd::for_ring().expect("a process may open an eventfd"));
        let kept = limits.messages_kept() as usize;
        let all_peers = peers(&sleeps, limits.messages_per_peer_max as usize, kept);
        let mut all_peers = all_peers.into_iter();
        let loads = Loads::new(shards, limits.connections_max, net.backlog_max(), None);
        let mut all_leases = leases(limits.shards).into_iter();
        let control = Control::new();
        let (mut places, mut ports, mut desks) = (Vec::new(), Vec::new(), Vec::new());
        for (index, sleep) in sleeps.iter().enumerate() {
            let (flights_max, uploads_count) =
                (limits.flights_max as usize, limits.all_uploads_count());
            let (link, port) = origin_link(flights_max, uploads_count, sleep, &plane_sleep, &real);
            ports.push(Port::new(port, sleep.clone(), wakes[index]));
            let wake = EventFd::for_runtime().expect("a process may open an eventfd");
            let wake = Arc::new(wake);
            let (storage, port) = storage_link(sleep, &wake);
            desks.push(Desk { port, wakes: (wake, wakes[index]) });
            let links = Links {
                peers: all_peers.next().expect("one for each shard"),
                loads: loads.clone(),
                leases: all_leases.next().expect("one for each shard"),
                link,
                storage,
                sleep: sleep.clone(),
                wake: wakes[index],
                plane: plane_eventfd,
                control: control.clone(),
            };
            let number = u16::try_from(index).expect("there are few shards");
            let ring = SimRing::new(Rc::clone(host), number, sleep.clone(), Sizes::of(limits));
            let shard = Shard::new(setup(*limits, settings, number, listeners[index], links), ring);
            places.push(Place {
                shard: RefCell::new(shard),
                wake: wakes[index],
                in_turn: Cell::new(false),
                stopped: Cell::new(false),
            });
        }
        Self { places, ports, desks, plane_sleep, plane_eventfd, control }
    }
}

/// What connects a shard to the others.
struct Links {
    peers: Peers,
    loads: Loads,
    leases: Leases,
    link: OriginLink,
    storage: StorageLink,
    sleep: Sleep,
    wake: Fd,
    plane: Fd,
    control: Control,
}

fn setup(limits: Limits, settings: &Settings, index: u16, listener: Fd, links: Links) -> Setup {
    let layout = limits.cache_layout().expect("the simulated caches are large enough");
    let leak = |size: usize| -> &'static mut [u8] {
        let memory = vec![0; size + 64].leak();
        let skip = memory.as_ptr().align_offset(64);
        &mut memory[skip..][..size]
    };
    let slice = |layout: Layout| Slice {
        memory: leak(layout.memory_bytes()),
        segments_ready: Arc::new(AtomicU32::new(u32::MAX)),
        layout,
    };
    let output = leak(limits.output_blocks_count as usize * limits.output_block_size as usize);
    Setup {
        index,
        limits,
        settings: settings.clone(),
        listeners: vec![listener],
        own_listeners: Vec::new(),
        cache: slice(layout),
        replicas: limits.replicas_layout().map(slice),
        output,
        peers: links.peers,
        loads: links.loads,
        addresses: Addresses::new(0),
        leases: links.leases,
        link: links.link,
        storage: links.storage,
        sleep: links.sleep,
        wake_eventfd: links.wake,
        plane_eventfd: links.plane,
        control: links.control,
        board: Arc::new(Board::with_tenants(settings.tenants.rules().len())),
        // Nobody reads them.
        histogram_port: boxes(1).0,
        hot_port: boxes(1).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;
    use crate::sim::faults::Faults;
    use crate::sim::net::{Net, Read, SocketId};
    use pelton::config::Config;
    use pelton::limits::Grant;
    use pelton::mesh::{
        ContentType, Delivery, FlightId, Found, Held, Key, Landing, Lifetime, Named, Order,
        Outcome, PurgeOrder, Purged, Stale, Unchanged,
    };
    use shard_cache::Force;
    use shard_cache::hash::Etag;
    use shard_cache::time::Instant;
    use std::time::Duration;

    /// Lets the shard turn until then.
    fn turn_until(host: &Rc<RefCell<Host>>, place: &Place, until: Instant) {
        loop {
            let next = place.shard.borrow().ring().next_turn(&host.borrow());
            if next > until {
                return host.borrow_mut().advance(until);
            }
            host.borrow_mut().advance(next);
            place.shard.borrow_mut().turn();
            place.shard.borrow().ring().keep_asleep();
        }
    }

    /// A world of one shard without faults, whose limits `change` changes.
    fn world(change: impl FnOnce(&mut Limits), files_max: usize) -> (Rc<RefCell<Host>>, Cluster) {
        let config = Config::parse("test", "", &["cache.memory=16MiB".into()]).unwrap();
        let grant = Grant { shards: 1, descriptors_max: 1024, memory_size: 4 << 30 };
        let mut limits = Limits::new(&config, &grant).unwrap();
        change(&mut limits);
        let net = Net::new(Prng::new(1), files_max, 8);
        let host = Rc::new(RefCell::new(Host::new(Prng::new(2), Faults::NONE, net, 1)));
        let cluster = Cluster::build(&limits, &Settings::new(&config, None), &host);
        (host, cluster)
    }

    const fn ms(ms: u64) -> Instant {
        Instant::from_ns((ms + 1) * 1_000_000)
    }

    /// A shard that had run out of descriptors slept on beyond its own pause: nothing woke it.
    #[test]
    fn an_accept_that_failed_is_tried_again_after_its_pause_though_nothing_else_happens() {
        // A listener, two eventfds, and one connection.
        let (host, cluster) = world(|_| {}, 4);
        let place = &cluster.places[0];
        let first = host.borrow_mut().net.connect(0, [4096; 2]).unwrap();
        turn_until(&host, place, ms(1));
        host.borrow_mut().net.connect(0, [4096; 2]).unwrap();
        turn_until(&host, place, ms(2));
        assert_eq!(place.shard.borrow().counters().accept_failures, 1);
        host.borrow_mut().net.close_client(first);
        turn_until(&host, place, ms(110));
        assert_eq!(place.shard.borrow().counters().connections_accepted, 2);
    }

    #[test]
    fn a_connection_that_found_no_buffer_reads_on_when_others_have_given_theirs_back() {
        let few = |limits: &mut Limits| {
            (limits.input_buffers_count, limits.input_held_max) = (2, 2);
            limits.carry_blocks_count = 0;
        };
        let (host, cluster) = world(few, 16);
        let place = &cluster.places[0];
        let connect = |bytes: &[u8]| {
            let net = &mut host.borrow_mut().net;
            let socket = net.connect(0, [4096; 2]).unwrap();
            assert_eq!(net.write(socket, bytes), bytes.len());
            socket
        };
        // Two heads without an end hold both buffers until their time is over.
        let holders = [(); 2].map(|()| connect(b"GET /"));
        turn_until(&host, place, ms(5_000));
        let waiting = connect(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        turn_until(&host, place, ms(5_100));
        let mut reply = Vec::new();
        assert_eq!(host.borrow_mut().net.read(waiting, 4096, &mut reply), Read::Nothing);
        assert!(place.shard.borrow().counters().buffers_starved > 0);
        turn_until(&host, place, ms(11_000));
        assert_eq!(place.shard.borrow().counters().closed_header_timeout, 2);
        host.borrow_mut().net.read(waiting, 4096, &mut reply);
        assert!(reply.starts_with(b"HTTP/1.1 200"), "{}", reply.escape_ascii());
        holders.into_iter().for_each(|holder| host.borrow_mut().net.close_client(holder));
    }

    /// It had no deadline while it waited for a carry block, and turns were made for it all along.
    #[test]
    fn a_head_in_pieces_that_finds_no_carry_block_has_its_time_all_the_same() {
        let (host, cluster) = world(|limits| limits.carry_blocks_count = 0, 16);
        let place = &cluster.places[0];
        let socket = host.borrow_mut().net.connect(0, [4096; 2]).unwrap();
        for (piece, until) in [("GET /lo", ms(10)), ("okup/k", ms(20))] {
            host.borrow_mut().net.write(socket, piece.as_bytes());
            turn_until(&host, place, until);
        }
        assert_eq!(place.shard.borrow().census().buffers_held, 2);
        turn_until(&host, place, ms(11_000));
        assert_eq!(place.shard.borrow().counters().closed_header_timeout, 1);
        assert_eq!(place.shard.borrow().census().buffers_held, 0);
    }
    /// A value that has come with this lifetime.
    fn found(lifetime: Lifetime) -> Outcome {
        let (value, stale, held) = (b"1"[..].into(), Stale::default(), Held::default());
        Outcome::Found(Found {
            value,
            content_type: ContentType::JSON,
            etag: ETAG,
            lifetime,
            stale,
            held,
        })
    }

    const ETAG: Etag = Etag::from_bits(7);

    /// A shard, its origin and a client that reads one key.
    struct Play {
        host: Rc<RefCell<Host>>,
        cluster: Cluster,
        socket: SocketId,
        now_ms: u64,
    }

    impl Play {
        fn begin() -> Self {
            let (host, cluster) = world(|_| {}, 16);
            let socket = host.borrow_mut().net.connect(0, [4096; 2]).unwrap();
            Self { host, cluster, socket, now_ms: 0 }
        }

        fn wait(&mut self, ms_count: u64) {
            self.now_ms += ms_count;
            turn_until(&self.host, &self.cluster.places[0], ms(self.now_ms));
        }

        /// Reads the key; the reply, if there is one at once.
        fn get(&mut self) -> String {
            let request = b"GET /lookup/k HTTP/1.1\r\nHost: a\r\n\r\n";
            let written = self.host.borrow_mut().net.write(self.socket, request);
            assert_eq!(written, request.len());
            self.wait(1);
            self.reply()
        }

        fn reply(&mut self) -> String {
            let mut reply = Vec::new();
            self.host.borrow_mut().net.read(self.socket, 4096, &mut reply);
            String::from_utf8(reply).unwrap()
        }

        fn deliver(&mut self, delivery: Delivery) {
            self.cluster.ports[0].port.deliver(delivery);
            self.host.borrow_mut().net.signal(self.cluster.ports[0].eventfd);
            self.wait(1);
        }

        fn land(&mut self, flight: FlightId, outcome: Outcome) {
            self.deliver(Delivery::Landing(Landing { flight, outcome }));
        }

        /// The next fetch that is ordered, and what the shard has.
        fn ordered(&mut self) -> Option<(FlightId, Option<Etag>)> {
            loop {
                match self.cluster.ports[0].port.next_order()? {
                    Order::Fetch { flight, known, .. } => return Some((flight, known)),
                    Order::Spent(_)
                    | Order::Write(_)
                    | Order::Purged(_)
                    | Order::Forgotten(_)
                    | Order::Explained(_) => {}
                }
            }
        }

        fn purge(&mut self, force: Force) {
            let named = Named::Key(Key::new(b"k").unwrap());
            let order = PurgeOrder { named, force, outcome: Purged::Done };
            self.deliver(Delivery::Purge(Box::new(order)));
        }

        /// The fetch of a value that is stale.
        fn begin_refresh(&mut self) -> FlightId {
            assert_eq!(self.get(), "");
            let (flight, known) = self.ordered().unwrap();
            assert_eq!(known, None);
            self.land(flight, found(Lifetime::For(Duration::from_millis(50))));
            assert!(self.reply().starts_with("HTTP/1.1 200"));
            self.wait(100);
            assert!(self.get().starts_with("HTTP/1.1 200"), "it is stale");
            let (flight, known) = self.ordered().unwrap();
            assert_eq!(known, Some(ETAG));
            flight
        }
    }

    fn unchanged() -> Outcome {
        let (lifetime, stale) = (Lifetime::Default, Stale::default());
        Outcome::Unchanged(Unchanged { etag: ETAG, lifetime, stale })
    }

    #[test]
    fn a_value_that_is_unchanged_is_fresh_again_and_stored_once() {
        let mut play = Play::begin();
        let flight = play.begin_refresh();
        play.land(flight, unchanged());
        assert!(play.get().contains("\r\nAge: 0\r\n"));
        assert_eq!(play.ordered(), None, "it is fresh");
        play.cluster.places[0].shard.borrow_mut().turn();
        let counters = play.cluster.places[0].shard.borrow().counters();
        assert_eq!((counters.fetches_unchanged, counters.flights_led), (1, 2));
    }

    #[test]
    fn what_was_said_to_be_unchanged_before_a_soft_purge_is_not_fresh_after_it() {
        let mut play = Play::begin();
        let flight = play.begin_refresh();
        play.purge(Force::Soft);
        play.land(flight, unchanged());
        assert!(play.get().starts_with("HTTP/1.1 200"), "it may be served");
        assert!(play.ordered().is_some(), "but it is asked for again");
    }

    #[test]
    fn what_is_unchanged_and_was_purged_is_asked_for_once_more() {
        let mut play = Play::begin();
        let flight = play.begin_refresh();
        assert!(play.get().starts_with("HTTP/1.1 200"));
        play.purge(Force::Hard);
        play.land(flight, unchanged());
        assert_eq!((play.ordered(), play.ordered()), (Some((flight, None)), None));
        play.land(flight, found(Lifetime::Default));
        assert_eq!(play.get(), "", "it was fetched for those who had asked before the purge");
        assert_eq!(play.ordered().map(|(_, known)| known), Some(None));
    }
}
