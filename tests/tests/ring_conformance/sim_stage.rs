//! Scripts on the simulated ring.

use crate::stage::{BUFFER_SIZE, BUFFERS_COUNT, End, PUSHES_MAX, Stage};
use pelton::mesh::Sleep;
use pelton::ring::Fd;
use pelton_tests::prng::Prng;
use pelton_tests::sim::faults::Faults;
use pelton_tests::sim::host::Host;
use pelton_tests::sim::net::{Net, Read, SocketId};
use pelton_tests::sim::ring::{SimRing, Sizes};
use std::cell::RefCell;
use std::rc::Rc;

/// Seeds that each script is played with.
pub(crate) const SEEDS: u64 = 20;

/// Bytes on their way in each direction of a connection at most.
const WINDOW: usize = 64 << 10;

pub(crate) struct SimStage {
    host: Rc<RefCell<Host>>,
    rings: [SimRing; 2],
    listener: Fd,
    eventfd: Fd,
    peers: Vec<SocketId>,
}

impl SimStage {
    pub(crate) fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let mut net = Net::new(prng.fork(), 100, 8);
        let (listener, eventfd) = (net.listen(), net.eventfd());
        // All that the kernel of a healthy host may do.
        let faults = Faults {
            accept_failure: 0,
            wall_step: 0,
            delay_ns_max: 20_000,
            send_short: 500,
            ..Faults::draw(&mut prng, 500)
        };
        let host = Rc::new(RefCell::new(Host::new(prng, faults, net, 2)));
        let sizes = Sizes {
            buffers_count: BUFFERS_COUNT,
            buffer_size: BUFFER_SIZE as usize,
            pushes_max: PUSHES_MAX,
        };
        let rings = [0, 1].map(|shard| SimRing::new(Rc::clone(&host), shard, Sleep::new(), sizes));
        Self { host, rings, listener, eventfd, peers: Vec::new() }
    }
}

impl Stage for SimStage {
    type R = SimRing;

    const LARGE_SIZE: u32 = 512 << 10;

    fn ring(&mut self, index: usize) -> &mut SimRing {
        &mut self.rings[index]
    }

    fn listener(&self) -> Fd {
        self.listener
    }

    fn eventfd(&self) -> Fd {
        self.eventfd
    }

    fn signal(&mut self) {
        self.host.borrow_mut().net.signal(self.eventfd);
    }

    fn connect(&mut self) -> usize {
        let peer = self.host.borrow_mut().net.connect(0, [WINDOW; 2]);
        self.peers.push(peer.expect("the listener's backlog has room"));
        self.peers.len() - 1
    }

    fn write(&mut self, peer: usize, bytes: &[u8]) -> End {
        let size = self.host.borrow_mut().net.write(self.peers[peer], bytes);
        assert_eq!(size, bytes.len(), "a few kilobytes find room");
        End::Open
    }

    fn read(&mut self, peer: usize, into: &mut Vec<u8>) -> End {
        loop {
            match self.host.borrow_mut().net.read(self.peers[peer], 65_536, into) {
                Read::Bytes(_) => {}
                Read::Nothing => return End::Open,
                Read::End => return End::Ended,
                Read::Reset => return End::Reset,
            }
        }
    }

    fn finish(&mut self, peer: usize) {
        self.host.borrow_mut().net.finish(self.peers[peer]);
    }

    fn close(&mut self, peer: usize) {
        self.host.borrow_mut().net.close_client(self.peers[peer]);
    }
}
