//! Output blocks: where replies are written and what a connection's send points at.
//!
//! A connection takes a block when it has something to write and gives it back when all of it was
//! sent, so that idle connections cost no output memory. All replies of a turn go into one block
//! and leave in one send; bodies from the copy threshold on are not copied but attached, as spans
//! into the cache's arena, under a pin that is held until the send is done.
//!
//! ```text
//! block   [ head | body | head | head | body |      free      ]
//! spans     <------------ output ----><arena><out>
//! ```
//!
//! Invariant: a block's bytes do not change while a send is in flight, nor do its spans.

use super::slots::NONE;
use crate::ring::{Region, Span, Spans};
use shard_cache::time::Instant;
use shard_cache::{Cache, Pin};

/// Bodies that one send may attach: with heads between them they fill the spans of an operation.
const PINS_MAX: usize = Spans::COUNT_MAX / 2;

#[derive(Debug)]
struct Block {
    used: u32,
    spans: Spans,
    pins: [Option<Pin>; PINS_MAX],
    pins_count: usize,
}

/// All output blocks of a shard.
#[derive(Debug)]
pub(super) struct Output {
    memory: &'static mut [u8],
    block_size: u32,
    blocks: Box<[Block]>,
    free: Vec<u32>,
}

impl Output {
    /// Cuts `memory` into blocks of `block_size` bytes.
    pub(super) fn new(memory: &'static mut [u8], block_size: u32) -> Self {
        let count = u32::try_from(memory.len() / block_size as usize).expect("blocks are counted");
        let block = || Block {
            used: 0,
            spans: Spans::new(),
            pins: [const { None }; PINS_MAX],
            pins_count: 0,
        };
        Self {
            memory,
            block_size,
            blocks: (0..count).map(|_| block()).collect(),
            free: (0..count).rev().collect(),
        }
    }

    pub(super) fn memory(&self) -> &[u8] {
        self.memory
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn used(&self) -> usize {
        self.blocks.len() - self.free.len()
    }

    /// Takes an empty block.
    pub(super) fn acquire(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives a block back; whatever it still attached is let go.
    pub(super) fn release(&mut self, block: u32, cache: &mut Cache<'_>) {
        assert_ne!(block, NONE, "only a block that was taken is given back");
        self.clear(block, cache);
        self.free.push(block);
    }

    /// The spans still to be sent.
    pub(super) fn spans(&self, block: u32) -> Spans {
        self.blocks[block as usize].spans
    }

    /// Whether something is attached that is sent from where it lies.
    pub(super) fn has_bodies(&self, block: u32) -> bool {
        self.blocks[block as usize].pins_count > 0
    }

    /// Bytes that may still be written.
    pub(super) fn room(&self, block: u32) -> usize {
        (self.block_size - self.blocks[block as usize].used) as usize
    }

    /// Whether a body may be attached, with a head before and behind it.
    pub(super) fn can_attach(&self, block: u32) -> bool {
        let block = &self.blocks[block as usize];
        block.pins_count < PINS_MAX && block.spans.as_slice().len() + 2 < Spans::COUNT_MAX
    }

    /// Lets `write` fill the free part of the block; it returns how many bytes it wrote.
    // Measured: without it a hit costs 32 instructions more (`make instructions`).
    #[inline(always)]
    pub(super) fn append(&mut self, index: u32, write: impl FnOnce(&mut [u8]) -> usize) {
        let block = &mut self.blocks[index as usize];
        let start = u64::from(index) * u64::from(self.block_size) + u64::from(block.used);
        let first = usize::try_from(start).expect("offsets fit the address space");
        let room = (self.block_size - block.used) as usize;
        let size = write(&mut self.memory[first..][..room]);
        assert!(size <= room, "a reply stays within its block");
        let len = u32::try_from(size).expect("a block is a few kilobytes");
        block.used += len;
        block.spans.extend(Span { offset: start, len, region: Region::Output });
    }

    /// Attaches a body that lies in the arena, under `pin`.
    pub(super) fn attach(&mut self, index: u32, offset: u64, len: u32, pin: Pin) {
        let block = &mut self.blocks[index as usize];
        block.spans.extend(Span { offset, len, region: Region::Arena });
        block.pins[block.pins_count] = Some(pin);
        block.pins_count += 1;
    }

    /// `len` bytes were sent. Returns whether that was the last of the block, which is empty then.
    pub(super) fn advance(&mut self, index: u32, len: u32, cache: &mut Cache<'_>) -> bool {
        let block = &mut self.blocks[index as usize];
        block.spans.advance(len);
        let done = block.spans.as_slice().is_empty();
        if done {
            self.clear(index, cache);
        }
        done
    }

    /// Whether any body of a block can be copied out of its condemned segment.
    pub(super) fn can_spill(&self, index: u32, cache: &Cache<'_>) -> bool {
        self.pins(index).any(|pin| cache.spill_size(pin).is_some())
    }

    /// Whether a block holds a condemned segment.
    pub(super) fn holds_condemned(&self, index: u32, cache: &Cache<'_>) -> bool {
        self.pins(index).any(|pin| cache.is_condemned(pin))
    }

    fn pins(&self, index: u32) -> impl Iterator<Item = &Pin> {
        let block = &self.blocks[index as usize];
        block.pins[..block.pins_count].iter().flatten()
    }

    /// Copies the bodies of a block that are still to be sent out of condemned segments, as far as
    /// `bytes_left` goes, and lets go of those that were sent. No send may be in flight.
    pub(super) fn spill(
        &mut self,
        index: u32,
        cache: &mut Cache<'_>,
        now: Instant,
        bytes_left: &mut usize,
    ) {
        let Block { spans, pins, pins_count, .. } = &mut self.blocks[index as usize];
        for place in &mut pins[..*pins_count] {
            let Some(pin) = place.take() else { continue };
            let (from, len) = cache.value_span(pin.entry());
            let is_of_it = |span: &&mut Span| {
                span.region == Region::Arena && (from..from + u64::from(len)).contains(&span.offset)
            };
            let Some(span) = spans.as_mut_slice().iter_mut().find(is_of_it) else {
                cache.unpin(pin);
                continue;
            };
            let pin = spill_within(cache, pin, now, bytes_left);
            let (to, _) = cache.value_span(pin.entry());
            span.offset = to + (span.offset - from);
            *place = Some(pin);
        }
    }

    fn clear(&mut self, index: u32, cache: &mut Cache<'_>) {
        let block = &mut self.blocks[index as usize];
        for pin in block.pins[..block.pins_count].iter_mut().filter_map(Option::take) {
            cache.unpin(pin);
        }
        block.pins_count = 0;
        block.used = 0;
        block.spans = Spans::new();
    }
}

/// Copies what a pin holds out of its condemned segment, if it is to be and `bytes_left` goes so
/// far.
pub(super) fn spill_within(
    cache: &mut Cache<'_>,
    pin: Pin,
    now: Instant,
    bytes_left: &mut usize,
) -> Pin {
    match cache.spill_size(&pin) {
        Some(size) if size <= *bytes_left => {
            *bytes_left -= size;
            cache.spill(pin, now)
        }
        Some(_) | None => pin,
    }
}
