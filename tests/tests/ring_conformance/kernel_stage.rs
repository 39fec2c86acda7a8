//! Scripts on the kernel's ring, with real sockets: over loopback, and in a folder.

use crate::stage::{BUFFER_SIZE, BUFFERS_COUNT, End, PUSHES_MAX, Stage};
use pelton::ring::Fd;
use pelton::ring::kernel::{DisabledRing, KernelRing, Sizes};
use pelton::sys::clock::Epoch;
use pelton::sys::eventfd::EventFd;
use pelton::sys::socket;
use pelton::sys::unix::{self, SocketFile};
use socket2::{Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use tempfile::TempDir;

/// Bytes that small buffers hold, about; the kernel doubles them for what it keeps beside.
const SMALL_SIZE: usize = 16 << 10;

pub(crate) struct KernelStage {
    rings: [KernelRing; 2],
    listener: Socket,
    /// What a Unix socket is found by.
    _file: Option<(SocketFile, TempDir)>,
    eventfd: EventFd,
    peers: Vec<Option<Socket>>,
    /// The least that the kernel grants for the way from us to a peer; its own idea otherwise.
    small_buffers: bool,
}

impl KernelStage {
    pub(crate) fn new() -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::with(socket::listen(address).expect("loopback has free ports").into(), None)
    }

    pub(crate) fn over_unix_sockets() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (listener, file) =
            unix::listen(&folder.path().join("socket")).expect("the folder is empty");
        Self::with(listener.into(), Some((file, folder)))
    }

    fn with(listener: OwnedFd, file: Option<(SocketFile, TempDir)>) -> Self {
        let sizes = Sizes {
            completions_max: 256,
            submissions_max: 64,
            pushes_per_turn_max: PUSHES_MAX,
            buffers_count: BUFFERS_COUNT,
            buffer_size: BUFFER_SIZE,
        };
        let disabled = [(); 2].map(|()| {
            DisabledRing::new(sizes).expect("this test needs io_uring: kernel 6.1, not forbidden")
        });
        let descriptors: Vec<RawFd> = disabled.iter().map(DisabledRing::descriptor).collect();
        let epoch = Epoch::begin();
        let rings = disabled.map(|ring| {
            ring.enable(descriptors.clone().into(), epoch).expect("a disabled ring can be enabled")
        });
        let eventfd = EventFd::for_ring().expect("a process may open an eventfd");
        Self {
            rings,
            listener: listener.into(),
            _file: file,
            eventfd,
            peers: Vec::new(),
            small_buffers: false,
        }
    }

    /// With little room between us and our peers, so that sends find none.
    pub(crate) fn with_small_buffers() -> Self {
        let stage = Self::new();
        stage.listener.set_send_buffer_size(SMALL_SIZE).expect("accepted sockets inherit it");
        Self { small_buffers: true, ..stage }
    }

    fn peer(&mut self, peer: usize) -> &mut Socket {
        self.peers[peer].as_mut().expect("the peer has not closed")
    }
}

impl Stage for KernelStage {
    type R = KernelRing;

    const LARGE_SIZE: u32 = 24 << 20;

    fn ring(&mut self, index: usize) -> &mut KernelRing {
        &mut self.rings[index]
    }

    fn listener(&self) -> Fd {
        Fd(self.listener.as_raw_fd())
    }

    fn eventfd(&self) -> Fd {
        Fd(self.eventfd.as_raw_fd())
    }

    fn signal(&mut self) {
        self.eventfd.signal();
    }

    fn connect(&mut self) -> usize {
        let address = self.listener.local_addr().expect("it is bound");
        let socket =
            Socket::new(address.domain(), Type::STREAM, None).expect("descriptors are free");
        if self.small_buffers {
            socket.set_recv_buffer_size(SMALL_SIZE).expect("a socket may have a small buffer");
        }
        socket.connect(&address).expect("the listener's backlog has room");
        socket.set_nonblocking(true).expect("a socket can be non-blocking");
        self.peers.push(Some(socket));
        self.peers.len() - 1
    }

    fn write(&mut self, peer: usize, bytes: &[u8]) -> End {
        match self.peer(peer).write_all(bytes).map_err(|error| error.kind()) {
            Ok(()) => End::Open,
            Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => End::Reset,
            Err(error) => panic!("a few kilobytes find room: {error}"),
        }
    }

    fn read(&mut self, peer: usize, into: &mut Vec<u8>) -> End {
        let mut bytes = [0; 65_536];
        loop {
            match self.peer(peer).read(&mut bytes) {
                Ok(0) => return End::Ended,
                Ok(size) => into.extend(&bytes[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return End::Open,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return End::Reset,
                Err(error) => panic!("the peer's read: {error}"),
            }
        }
    }

    fn finish(&mut self, peer: usize) {
        self.peer(peer).shutdown(Shutdown::Write).expect("the connection is open");
    }

    fn close(&mut self, peer: usize) {
        self.peers[peer] = None;
    }
}
