//! The provided buffers: where the kernel puts what it receives.
//!
//! ```text
//! entries   [ addr len bid | addr len bid | ... ]   shared with the kernel, count entries of 16 B
//!             ^ the tail index lies in the last 2 bytes of the first entry
//! memory    [ buffer 0 | buffer 1 | ... ]           count buffers of size bytes
//! ```
//!
//! The kernel takes entries from the head; we append at the tail. A buffer is in the kernel's
//! hands, on loan as one [`BufferId`], or in reserve.
//!
//! The kernel hands buffers out in turn, so all that it has are touched one after the other, and
//! each receive into one of thousands misses the processor's cache. So it gets a few hundred, and
//! the rest comes out of reserve, last in first out, as those go on loan.

use super::BufferId;
use crate::sys::memory;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// The most buffers a ring may have: the kernel's limit, io_uring_register_buf_ring(3).
const COUNT_MAX: u16 = 1 << 15;

/// How many buffers the kernel has while there are enough: twice what one enter delivers at most
/// when every receive brings one buffer.
const OFFERED: u16 = 256;

#[derive(Debug)]
pub(super) struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    count: u16,
    size: u32,
    tail: u16,
    /// In the kernel's hands.
    offered: u16,
    reserve: Vec<BufferId>,
}

impl Buffers {
    /// Maps `count` buffers of `size` bytes; all of them are in reserve.
    pub(super) fn map(count: u16, size: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && count <= COUNT_MAX, "the kernel masks indexes");
        let entries_size = usize::from(count) * size_of::<BufRingEntry>();
        let memory_size = usize::from(count) * size as usize;
        Ok(Self {
            entries: memory::map(entries_size)?.bytes.as_mut_ptr().cast(),
            memory: memory::map(memory_size)?.bytes.as_mut_ptr(),
            count,
            size,
            tail: 0,
            offered: 0,
            reserve: (0..count).rev().map(BufferId::lend).collect(),
        })
    }

    /// Makes the ring of buffers known to the kernel, with the first of them in it.
    pub(super) fn register(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        self.replenish();
        // SAFETY:
        // - `entries` is page-aligned, holds `count` entries and is never unmapped.
        // - Each entry names `size` bytes of `memory`, which is never unmapped either.
        unsafe {
            submitter.register_buf_ring_with_flags(self.entries.addr() as u64, self.count, GROUP, 0)
        }
    }

    pub(super) const fn count(&self) -> u16 {
        self.count
    }

    /// The kernel has filled the buffer of this index.
    pub(super) fn lend(&mut self, index: u16) -> BufferId {
        assert!(index < self.count, "the kernel names a buffer of ours");
        assert!(self.offered > 0, "the kernel fills buffers that it was given");
        self.offered -= 1;
        BufferId::lend(index)
    }

    /// The first `len` bytes of a buffer on loan.
    pub(super) fn bytes(&self, buffer: &BufferId, len: u32) -> &[u8] {
        assert!(len <= self.size, "a completion stays within its buffer");
        let offset = usize::from(buffer.index()) * self.size as usize;
        // SAFETY:
        // - `BufferId`s are made by `lend` from an index below `count`.
        let first = unsafe { self.memory.add(offset) };
        // SAFETY:
        // - The range lies in the mapping, which lives as long as the process.
        // - The kernel does not write to a buffer on loan, and no `&mut` to it exists; the caller
        //   holds the one `BufferId` for as long as it holds the bytes.
        unsafe { std::slice::from_raw_parts(first, len as usize) }
    }

    /// Takes a buffer back from loan.
    pub(super) fn recycle(&mut self, buffer: BufferId) {
        if self.offered < OFFERED {
            self.offer(buffer);
        } else {
            self.reserve.push(buffer);
        }
    }

    /// Offers buffers out of reserve in place of those that went on loan.
    pub(super) fn replenish(&mut self) {
        while self.offered < OFFERED
            && let Some(buffer) = self.reserve.pop()
        {
            self.offer(buffer);
        }
    }

    /// Gives a buffer to the kernel.
    fn offer(&mut self, buffer: BufferId) {
        self.offered += 1;
        assert!(self.offered <= self.count, "no more buffers are offered than there are");
        let index = buffer.index();
        let offset = usize::from(index) * self.size as usize;
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY:
        // - `place` is below `count`, within the mapping.
        let entry = unsafe { self.entries.add(place) };
        // SAFETY:
        // - The kernel reads entries up to the tail only, and this one lies at it: at most `count`
        //   buffers exist, so the kernel has consumed what stood here before.
        let entry = unsafe { &mut *entry };
        entry.set_addr((self.memory.addr() + offset) as u64);
        entry.set_len(self.size);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY:
        // - `entries` points at the first entry of the mapping.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY:
        // - The tail is two aligned bytes inside the first entry that only we write; `set_addr`,
        //   `set_len` and `set_bid` above do not touch them.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
