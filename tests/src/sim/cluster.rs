//! The shards of a world, built as the server builds them, on simulated rings.

#![expect(clippy::disallowed_types, reason = "the rings of a world share a host, in one thread")]

use super::host::Host;
use super::keeper::Desk;
use super::origin::Port;
use super::ring::{SimRing, Sizes};
use pelton::limits::Limits;
use pelton::mesh::{
    Control, Leases, Loads, OriginLink, Peers, Sleep, StorageLink, boxes, leases, origin_link,
    peers, storage_link,
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
        let loads = Loads::new(shards);
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
        leases: links.leases,
        link: links.link,
        storage: links.storage,
        sleep: links.sleep,
        wake_eventfd: links.wake,
        plane_eventfd: links.plane,
        control: links.control,
        board: Arc::new(Board::new()),
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
    use crate::sim::net::{Net, Read};
    use pelton::config::Config;
    use pelton::limits::Grant;
    use shard_cache::time::Instant;

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
}
