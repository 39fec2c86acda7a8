//! One direction of one connection: reads, suffers, writes.

use super::{Direction, Faults, Shared, State};
use crate::prng::Prng;
use socket2::SockRef;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Bytes that are read at a time.
const CHUNK_SIZE: usize = 16 << 10;

/// How often a peer that does not read is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Both sockets of a connection. Whoever drops the pair last closes them.
#[derive(Debug)]
pub(super) struct Pair {
    client: TcpStream,
    server: TcpStream,
    is_over: AtomicBool,
}

impl Pair {
    pub(super) fn new(client: TcpStream, server: TcpStream) -> Self {
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("an option can be set");
            stream.set_write_timeout(Some(LOOK_EVERY)).expect("a timeout can be set");
        }
        Self { client, server, is_over: AtomicBool::new(false) }
    }

    /// Both peers are to see a reset.
    pub(super) fn cut(&self) {
        reset(&self.client);
        reset(&self.server);
        self.close();
    }

    /// Both sockets are to be closed: whoever pumps between them is woken.
    pub(super) fn close(&self) {
        self.is_over.store(true, Ordering::Release);
        for stream in [&self.client, &self.server] {
            // It says nothing to the peer; one that is gone needs none.
            stream.shutdown(Shutdown::Read).unwrap_or_default();
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

/// Has the kernel reset a connection when its socket is closed.
pub(super) fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("an option can be set");
}

/// The connection has ended.
struct Over;

impl Shared {
    /// Pumps until the connection ends; a peer that ends its side ends the other's.
    pub(super) fn pump(&self, pair: &Pair, direction: Direction, mut prng: Prng) {
        let (mut from, to) = match direction {
            Direction::ToServer => (&pair.client, &pair.server),
            Direction::ToClient => (&pair.server, &pair.client),
        };
        let mut chunk = [0; CHUNK_SIZE];
        let ended = loop {
            match from.read(&mut chunk) {
                Ok(0) => break self.suffer(pair, direction, &mut prng).map(|_| ()),
                Ok(size) if self.forward(pair, direction, &chunk[..size], &mut prng).is_ok() => {}
                Ok(_) | Err(_) => break Err(Over),
            }
        };
        match ended {
            // Where the other side is gone, it needs no word.
            Ok(()) => to.shutdown(Shutdown::Write).unwrap_or_default(),
            Err(Over) if pair.is_over() => {}
            Err(Over) => pair.cut(),
        }
    }

    /// Passes a chunk on, as slowly and in as many pieces as the faults have it.
    fn forward(
        &self,
        pair: &Pair,
        direction: Direction,
        chunk: &[u8],
        prng: &mut Prng,
    ) -> Result<(), Over> {
        self.suffer(pair, direction, prng)?;
        let to = match direction {
            Direction::ToServer => &pair.server,
            Direction::ToClient => &pair.client,
        };
        let mut rest = chunk;
        while !rest.is_empty() {
            let faults = self.wait_for_passage(pair, direction)?;
            let size = match faults.slice_size_max {
                0 => rest.len(),
                size_max => prng.size(1, size_max).min(rest.len()),
            };
            let (piece, after) = rest.split_at(size);
            write(pair, to, piece)?;
            rest = after;
            let ns = (piece.len() as u64 * 1_000_000_000).checked_div(faults.bytes_per_second);
            sleep(faults.pause + Duration::from_nanos(ns.unwrap_or_default()));
        }
        Ok(())
    }

    /// Waits as long as what was just read is late.
    fn suffer(&self, pair: &Pair, direction: Direction, prng: &mut Prng) -> Result<(), Over> {
        let Faults { latency, jitter, .. } = self.wait_for_passage(pair, direction)?;
        let jitter_ns = u64::try_from(jitter.as_nanos()).expect("a test has no centuries");
        sleep(latency + Duration::from_nanos(prng.range(0, jitter_ns)));
        Ok(())
    }

    /// Waits while nothing passes; what is suffered then.
    fn wait_for_passage(&self, pair: &Pair, direction: Direction) -> Result<Faults, Over> {
        let faults = |state: &State| state.faults[direction as usize];
        let mut state = self.lock();
        if faults(&state).is_blackhole {
            state.held += 1;
            self.changed.notify_all();
            let is_held = |state: &mut State| faults(state).is_blackhole && !pair.is_over();
            let waited = self.changed.wait_while(state, is_held);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.held -= 1;
        }
        if pair.is_over() { Err(Over) } else { Ok(faults(&state)) }
    }
}

/// Writes all of it, unless the connection ends before.
fn write(pair: &Pair, mut to: &TcpStream, mut bytes: &[u8]) -> Result<(), Over> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            _ if pair.is_over() => return Err(Over),
            Ok(size) => bytes = &bytes[size..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(Over),
        }
    }
    Ok(())
}
