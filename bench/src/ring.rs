//! io_uring as both sides of a measurement use it: the floor server and the load generator.
//!
//! Owns the ring, its receive buffers and every unsafe line of this package. Knows nothing of
//! HTTP. Single issuer, deferred task work, registered ring descriptor, multishot accept and
//! receive, provided buffers, plain descriptors, one enter a turn.
//!
//! Invariant: what the kernel may read or write lives as long as the process. Sends take
//! `&'static [u8]` for that reason; rings and buffers are leaked, a handful in a run.
//!
//! ```text
//! entries   [ addr len bid | addr len bid | ... ]   shared with the kernel, 16 bytes each
//!             ^ the tail index lies in the last 2 bytes of the first entry
//! memory    [ buffer 0 | buffer 1 | ... ]           of one size
//! ```

use crate::address::Address;
use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Places in the submission queue; a turn that pushes more enters more than once.
const SUBMISSIONS_COUNT: u32 = 1024;
/// Places in the completion queue; a burst beyond it would end multishots.
const COMPLETIONS_COUNT: u32 = 16_384;
/// The one buffer group.
const GROUP: u16 = 0;
const PAGE_SIZE: usize = 4096;

/// The receive buffers of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferSizes {
    /// A power of two.
    pub(crate) count: u16,
    /// Bytes of one.
    pub(crate) size: u32,
}

/// A receive buffer on loan from the ring; given back by [`Ring::recycle`].
#[must_use = "a buffer that is not recycled is lost"]
pub(crate) struct Buffer {
    index: u16,
    len: u32,
}

impl Buffer {
    /// Of a ring that is made up.
    #[cfg(test)]
    pub(crate) const fn lend(index: u16, len: u32) -> Self {
        Self { index, len }
    }

    #[cfg(test)]
    pub(crate) const fn index(&self) -> u16 {
        self.index
    }
}

/// What became of a submission.
pub(crate) enum Event {
    /// A connection came in.
    Accepted(OwnedFd),
    /// A connection was made.
    Connected,
    /// Bytes came in.
    Received(Buffer),
    /// The peer sends no more.
    Ended,
    /// A send took this many bytes.
    Sent(usize),
    /// It failed for good, with this error of the system.
    Failed(i32),
    /// A multishot submission ended by itself and must be armed again.
    Lapsed,
}

/// One completion: which submission, and what became of it.
pub(crate) struct Completion {
    pub(crate) token: Token,
    pub(crate) event: Event,
    /// The submission will complete again.
    pub(crate) more: bool,
}

/// Names a submission: what it does, and for which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) connection: u32,
}

/// What a submission does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Accept,
    Connect,
    Receive,
    Send,
}

impl Token {
    pub(crate) const fn new(kind: Kind, connection: u32) -> Self {
        Self { kind, connection }
    }

    const fn bits(self) -> u64 {
        (self.kind as u64) << 32 | self.connection as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
    const fn from_bits(bits: u64) -> Self {
        let kind = match bits >> 32 {
            0 => Kind::Accept,
            1 => Kind::Connect,
            2 => Kind::Receive,
            _ => Kind::Send,
        };
        Self { kind, connection: bits as u32 }
    }
}

/// A ring of the calling thread, which must stay its only user.
pub(crate) struct Ring {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
    buffers: Buffers,
}

impl Ring {
    /// Sets a ring up on the calling thread.
    pub(crate) fn new(sizes: BufferSizes) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS_COUNT);
        let ring = match builder.clone().setup_no_sqarray().build(SUBMISSIONS_COUNT) {
            // Kernels before 6.6 do not know the last flag.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                builder.build(SUBMISSIONS_COUNT)?
            }
            built => built?,
        };
        let (mut submitter, submissions, completions) = Box::leak(Box::new(ring)).split();
        submitter.register_ring_fd()?;
        let buffers = Buffers::register(&submitter, sizes)?;
        Ok(Self { submitter, submissions, completions, buffers })
    }

    /// Accepts connections until further notice.
    pub(crate) fn accept(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build();
        self.push(&entry, Token::new(Kind::Accept, 0))
    }

    /// Connects a socket.
    pub(crate) fn connect(
        &mut self,
        fd: BorrowedFd<'_>,
        address: &'static Address,
        connection: u32,
    ) -> io::Result<()> {
        let (name, len) = (address.name().as_ptr(), address.name().len());
        let entry = opcode::Connect::new(Fd(fd.as_raw_fd()), name.cast(), len).build();
        self.push(&entry, Token::new(Kind::Connect, connection))
    }

    /// Receives from a connection until further notice.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>, connection: u32) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fd(fd.as_raw_fd()), GROUP).build();
        self.push(&entry, Token::new(Kind::Receive, connection))
    }

    /// Sends bytes that never change.
    pub(crate) fn send(
        &mut self,
        fd: BorrowedFd<'_>,
        bytes: &'static [u8],
        connection: u32,
    ) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).expect("a send is far below 4 GiB");
        let entry = opcode::Send::new(Fd(fd.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        self.push(&entry, Token::new(Kind::Send, connection))
    }

    fn push(&mut self, entry: &squeue::Entry, token: Token) -> io::Result<()> {
        let entry = entry.clone().user_data(token.bits());
        if self.submissions.is_full() {
            self.submissions.sync();
            self.submitter.submit()?;
            self.submissions.sync();
        }
        // SAFETY:
        // - A send points at `&'static` bytes, a connect at a `&'static` address; accept and
        //   receive point at no memory of ours but the buffer group, which is never freed.
        unsafe { self.submissions.push(&entry) }.map_err(io::Error::other)
    }

    /// Submits, waits for a first completion at most as long as `wait_max` (for ever without one),
    /// and takes all completions. The one place that enters the kernel.
    pub(crate) fn turn(
        &mut self,
        wait_max: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.submissions.sync();
        let entered = match wait_max {
            None => self.submitter.submit_and_wait(1),
            Some(wait_max) => {
                let timeout = Timespec::from(wait_max);
                self.submitter.submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
        };
        match entered {
            Err(error)
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                return Err(error);
            }
            _ => {}
        }
        self.submissions.sync();
        self.completions.sync();
        let buffers = &mut self.buffers;
        completions.extend(self.completions.by_ref().map(|entry| read(&entry, buffers)));
        Ok(())
    }

    /// The bytes in a buffer on loan.
    pub(crate) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        self.buffers.bytes(buffer)
    }

    /// Gives a buffer back.
    pub(crate) fn recycle(&mut self, buffer: Buffer) {
        let Buffer { index, .. } = buffer;
        self.buffers.append(index);
    }
}

/// What a completion says, by its kind and result.
fn read(entry: &cqueue::Entry, buffers: &mut Buffers) -> Completion {
    let token = Token::from_bits(entry.user_data());
    let result = entry.result();
    let buffer = cqueue::buffer_select(entry.flags());
    let event = match token.kind {
        Kind::Accept if result >= 0 => Event::Accepted(own(result)),
        Kind::Receive if result > 0 => {
            let index = buffer.expect("a receive with bytes names its buffer");
            Event::Received(buffers.lend(index, result.unsigned_abs()))
        }
        Kind::Receive if result == 0 => Event::Ended,
        Kind::Send if result >= 0 => Event::Sent(result.unsigned_abs() as usize),
        Kind::Connect if result >= 0 => Event::Connected,
        Kind::Receive if result != -libc::ENOBUFS => Event::Failed(-result),
        Kind::Send | Kind::Connect => Event::Failed(-result),
        Kind::Accept | Kind::Receive => Event::Lapsed,
    };
    Completion { token, event, more: cqueue::more(entry.flags()) }
}

/// The descriptor that an accept returned.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY:
    // - The kernel made the descriptor for this completion, which is read once; nobody else owns
    //   it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The provided buffers. Each is the kernel's, or on loan as one [`Buffer`].
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    sizes: BufferSizes,
    tail: u16,
}

impl Buffers {
    /// Makes all buffers and gives them to the kernel.
    fn register(submitter: &Submitter<'_>, sizes: BufferSizes) -> io::Result<Self> {
        assert!(sizes.count.is_power_of_two() && sizes.size > 0, "the kernel asks for that");
        let count = usize::from(sizes.count);
        let entries = allocate(count * size_of::<BufRingEntry>()).cast();
        let memory = allocate(count * sizes.size as usize);
        let mut buffers = Self { entries, memory, sizes, tail: 0 };
        for index in 0..sizes.count {
            buffers.append(index);
        }
        let address = entries.addr() as u64;
        // SAFETY:
        // - `entries` is page-aligned, holds `sizes.count` entries and is never freed.
        // - Each entry names `sizes.size` bytes of `memory`, never freed either.
        unsafe { submitter.register_buf_ring_with_flags(address, sizes.count, GROUP, 0)? };
        Ok(buffers)
    }

    fn lend(&mut self, index: u16, len: u32) -> Buffer {
        let BufferSizes { count, size } = self.sizes;
        assert!(index < count && len <= size, "the kernel names a buffer of ours");
        Buffer { index, len }
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        let offset = usize::from(buffer.index) * self.sizes.size as usize;
        // SAFETY:
        // - `lend` checked the index: the offset lies in the allocation.
        let first = unsafe { self.memory.add(offset) };
        // SAFETY:
        // - `lend` checked the length: the range lies in the allocation, which was zeroed.
        // - The kernel does not write to a buffer on loan, and no `&mut` to it exists.
        unsafe { std::slice::from_raw_parts(first, buffer.len as usize) }
    }

    /// Gives the buffer of this index to the kernel.
    fn append(&mut self, index: u16) {
        let place = usize::from(self.tail & (self.sizes.count - 1));
        // SAFETY:
        // - `place` is below the count: it lies in the allocation.
        let entry = unsafe { self.entries.add(place) };
        // SAFETY:
        // - The kernel reads entries up to the tail only, and this one lies at it: each buffer is
        //   given back once, so what stood here was consumed.
        let entry = unsafe { &mut *entry };
        let offset = usize::from(index) * self.sizes.size as usize;
        entry.set_addr((self.memory.addr() + offset) as u64);
        entry.set_len(self.sizes.size);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY:
        // - `entries` points at the first entry.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY:
        // - The tail is two aligned bytes of the first entry that nothing else here writes.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed bytes on a page boundary, for the rest of the process's life.
fn allocate(size: usize) -> *mut u8 {
    let layout = Layout::from_size_align(size, PAGE_SIZE).expect("sizes are small");
    // SAFETY:
    // - The size is not zero: counts and sizes are above zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    /// Turns until `count` completions have come.
    fn collect(ring: &mut Ring, count: usize) -> Vec<Completion> {
        let mut completions = Vec::new();
        while completions.len() < count {
            ring.turn(None, &mut completions).unwrap();
        }
        completions
    }

    #[test]
    fn tokens_survive_the_kernel() {
        let token = Token::new(Kind::Receive, u32::MAX);
        assert_eq!(Token::from_bits(token.bits()), token);
    }

    #[test]
    fn a_connection_is_accepted_received_from_and_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ring = Ring::new(BufferSizes { count: 8, size: 4096 }).unwrap();
        ring.accept(listener.as_fd()).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = collect(&mut ring, 1).remove(0);
        assert!(accepted.more);
        let Event::Accepted(fd) = accepted.event else { panic!("an accept accepts") };

        ring.receive(fd.as_fd(), 7).unwrap();
        client.write_all(b"hello").unwrap();
        let received = collect(&mut ring, 1).remove(0);
        assert_eq!(received.token, Token::new(Kind::Receive, 7));
        let Event::Received(buffer) = received.event else { panic!("a receive receives") };
        assert_eq!(ring.bytes(&buffer), b"hello");
        ring.recycle(buffer);

        ring.send(fd.as_fd(), b"goodbye", 7).unwrap();
        let sent = collect(&mut ring, 1).remove(0);
        assert!(matches!(sent.event, Event::Sent(7)));
        let mut answer = [0; 7];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"goodbye");

        drop(client);
        let ended = collect(&mut ring, 1).remove(0);
        assert!(matches!(ended.event, Event::Ended));
        assert!(!ended.more);
    }

    #[test]
    fn a_connection_is_made_or_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: &'static Address =
            Box::leak(Box::new(Address::tcp(listener.local_addr().unwrap())));
        let mut ring = Ring::new(BufferSizes { count: 8, size: 4096 }).unwrap();
        let socket = address.socket().unwrap();
        ring.connect(socket.as_fd(), address, 3).unwrap();
        let connected = collect(&mut ring, 1).remove(0);
        assert_eq!(connected.token, Token::new(Kind::Connect, 3));
        assert!(matches!(connected.event, Event::Connected));

        drop(listener);
        let socket = address.socket().unwrap();
        ring.connect(socket.as_fd(), address, 3).unwrap();
        let refused = collect(&mut ring, 1).remove(0);
        assert!(matches!(refused.event, Event::Failed(libc::ECONNREFUSED)));
    }
}
