//! What a worker sees of the world: connections by number, completions, and the time.
//!
//! The real one stands on a ring and a clock; the tests of the generator have one in which servers
//! and time are made up, so that what should come out can be computed by hand.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a generator keeps its own time"
)]

use crate::address::Address;
use crate::ring::{Buffer, Completion, Ring};
use socket2::Socket;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

pub(crate) trait Link {
    fn now(&self) -> Instant;

    /// Connects to the server; completes once.
    fn connect(&mut self, connection: u32) -> io::Result<()>;

    /// Receives until further notice; completes many times.
    fn receive(&mut self, connection: u32) -> io::Result<()>;

    /// Sends bytes that never change; completes once.
    fn send(&mut self, connection: u32, bytes: &'static [u8]) -> io::Result<()>;

    /// Ends both directions, so that all that is under way completes.
    fn shutdown(&mut self, connection: u32);

    /// Forgets a connection of which nothing is under way.
    fn close(&mut self, connection: u32);

    /// Hands over what was asked for and waits for a first completion, at most so long.
    fn turn(&mut self, wait_max: Duration, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// The bytes in a buffer on loan.
    fn bytes(&self, buffer: &Buffer) -> &[u8];

    /// Gives a buffer back.
    fn recycle(&mut self, buffer: Buffer);
}

/// Connections to a server over a ring of the calling thread.
pub(crate) struct Wire<'a> {
    ring: &'a mut Ring,
    address: &'static Address,
    sockets: Vec<Option<Socket>>,
}

impl<'a> Wire<'a> {
    pub(crate) const fn new(ring: &'a mut Ring, address: &'static Address) -> Self {
        Self { ring, address, sockets: Vec::new() }
    }

    /// The ring, and the socket of a connection that is not closed.
    fn parts(&mut self, connection: u32) -> (&mut Ring, BorrowedFd<'_>) {
        let socket = self.sockets[connection as usize].as_ref();
        (self.ring, socket.expect("a connection is connected before it is used").as_fd())
    }
}

impl Link for Wire<'_> {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn connect(&mut self, connection: u32) -> io::Result<()> {
        let socket = self.address.socket()?;
        self.ring.connect(socket.as_fd(), self.address, connection)?;
        let index = connection as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || None);
        }
        self.sockets[index] = Some(socket);
        Ok(())
    }

    fn receive(&mut self, connection: u32) -> io::Result<()> {
        let (ring, socket) = self.parts(connection);
        ring.receive(socket, connection)
    }

    fn send(&mut self, connection: u32, bytes: &'static [u8]) -> io::Result<()> {
        let (ring, socket) = self.parts(connection);
        ring.send(socket, bytes, connection)
    }

    fn shutdown(&mut self, connection: u32) {
        if let Some(Some(socket)) = self.sockets.get(connection as usize) {
            // The peer may have closed it, which is as good.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    fn close(&mut self, connection: u32) {
        self.sockets[connection as usize] = None;
    }

    fn turn(&mut self, wait_max: Duration, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.ring.turn(Some(wait_max), completions)
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.ring.bytes(buffer)
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.ring.recycle(buffer);
    }
}
