//! An origin with a fixed number of workers: requests wait in one line, and a worker takes the same
//! time for each. What it can do is the number of workers over that time, whatever is offered.

#![expect(clippy::disallowed_methods, reason = "threads that block and sleep")]

use crate::address::Address;
use crate::floor;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes of the body of each reply.
const BODY_SIZE: usize = 150;

/// What ends a head. Requests have no bodies, and come one at a time on a connection.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// Answers on `listen` until it is killed.
pub(crate) fn serve(listen: &Address, workers: usize, service: Duration) -> io::Result<()> {
    let listener: TcpListener = listen.listen()?.into();
    let reply: &'static [u8] = floor::reply(BODY_SIZE).leak();
    let (ask, asked) = mpsc::channel();
    let asked: &'static Mutex<_> = Box::leak(Box::new(Mutex::new(asked)));
    for _ in 0..workers {
        std::thread::spawn(move || work(asked, service, reply));
    }
    for stream in listener.incoming() {
        let (stream, ask) = (stream?, ask.clone());
        // A client that goes away is no matter.
        std::thread::spawn(move || drop(read(stream, &ask)));
    }
    Ok(())
}

/// Puts the connection into the line once for each request that it brings.
fn read(stream: TcpStream, ask: &Sender<Arc<TcpStream>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = Arc::new(stream);
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let size = (&*stream).read(&mut piece)?;
        if size == 0 {
            return Ok(());
        }
        head.extend_from_slice(&piece[..size]);
        if head.ends_with(BLANK_LINE) {
            head.clear();
            ask.send(Arc::clone(&stream)).expect("workers never end");
        }
    }
}

fn work(asked: &Mutex<Receiver<Arc<TcpStream>>>, service: Duration, reply: &[u8]) {
    // Timers of a usual thread may be 50 us late.
    nix::sys::prctl::set_timerslack(1).expect("any thread may");
    loop {
        let next = asked.lock().expect("no worker panics").recv();
        let stream = next.expect("who accepts never ends");
        std::thread::sleep(service);
        // A client that went away is no matter.
        drop((&*stream).write_all(reply));
    }
}
