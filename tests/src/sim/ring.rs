//! The simulated ring: as unkind as the contract of [`Ring`] allows, and strict about our side.
//!
//! Unkind: it reads send memory when the send completes, poisons recycled buffers and hands them
//! out in any order, delivers as little as one byte, ends shots by itself, lets cancellations lose
//! races, shows completions late and in any order across sockets (never within one stream).
//! Strict: it panics when a shard uses a descriptor that is closed or belongs to another
//! connection, has two sends or two receives in flight on one socket, changes bytes that are being
//! sent, gives a buffer back twice, or pushes more than it may.
//!
//! Owns the submissions in flight and the receive buffers of one shard. Sockets, time and the
//! record lie in the [`Host`], which the rings of a world share.

#![expect(clippy::disallowed_types, reason = "the rings of a world share a host, in one thread")]

use super::host::{Host, Wake};
use super::marks::Mark;
use super::net::{Acceptable, Closed, File, Received, SocketId};
use super::sending::{Progress, Sending};
use super::wording::{describe, name, words};
use pelton::limits::Limits;
use pelton::mesh::Sleep;
use pelton::ring::{
    BufferId, Clock, Completion, Completions, Event, Fault, Fd, Kind, Memory, Op, Ring,
    RingCounters, Token,
};
use shard_cache::time::Instant;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;

/// What a buffer holds while it is not on loan.
const POISON: u8 = 0xcc;

/// What an accept on a listener that was shut down fails with.
const EINVAL: i32 = 22;

/// A shard may poll so often in a row with nothing to show for it: it works off what it has.
const SPINS_MAX: u32 = 1000;

/// Completions that one shot posts in a row at most.
const BURST_MAX: u32 = 8;

/// Sizes of a simulated ring.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Receive buffers.
    pub buffers_count: u16,
    /// Bytes in each.
    pub buffer_size: usize,
    /// Operations that may be pushed in one turn.
    pub pushes_max: usize,
}

impl Sizes {
    /// As a shard with these limits needs them.
    #[must_use]
    pub const fn of(limits: &Limits) -> Self {
        Self {
            buffers_count: limits.input_buffers_count,
            buffer_size: limits.input_buffer_size as usize,
            pushes_max: limits.pushes_per_turn_max as usize,
        }
    }
}

/// A submission in the hands of the simulated kernel.
#[derive(Debug)]
struct Flight {
    token: Token,
    work: Work,
    /// Nothing happens to it before this.
    due: Instant,
    cancelled: bool,
}

#[derive(Debug)]
enum Work {
    Accept { listener: usize, one: bool },
    Recv { socket: SocketId, armed: bool },
    Send(Sending),
    Cancel { target: Token },
    Close { fd: Fd },
    Wake,
    Watch { eventfd: usize },
}

impl Work {
    const fn is_cancel(&self) -> bool {
        matches!(self, Self::Cancel { .. })
    }
}

impl Flight {
    /// Whether it could complete, or at least move, if it were due.
    fn is_able(&self, host: &Host) -> bool {
        self.cancelled
            || match &self.work {
                Work::Accept { listener, .. } => {
                    host.net.acceptable(*listener) != Acceptable::Nothing
                }
                Work::Recv { socket, armed } => {
                    !armed || host.net.readable(*socket) != Received::Nothing
                }
                Work::Send(sending) => host.net.sendable(sending.socket) != Some(0),
                Work::Cancel { .. } | Work::Close { .. } | Work::Wake => true,
                Work::Watch { eventfd } => host.net.is_signalled(*eventfd),
            }
    }
}

/// What became of a flight for now.
enum Outcome {
    /// Nothing happened.
    Waits,
    /// Something happened that nobody is told of.
    Moved,
    /// It completed and will complete again.
    Posted(Event),
    /// It completed for the last time.
    Over(Event),
}

/// A simulated ring of one shard.
#[derive(Debug)]
pub struct SimRing {
    host: Rc<RefCell<Host>>,
    shard: u16,
    /// The flag that the shard raises before it waits.
    sleep: Sleep,
    sizes: Sizes,
    pushed: Vec<(Token, Op)>,
    flights: Vec<Flight>,
    /// Completions that the shard has not seen yet, in the order of posting.
    posted: VecDeque<Completion>,
    buffers: Vec<Box<[u8]>>,
    /// Bytes received into each; the rest of it is poison.
    filled: Vec<usize>,
    /// Indexes of the buffers that are not on loan.
    free: Vec<u16>,
    counters: RingCounters,
    /// The shard waits for a completion.
    asleep: Option<Asleep>,
    /// Turns in a row in which nothing was pushed, nothing completed, and the deadline had passed.
    spins: u32,
}

/// A wait.
#[derive(Clone, Copy, Debug)]
struct Asleep {
    since: Instant,
    until: Instant,
    /// The shard had raised its flag, so that others wake it.
    flagged: bool,
}

impl SimRing {
    /// The ring of the shard of this index.
    #[must_use]
    pub fn new(host: Rc<RefCell<Host>>, shard: u16, sleep: Sleep, sizes: Sizes) -> Self {
        let buffer = |_| vec![POISON; sizes.buffer_size].into_boxed_slice();
        Self {
            host,
            shard,
            sleep,
            sizes,
            pushed: Vec::with_capacity(sizes.pushes_max),
            flights: Vec::new(),
            posted: VecDeque::new(),
            buffers: (0..sizes.buffers_count).map(buffer).collect(),
            filled: vec![0; sizes.buffers_count.into()],
            free: (0..sizes.buffers_count).collect(),
            counters: RingCounters::default(),
            asleep: None,
            spins: 0,
        }
    }

    /// When the shard must have its next turn, if nothing happens before: now, if it is awake.
    ///
    /// The kernel's ring would wait inside `turn`. Here all shards share one thread, so `turn`
    /// returns, and the world leaves a shard alone that waits. That shows a shard which forgets to
    /// arm, to wake or to look at its mail, as it would in the kernel.
    #[must_use]
    pub fn next_turn(&self, host: &Host) -> Instant {
        match self.asleep {
            Some(Asleep { until, .. }) if self.posted.is_empty() && self.pushed.is_empty() => {
                self.next_event(host).map_or(until, |event| event.min(until))
            }
            Some(_) | None => host.now(),
        }
    }

    /// After a turn: keeps the flag of a shard raised that waits in its next turn, if it has raised
    /// it itself.
    pub fn keep_asleep(&self) {
        if self.asleep.is_some_and(|asleep| asleep.flagged) {
            self.sleep.prepare();
        }
    }

    /// When something may complete next without anybody outside doing anything.
    fn next_event(&self, host: &Host) -> Option<Instant> {
        let able = self.flights.iter().filter(|flight| flight.is_able(host));
        let wakes = host.wakes.iter().filter(|wake| wake.shard == self.shard);
        able.map(|flight| flight.due).chain(wakes.map(|wake| wake.due)).min()
    }

    /// Submissions in flight or waiting to be seen, but for accepts and watches, which always are.
    #[must_use]
    pub fn busy_count(&self) -> usize {
        let standing = |kind| matches!(kind, Kind::Accept | Kind::Watch);
        self.flights.iter().filter(|flight| !standing(flight.token.kind())).count()
            + self.pushed.len()
            + self.posted.len()
    }

    /// Submissions whose last completion the shard has not seen, but for watches and wake-ups.
    #[must_use]
    pub fn submissions_count(&self) -> usize {
        let counts = |token: Token| !matches!(token.kind(), Kind::Watch | Kind::Wake);
        let silent = |op: &Op| matches!(op, Op::Shutdown { .. } | Op::Signal { .. });
        self.flights.iter().filter(|flight| counts(flight.token)).count()
            + self.pushed.iter().filter(|(token, op)| counts(*token) && !silent(op)).count()
            + self.posted.iter().filter(|done| counts(done.token) && !done.more).count()
    }

    /// Bodies that are sent from the arena at the moment: each must be pinned.
    #[must_use]
    pub fn arena_spans_count(&self) -> usize {
        let sending = |flight: &Flight| match &flight.work {
            Work::Send(sending) => sending.arena_spans_count(),
            Work::Accept { .. }
            | Work::Recv { .. }
            | Work::Cancel { .. }
            | Work::Close { .. }
            | Work::Wake
            | Work::Watch { .. } => 0,
        };
        self.flights.iter().map(sending).sum()
    }

    /// Receive buffers on loan to the shard.
    #[must_use]
    pub fn loans_count(&self) -> usize {
        let unseen = |done: &&Completion| matches!(done.event, Event::Received { .. });
        self.buffers.len() - self.free.len() - self.posted.iter().filter(unseen).count()
    }

    /// A place in the middle of a turn: now and then the shard is stalled here while others act.
    fn meet(&self) {
        let stall = self.host.borrow_mut().stall(self.shard);
        if let Some((until, others)) = stall {
            others.go_on(until);
        }
    }

    // Submitting.

    fn submit_all(&mut self, host: &mut Host, memory: Memory<'_>) {
        let pushed = std::mem::take(&mut self.pushed);
        // What is done inline happens before anything else that was pushed in the same turn.
        for (_, op) in &pushed {
            Self::submit_inline(host, *op);
        }
        for (token, op) in &pushed {
            if let Some(work) = self.submit(host, memory, *token, *op) {
                let due = host.soon();
                let flight = Flight { token: *token, work, due, cancelled: false };
                self.flights.push(flight);
            }
        }
        self.pushed = pushed;
        self.pushed.clear();
    }

    fn submit_inline(host: &mut Host, op: Op) {
        match op {
            Op::Shutdown { fd, how } => host.net.shutdown(fd, how),
            Op::Signal { eventfd } => host.net.signal(eventfd),
            Op::Accept { .. }
            | Op::AcceptOne { .. }
            | Op::Recv { .. }
            | Op::Send { .. }
            | Op::Cancel { .. }
            | Op::Close { .. }
            | Op::Wake { .. }
            | Op::Watch { .. } => {}
        }
    }

    const fn user(&self, token: Token) -> (u16, u32, u32) {
        (self.shard, token.slot(), token.generation())
    }

    fn submit(
        &mut self,
        host: &mut Host,
        memory: Memory<'_>,
        token: Token,
        op: Op,
    ) -> Option<Work> {
        let acts_alone = matches!(
            op,
            Op::Accept { .. }
                | Op::AcceptOne { .. }
                | Op::Recv { .. }
                | Op::Send { .. }
                | Op::Watch { .. }
        );
        if acts_alone {
            let twin = self.flights.iter().any(|flight| flight.token == token);
            assert!(!twin, "{:?} of slot {} is in flight already", token.kind(), token.slot());
        }
        self.counters.submissions += 1;
        host.note(self.shard, name(op), token, words(op));
        match op {
            Op::Shutdown { .. } | Op::Signal { .. } => None,
            Op::Accept { listener } | Op::AcceptOne { listener } => {
                let one = matches!(op, Op::AcceptOne { .. });
                match host.net.file(listener) {
                    File::Listener(listener) => Some(Work::Accept { listener, one }),
                    File::Socket(_) | File::Eventfd(_) => panic!("{listener:?} is no listener"),
                }
            }
            Op::Recv { fd } => {
                let socket = host.net.socket(fd, self.user(token));
                let other =
                    |work: &Work| matches!(work, Work::Recv { socket: at, .. } if *at == socket);
                assert!(
                    !self.flights.iter().any(|flight| other(&flight.work)),
                    "one receive a socket"
                );
                host.net.hold(socket);
                Some(Work::Recv { socket, armed: false })
            }
            Op::Send { fd, spans } => {
                let socket = host.net.socket(fd, self.user(token));
                assert!(!self.is_sending(socket), "one send a socket");
                host.net.hold(socket);
                let turn = self.counters.enters;
                Some(Work::Send(Sending::new(socket, spans, memory, turn)))
            }
            Op::Cancel { target } => {
                self.submit_cancel(host, target);
                Some(Work::Cancel { target })
            }
            Op::Close { fd } => {
                self.submit_close(host, fd);
                Some(Work::Close { fd })
            }
            Op::Wake { shard } => {
                assert!(shard < host.shards_count, "only shards are woken");
                let due = host.soon();
                host.wakes.push(Wake { due, shard });
                Some(Work::Wake)
            }
            Op::Watch { eventfd } => match host.net.file(eventfd) {
                File::Eventfd(eventfd) => Some(Work::Watch { eventfd }),
                File::Socket(_) | File::Listener(_) => panic!("{eventfd:?} is no eventfd"),
            },
        }
    }

    /// A cancellation acts at once on what it finds in flight; both complete when they like.
    fn submit_cancel(&mut self, host: &mut Host, target: Token) {
        let is_target = |flight: &&mut Flight| flight.token == target && !flight.work.is_cancel();
        match self.flights.iter_mut().find(is_target) {
            Some(flight) => {
                flight.cancelled = true;
                flight.due = host.soon();
            }
            None => host.marks.hit(Mark::CancelFoundNothing),
        }
    }

    fn submit_close(&self, host: &mut Host, fd: Fd) {
        if let File::Socket(socket) = host.net.file(fd) {
            assert!(!self.is_sending(socket), "a socket is closed after its last send");
        }
        match host.net.close(fd) {
            Closed::Quietly => {}
            Closed::Reset { lost } => host.marks.hit_if(lost > 0, Mark::ResetLostOutput),
            Closed::Held => host.marks.hit(Mark::CloseWithReceive),
        }
    }

    fn is_sending(&self, socket: SocketId) -> bool {
        self.flights
            .iter()
            .any(|flight| matches!(&flight.work, Work::Send(sending) if sending.socket == socket))
    }

    // Posting.

    /// Lets everything happen that is due, in any order across flights.
    fn post_all(&mut self, host: &mut Host, memory: Memory<'_>) {
        let now = host.now();
        let mut order: Vec<usize> = (0..self.flights.len()).collect();
        order.retain(|index| self.flights[*index].due <= now);
        host.prng.shuffle(&mut order);
        let mut over = Vec::new();
        for index in order {
            for burst in 1..=BURST_MAX {
                let token = self.flights[index].token;
                match self.post(host, memory, index) {
                    Outcome::Waits => break,
                    Outcome::Moved => {}
                    Outcome::Posted(event) => {
                        self.posted.push_back(Completion { token, event, more: true });
                        host.marks.hit_if(burst == 4, Mark::ReceivesInOneTurn);
                    }
                    Outcome::Over(event) => {
                        self.posted.push_back(Completion { token, event, more: false });
                        over.push(index);
                        break;
                    }
                }
                self.flights[index].due = host.soon();
                if self.flights[index].due > now && host.prng.coin() {
                    break;
                }
            }
        }
        over.sort_unstable();
        for index in over.into_iter().rev() {
            self.flights.swap_remove(index);
        }
        self.post_wakes(host);
    }

    fn post_wakes(&mut self, host: &mut Host) {
        let now = host.now();
        let token = Token::new(Kind::Wake, 0, 0);
        while let Some(at) =
            host.wakes.iter().position(|wake| wake.shard == self.shard && wake.due <= now)
        {
            host.wakes.swap_remove(at);
            self.posted.push_back(Completion { token, event: Event::Woken, more: false });
        }
    }

    fn post(&mut self, host: &mut Host, memory: Memory<'_>, index: usize) -> Outcome {
        match self.flights[index].work {
            Work::Accept { listener, one } => self.post_accept(host, index, listener, one),
            Work::Recv { socket, .. } => self.post_recv(host, index, socket),
            Work::Send(_) => self.post_send(host, index, memory),
            Work::Cancel { target } => {
                let before = self.flights.iter().any(|flight| {
                    flight.token == target && flight.cancelled && !flight.work.is_cancel()
                });
                host.marks.hit_if(before, Mark::CancelBeforeTarget);
                host.marks.hit_if(!before, Mark::CancelAfterTarget);
                Outcome::Over(Event::Cancelled)
            }
            Work::Close { .. } => Outcome::Over(Event::Closed),
            Work::Wake => Outcome::Over(Event::Woken),
            Work::Watch { eventfd } if host.net.take_signal(eventfd) => Outcome::Over(Event::Woken),
            Work::Watch { .. } => Outcome::Waits,
        }
    }

    fn post_accept(&self, host: &mut Host, index: usize, listener: usize, one: bool) -> Outcome {
        if self.flights[index].cancelled {
            host.marks.hit(Mark::CancelWon);
            return Outcome::Over(Event::Failed(Fault::Cancelled));
        }
        match host.net.acceptable(listener) {
            Acceptable::Nothing => return Outcome::Waits,
            Acceptable::Shut => return Outcome::Over(Event::Failed(Fault::Other(EINVAL))),
            Acceptable::Connection => {}
        }
        let failure = host.faults.accept_failure;
        let accepted = if host.chance(failure) {
            Err(Fault::NoDescriptors)
        } else {
            host.net.accept(listener)
        };
        match accepted {
            Ok(fd) => {
                let closing = |work: &Work| matches!(work, Work::Close { fd: at } if *at == fd);
                let reused = self.flights.iter().any(|flight| closing(&flight.work));
                host.marks.hit_if(reused, Mark::DescriptorReusedAtOnce);
                let end = host.faults.shot_end;
                if one {
                    return Outcome::Over(Event::Accepted(fd));
                }
                if host.chance(end) {
                    host.marks.hit(Mark::AcceptEndedByItself);
                    return Outcome::Over(Event::Accepted(fd));
                }
                Outcome::Posted(Event::Accepted(fd))
            }
            Err(fault) => {
                let aborted = fault == Fault::PeerGone;
                let mark = if aborted { Mark::AcceptAborted } else { Mark::AcceptNoDescriptors };
                host.marks.hit(mark);
                Outcome::Over(Event::Failed(fault))
            }
        }
    }

    fn post_recv(&mut self, host: &mut Host, index: usize, socket: SocketId) -> Outcome {
        let outcome = self.receive(host, index, socket);
        if let Outcome::Over(_) = outcome
            && let Closed::Reset { lost } = host.net.release(socket)
        {
            host.marks.hit_if(lost > 0, Mark::ResetLostOutput);
        }
        outcome
    }

    fn receive(&mut self, host: &mut Host, index: usize, socket: SocketId) -> Outcome {
        let flight = &mut self.flights[index];
        let cancelled = flight.cancelled;
        let Work::Recv { armed, .. } = &mut flight.work else { unreachable!("it is a receive") };
        let first_look = !std::mem::replace(armed, true);
        let lost = host.faults.cancel_lost;
        if cancelled && (self.free.is_empty() || !host.chance(lost)) {
            host.marks.hit(Mark::CancelWon);
            return Outcome::Over(Event::Failed(Fault::Cancelled));
        }
        match host.net.readable(socket) {
            Received::Bytes(_) if self.free.is_empty() => {
                host.marks.hit(Mark::ReceiveNoBuffers);
                Outcome::Over(Event::Failed(Fault::NoBuffers))
            }
            Received::Nothing if first_look && self.free.is_empty() => {
                host.marks.hit(Mark::ReceiveNoBuffersAtOnce);
                Outcome::Over(Event::Failed(Fault::NoBuffers))
            }
            Received::Bytes(size) => {
                host.marks.hit_if(cancelled, Mark::CancelLost);
                let event = self.lend(host, socket, size);
                let end = host.faults.shot_end;
                if host.chance(end) {
                    host.marks.hit(Mark::ReceiveEndedByItself);
                    return Outcome::Over(event);
                }
                Outcome::Posted(event)
            }
            Received::Nothing if cancelled => {
                host.marks.hit(Mark::CancelWon);
                Outcome::Over(Event::Failed(Fault::Cancelled))
            }
            Received::Nothing => Outcome::Waits,
            Received::End => Outcome::Over(Event::Ended),
            Received::PeerGone => Outcome::Over(Event::Failed(Fault::PeerGone)),
        }
    }

    /// Moves some of `size` waiting bytes into any free buffer.
    fn lend(&mut self, host: &mut Host, socket: SocketId, size: usize) -> Event {
        let most = size.min(self.sizes.buffer_size);
        let short = host.faults.receive_short;
        let size_taken = if host.chance(short) {
            if host.prng.chance(100) { 1 } else { host.prng.size(1, most) }
        } else {
            most
        };
        host.marks.hit_if(size_taken == 1 && size > 1, Mark::ReceiveOneByte);
        let buffer = self.free.swap_remove(host.prng.index(self.free.len()));
        host.net.receive(socket, &mut self.buffers[usize::from(buffer)][..size_taken]);
        self.filled[usize::from(buffer)] = size_taken;
        let len = u32::try_from(size_taken).expect("buffers are small");
        Event::Received { buffer: BufferId::lend(buffer), len }
    }

    fn post_send(&mut self, host: &mut Host, index: usize, memory: Memory<'_>) -> Outcome {
        let turn = self.counters.enters;
        let flight = &mut self.flights[index];
        let Work::Send(sending) = &mut flight.work else { unreachable!("it is a send") };
        match sending.go_on(host, memory, turn, flight.cancelled) {
            Progress::Blocked => Outcome::Waits,
            Progress::Taken => Outcome::Moved,
            Progress::Over(event) => {
                host.net.release(sending.socket);
                Outcome::Over(event)
            }
        }
    }

    fn enter(
        &mut self,
        memory: Memory<'_>,
        deadline: Instant,
        completions: &mut Completions,
    ) -> Clock {
        let host = Rc::clone(&self.host);
        let host = &mut *host.borrow_mut();
        host.pass();
        // A shard that was left alone has waited in here since it fell asleep.
        let entered = self.asleep.map_or_else(|| host.now(), |asleep| asleep.since);
        let idle = self.pushed.is_empty();
        self.counters.enters += 1;
        self.submit_all(host, memory);
        host.pass();
        self.post_all(host, memory);
        let waits = self.posted.is_empty() && host.now() < deadline;
        host.marks.hit_if(waits, Mark::TurnEmpty);
        let empty = host.faults.turn_empty;
        let since = host.now();
        let asleep = waits && !host.chance(empty);
        // Asking whether a wake-up is due is the one way to read the flag; it lowers it, too.
        let flagged = asleep && self.sleep.must_wake();
        self.asleep = asleep.then_some(Asleep { since, until: deadline, flagged });
        let spins = idle && self.posted.is_empty() && !waits;
        self.spins = if spins { self.spins + 1 } else { 0 };
        assert!(self.spins <= SPINS_MAX, "a shard polls without anything to do");
        self.reap(host, completions);
        Clock { entered, woke: host.now(), wall: host.wall() }
    }

    // Reaping.

    fn reap(&mut self, host: &mut Host, completions: &mut Completions) {
        let hold_back = host.faults.hold_back;
        let most = if host.chance(hold_back) && self.posted.len() > 1 {
            host.marks.hit(Mark::CompletionsHeldBack);
            host.prng.size(1, self.posted.len() - 1)
        } else {
            self.posted.len()
        };
        for _ in 0..most {
            if completions.is_full() {
                host.marks.hit(Mark::BatchFull);
                self.counters.overflows += 1;
                break;
            }
            let completion = self.posted.pop_front().expect("as many are posted");
            self.counters.completions += 1;
            let (what, words) = describe(&completion);
            host.note(self.shard, what, completion.token, words);
            completions.push(completion);
        }
    }
}

impl Ring for SimRing {
    fn push(&mut self, token: Token, op: Op) {
        assert!(self.pushed.len() < self.sizes.pushes_max, "pushes of a turn are bounded");
        self.pushed.push((token, op));
        self.meet();
    }

    fn turn(
        &mut self,
        memory: Memory<'_>,
        deadline: Instant,
        completions: &mut Completions,
    ) -> Clock {
        assert!(completions.is_empty(), "the shard took all completions of the turn before");
        let clock = self.enter(memory, deadline, completions);
        // A shard that is asleep is inside its wait: what others do meanwhile is for its next turn.
        if self.asleep.is_none() {
            self.meet();
        }
        clock
    }

    fn bytes(&self, buffer: &BufferId, len: u32) -> &[u8] {
        assert!(!self.free.contains(&buffer.index()), "the buffer is on loan");
        self.meet();
        &self.buffers[usize::from(buffer.index())][..len as usize]
    }

    fn recycle(&mut self, buffer: BufferId) {
        assert!(!self.free.contains(&buffer.index()), "a buffer is given back once");
        let index = usize::from(buffer.index());
        let filled = std::mem::take(&mut self.filled[index]);
        self.buffers[index][..filled].fill(POISON);
        self.free.push(buffer.index());
        self.meet();
    }

    fn peer(&self, fd: Fd) -> Option<IpAddr> {
        self.host.borrow_mut().net.peer(fd)
    }

    fn buffers_count(&self) -> u16 {
        self.sizes.buffers_count
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }
}
