//! The seam: all input, output and time of a shard pass through the [`Ring`] trait.
//!
//! `Shard<R: Ring>` runs unchanged on the kernel's ring and on the simulated one. Operations hold
//! integers, never pointers or borrows; completions are values in a batch; receive buffers are
//! loans that can be given back once. One rule of lifetimes holds for every operation: what it
//! names (its memory, its descriptor, its slot) is ours again only after its last completion, the
//! one without `more`.

#[allow(unsafe_code, reason = "memory shared with the kernel")]
mod buffers;
#[allow(unsafe_code, reason = "submissions hold addresses")]
pub mod kernel;

use shard_cache::time::{Instant, WallSeconds};
use std::net::IpAddr;

/// A descriptor as the ring knows it: an open file of the process, or a simulated one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fd(pub i32);

/// What a submission is for; the first field of a [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Accept; the slot is the listener's index.
    Accept,
    /// Multishot receive of a connection.
    Recv,
    /// Send of a connection.
    Send,
    /// Cancellation of a connection's receive, or of an accept.
    Cancel,
    /// Close of a connection's descriptor, or of one that found no slot.
    Close,
    /// The watched eventfd was written.
    Watch,
    /// Another shard woke this one, or our own wake-up of another was delivered.
    Wake,
}

/// Names one submission: its kind, its slot, and which life of that slot.
///
/// ```text
/// 63      56 55            32 31             0
/// [  kind  ][      slot     ][   generation  ]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// Slots are numbered below this.
    pub const SLOTS_MAX: u32 = 1 << 24;

    /// Composes a token.
    ///
    /// # Panics
    /// If `slot` is not below [`Token::SLOTS_MAX`].
    #[must_use]
    pub const fn new(kind: Kind, slot: u32, generation: u32) -> Self {
        assert!(slot < Self::SLOTS_MAX, "a slot has 24 bits");
        Self((kind as u64) << 56 | (slot as u64) << 32 | generation as u64)
    }

    /// The token whose bits are `bits`, or `None` if their kind is unknown.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits >> 56 <= Kind::Wake as u64 { Some(Self(bits)) } else { None }
    }

    /// The token as the kernel carries it.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What the submission is for.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 >> 56 {
            0 => Kind::Accept,
            1 => Kind::Recv,
            2 => Kind::Send,
            3 => Kind::Cancel,
            4 => Kind::Close,
            5 => Kind::Watch,
            _ => Kind::Wake,
        }
    }

    /// The slot it belongs to.
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 >> 32 & 0xff_ffff) as u32
    }

    /// Which life of the slot it speaks of.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }
}

/// Which of the shard's two blocks of sendable memory a [`Span`] lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Output blocks: reply heads and small bodies.
    Output,
    /// The cache's arena: bodies sent from where they are stored.
    Arena,
}

/// Bytes to send: integers, so that an [`Op`] borrows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte, from the beginning of the region.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// Where.
    pub region: Region,
}

impl Span {
    /// No bytes; fills the unused places of [`Spans`].
    pub const EMPTY: Self = Self { offset: 0, len: 0, region: Region::Output };
}

/// At most [`Spans::COUNT_MAX`] spans, sent one after the other as one stream of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    spans: [Span; Self::COUNT_MAX],
    count: u8,
}

impl Spans {
    /// The most spans that one send carries.
    pub const COUNT_MAX: usize = 8;

    /// No spans.
    #[must_use]
    pub const fn new() -> Self {
        Self { spans: [Span::EMPTY; Self::COUNT_MAX], count: 0 }
    }

    /// Appends `span`.
    ///
    /// # Panics
    /// If there are [`Spans::COUNT_MAX`] already.
    pub fn push(&mut self, span: Span) {
        self.spans[usize::from(self.count)] = span;
        self.count += 1;
    }

    /// Appends `span`, in one piece with the last one where that ends at its beginning.
    ///
    /// # Panics
    /// If there are [`Spans::COUNT_MAX`] already and it does not continue the last one.
    pub fn extend(&mut self, span: Span) {
        if span.len == 0 {
            return;
        }
        if let Some(last) = self.spans[..usize::from(self.count)].last_mut()
            && last.region == span.region
            && last.offset + u64::from(last.len) == span.offset
        {
            last.len += span.len;
        } else {
            self.push(span);
        }
    }

    /// The spans in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Span] {
        &self.spans[..usize::from(self.count)]
    }

    /// The spans in order, to point them elsewhere.
    pub fn as_mut_slice(&mut self) -> &mut [Span] {
        &mut self.spans[..usize::from(self.count)]
    }

    /// Bytes in all spans together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.as_slice().iter().map(|span| u64::from(span.len)).sum()
    }

    /// Takes `size` sent bytes off the front.
    ///
    /// # Panics
    /// If the spans hold fewer.
    pub fn advance(&mut self, size: u32) {
        assert!(u64::from(size) <= self.size(), "no more is sent than was asked for");
        let mut left = size;
        let mut rest = Self::new();
        for span in self.as_slice() {
            let cut = left.min(span.len);
            left -= cut;
            if cut < span.len {
                rest.push(Span {
                    offset: span.offset + u64::from(cut),
                    len: span.len - cut,
                    region: span.region,
                });
            }
        }
        *self = rest;
    }
}

impl Default for Spans {
    fn default() -> Self {
        Self::new()
    }
}

/// An operation. It holds integers only; the ring alone turns a span into an address.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Accepts connections on `listener` until it ends by itself or is cancelled.
    Accept { listener: Fd },
    /// Accepts one connection on `listener`.
    AcceptOne { listener: Fd },
    /// Receives into provided buffers until it ends by itself or is cancelled.
    Recv { fd: Fd },
    /// Sends the spans in order. The ring tries to send all of them; less may be sent.
    Send { fd: Fd, spans: Spans },
    /// Cancels the submission named `target`, which completes on its own, cancelled or not.
    Cancel { target: Token },
    /// Shuts a socket down. Done before `turn` waits and before anything pushed in the same turn;
    /// it completes with no event of its own.
    Shutdown { fd: Fd, how: Shutdown },
    /// Closes the descriptor.
    Close { fd: Fd },
    /// Wakes another shard, which sees [`Event::Woken`] with a token of kind [`Kind::Wake`].
    Wake { shard: u16 },
    /// Waits once until the eventfd is written, and clears it.
    Watch { eventfd: Fd },
    /// Writes the eventfd of another plane. Done before `turn` waits; it completes with no event.
    Signal { eventfd: Fd },
}

/// Which directions [`Op::Shutdown`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// We send no more; the peer reads an end of file.
    Write,
    /// Neither side sends any more; an armed receive ends.
    Both,
}

/// A receive buffer on loan from the ring. Neither `Copy` nor `Clone`: it is given back once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a buffer that is not recycled is lost to the pool"]
pub struct BufferId(u16);

impl BufferId {
    /// For implementations of [`Ring`]: lends out the buffer of this index.
    pub const fn lend(index: u16) -> Self {
        Self(index)
    }

    /// The buffer's index, below [`Ring::buffers_count`].
    #[must_use]
    pub const fn index(&self) -> u16 {
        self.0
    }
}

/// What became of a submission.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted.
    Accepted(Fd),
    /// `len` bytes, at least one, lie in `buffer`.
    Received { buffer: BufferId, len: u32 },
    /// The peer sends no more.
    Ended,
    /// `len` bytes of a send were taken.
    Sent { len: u32 },
    /// The descriptor is closed.
    Closed,
    /// The eventfd was written, or another shard woke us, or our wake-up was delivered.
    Woken,
    /// A cancellation is done; whether its target was still there does not matter.
    Cancelled,
    /// The operation failed.
    Failed(Fault),
}

/// Why an operation failed, as far as a shard acts on the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No provided buffer was free (`ENOBUFS`); nothing was lost, arm again when there are some.
    NoBuffers,
    /// The operation was cancelled (`ECANCELED`).
    Cancelled,
    /// No descriptor was free (`EMFILE`, `ENFILE`), or no kernel memory (`ENOMEM`).
    NoDescriptors,
    /// The peer is gone (`ECONNRESET`, `EPIPE`, `ECONNABORTED`, `ETIMEDOUT`).
    PeerGone,
    /// Anything else; the errno.
    Other(i32),
}

/// One completion. A submission completes once without `more`, any number of times with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which submission.
    pub token: Token,
    /// What became of it.
    pub event: Event,
    /// The submission is still in flight and will complete again.
    pub more: bool,
}

const _: () = assert!(size_of::<Completion>() <= 24, "a batch of completions stays in the cache");

/// The completions of one turn, in a vector that never grows. The default one holds none.
#[derive(Debug, Default)]
pub struct Completions(Vec<Completion>);

impl Completions {
    /// An empty batch with room for `count_max`.
    #[must_use]
    pub fn with_capacity(count_max: usize) -> Self {
        Self(Vec::with_capacity(count_max))
    }

    /// Whether another completion fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.len() == self.0.capacity()
    }

    /// Appends a completion.
    ///
    /// # Panics
    /// If the batch is full: it never allocates.
    pub fn push(&mut self, completion: Completion) {
        assert!(!self.is_full(), "the ring stops at the capacity of the batch");
        self.0.push(completion);
    }

    /// Takes all completions out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Completion> {
        self.0.drain(..)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All bytes that a send may name, borrowed for the length of one `turn`: nothing can change them
/// while the ring reads them.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// [`Region::Output`].
    pub output: &'a [u8],
    /// [`Region::Arena`].
    pub arena: &'a [u8],
}

/// When a turn's wait began and ended. The only time a shard knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// When the wait was entered; replies pushed before it are on their way.
    pub entered: Instant,
    /// When the completions had been reaped; the turn's `now`.
    pub woke: Instant,
    /// The wall clock at `woke`. It may step either way.
    pub wall: WallSeconds,
}

/// What a ring counts about itself; totals since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Times the kernel was entered.
    pub enters: u64,
    /// Submissions handed to the kernel.
    pub submissions: u64,
    /// Completions taken.
    pub completions: u64,
    /// Turns in which the kernel's completion queue had overflowed.
    pub overflows: u64,
    /// Submissions that had to wait for room in the submission queue.
    pub submissions_delayed: u64,
}

/// One shard's input, output and time.
pub trait Ring {
    /// Queues `op` for the next turn. Never fails and never enters the kernel.
    ///
    /// # Panics
    /// If more is pushed in one turn than the limits allow: that is our bug.
    fn push(&mut self, token: Token, op: Op);

    /// Submits what was pushed, waits for a first completion until `deadline` (a deadline that has
    /// passed polls), fills `completions` as far as it has room, and returns the time.
    ///
    /// Send memory is read only in here. The one place where a shard waits and learns the time.
    fn turn(
        &mut self,
        memory: Memory<'_>,
        deadline: Instant,
        completions: &mut Completions,
    ) -> Clock;

    /// The first `len` bytes of a buffer on loan.
    fn bytes(&self, buffer: &BufferId, len: u32) -> &[u8];

    /// Gives a buffer back.
    fn recycle(&mut self, buffer: BufferId);

    /// The address of a connection's peer; none over a Unix socket, or if the peer is gone. It is
    /// one system call, done at once.
    fn peer(&self, fd: Fd) -> Option<IpAddr>;

    /// Receive buffers of this ring, on loan or not.
    fn buffers_count(&self) -> u16;

    /// What the ring counts about itself.
    fn counters(&self) -> RingCounters;
}
