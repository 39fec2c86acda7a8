//! A proxy that misbehaves on order, between the server under test and one that it asks.
//!
//! Each direction has its own [`Faults`], and the whole has a [`Link`]; both can be changed while
//! connections are open. Two threads serve a connection, one for each direction. Chance comes from
//! a seed: the same bytes are cut and delayed alike each time.
//!
//! Invariant: what comes through comes whole and in order, as TCP promises; a fault delays it, or
//! ends the connection.

#![expect(clippy::disallowed_methods, reason = "threads pump bytes, and sleep as they are told")]

mod pump;

use crate::prng::Prng;
use crate::process::PATIENCE;
use pump::Pair;
use socket2::{Domain, SockRef, Socket, Type};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What is asked.
    ToServer,
    /// What is answered.
    ToClient,
}

/// What the bytes of one direction suffer; nothing by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// How late they come at least, and how much later at most.
    pub latency: Duration,
    /// See `latency`.
    pub jitter: Duration,
    /// They are taken and kept until the fault is over.
    pub is_blackhole: bool,
    /// Only so many go at a time at most, with a pause after each piece; all at once if it is zero.
    pub slice_size_max: usize,
    /// See `slice_size_max`.
    pub pause: Duration,
    /// As many go in a second; all at once if it is zero.
    pub bytes_per_second: u64,
}

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    /// All are reset, new ones as soon as they are accepted.
    Resetting,
    /// All are closed, and new ones refused.
    Down,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<(TcpListener, JoinHandle<()>)>>,
    /// Keeps the port while nobody listens on it.
    _holder: Socket,
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    link: Link,
    faults: [Faults; 2],
    pairs: Vec<Weak<Pair>>,
    /// Threads that pump.
    pumps: usize,
    /// Those of them that keep what they have read.
    held: usize,
    prng: Prng,
}

impl Proxy {
    /// A proxy in front of `server`, without a fault.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start(server: SocketAddr, seed: u64) -> Self {
        let holder = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = holder.local_addr().ok().and_then(|address| address.as_socket());
        let state = State {
            link: Link::Up,
            faults: [Faults::default(); 2],
            pairs: Vec::new(),
            pumps: 0,
            held: 0,
            prng: Prng::new(seed),
        };
        let shared = Shared { server, state: Mutex::new(state), changed: Condvar::new() };
        let proxy = Self {
            address: address.expect("it is bound"),
            shared: Arc::new(shared),
            accepting: Mutex::new(None),
            _holder: holder,
        };
        proxy.heal();
        proxy
    }

    /// From now on both directions suffer this.
    pub fn inflict(&self, faults: Faults) {
        self.inflict_on(Direction::ToServer, faults);
        self.inflict_on(Direction::ToClient, faults);
    }

    /// From now on one direction suffers this.
    pub fn inflict_on(&self, direction: Direction, faults: Faults) {
        self.shared.lock().faults[direction as usize] = faults;
        self.shared.changed.notify_all();
    }

    /// Resets all connections, and from now on new ones. When it returns, all peers were told.
    pub fn reset(&self) {
        self.shared.cut_all(Link::Resetting);
    }

    /// Closes all connections, and from now on refuses new ones. When it returns, that holds.
    ///
    /// # Panics
    /// If a thread of the proxy has panicked.
    pub fn go_down(&self) {
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((listener, thread)) = accepting {
            self.shared.lock().link = Link::Down;
            // Whoever accepts is woken by an error.
            SockRef::from(&listener).shutdown(Shutdown::Both).expect("it listens");
            thread.join().expect("it does not panic");
        }
        self.shared.cut_all(Link::Down);
    }

    /// Ends every fault.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn heal(&self) {
        self.inflict(Faults::default());
        self.shared.lock().link = Link::Up;
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        if accepting.is_none() {
            let socket = bound(self.address);
            socket.listen(BACKLOG).expect("the port is ours");
            let listener = TcpListener::from(socket);
            let accepts = listener.try_clone().expect("a descriptor is to be had");
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::spawn(move || accept(&accepts, &shared));
            *accepting = Some((listener, thread));
        }
    }

    /// Waits until so many directions of connections keep what they were sent.
    ///
    /// # Panics
    /// If that does not come.
    pub fn wait_until_held(&self, count: usize) {
        self.shared.wait_until(|state| state.held >= count);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.go_down();
    }
}

/// A socket bound to this address; others of ours may be, too.
fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is to be had");
    socket.set_reuse_port(true).expect("an option can be set");
    socket.bind(&address.into()).expect("loopback has free ports");
    socket
}

/// Begins connections until the listener is shut down.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((client, _)) => shared.begin(client),
            Err(_) if shared.lock().link == Link::Down => return,
            Err(_) => {}
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, holds: impl Fn(&State) -> bool) {
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, |state| !holds(state));
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "the proxy waits in vain: {state:?}");
    }

    /// Connects a client to the server, and pumps.
    fn begin(self: &Arc<Self>, client: TcpStream) {
        let server = match self.lock().link {
            Link::Up => TcpStream::connect(self.server).ok(),
            Link::Resetting | Link::Down => None,
        };
        let Some(server) = server else { return pump::reset(&client) };
        let pair = Arc::new(Pair::new(client, server));
        let mut state = self.lock();
        if state.link != Link::Up {
            return pair.cut();
        }
        state.pairs.retain(|pair| pair.strong_count() > 0);
        state.pairs.push(Arc::downgrade(&pair));
        for direction in [Direction::ToServer, Direction::ToClient] {
            state.pumps += 1;
            let (shared, pair, prng) = (Arc::clone(self), Arc::clone(&pair), state.prng.fork());
            std::thread::spawn(move || {
                shared.pump(&pair, direction, prng);
                // The last of both closes the sockets.
                drop(pair);
                shared.lock().pumps -= 1;
                shared.changed.notify_all();
            });
        }
    }

    /// Ends all connections, and waits until they have ended.
    fn cut_all(&self, link: Link) {
        let mut state = self.lock();
        state.link = link;
        for pair in state.pairs.drain(..).filter_map(|pair| pair.upgrade()) {
            match link {
                Link::Resetting => pair.cut(),
                Link::Up | Link::Down => pair.close(),
            }
        }
        drop(state);
        self.changed.notify_all();
        self.wait_until(|state| state.pumps == 0);
    }
}

#[cfg(test)]
mod tests;
