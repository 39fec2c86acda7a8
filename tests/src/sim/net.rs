//! The simulated network and the descriptors of the simulated process: both ends of each socket.
//!
//! A descriptor names a file; an operation in flight holds the file, not the descriptor. So a
//! descriptor that is closed is free for the next accept at once, while the socket behind it lives
//! on, and tells its peer nothing, until the last operation on it has ended. That is how the kernel
//! does it, and where servers go wrong.
//!
//! ```text
//! client  -- write -->  [ inbound  ]  -- receive -->  shard        each queue has a bound:
//! client  <-- read --   [ outbound ]  <-- send ----   shard        the window of its receiver
//! ```

use crate::prng::Prng;
use pelton::ring::{Fault, Fd, Shutdown};
use std::collections::VecDeque;
use std::net::IpAddr;

/// A connection for the whole of a run. Unlike a descriptor it is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(u32);

impl SocketId {
    /// Its number, from 0 in order of connecting.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a descriptor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A listening socket, by its index.
    Listener(usize),
    /// A connection.
    Socket(SocketId),
    /// An eventfd, by its index.
    Eventfd(usize),
}

/// An open descriptor.
#[derive(Debug)]
struct Descriptor {
    file: File,
    /// The shard, slot and generation that first used it; nobody else may.
    user: Option<(u16, u32, u32)>,
}

#[derive(Debug, Default)]
struct Listener {
    backlog: VecDeque<SocketId>,
    shut: bool,
}

/// What an accept would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptable {
    /// No connection yet.
    Nothing,
    /// A connection.
    Connection,
    /// The listener was shut down: there will never be one.
    Shut,
}

/// How far one end of a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It may send.
    Open,
    /// It sends no more, but reads.
    Finished,
    /// It neither sends nor reads; whatever reaches it is answered with a reset.
    Closed,
    /// It was torn down.
    Reset,
    /// It is silent for ever: the other end is told nothing.
    Vanished,
}

#[derive(Debug)]
struct Socket {
    /// From the client, not yet received.
    inbound: VecDeque<u8>,
    inbound_max: usize,
    /// To the client, not yet read.
    outbound: VecDeque<u8>,
    outbound_max: usize,
    client: End,
    server: End,
    /// The descriptor, if open, and each operation in flight.
    holders: u32,
}

/// What a client's read gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The server sends no more.
    End,
    /// The connection was reset.
    Reset,
}

/// What a receive gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The client sends no more.
    End,
    /// The client is gone.
    PeerGone,
}

/// What closing threw away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Nothing: the client reads everything and then an end.
    Quietly,
    /// The connection was reset because input was unread; `lost` bytes never reach the client.
    Reset { lost: usize },
    /// The socket is still held by an operation in flight: nothing was said to the client.
    Held,
}

/// The network and the process's descriptors.
#[derive(Debug)]
pub struct Net {
    prng: Prng,
    descriptors: Vec<Option<Descriptor>>,
    descriptors_max: usize,
    listeners: Vec<Listener>,
    backlog_max: usize,
    sockets: Vec<Socket>,
    /// Sockets with holders.
    sockets_held: usize,
    eventfds: Vec<bool>,
    /// Sockets at which a client may now find something to do.
    touched: Vec<SocketId>,
}

impl Net {
    /// A network without sockets, for a process that may have `descriptors_max` descriptors.
    #[must_use]
    pub const fn new(prng: Prng, descriptors_max: usize, backlog_max: usize) -> Self {
        Self {
            prng,
            descriptors: Vec::new(),
            descriptors_max,
            listeners: Vec::new(),
            backlog_max,
            sockets: Vec::new(),
            sockets_held: 0,
            eventfds: Vec::new(),
            touched: Vec::new(),
        }
    }

    // Descriptors.

    /// Opens the lowest free descriptor, as POSIX wants it.
    fn open(&mut self, file: File) -> Option<Fd> {
        let free = self.descriptors.iter().position(Option::is_none);
        let index = free.unwrap_or(self.descriptors.len());
        if index == self.descriptors_max {
            return None;
        }
        if free.is_none() {
            self.descriptors.push(None);
        }
        self.descriptors[index] = Some(Descriptor { file, user: None });
        Some(Fd(i32::try_from(index).expect("a simulation has few descriptors")))
    }

    fn descriptor(&mut self, fd: Fd) -> &mut Descriptor {
        let index = usize::try_from(fd.0).expect("descriptors are not negative");
        let open = self.descriptors.get_mut(index).and_then(Option::as_mut);
        open.unwrap_or_else(|| panic!("descriptor {} is closed", fd.0))
    }

    /// What `fd` names.
    ///
    /// # Panics
    /// If it is not open: the shard used a descriptor that is not its own any more.
    pub fn file(&mut self, fd: Fd) -> File {
        self.descriptor(fd).file
    }

    /// The connection that `fd` names, for use by the slot and generation `user` of a shard.
    ///
    /// # Panics
    /// If it is not an open connection, or in use by another slot or generation: closed too early,
    /// and by now the connection of somebody else.
    pub fn socket(&mut self, fd: Fd, user: (u16, u32, u32)) -> SocketId {
        let descriptor = self.descriptor(fd);
        let owner = *descriptor.user.get_or_insert(user);
        assert_eq!(owner, user, "descriptor {} belongs to (shard, slot, generation)", fd.0);
        match descriptor.file {
            File::Socket(id) => id,
            File::Listener(_) | File::Eventfd(_) => panic!("descriptor {} is no socket", fd.0),
        }
    }

    /// The address of a connection's peer: clients have one of two each.
    ///
    /// # Panics
    /// If `fd` is not an open connection.
    pub fn peer(&mut self, fd: Fd) -> Option<IpAddr> {
        let File::Socket(id) = self.file(fd) else { panic!("{} is no socket", fd.0) };
        Some(IpAddr::from([192, 0, 2, u8::from(id.0 % 2 == 1)]))
    }

    /// Closes a connection's descriptor. It is free at once; the socket lives on while held.
    ///
    /// # Panics
    /// If it is not an open connection.
    pub fn close(&mut self, fd: Fd) -> Closed {
        let File::Socket(id) = self.descriptor(fd).file else {
            panic!("descriptor {} is no socket", fd.0)
        };
        let index = usize::try_from(fd.0).expect("descriptors are not negative");
        self.descriptors[index] = None;
        self.release(id)
    }

    /// Open descriptors of connections.
    #[must_use]
    pub fn connections_open(&self) -> usize {
        let open = self.descriptors.iter().flatten();
        open.filter(|descriptor| matches!(descriptor.file, File::Socket(_))).count()
    }

    /// Connections that a descriptor or an operation in flight still holds.
    #[must_use]
    pub const fn connections_held(&self) -> usize {
        self.sockets_held
    }

    /// Connections that wait to be accepted.
    #[must_use]
    pub fn connections_waiting(&self) -> usize {
        self.listeners.iter().map(|listener| listener.backlog.len()).sum()
    }

    // Listeners and eventfds.

    /// A new listening socket.
    ///
    /// # Panics
    /// If no descriptor is free: a process opens its listeners first.
    pub fn listen(&mut self) -> Fd {
        self.listeners.push(Listener::default());
        self.open(File::Listener(self.listeners.len() - 1)).expect("listeners come first")
    }

    /// Connections that wait at a listener, at most.
    #[must_use]
    pub fn backlog_max(&self) -> u32 {
        u32::try_from(self.backlog_max).expect("a simulation has few sockets")
    }

    /// Listening sockets.
    #[must_use]
    pub const fn listeners_count(&self) -> usize {
        self.listeners.len()
    }

    /// A new eventfd.
    ///
    /// # Panics
    /// If no descriptor is free: a process opens its eventfds first.
    pub fn eventfd(&mut self) -> Fd {
        self.eventfds.push(false);
        self.open(File::Eventfd(self.eventfds.len() - 1)).expect("eventfds come first")
    }

    /// Writes the eventfd `fd`.
    ///
    /// # Panics
    /// If it is not an open eventfd.
    pub fn signal(&mut self, fd: Fd) {
        let File::Eventfd(index) = self.file(fd) else { panic!("{} is no eventfd", fd.0) };
        self.eventfds[index] = true;
    }

    /// Whether the eventfd `fd` was written and not cleared since.
    ///
    /// # Panics
    /// If it is not an open eventfd.
    pub fn is_written(&mut self, fd: Fd) -> bool {
        let File::Eventfd(index) = self.file(fd) else { panic!("{} is no eventfd", fd.0) };
        self.is_signalled(index)
    }

    /// Clears the eventfd `fd`; tells whether it had been written.
    ///
    /// # Panics
    /// If it is not an open eventfd.
    pub fn take_written(&mut self, fd: Fd) -> bool {
        let File::Eventfd(index) = self.file(fd) else { panic!("{} is no eventfd", fd.0) };
        self.take_signal(index)
    }

    pub(super) fn take_signal(&mut self, index: usize) -> bool {
        std::mem::take(&mut self.eventfds[index])
    }

    pub(super) fn is_signalled(&self, index: usize) -> bool {
        self.eventfds[index]
    }

    /// What an accept would find.
    #[must_use]
    pub fn acceptable(&self, listener: usize) -> Acceptable {
        let listener = &self.listeners[listener];
        match (listener.shut, listener.backlog.is_empty()) {
            (true, _) => Acceptable::Shut,
            (false, true) => Acceptable::Nothing,
            (false, false) => Acceptable::Connection,
        }
    }

    /// Accepts the connection that has waited longest.
    ///
    /// # Errors
    /// `NoDescriptors` leaves it waiting. `PeerGone` if it was reset meanwhile.
    ///
    /// # Panics
    /// If none waits.
    pub fn accept(&mut self, listener: usize) -> Result<Fd, Fault> {
        let id = *self.listeners[listener].backlog.front().expect("a connection waits");
        // A connection that was reset while it waited is dropped, or accepted as any other.
        if self.sockets[id.index()].client == End::Reset && self.prng.coin() {
            self.listeners[listener].backlog.pop_front();
            return Err(Fault::PeerGone);
        }
        let fd = self.open(File::Socket(id)).ok_or(Fault::NoDescriptors)?;
        self.listeners[listener].backlog.pop_front();
        self.hold(id);
        Ok(fd)
    }

    // The server's end of a connection.

    /// An operation on the socket begins.
    pub fn hold(&mut self, id: SocketId) {
        let socket = &mut self.sockets[id.index()];
        self.sockets_held += usize::from(socket.holders == 0);
        socket.holders += 1;
    }

    /// An operation on the socket has ended, or its descriptor is closed.
    ///
    /// # Panics
    /// If nothing held it.
    pub fn release(&mut self, id: SocketId) -> Closed {
        let socket = &mut self.sockets[id.index()];
        assert!(socket.holders > 0, "a socket is released as often as it was held");
        socket.holders -= 1;
        if socket.holders > 0 {
            return Closed::Held;
        }
        self.sockets_held -= 1;
        self.touch(id);
        let socket = &mut self.sockets[id.index()];
        if socket.inbound.is_empty() {
            if socket.server != End::Reset {
                socket.server = End::Closed;
            }
            Closed::Quietly
        } else {
            // Unread input makes the kernel reset the connection. What is still on its way to the
            // client may or may not arrive before the reset does.
            socket.inbound.clear();
            let lost = self.reset_by_server(id);
            Closed::Reset { lost }
        }
    }

    fn reset_by_server(&mut self, id: SocketId) -> usize {
        let socket = &mut self.sockets[id.index()];
        let kept = self.prng.size(0, socket.outbound.len());
        let lost = socket.outbound.len() - kept;
        socket.outbound.truncate(kept);
        socket.server = End::Reset;
        self.touch(id);
        lost
    }

    /// What a receive of at most `into.len()` bytes would give, without taking anything.
    #[must_use]
    pub fn readable(&self, id: SocketId) -> Received {
        let socket = &self.sockets[id.index()];
        match (socket.inbound.len(), socket.client, socket.server) {
            (1.., _, _) => Received::Bytes(socket.inbound.len()),
            (0, End::Reset, _) | (0, _, End::Reset) => Received::PeerGone,
            (0, End::Finished | End::Closed, _) | (0, _, End::Closed) => Received::End,
            (0, End::Open | End::Vanished, _) => Received::Nothing,
        }
    }

    /// Moves `into.len()` bytes to the receiver.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn receive(&mut self, id: SocketId, into: &mut [u8]) {
        take_front(&mut self.sockets[id.index()].inbound, into);
        self.touch(id);
    }

    /// How many bytes the socket takes for sending, or `None` if the peer is gone or we ended.
    #[must_use]
    pub fn sendable(&self, id: SocketId) -> Option<usize> {
        let socket = &self.sockets[id.index()];
        match (socket.client, socket.server) {
            (End::Reset, _) | (_, End::Finished | End::Closed | End::Reset) => None,
            (End::Closed, End::Open) => Some(usize::MAX),
            _ => Some(socket.outbound_max - socket.outbound.len()),
        }
    }

    /// Sends bytes for which there is room.
    ///
    /// # Panics
    /// If there is not.
    pub fn send(&mut self, id: SocketId, bytes: &[u8]) {
        let room = self.sendable(id).expect("the sender looked before");
        assert!(bytes.len() <= room, "the sender looked before");
        let socket = &mut self.sockets[id.index()];
        if socket.client == End::Closed {
            // The client's host answers with a reset: this send is taken, the next one fails.
            socket.client = End::Reset;
        } else {
            socket.outbound.extend(bytes);
            self.touch(id);
        }
    }

    /// Ends our direction of a connection, or both; ends a listener.
    ///
    /// # Panics
    /// If `fd` is an eventfd, or not open.
    pub fn shutdown(&mut self, fd: Fd, how: Shutdown) {
        match self.file(fd) {
            File::Socket(id) => self.shutdown_socket(id, how),
            File::Listener(listener) => {
                self.listeners[listener].shut = true;
                for id in std::mem::take(&mut self.listeners[listener].backlog) {
                    self.reset_by_server(id);
                }
            }
            File::Eventfd(_) => panic!("descriptor {} cannot be shut down", fd.0),
        }
    }

    fn shutdown_socket(&mut self, id: SocketId, how: Shutdown) {
        let socket = &mut self.sockets[id.index()];
        if matches!(socket.server, End::Open | End::Finished) {
            socket.server = match how {
                Shutdown::Write if socket.server == End::Open => End::Finished,
                Shutdown::Write => socket.server,
                Shutdown::Both => End::Closed,
            };
        }
        self.touch(id);
    }

    // The client's end of a connection.

    /// Connects to a listener; refused if its backlog is full.
    pub fn connect(&mut self, listener: usize, windows: [usize; 2]) -> Option<SocketId> {
        let to = &self.listeners[listener];
        if to.shut || to.backlog.len() == self.backlog_max {
            return None;
        }
        let id = SocketId(u32::try_from(self.sockets.len()).expect("a run has few connections"));
        self.sockets.push(Socket {
            inbound: VecDeque::new(),
            inbound_max: windows[0],
            outbound: VecDeque::new(),
            outbound_max: windows[1],
            client: End::Open,
            server: End::Open,
            holders: 0,
        });
        self.listeners[listener].backlog.push_back(id);
        Some(id)
    }

    /// Writes as many of the bytes as the window takes; tells how many.
    ///
    /// # Panics
    /// If the client has ended its direction.
    pub fn write(&mut self, id: SocketId, bytes: &[u8]) -> usize {
        let socket = &mut self.sockets[id.index()];
        assert_eq!(socket.client, End::Open, "only an open end writes");
        match socket.server {
            // Nobody will receive it. Where a receive is still armed, it may find it in time.
            End::Closed if socket.holders == 0 || self.prng.coin() => {
                self.reset_by_server(id);
                bytes.len()
            }
            End::Reset => bytes.len(),
            End::Open | End::Finished | End::Closed | End::Vanished => {
                let taken = bytes.len().min(socket.inbound_max - socket.inbound.len());
                socket.inbound.extend(&bytes[..taken]);
                taken
            }
        }
    }

    /// Reads at most `max` bytes, and appends them to `into`.
    pub fn read(&mut self, id: SocketId, max: usize, into: &mut Vec<u8>) -> Read {
        let socket = &mut self.sockets[id.index()];
        let size = max.min(socket.outbound.len());
        if size > 0 {
            let end = into.len();
            into.resize(end + size, 0);
            take_front(&mut socket.outbound, &mut into[end..]);
            return Read::Bytes(size);
        }
        match socket.server {
            End::Reset => Read::Reset,
            End::Finished | End::Closed if socket.outbound.is_empty() => Read::End,
            End::Open | End::Finished | End::Closed | End::Vanished => Read::Nothing,
        }
    }

    /// The client sends no more, but reads on.
    pub fn finish(&mut self, id: SocketId) {
        let socket = &mut self.sockets[id.index()];
        if socket.client == End::Open {
            socket.client = End::Finished;
        }
    }

    /// The client closes its socket: an end if it had read everything, else a reset.
    pub fn close_client(&mut self, id: SocketId) {
        let socket = &mut self.sockets[id.index()];
        if socket.outbound.is_empty() {
            if matches!(socket.client, End::Open | End::Finished) {
                socket.client = End::Closed;
            }
        } else {
            self.reset(id);
        }
    }

    /// The client resets the connection; tells how many bytes the server will never receive.
    pub fn reset(&mut self, id: SocketId) -> usize {
        let socket = &mut self.sockets[id.index()];
        let kept = self.prng.size(0, socket.inbound.len());
        let lost = socket.inbound.len() - kept;
        socket.inbound.truncate(kept);
        socket.outbound.clear();
        socket.client = End::Reset;
        lost
    }

    /// The client falls silent for ever.
    pub fn vanish(&mut self, id: SocketId) {
        self.sockets[id.index()].client = End::Vanished;
    }

    fn touch(&mut self, id: SocketId) {
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
    }

    /// Takes one of the sockets at which a client may find something to do.
    pub fn next_touched(&mut self) -> Option<SocketId> {
        self.touched.pop()
    }
}

/// Moves as many bytes as `into` holds.
///
/// # Panics
/// If there are fewer.
fn take_front(from: &mut VecDeque<u8>, into: &mut [u8]) {
    assert!(into.len() <= from.len(), "the receiver looked before");
    let (front, back) = from.as_slices();
    let (first, second) = into.split_at_mut(into.len().min(front.len()));
    first.copy_from_slice(&front[..first.len()]);
    second.copy_from_slice(&back[..second.len()]);
    from.drain(..into.len());
}
