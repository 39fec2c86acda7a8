//! What connections have sent and the shard has not yet parsed.
//!
//! Received buffers stay on loan, in a list for each connection, until their last byte is
//! consumed. A request that does not end with its buffer is moved into a *carry block*, where the
//! following bytes are appended, so that the parser always sees a head in one piece and a slow
//! client pins no receive buffer while it dawdles.
//!
//! ```text
//! connection   carry [ tail of buffer a | head of buffer b ]   then buffers b -> c -> d
//! ```
//!
//! Invariant: the bytes of a connection are those of its carry block followed by those of its
//! buffers, in the order in which they were received; each is consumed once.

use super::slots::NONE;
use crate::ring::{BufferId, Ring};

/// One connection's unparsed bytes: the ends of its list of buffers, and its carry block.
#[derive(Debug)]
pub(super) struct Inbox {
    first: u32,
    last: u32,
    /// Consumed bytes of the first buffer.
    offset: u32,
    held: u16,
    carry: u32,
    carry_start: u32,
    carry_end: u32,
}

impl Inbox {
    pub(super) const fn new() -> Self {
        Self {
            first: NONE,
            last: NONE,
            offset: 0,
            held: 0,
            carry: NONE,
            carry_start: 0,
            carry_end: 0,
        }
    }

    /// Buffers on loan to this connection.
    pub(super) const fn held(&self) -> u16 {
        self.held
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.first == NONE && self.carry == NONE
    }
}

/// A buffer on loan and its place in a connection's list.
#[derive(Debug)]
struct Loan {
    buffer: BufferId,
    len: u32,
    next: u32,
}

/// All loans and carry blocks of a shard.
#[derive(Debug)]
pub(super) struct Input {
    loans: Box<[Option<Loan>]>,
    held: u32,
    carry_size: u32,
    carries: Box<[u8]>,
    carries_free: Vec<u32>,
}

impl Input {
    pub(super) fn new(buffers_count: u16, carries_count: u32, carry_size: u32) -> Self {
        let carries_size = carries_count as usize * carry_size as usize;
        Self {
            loans: (0..buffers_count).map(|_| None).collect(),
            held: 0,
            carry_size,
            carries: vec![0; carries_size].into_boxed_slice(),
            carries_free: (0..carries_count).rev().collect(),
        }
    }

    /// Buffers on loan to all connections together.
    pub(super) const fn held(&self) -> u32 {
        self.held
    }

    /// Carry blocks in use.
    pub(super) fn carries_used(&self) -> usize {
        self.carries.len() / self.carry_size as usize - self.carries_free.len()
    }

    /// Appends a received buffer.
    pub(super) fn append(&mut self, inbox: &mut Inbox, buffer: BufferId, len: u32) {
        let index = u32::from(buffer.index());
        let loan = Loan { buffer, len, next: NONE };
        let before = self.loans[index as usize].replace(loan);
        assert!(before.is_none(), "a buffer is on loan once");
        match inbox.last {
            NONE => inbox.first = index,
            last => self.loan_mut(last).next = index,
        }
        inbox.last = index;
        inbox.held += 1;
        self.held += 1;
    }

    /// The next bytes to parse, in one piece; empty if there are none.
    pub(super) fn chunk<'a, R: Ring>(&'a self, inbox: &Inbox, ring: &'a R) -> &'a [u8] {
        if inbox.carry != NONE {
            let base = inbox.carry * self.carry_size;
            &self.carries[(base + inbox.carry_start) as usize..(base + inbox.carry_end) as usize]
        } else if inbox.first != NONE {
            let loan = self.loan(inbox.first);
            &ring.bytes(&loan.buffer, loan.len)[inbox.offset as usize..]
        } else {
            &[]
        }
    }

    /// The first `size` bytes of the chunk are done with.
    pub(super) fn consume<R: Ring>(&mut self, inbox: &mut Inbox, ring: &mut R, size: usize) {
        let size = u32::try_from(size).expect("a chunk is a few kilobytes");
        if size == 0 {
            return;
        }
        if inbox.carry != NONE {
            inbox.carry_start += size;
            assert!(inbox.carry_start <= inbox.carry_end, "no more is consumed than was there");
            if inbox.carry_start == inbox.carry_end {
                self.release_carry(inbox);
            }
        } else {
            inbox.offset += size;
            let len = self.loan(inbox.first).len;
            assert!(inbox.offset <= len, "no more is consumed than was there");
            if inbox.offset == len {
                self.recycle_first(inbox, ring);
            }
        }
    }

    /// Puts the unparsed rest of the chunk and the bytes behind it in one piece. Returns whether
    /// the chunk has grown.
    ///
    /// Without a free carry block the rest stays in its buffer and nothing is gathered.
    pub(super) fn gather<R: Ring>(&mut self, inbox: &mut Inbox, ring: &mut R) -> bool {
        if inbox.carry == NONE {
            if inbox.first == NONE {
                return false;
            }
            let Some(carry) = self.carries_free.pop() else { return false };
            (inbox.carry, inbox.carry_start, inbox.carry_end) = (carry, 0, 0);
            // The rest itself moves first; only what follows makes the chunk grow.
            self.append_to_carry(inbox, ring);
        }
        let before = inbox.carry_end - inbox.carry_start;
        while inbox.first != NONE && self.append_to_carry(inbox, ring) {}
        inbox.carry_end - inbox.carry_start > before
    }

    /// Gives everything back: the connection parses no more.
    pub(super) fn discard<R: Ring>(&mut self, inbox: &mut Inbox, ring: &mut R) {
        while inbox.first != NONE {
            self.recycle_first(inbox, ring);
        }
        if inbox.carry != NONE {
            self.release_carry(inbox);
        }
    }

    /// Copies as much of the first buffer into the carry block as fits. Returns whether the buffer
    /// was used up.
    fn append_to_carry<R: Ring>(&mut self, inbox: &mut Inbox, ring: &mut R) -> bool {
        let base = (inbox.carry * self.carry_size) as usize;
        let block = &mut self.carries[base..][..self.carry_size as usize];
        if inbox.carry_start > 0 {
            block.copy_within(inbox.carry_start as usize..inbox.carry_end as usize, 0);
            inbox.carry_end -= inbox.carry_start;
            inbox.carry_start = 0;
        }
        let loan = self.loans[inbox.first as usize].as_ref().expect("listed buffers are on loan");
        let rest = &ring.bytes(&loan.buffer, loan.len)[inbox.offset as usize..];
        let room = &mut block[inbox.carry_end as usize..];
        let size = rest.len().min(room.len());
        room[..size].copy_from_slice(&rest[..size]);
        let used_up = size == rest.len();
        let size = u32::try_from(size).expect("a carry block is a few kilobytes");
        inbox.carry_end += size;
        inbox.offset += size;
        if used_up {
            self.recycle_first(inbox, ring);
        }
        used_up
    }

    fn recycle_first<R: Ring>(&mut self, inbox: &mut Inbox, ring: &mut R) {
        let loan = self.loans[inbox.first as usize].take().expect("listed buffers are on loan");
        inbox.first = loan.next;
        inbox.offset = 0;
        if inbox.first == NONE {
            inbox.last = NONE;
        }
        inbox.held -= 1;
        self.held -= 1;
        ring.recycle(loan.buffer);
    }

    fn release_carry(&mut self, inbox: &mut Inbox) {
        self.carries_free.push(inbox.carry);
        (inbox.carry, inbox.carry_start, inbox.carry_end) = (NONE, 0, 0);
    }

    fn loan(&self, index: u32) -> &Loan {
        self.loans[index as usize].as_ref().expect("listed buffers are on loan")
    }

    fn loan_mut(&mut self, index: u32) -> &mut Loan {
        self.loans[index as usize].as_mut().expect("listed buffers are on loan")
    }
}
