//! Boxes that go back and forth between a shard and a reader: what is too large for a message.
//!
//! Whoever writes fills an empty box or exchanges it for its own; whoever reads gives it back. So
//! nothing is allocated, nobody waits, and no byte is shared between two threads at any time.

use crate::sys::spsc::{self, Consumer, Producer};

/// The writer's end.
#[derive(Debug)]
pub struct Giver<T> {
    filled: Producer<Box<T>>,
    empties: Consumer<Box<T>>,
}

/// The reader's end.
#[derive(Debug)]
pub struct Taker<T> {
    filled: Consumer<Box<T>>,
    empties: Producer<Box<T>>,
}

/// The two ends for up to `count` boxes, none of which is made yet: the reader gives them.
#[must_use]
pub fn boxes<T: Send>(count: usize) -> (Giver<T>, Taker<T>) {
    let (to_reader, filled) = spsc::queue(count);
    let (to_writer, empties) = spsc::queue(count);
    (Giver { filled: to_reader, empties }, Taker { filled, empties: to_writer })
}

impl<T: Send> Giver<T> {
    /// Hands a box over after `fill` has filled it, or put another in its place, if there is one.
    pub fn give(&mut self, fill: impl FnOnce(&mut Box<T>)) -> bool {
        let Some(mut given) = self.empties.pop() else { return false };
        fill(&mut given);
        self.filled.push(given);
        true
    }
}

impl<T: Send> Taker<T> {
    /// The next box that was handed over.
    pub fn take(&mut self) -> Option<Box<T>> {
        self.filled.pop()
    }

    /// Gives a box to be filled.
    ///
    /// # Panics
    /// If there are more boxes than there should be.
    pub fn give_back(&mut self, empty: Box<T>) {
        self.empties.push(empty);
    }
}
