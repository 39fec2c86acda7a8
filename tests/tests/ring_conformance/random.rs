//! Random operations: on either ring they do what the contract says, and where it leaves the kernel
//! a choice, the simulated ring makes every choice that the kernel's was seen to make.
//!
//! One seed draws what the peers do and what we do, within our side of the contract: one receive
//! and one send a socket; terminate, join, close. The model knows only bytes written and sent, and
//! which end of a connection has ended how.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else a completion says is wrong")]

use crate::stage::{BUFFERS_COUNT, End, Stage};
use pelton::ring::{
    BufferId, Completion, Completions, Event, Fault, Fd, Kind, Memory, Op, Region, Ring, Shutdown,
    Span, Spans, Token,
};
use pelton_tests::prng::{Prng, mix};
use shard_cache::time::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Operations of a run.
const STEPS: u32 = 400;

/// Connections of a run.
const CONNECTIONS_MAX: usize = 6;

/// Bytes that a peer has written and we have not received, at most.
const UNREAD_MAX: usize = 8 << 10;

/// Bytes of each region that is sent from; they never change.
const REGION_SIZE: u32 = 64 << 10;

/// Turns in which what is under way must end.
const TURNS_MAX: u32 = 20_000;

/// A wait, where there is nothing to do but to wait.
const WAIT: Duration = Duration::from_millis(1);

/// How often each choice was made that the contract leaves to the kernel.
pub(crate) type Choices = BTreeMap<&'static str, u64>;

/// One connection, from both ends.
#[derive(Debug)]
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
    /// The spans of the send in flight.
    send: Option<Spans>,
    /// Bytes that were sent, and those of the send in flight behind them.
    stream: Vec<u8>,
    sent: usize,
    read: Vec<u8>,
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
    choices: Choices,
}

const ACCEPT: Token = Token::new(Kind::Accept, 0, 0);
const ACCEPT_CANCEL: Token = Token::new(Kind::Cancel, 99, 0);
const WATCH: Token = Token::new(Kind::Watch, 0, 0);
const WAKE: Token = Token::new(Kind::Wake, 1, 0);

/// Plays a seed; says which choices the ring made.
pub(crate) fn play<S: Stage>(stage: &mut S, seed: u64) -> Choices {
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
        choices: Choices::new(),
    };
    for _ in 0..STEPS {
        run.step();
        if run.prng.coin() {
            run.turn(Instant::ZERO);
        }
    }
    run.end();
    run.choices
}

/// Bytes that a peer writes.
fn peer_bytes(peer: usize, from: usize, size: usize) -> Vec<u8> {
    (from..from + size).map(|at| mix((peer as u64) << 32 | at as u64).to_le_bytes()[0]).collect()
}

impl<S: Stage> Run<'_, S> {
    fn push(&mut self, token: Token, op: Op) {
        self.stage.ring(0).push(token, op);
    }

    fn token(kind: Kind, index: usize) -> Token {
        let slot = u32::try_from(index).expect("connections are few");
        Token::new(kind, slot, slot + 7)
    }

    fn chose(&mut self, what: &'static str) {
        *self.choices.entry(what).or_default() += 1;
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
        if self.connections.len() == CONNECTIONS_MAX {
            return;
        }
        let peer = self.stage.connect();
        self.backlog.push_back(self.connections.len());
        self.connections.push(Connection {
            peer,
            fd: None,
            written: 0,
            received: 0,
            finished: false,
            left: false,
            recv: false,
            recv_cancelled: false,
            cancel: false,
            send: None,
            stream: Vec::new(),
            sent: 0,
            read: Vec::new(),
            shut: None,
            closing: false,
            closed: false,
        });
    }

    fn peer_writes(&mut self, index: usize) {
        let most = self.prng.pick(&[1, 50, 600]);
        let size = self.prng.size(1, most);
        let connection = &mut self.connections[index];
        let may = !connection.finished && !connection.left && !connection.closing;
        let has_room = connection.written - connection.received + size <= UNREAD_MAX;
        if may && has_room && !connection.is_shut_both() {
            let bytes = peer_bytes(connection.peer, connection.written, size);
            connection.written += size;
            self.stage.write(connection.peer, &bytes);
        }
    }

    fn peer_reads(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.left {
            return;
        }
        let end = self.stage.read(connection.peer, &mut connection.read);
        assert!(connection.stream.starts_with(&connection.read), "a prefix of what was sent");
        match end {
            End::Open => {}
            End::Ended => {
                assert!(connection.shut.is_some() || connection.closing, "we have ended it");
                assert!(connection.read.len() >= connection.sent, "all that was sent came before");
            }
            End::Reset => {
                let unread = connection.closing && connection.received < connection.written;
                assert!(unread || connection.is_shut_both(), "only unread input resets");
                self.chose("a reset throws away what the peer has not read");
            }
        }
    }

    fn peer_finishes(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.fd.is_some()
            && !connection.finished
            && !connection.left
            && !connection.closing
            && !connection.is_shut_both()
        {
            connection.finished = true;
            self.stage.finish(connection.peer);
        }
    }

    fn peer_leaves(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if connection.fd.is_some() && !connection.left {
            connection.left = true;
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
        let most = self.prng.pick(&[20, 300, 8_000]);
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
        connection.send = Some(spans);
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

    // What comes of it.

    fn turn(&mut self, deadline: Instant) -> Instant {
        let mut batch = Completions::with_capacity(self.prng.pick(&[1, 8, 64]));
        let memory = Memory { output: &self.output, arena: &self.arena };
        let clock = self.stage.turn(0, memory, deadline, &mut batch);
        let mut receives = BTreeMap::new();
        for completion in batch.drain() {
            if matches!(completion.event, Event::Received { .. }) {
                *receives.entry(completion.token.slot()).or_insert(0) += 1;
            }
            self.see(completion);
        }
        if receives.values().any(|count| *count > 1) {
            self.chose("one receive completes more than once in a turn");
        }
        if self.wakes[1] > 0 {
            let mut batch = Completions::with_capacity(8);
            let memory = Memory { output: &self.output, arena: &self.arena };
            self.stage.turn(1, memory, Instant::ZERO, &mut batch);
            for woken in batch.drain() {
                assert_eq!((woken.token.kind(), woken.more), (Kind::Wake, false));
                assert_eq!(woken.event, Event::Woken);
                self.wakes[1] -= 1;
            }
        }
        clock.woke
    }

    fn see(&mut self, completion: Completion) {
        let Completion { token, event, more } = completion;
        if token == ACCEPT {
            self.see_accept(event, more);
        } else if token == ACCEPT_CANCEL {
            assert!(std::mem::take(&mut self.accept_cancel) && !more, "it completes once");
            assert_eq!(event, Event::Cancelled);
        } else if token == WATCH {
            assert!(std::mem::take(&mut self.watch) && !more, "a watch completes once");
            let signals = self.signals + self.signals_before;
            assert!(signals > 0, "nobody has written the eventfd");
            (self.signals, self.signals_before) = (0, signals - 1);
            assert_eq!(event, Event::Woken);
        } else if token == WAKE {
            assert_eq!((event, more), (Event::Woken, false));
            self.wakes[0] = self.wakes[0].checked_sub(1).expect("a wake-up is delivered once");
        } else {
            let index = token.slot() as usize;
            assert_eq!(token, Self::token(token.kind(), index), "a token comes back as it went");
            match token.kind() {
                Kind::Recv => self.see_recv(index, event, more),
                Kind::Send => self.see_send(index, event, more),
                Kind::Cancel => {
                    let connection = &mut self.connections[index];
                    assert!(std::mem::take(&mut connection.cancel) && !more, "it completes once");
                    assert_eq!(event, Event::Cancelled);
                    if connection.recv && connection.recv_cancelled {
                        self.chose("a cancellation completes before its target");
                    }
                }
                Kind::Close => {
                    assert_eq!((event, more), (Event::Closed, false));
                    let connection = &mut self.connections[index];
                    assert!(connection.closing && !connection.closed, "it closes once");
                    connection.closed = true;
                }
                Kind::Accept | Kind::Watch | Kind::Wake => panic!("{token:?} {event:?}"),
            }
        }
    }

    fn see_accept(&mut self, event: Event, more: bool) {
        assert!(self.accept, "an accept completes while it is in flight");
        self.accept = more;
        match event {
            Event::Accepted(fd) => {
                let index = self.backlog.pop_front().expect("somebody has connected");
                self.connections[index].fd = Some(fd);
                if !more && !self.accept_cancelled {
                    self.chose("an accept ends by itself");
                }
            }
            Event::Failed(Fault::Cancelled) => assert!(self.accept_cancelled && !more),
            event => panic!("an accept completed with {event:?}"),
        }
    }

    fn see_recv(&mut self, index: usize, event: Event, more: bool) {
        let connection = &mut self.connections[index];
        assert!(connection.recv, "a receive completes while it is in flight");
        connection.recv = more;
        let cancelled = connection.recv_cancelled;
        let gone = connection.left || connection.is_shut_both();
        match event {
            Event::Received { buffer, len } => {
                let bytes = self.stage.ring(0).bytes(&buffer, len);
                let expected = peer_bytes(connection.peer, connection.received, len as usize);
                assert_eq!(bytes, expected, "what the peer has written, in order");
                connection.received += len as usize;
                assert!(connection.received <= connection.written);
                self.loans.push(buffer);
                assert!(self.loans.len() <= usize::from(BUFFERS_COUNT), "a buffer is lent once");
                if !more {
                    let what = if cancelled {
                        "a receive that was cancelled completes with data"
                    } else {
                        "a receive ends by itself, with data"
                    };
                    self.chose(what);
                }
            }
            Event::Ended => {
                assert!(!more && (connection.finished || gone), "the peer has not ended");
                if connection.finished && !gone {
                    assert_eq!(connection.received, connection.written, "the end comes last");
                }
            }
            Event::Failed(Fault::NoBuffers) => {
                assert!(!more);
                self.chose("a receive finds no buffer");
            }
            Event::Failed(Fault::Cancelled) => assert!(cancelled && !more, "nobody cancelled it"),
            Event::Failed(Fault::PeerGone) => assert!(gone && !more, "the peer is there"),
            event => panic!("a receive completed with {event:?}"),
        }
    }

    fn see_send(&mut self, index: usize, event: Event, more: bool) {
        let connection = &mut self.connections[index];
        let spans = connection.send.take().expect("a send completes while it is in flight");
        assert!(!more, "a send completes once");
        let size = usize::try_from(spans.size()).expect("it is small");
        match event {
            Event::Sent { len } => {
                let len = len as usize;
                assert!((1..=size).contains(&len), "{len} of {size} bytes");
                connection.sent += len;
                connection.stream.truncate(connection.sent);
                if len < size {
                    self.chose("a send is short");
                }
            }
            Event::Failed(Fault::PeerGone) => {
                assert!(connection.left || connection.shut.is_some(), "the peer is there");
                connection.stream.truncate(connection.sent);
            }
            event => panic!("a send completed with {event:?}"),
        }
    }

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
