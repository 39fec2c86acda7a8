//! [`Ring`] over io_uring: the only file in which a span becomes an address.
//!
//! The ring is made disabled on the main thread, restricted there to the operations below, and
//! enabled on its shard's thread, which is then the only one that may submit (SINGLE_ISSUER) and
//! on which all completion work runs, inside our own `enter` (DEFER_TASKRUN). No seccomp filter
//! can see what a ring does; the restriction can. One `enter` a turn submits everything and waits.
//!
//! Invariant: a submission's memory is read by the kernel only after the `turn` that hands it
//! over, and stays as it is until its last completion; `Memory<'_>` and the shard's pins hold that.

use super::buffers::{Buffers, GROUP};
use super::{
    BufferId, Clock, Completion, Completions, Event, Fault, Kind, Memory, Op, Region, Ring,
    RingCounters, Shutdown, Span, Spans, Token,
};
use crate::sys::clock::{Epoch, wall};
use crate::sys::{eventfd, socket};
use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode};
use shard_cache::time::{Instant, WallSeconds};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::null_mut;
use std::time::Duration;

/// Sends up to this size complete as a whole. At a write timeout of 10 s, a peer that takes less
/// than 6.4 KiB a second is closed.
const WHOLE_SIZE_MAX: u64 = 64 << 10;

/// How often the wall clock is read. Dates on the wire have a resolution of one second.
const WALL_REREAD_NS: u64 = 50_000_000;

/// The operations a ring may use after it is enabled; anything else answers `EACCES`.
const OPERATIONS: [u8; 8] = [
    opcode::AcceptMulti::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::MsgRingData::CODE,
    opcode::Read::CODE,
];

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Completions the kernel keeps for us, at least as many as submissions; more overflow into its
    /// own memory.
    pub completions_max: u32,
    /// Submissions that fit the kernel's queue, a power of two; more go in further rounds.
    pub submissions_max: u32,
    /// Operations that may be pushed in one turn.
    pub pushes_per_turn_max: usize,
    /// Receive buffers, a power of two.
    pub buffers_count: u16,
    /// Bytes in each.
    pub buffer_size: u32,
}

/// A ring that is set up and restricted but does nothing yet. It may move to its shard's thread.
pub struct DisabledRing {
    ring: Box<IoUring>,
    buffers: Buffers,
    sizes: Sizes,
}

// SAFETY:
// - The pointers of `Buffers` name mappings that belong to this value alone and live as long as
//   the process; nothing about them is tied to a thread.
unsafe impl Send for DisabledRing {}

impl fmt::Debug for DisabledRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DisabledRing").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

impl DisabledRing {
    /// Sets a ring up on the calling thread.
    ///
    /// # Errors
    /// As io_uring_setup(2) and io_uring_register(2) have them; `sys::host` explains each.
    pub fn new(sizes: Sizes) -> io::Result<Self> {
        let ring = Box::new(build(&sizes)?);
        let mut buffers = Buffers::map(sizes.buffers_count, sizes.buffer_size)?;
        let submitter = ring.submitter();
        buffers.register(&submitter)?;
        let mut restrictions: Vec<_> = OPERATIONS.map(Restriction::sqe_op).into();
        restrictions.push(Restriction::sqe_flags_allowed(Flags::BUFFER_SELECT.bits()));
        submitter.register_restrictions(&mut restrictions)?;
        Ok(Self { ring, buffers, sizes })
    }

    /// Its descriptor, by which other shards wake it.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Enables the ring for the calling thread, which is its only user from here on.
    ///
    /// `peers` holds the descriptors of all shards' rings by index. All of them must be enabled
    /// before the first [`Op::Wake`]: a ring that is not answers `EBADFD`.
    ///
    /// # Errors
    /// As io_uring_register(2) has them.
    pub fn enable(self, peers: Box<[RawFd]>, epoch: Epoch) -> io::Result<KernelRing> {
        let Self { ring, buffers, sizes } = self;
        let owner = Box::into_raw(ring);
        // SAFETY:
        // - `owner` came from a box just now; `KernelRing::drop` turns it into one again, after the
        //   borrows made here are gone.
        let ring: &'static mut IoUring = unsafe { &mut *owner };
        let (mut submitter, submissions, completions) = ring.split();
        submitter.register_ring_fd()?;
        submitter.register_enable_rings()?;
        let capacity = submissions.capacity();
        Ok(KernelRing {
            submitter: ManuallyDrop::new(submitter),
            submissions: ManuallyDrop::new(submissions),
            completions: ManuallyDrop::new(completions),
            owner,
            buffers,
            messages: (0..capacity).map(|_| Message::EMPTY).collect(),
            message_next: 0,
            pending: VecDeque::with_capacity(sizes.pushes_per_turn_max),
            pending_max: sizes.pushes_per_turn_max,
            watched: Box::new(0),
            peers,
            epoch,
            wall: wall(),
            wall_read: epoch.now(),
            counters: RingCounters::default(),
        })
    }
}

/// Builds a disabled ring, without the flag that kernels before 6.6 do not know if need be.
fn build(sizes: &Sizes) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_r_disabled()
        .setup_cqsize(sizes.completions_max);
    match builder.clone().setup_no_sqarray().build(sizes.submissions_max) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            builder.build(sizes.submissions_max)
        }
        built => built,
    }
}

/// What a send of several spans points at until the kernel has consumed its submission.
#[derive(Clone, Copy)]
struct Message {
    header: libc::msghdr,
    parts: [libc::iovec; Spans::COUNT_MAX],
}

impl Message {
    const EMPTY: Self = Self {
        header: libc::msghdr {
            msg_name: null_mut(),
            msg_namelen: 0,
            msg_iov: null_mut(),
            msg_iovlen: 0,
            msg_control: null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        },
        parts: [libc::iovec { iov_base: null_mut(), iov_len: 0 }; Spans::COUNT_MAX],
    };
}

/// The kernel's ring of one shard, on that shard's thread.
pub struct KernelRing {
    // The borrows of `owner` must go before it does; `drop` sees to the order.
    submitter: ManuallyDrop<Submitter<'static>>,
    submissions: ManuallyDrop<SubmissionQueue<'static>>,
    completions: ManuallyDrop<CompletionQueue<'static>>,
    owner: *mut IoUring,
    buffers: Buffers,
    /// As many as the submission queue has places, used in turn: whoever finds a place in the
    /// queue finds a message that the kernel is done with.
    messages: Box<[Message]>,
    message_next: usize,
    /// Pushed since the last turn, and what found no place in the submission queue then.
    pending: VecDeque<(Token, Op)>,
    pending_max: usize,
    /// Where reads of watched eventfds go; the count is of no interest.
    watched: Box<u64>,
    peers: Box<[RawFd]>,
    epoch: Epoch,
    wall: WallSeconds,
    wall_read: Instant,
    counters: RingCounters,
}

impl fmt::Debug for KernelRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelRing").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Drop for KernelRing {
    fn drop(&mut self) {
        // SAFETY:
        // - Each is dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.completions) };
        // SAFETY:
        // - As above.
        unsafe { ManuallyDrop::drop(&mut self.submissions) };
        // SAFETY:
        // - As above.
        unsafe { ManuallyDrop::drop(&mut self.submitter) };
        // SAFETY:
        // - `owner` came from `Box::into_raw`, and the three borrows of it are gone.
        // - Closing the ring cancels what is in flight; memory that a late completion could still
        //   touch (buffers, regions) is never unmapped.
        drop(unsafe { Box::from_raw(self.owner) });
    }
}

impl Ring for KernelRing {
    fn push(&mut self, token: Token, op: Op) {
        assert!(self.pending.len() < self.pending_max, "pushes of a turn are bounded");
        self.pending.push_back((token, op));
    }

    fn turn(
        &mut self,
        memory: Memory<'_>,
        deadline: Instant,
        completions: &mut Completions,
    ) -> Clock {
        let entered = self.epoch.now();
        self.fill(memory);
        while !self.pending.is_empty() {
            self.counters.submissions_delayed += self.pending.len() as u64;
            self.enter(None);
            self.fill(memory);
        }
        self.completions.sync();
        let patience_ns = deadline.ns().saturating_sub(entered.ns());
        if self.completions.is_empty() && patience_ns > 0 {
            self.enter(Some(Duration::from_nanos(patience_ns)));
        } else if !self.submissions.is_empty() || self.has_kernel_work() {
            self.enter(None);
        }
        self.reap(completions);
        let woke = self.epoch.now();
        if woke.ns_since(self.wall_read) >= WALL_REREAD_NS {
            self.wall_read = woke;
            self.wall = wall();
        }
        Clock { entered, woke, wall: self.wall }
    }

    fn bytes(&self, buffer: &BufferId, len: u32) -> &[u8] {
        self.buffers.bytes(buffer, len)
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.buffers.recycle(buffer);
    }

    fn peer(&self, fd: super::Fd) -> Option<IpAddr> {
        socket::peer(fd.0)
    }

    fn buffers_count(&self) -> u16 {
        self.buffers.count()
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }
}

impl KernelRing {
    /// Moves pending operations into the submission queue as far as it has room.
    fn fill(&mut self, memory: Memory<'_>) {
        self.submissions.sync();
        while !self.submissions.is_full()
            && let Some((token, op)) = self.pending.pop_front()
        {
            let Some(entry) = self.encode(op, memory) else { continue };
            let entry = entry.user_data(token.bits());
            // SAFETY:
            // - Spans were resolved against memory that stays as it is until the completion (the
            //   rule of lifetimes at the head of `ring`); messages outlive their submission.
            let pushed = unsafe { self.submissions.push(&entry) };
            pushed.expect("the queue has room: checked above");
            self.counters.submissions += 1;
        }
        self.submissions.sync();
    }

    /// The submission for `op`, or none if it is done inline.
    fn encode(&mut self, op: Op, memory: Memory<'_>) -> Option<Entry> {
        match op {
            Op::Accept { listener } => {
                Some(opcode::AcceptMulti::new(Fd(listener.0)).flags(libc::SOCK_CLOEXEC).build())
            }
            Op::AcceptOne { listener } => {
                let accept = opcode::Accept::new(Fd(listener.0), null_mut(), null_mut());
                Some(accept.flags(libc::SOCK_CLOEXEC).build())
            }
            Op::Recv { fd } => Some(opcode::RecvMulti::new(Fd(fd.0), GROUP).build()),
            Op::Send { fd, spans } => Some(self.encode_send(fd.0, &spans, memory)),
            Op::Cancel { target } => Some(opcode::AsyncCancel::new(target.bits()).build()),
            Op::Close { fd } => Some(opcode::Close::new(Fd(fd.0)).build()),
            Op::Wake { shard } => {
                let peer = self.peers[usize::from(shard)];
                let token = Token::new(Kind::Wake, 0, 0).bits();
                Some(opcode::MsgRingData::new(Fd(peer), 0, token, None).build())
            }
            Op::Watch { eventfd } => {
                let size = u32::try_from(size_of::<u64>()).expect("8 fits");
                let into: *mut u64 = &raw mut *self.watched;
                Some(opcode::Read::new(Fd(eventfd.0), into.cast(), size).build())
            }
            Op::Shutdown { fd, how } => {
                let how = match how {
                    Shutdown::Write => libc::SHUT_WR,
                    Shutdown::Both => libc::SHUT_RDWR,
                };
                socket::shutdown(fd.0, how);
                None
            }
            Op::Signal { eventfd } => {
                eventfd::signal(eventfd.0);
                None
            }
        }
    }

    fn encode_send(&mut self, fd: RawFd, spans: &Spans, memory: Memory<'_>) -> Entry {
        // MSG_WAITALL lets the kernel go on after a short send where it can. A large send does
        // without, so that its progress is seen.
        let whole = if spans.size() <= WHOLE_SIZE_MAX { libc::MSG_WAITALL } else { 0 };
        let flags = libc::MSG_NOSIGNAL | whole;
        if let [span] = *spans.as_slice() {
            let bytes = resolve(span, memory);
            return opcode::Send::new(Fd(fd), bytes.as_ptr(), span.len).flags(flags).build();
        }
        let message = &mut self.messages[self.message_next];
        self.message_next = (self.message_next + 1) % self.submissions.capacity();
        for (part, span) in message.parts.iter_mut().zip(spans.as_slice()) {
            let bytes = resolve(*span, memory);
            part.iov_base = bytes.as_ptr().cast_mut().cast();
            part.iov_len = bytes.len();
        }
        message.header.msg_iov = message.parts.as_mut_ptr();
        message.header.msg_iovlen = spans.as_slice().len();
        opcode::SendMsg::new(Fd(fd), &raw const message.header)
            .flags(u32::try_from(flags).expect("flags are positive"))
            .build()
    }

    /// Completions that only an `enter` brings to light: deferred work, or an overflown queue.
    fn has_kernel_work(&mut self) -> bool {
        let overflown = self.submissions.cq_overflow();
        self.counters.overflows += u64::from(overflown);
        overflown || self.submissions.taskrun()
    }

    /// Submits what is queued; with `patience`, waits that long for a first completion.
    fn enter(&mut self, patience: Option<Duration>) {
        self.submissions.sync();
        let count = u32::try_from(self.submissions.len()).expect("the queue is small");
        let wait = u32::from(patience.is_some());
        let timeout = Timespec::from(patience.unwrap_or_default());
        let arguments = SubmitArgs::new().timespec(&timeout);
        // Under DEFER_TASKRUN nothing completes without GETEVENTS, waiting or not.
        let flags = (EnterFlags::GETEVENTS | EnterFlags::EXT_ARG).bits();
        self.counters.enters += 1;
        // SAFETY:
        // - `arguments` is what EXT_ARG asks for, and outlives the call.
        // - The submissions were made by `encode`.
        let entered = unsafe { self.submitter.enter(count, wait, flags, Some(&arguments)) };
        self.submissions.sync();
        let Err(error) = entered else { return };
        match error.raw_os_error() {
            // The wait timed out, was interrupted, or must reap first: the turn goes on, and what
            // was not submitted stays in the queue for the next one.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
            _ => panic!("io_uring_enter: {error}"),
        }
    }

    fn reap(&mut self, completions: &mut Completions) {
        self.completions.sync();
        while !completions.is_full()
            && let Some(entry) = self.completions.next()
        {
            self.counters.completions += 1;
            let token = Token::from_bits(entry.user_data()).expect("tokens are ours");
            let event = self.decode(token.kind(), &entry);
            completions.push(Completion { token, event, more: cqueue::more(entry.flags()) });
        }
        self.buffers.replenish();
        self.completions.sync();
    }

    /// What a completion means for the kind of operation it answers.
    fn decode(&mut self, kind: Kind, entry: &cqueue::Entry) -> Event {
        let result = entry.result();
        let buffer = cqueue::buffer_select(entry.flags()).map(|index| self.buffers.lend(index));
        let len = u32::try_from(result).unwrap_or(0);
        match (kind, buffer) {
            (Kind::Recv, Some(buffer)) if len > 0 => return Event::Received { buffer, len },
            (_, Some(buffer)) => self.buffers.recycle(buffer),
            (_, None) => {}
        }
        match kind {
            // Whether a cancellation found its target does not matter: the target says it.
            Kind::Cancel => Event::Cancelled,
            _ if result < 0 => Event::Failed(fault(-result)),
            Kind::Accept => Event::Accepted(super::Fd(result)),
            Kind::Recv => Event::Ended,
            Kind::Send => Event::Sent { len },
            Kind::Close => Event::Closed,
            Kind::Watch | Kind::Wake => Event::Woken,
        }
    }
}

/// The bytes a span names: the one place where integers become an address.
fn resolve(span: Span, memory: Memory<'_>) -> &[u8] {
    let region = match span.region {
        Region::Output => memory.output,
        Region::Arena => memory.arena,
    };
    let start = usize::try_from(span.offset).expect("offsets fit the address space");
    &region[start..][..span.len as usize]
}

const fn fault(errno: i32) -> Fault {
    match errno {
        libc::ENOBUFS => Fault::NoBuffers,
        libc::ECANCELED => Fault::Cancelled,
        libc::EMFILE | libc::ENFILE | libc::ENOMEM => Fault::NoDescriptors,
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ETIMEDOUT => Fault::PeerGone,
        errno => Fault::Other(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Fd;
    use crate::sys::eventfd::EventFd;
    use crate::sys::socket;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::fd::IntoRawFd as _;

    const SIZES: Sizes = Sizes {
        completions_max: 4096,
        submissions_max: 64,
        pushes_per_turn_max: 4096,
        buffers_count: 4,
        buffer_size: 64,
    };

    /// A ring, the memory its sends read, and the batch its completions land in.
    struct Bench {
        ring: KernelRing,
        output: Vec<u8>,
        epoch: Epoch,
        batch: Completions,
    }

    impl Bench {
        fn new() -> Self {
            Self::with(SIZES)
        }

        fn with(sizes: Sizes) -> Self {
            let epoch = Epoch::begin();
            let ring = DisabledRing::new(sizes).unwrap().enable(Box::new([]), epoch).unwrap();
            let batch = Completions::with_capacity(64);
            Self { ring, output: (0..=255).collect(), epoch, batch }
        }

        /// Turns until `count` completions have come.
        fn collect(&mut self, count: usize) -> Vec<Completion> {
            let mut all = Vec::new();
            let give_up = self.epoch.now() + Duration::from_secs(10);
            while all.len() < count {
                assert!(self.epoch.now() < give_up, "{count} completions expected, got {all:?}");
                let memory = Memory { output: &self.output, arena: &[] };
                let deadline = self.epoch.now() + Duration::from_millis(100);
                self.ring.turn(memory, deadline, &mut self.batch);
                all.extend(self.batch.drain());
            }
            all
        }
    }

    /// A connected pair: our descriptor, and the peer's stream.
    fn pair() -> (Fd, TcpStream) {
        let listener = socket::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (ours, _) = listener.accept().unwrap();
        (Fd(ours.into_raw_fd()), peer)
    }

    fn token(kind: Kind, slot: u32) -> Token {
        Token::new(kind, slot, 7)
    }

    #[test]
    fn a_connection_is_accepted_read_answered_and_closed() {
        let mut bench = Bench::new();
        let listener = socket::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener_fd = Fd(listener.as_raw_fd());
        bench.ring.push(token(Kind::Accept, 0), Op::Accept { listener: listener_fd });
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = bench.collect(1).remove(0);
        assert!(accepted.more);
        let Event::Accepted(fd) = accepted.event else { panic!("{accepted:?}") };

        bench.ring.push(token(Kind::Recv, 1), Op::Recv { fd });
        peer.write_all(b"hello").unwrap();
        let received = bench.collect(1).remove(0);
        assert_eq!(received.token, token(Kind::Recv, 1));
        let Event::Received { buffer, len } = received.event else { panic!("{received:?}") };
        assert_eq!(bench.ring.bytes(&buffer, len), b"hello");
        bench.ring.recycle(buffer);

        let mut spans = Spans::new();
        spans.push(Span { offset: 10, len: 3, region: Region::Output });
        spans.push(Span { offset: 200, len: 2, region: Region::Output });
        bench.ring.push(token(Kind::Send, 1), Op::Send { fd, spans });
        assert_eq!(bench.collect(1).remove(0).event, Event::Sent { len: 5 });
        let mut reply = [0; 5];
        peer.read_exact(&mut reply).unwrap();
        assert_eq!(reply, [10, 11, 12, 200, 201]);

        bench.ring.push(token(Kind::Close, 1), Op::Shutdown { fd, how: Shutdown::Both });
        let ended = bench.collect(1).remove(0);
        assert_eq!((ended.event, ended.more), (Event::Ended, false));
        bench.ring.push(token(Kind::Close, 1), Op::Close { fd });
        assert_eq!(bench.collect(1).remove(0).event, Event::Closed);
        assert_eq!(peer.read(&mut reply).unwrap(), 0);
    }

    #[test]
    fn exhausted_buffers_end_the_shot_and_lose_nothing() {
        let mut bench = Bench::new();
        let (fd, mut peer) = pair();
        let sent: Vec<u8> =
            (0..1000).map(|index: u32| u8::try_from(index % 251).unwrap()).collect();
        peer.write_all(&sent).unwrap();
        bench.ring.push(token(Kind::Recv, 0), Op::Recv { fd });
        let mut held = Vec::new();
        let mut got = Vec::new();
        let mut starved = 0;
        while got.len() < sent.len() {
            for completion in bench.collect(1) {
                if let Event::Received { buffer, len } = completion.event {
                    got.extend_from_slice(bench.ring.bytes(&buffer, len));
                    held.push(buffer);
                    continue;
                }
                assert_eq!(completion.event, Event::Failed(Fault::NoBuffers));
                assert!(!completion.more);
                assert_eq!(held.len(), usize::from(SIZES.buffers_count));
                starved += 1;
                held.drain(..).for_each(|buffer| bench.ring.recycle(buffer));
                bench.ring.push(token(Kind::Recv, 0), Op::Recv { fd });
            }
        }
        assert_eq!(got, sent);
        assert!(starved > 0);
    }

    #[test]
    fn buffers_in_reserve_come_and_go_and_none_is_lost() {
        let count = 512;
        let mut bench = Bench::with(Sizes { buffers_count: count, ..SIZES });
        let (fd, mut peer) = pair();
        for _ in 0..2 {
            peer.write_all(&vec![7; usize::from(count) * 64]).unwrap();
            let mut held = Vec::new();
            bench.ring.push(token(Kind::Recv, 0), Op::Recv { fd });
            let mut starved = 0;
            while held.len() < usize::from(count) {
                for completion in bench.collect(1) {
                    if let Event::Received { buffer, len } = completion.event {
                        assert_eq!(len, 64);
                        held.push(buffer);
                        continue;
                    }
                    assert_eq!(completion.event, Event::Failed(Fault::NoBuffers));
                    starved += 1;
                    assert!(starved < 100, "{} of {count} buffers are left", held.len());
                    bench.ring.push(token(Kind::Recv, 0), Op::Recv { fd });
                }
            }
            bench.ring.push(token(Kind::Cancel, 0), Op::Cancel { target: token(Kind::Recv, 0) });
            bench.collect(2);
            held.drain(..).for_each(|buffer| bench.ring.recycle(buffer));
        }
    }

    #[test]
    fn a_cancelled_receive_ends_and_its_cancellation_completes() {
        let mut bench = Bench::new();
        let (fd, _peer) = pair();
        bench.ring.push(token(Kind::Recv, 0), Op::Recv { fd });
        bench.ring.push(token(Kind::Cancel, 0), Op::Cancel { target: token(Kind::Recv, 0) });
        let mut events: Vec<Event> =
            bench.collect(2).into_iter().map(|completion| completion.event).collect();
        events.sort_by_key(|event| *event == Event::Cancelled);
        assert_eq!(events, [Event::Failed(Fault::Cancelled), Event::Cancelled]);
    }

    #[test]
    fn a_peer_that_is_gone_fails_a_send() {
        let mut bench = Bench::new();
        let (fd, peer) = pair();
        drop(peer);
        let mut spans = Spans::new();
        spans.push(Span { offset: 0, len: 200, region: Region::Output });
        let gone = Event::Failed(Fault::PeerGone);
        let fails = (0..100).any(|_| {
            bench.ring.push(token(Kind::Send, 0), Op::Send { fd, spans });
            bench.collect(1).remove(0).event == gone
        });
        assert!(fails);
    }

    #[test]
    fn more_submissions_than_the_queue_holds_all_complete() {
        let mut bench = Bench::new();
        let count = SIZES.submissions_max * 2 + 1;
        for slot in 0..count {
            let target = token(Kind::Recv, slot);
            bench.ring.push(token(Kind::Cancel, slot), Op::Cancel { target });
        }
        let completions = bench.collect(count as usize);
        assert_eq!(completions.len(), count as usize);
        assert!(bench.ring.counters().submissions_delayed > 0);
    }

    #[test]
    fn a_watched_eventfd_wakes_the_ring_once_a_watch() {
        let mut bench = Bench::new();
        let eventfd = EventFd::for_ring().unwrap();
        let fd = Fd(eventfd.as_raw_fd());
        for _ in 0..2 {
            bench.ring.push(token(Kind::Watch, 0), Op::Watch { eventfd: fd });
            bench.ring.push(token(Kind::Watch, 0), Op::Signal { eventfd: fd });
            let woken = bench.collect(1).remove(0);
            assert_eq!((woken.event, woken.more), (Event::Woken, false));
        }
    }

    #[test]
    fn one_ring_wakes_another() {
        let epoch = Epoch::begin();
        let disabled: Vec<_> = (0..2).map(|_| DisabledRing::new(SIZES).unwrap()).collect();
        let peers: Box<[RawFd]> = disabled.iter().map(DisabledRing::descriptor).collect();
        let mut rings = disabled.into_iter().map(|ring| ring.enable(peers.clone(), epoch).unwrap());
        let bench =
            |ring| Bench { ring, output: Vec::new(), epoch, batch: Completions::with_capacity(64) };
        let (mut first, mut second) = (bench(rings.next().unwrap()), bench(rings.next().unwrap()));
        first.ring.push(token(Kind::Wake, 1), Op::Wake { shard: 1 });
        assert_eq!(first.collect(1).remove(0).event, Event::Woken);
        let woken = second.collect(1).remove(0);
        assert_eq!((woken.event, woken.token), (Event::Woken, Token::new(Kind::Wake, 0, 0)));
    }
}
