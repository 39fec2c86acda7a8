//! The shards of a world: how each is set up, and what connects it to the others.

#![expect(clippy::disallowed_types, reason = "rings and world share the host, in one thread")]

use super::host::Host;
use super::origin::Port;
use super::ring::{SimRing, Sizes};
use super::swarm::Options;
use pelton::mesh::{Control, OriginLink, Peers, Sleep, origin_link, peers};
use pelton::metrics::Board;
use pelton::ring::Fd;
use pelton::shard::{HistogramPort, Setup, Shard};
use pelton::sys::{eventfd::EventFd, spsc};
use shard_cache::Layout;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// A shard and what the world knows of it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shard: RefCell<Shard<SimRing>>,
    /// The eventfd that it watches.
    pub(super) wake: Fd,
    /// It is in the middle of a turn, stalled, while others act.
    pub(super) in_turn: Cell<bool>,
    pub(super) stopped: Cell<bool>,
}

/// Descriptors that a shard is given, and the one by which all wake the origin plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors {
    pub(super) listener: Fd,
    pub(super) wake: Fd,
    pub(super) plane: Fd,
}

/// Builds the shards and the plane's ends of their queues.
pub(super) fn build(
    options: &Options,
    host: &Rc<RefCell<Host>>,
    descriptors: &[Descriptors],
    plane_sleep: &Sleep,
    control: &Control,
) -> (Vec<Place>, Vec<Port>) {
    let sleeps: Vec<Sleep> = descriptors.iter().map(|_| Sleep::new()).collect();
    let real = Arc::new(EventFd::for_ring().expect("a process may open an eventfd"));
    let limits = &options.limits;
    let mut all_peers = peers(&sleeps, limits.messages_per_peer_max as usize).into_iter();
    let (mut places, mut ports) = (Vec::new(), Vec::new());
    for (index, (sleep, given)) in (0..).zip(sleeps.iter().zip(descriptors)) {
        let flights = limits.flights_max as usize;
        let (link, port) = origin_link(flights, sleep, plane_sleep, &real);
        ports.push(Port { port, sleep: sleep.clone(), eventfd: given.wake });
        let links = Links {
            peers: all_peers.next().expect("one for each shard"),
            link,
            sleep: sleep.clone(),
            control: control.clone(),
        };
        let ring = SimRing::new(Rc::clone(host), index, sleep.clone(), Sizes::of(limits));
        let shard = RefCell::new(Shard::new(setup(options, index, *given, links), ring));
        let (in_turn, stopped) = (Cell::new(false), Cell::new(false));
        places.push(Place { shard, wake: given.wake, in_turn, stopped });
    }
    (places, ports)
}

/// What connects a shard to the others.
struct Links {
    peers: Peers,
    link: OriginLink,
    sleep: Sleep,
    control: Control,
}

fn setup(options: &Options, index: u16, given: Descriptors, links: Links) -> Setup {
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
        listeners: vec![given.listener],
        layout,
        memory,
        segments_ready: Arc::new(AtomicU32::new(u32::MAX)),
        output,
        peers: links.peers,
        link: links.link,
        sleep: links.sleep,
        wake_eventfd: given.wake,
        plane_eventfd: given.plane,
        control: links.control,
        board: Arc::new(Board::new()),
        histogram_port: HistogramPort { filled, empties },
    }
}
