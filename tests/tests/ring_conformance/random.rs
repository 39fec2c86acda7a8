//! Random operations: on either ring they do what the contract says, and where it leaves the kernel
//! a choice, the simulated ring makes every choice that the kernel's was seen to make.
//!
//! One seed draws what the peers do and what we do, within our side of the contract: one receive
//! and one send a socket; terminate, join, close. The model knows only bytes written and sent, and
//! which end of a connection has ended how. `choices` names what it leaves open, `seeds` plays it.

mod seen;

use crate::choices::{Choice, Choices};
use crate::stage::{End, Stage};
use pelton::ring::{BufferId, Fd, Kind, Op, Region, Ring, Shutdown, Span, Spans, Token};
use pelton_tests::prng::{Prng, mix};
use shard_cache::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Connections of a run, and those open at a time.
const CONNECTIONS_MAX: usize = 16;
const OPEN_MAX: usize = 6;

/// Bytes that a peer has written and we have not received, at most.
const UNREAD_MAX: usize = 8 << 10;

/// Bytes of each region that is sent from; they never change.
const REGION_SIZE: u32 = 64 << 10;

/// The largest spans of sends: eight of the last are more than a socket's buffers hold, and more
/// than the kernel's ring sends as a whole.
const SPANS_MAX: [u64; 4] = [20, 300, 3_000, 30_000];

/// Turns in which what is under way must end.
const TURNS_MAX: u32 = 20_000;

/// A wait, where there is nothing to do but to wait.
const WAIT: Duration = Duration::from_millis(1);

/// One connection, from both ends.
#[derive(Debug, Default)]
struct Connection {
    peer: usize,
    /// Until it is accepted it has none.
    fd: Option<Fd>,
    /// Bytes the peer has written; what they are follows from their place.
    written: usize,
    received: usize,
    /// The peer sends no more.
    finished: bool,
    /// The peer is gone.
    left: bool,
    recv: bool,
    recv_cancelled: bool,
    cancel: bool,
    /// The spans of the send in flight, and how many turns there had been when it was pushed.
    send: Option<(Spans, u64)>,
    /// Bytes that were sent, and those of the send in flight behind them.
    stream: Vec<u8>,
    sent: usize,
    read: Vec<u8>,
    /// What the peer has last read after the bytes.
    end: Option<End>,
    shut: Option<Shutdown>,
    closing: bool,
    closed: bool,
}

impl Connection {
    const fn in_flight(&self) -> bool {
        self.recv || self.cancel || self.send.is_some()
    }

    const fn is_open(&self) -> bool {
        self.fd.is_some() && !self.closing
    }

    fn is_shut_both(&self) -> bool {
        self.shut == Some(Shutdown::Both)
    }

    /// Bytes came when nobody was to receive them any more.
    fn is_doomed(&self) -> bool {
        (self.closing || self.is_shut_both()) && self.received < self.written
    }
}

/// A run.
struct Run<'a, S: Stage> {
    stage: &'a mut S,
    prng: Prng,
    output: Vec<u8>,
    arena: Vec<u8>,
    connections: Vec<Connection>,
    /// Connected and not yet accepted, in order.
    backlog: VecDeque<usize>,
    accept: bool,
    accept_cancelled: bool,
    accept_cancel: bool,
    watch: bool,
    /// Since the last completion of a watch was seen; all but the first of those before it may
    /// have come after it.
    signals: u32,
    signals_before: u32,
    /// Wake-ups on their way: to the other ring, and back that they were delivered.
    wakes: [u32; 2],
    loans: Vec<BufferId>,
    /// Turns of ring 0.
    turns: u64,
    choices: Choices,
    /// What was done and what was seen, in order.
    log: Vec<String>,
}

const ACCEPT: Token = Token::new(Kind::Accept, 0, 0);
const ACCEPT_CANCEL: Token = Token::new(Kind::Cancel, 99, 0);
const WATCH: Token = Token::new(Kind::Watch, 0, 0);
const WAKE: Token = Token::new(Kind::Wake, 1, 0);

/// Plays so many operations of a seed; says which choices the ring made.
pub(crate) fn play<S: Stage>(stage: &mut S, seed: u64, steps: u32) -> Choices {
    let bytes = |salt: u64| -> Vec<u8> {
        let words = (0..u64::from(REGION_SIZE) / 8).map(|at| mix(mix(salt) ^ at));
        words.flat_map(u64::to_le_bytes).collect()
    };
    let mut run = Run {
        stage,
        prng: Prng::new(seed),
        output: bytes(1),
        arena: bytes(2),
        connections: Vec::new(),
        backlog: VecDeque::new(),
        accept: false,
        accept_cancelled: false,
        accept_cancel: false,
        watch: false,
        signals: 0,
        signals_before: 0,
        wakes: [0; 2],
        loans: Vec::new(),
        turns: 0,
        choices: Choices::default(),
        log: Vec::new(),
    };
    for _ in 0..steps {
        run.step();
        if run.prng.coin() {
            run.turn(Instant::ZERO);
        }
    }
    run.end();
    std::mem::take(&mut run.choices)
}

impl<S: Stage> Drop for Run<'_, S> {
    #[expect(clippy::print_stderr, reason = "a run that fails says what led to it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log.join("\n"));
        }
    }
}

/// Bytes that a peer writes.
fn peer_bytes(peer: usize, from: usize, size: usize) -> Vec<u8> {
    (from..from + size).map(|at| mix((peer as u64) << 32 | at as u64).to_le_bytes()[0]).collect()
}

impl<S: Stage> Run<'_, S> {
    fn push(&mut self, token: Token, op: Op) {
        self.log.push(format!("{} pushes {op:?}", token.slot()));
        self.stage.ring(0).push(token, op);
    }

    fn token(kind: Kind, index: usize) -> Token {
        let slot = u32::try_from(index).expect("connections are few");
        Token::new(kind, slot, slot + 7)
    }

    /// One thing that somebody does.
    fn step(&mut self) {
        match self.prng.below(24) {
            0 | 1 => self.connect(),
            2 | 3 => self.accept(),
            4 => self.watch_or_signal(),
            5 => self.wake(),
            6..=8 => self.recycle(),
            9 => self.cancel_accept(),
            _ if self.connections.is_empty() => self.connect(),
            draw => {
                let index = self.prng.index(self.connections.len());
                match draw {
                    10..=12 => self.peer_writes(index),
                    13 => self.peer_reads(index),
                    14 if self.prng.chance(200) => self.peer_finishes(index),
                    15 if self.prng.chance(200) => self.peer_leaves(index),
                    16 if self.prng.chance(200) => self.shut(index),
                    17 => self.close(index),
                    18 => self.cancel(index),
                    19..=21 => self.send(index),
                    _ => self.receive(index),
                }
            }
        }
    }

    // What peers do.

    fn connect(&mut self) {
        let open = self.connections.iter().filter(|connection| !connection.closed).count();
        if self.connections.len() == CONNECTIONS_MAX || open == OPEN_MAX {
            return;
        }
        let peer = self.stage.connect();
        self.log.push(format!("peer {peer} connects"));
        self.backlog.push_back(self.connections.len());
        self.connections.push(Connection { peer, ..Connection::default() });
    }

    fn peer_writes(&mut self, index: usize) {
        let most = self.prng.pick(&[1, 50, 600]);
        let size = self.prng.size(1, most);
        let connection = &mut self.connections[index];
        let reset = connection.end == Some(End::Reset);
        let may = !connection.finished && !connection.left && !connection.closing && !reset;
        let has_room = connection.written - connection.received + size <= UNREAD_MAX;
        if may && has_room {
            let bytes = peer_bytes(connection.peer, connection.written, size);
            connection.written += size;
            self.log.push(format!("peer {index} writes {size}"));
            if self.stage.write(connection.peer, &bytes) == End::Reset {
                self.peer_learns(index, End::Reset);
            }
        }
    }

    fn peer_reads(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        // A reset is told once.
        if connection.left || connection.end == Some(End::Reset) {
            return;
        }
        let end = self.stage.read(connection.peer, &mut connection.read);
        self.log.push(format!("peer {index} has read {}, {end:?}", connection.read.len()));
        assert!(connection.stream.starts_with(&connection.read), "a prefix of what was sent");
        self.peer_learns(index, end);
    }

    fn peer_learns(&mut self, index: usize, end: End) {
        let connection = &mut self.connections[index];
        match end {
            End::Open => assert_eq!(connection.end, None, "what has ended has ended"),
            End::Ended => {
                assert!(connection.shut.is_some() || connection.closing, "we have ended it");
                assert!(connection.read.len() >= connection.sent, "all that was sent came before");
            }
            End::Reset => {
                assert!(connection.is_doomed(), "only unread input resets");
                if connection.read.len() < connection.sent {
                    self.choices.add(Choice::ResetLoses);
                }
            }
        }
        connection.end = (end != End::Open).then_some(end);
    }

    fn peer_finishes(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let may = !connection.finished && !connection.left && !connection.closing;
        if may && !connection.is_shut_both() {
            connection.finished = true;
            self.log.push(format!("peer {index} finishes"));
            self.stage.finish(connection.peer);
        }
    }

    fn peer_leaves(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if !connection.left {
            connection.left = true;
            self.log.push(format!("peer {index} leaves"));
            self.stage.close(connection.peer);
        }
    }

    // What we do.

    fn accept(&mut self) {
        if !self.accept {
            self.accept = true;
            self.accept_cancelled = false;
            let listener = self.stage.listener();
            self.push(ACCEPT, Op::Accept { listener });
        }
    }

    fn cancel_accept(&mut self) {
        if self.accept && !self.accept_cancel {
            self.accept_cancelled = true;
            self.accept_cancel = true;
            self.push(ACCEPT_CANCEL, Op::Cancel { target: ACCEPT });
        }
    }

    fn watch_or_signal(&mut self) {
        if !self.watch {
            self.watch = true;
            let eventfd = self.stage.eventfd();
            self.push(WATCH, Op::Watch { eventfd });
        } else {
            self.signals += 1;
            self.log.push("the eventfd is signalled".to_owned());
            if self.prng.coin() {
                self.stage.signal();
            } else {
                let eventfd = self.stage.eventfd();
                self.push(Token::new(Kind::Close, 98, 0), Op::Signal { eventfd });
            }
        }
    }

    fn wake(&mut self) {
        if self.wakes == [0; 2] {
            self.wakes = [1; 2];
            self.push(WAKE, Op::Wake { shard: 1 });
        }
    }

    fn recycle(&mut self) {
        let keep = self.prng.index(self.loans.len() + 1);
        self.log.push(format!("{} of {} buffers stay on loan", keep, self.loans.len()));
        for buffer in self.loans.drain(keep..) {
            self.stage.ring(0).recycle(buffer);
        }
    }

    fn receive(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if let (false, true, Some(fd)) = (connection.recv, connection.is_open(), connection.fd) {
            connection.recv = true;
            connection.recv_cancelled = false;
            self.push(Self::token(Kind::Recv, index), Op::Recv { fd });
        }
    }

    fn cancel(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.is_open() && !connection.cancel {
            connection.cancel = true;
            connection.recv_cancelled = connection.recv;
            let target = Self::token(Kind::Recv, index);
            self.push(Self::token(Kind::Cancel, index), Op::Cancel { target });
        }
    }

    fn send(&mut self, index: usize) {
        let (output, arena) = (&self.output, &self.arena);
        let connection = &mut self.connections[index];
        let (true, None, Some(fd)) = (connection.is_open(), connection.send, connection.fd) else {
            return;
        };
        let most = self.prng.pick(&SPANS_MAX);
        let mut spans = Spans::new();
        for _ in 0..self.prng.range(1, Spans::COUNT_MAX as u64) {
            let len = u32::try_from(self.prng.range(1, most)).expect("it is small");
            let offset = self.prng.below(u64::from(REGION_SIZE - len));
            let region = self.prng.pick(&[Region::Output, Region::Arena]);
            spans.push(Span { offset, len, region });
            let bytes = if region == Region::Output { output } else { arena };
            let start = usize::try_from(offset).expect("it is small");
            connection.stream.extend(&bytes[start..][..len as usize]);
        }
        connection.send = Some((spans, self.turns));
        self.push(Self::token(Kind::Send, index), Op::Send { fd, spans });
    }

    fn shut(&mut self, index: usize) {
        let how = self.prng.pick(&[Shutdown::Write, Shutdown::Both]);
        let connection = &mut self.connections[index];
        if let (true, None, Some(fd)) = (connection.is_open(), connection.shut, connection.fd) {
            connection.shut = Some(how);
            self.push(Self::token(Kind::Close, index), Op::Shutdown { fd, how });
        }
    }

    fn close(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let may_end = connection.shut.is_some() || connection.finished || connection.left;
        if let (true, false, true, Some(fd)) =
            (connection.is_open(), connection.in_flight(), may_end, connection.fd)
        {
            connection.closing = true;
            self.push(Self::token(Kind::Close, index), Op::Close { fd });
        }
    }

    // How it ends.

    /// Ends everything by the rules and looks at what is left.
    fn end(&mut self) {
        let mut now = Instant::ZERO;
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "it does not end: {:?}", self.connections);
            self.loans.drain(..).for_each(|buffer| self.stage.ring(0).recycle(buffer));
            let busy = self.connections.iter().any(|connection| !connection.closed);
            if !busy && !self.accept && !self.accept_cancel && !self.watch && self.wakes == [0; 2] {
                break;
            }
            if self.watch && self.signals == 0 {
                self.watch_or_signal();
            }
            if !self.backlog.is_empty() {
                self.accept();
            } else {
                self.cancel_accept();
            }
            for index in 0..self.connections.len() {
                self.end_one(index);
            }
            now = self.turn(now + WAIT);
        }
        assert!(self.loans.is_empty(), "every buffer is at home");
        for index in 0..self.connections.len() {
            self.see_the_end(index);
        }
    }

    /// What a peer that is still there reads of a connection that is closed.
    fn see_the_end(&mut self, index: usize) {
        for turn in 0.. {
            self.peer_reads(index);
            let connection = &self.connections[index];
            if connection.left || connection.end.is_some() {
                break;
            }
            assert!(turn < TURNS_MAX, "a peer learns that its connection is closed");
        }
        let connection = &self.connections[index];
        if connection.end == Some(End::Ended) {
            assert_eq!(connection.read.len(), connection.sent, "all that was sent is read");
        }
    }

    fn end_one(&mut self, index: usize) {
        self.peer_reads(index);
        let connection = &mut self.connections[index];
        if connection.is_open() && connection.shut.is_none_or(|how| how == Shutdown::Write) {
            // The peer takes what a send in flight is blocked on; then nothing is in flight.
            if let (None, Some(fd)) = (connection.send, connection.fd) {
                connection.shut = Some(Shutdown::Both);
                let how = Shutdown::Both;
                self.push(Self::token(Kind::Close, index), Op::Shutdown { fd, how });
            }
        }
        self.close(index);
    }
}
