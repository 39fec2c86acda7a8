//! A bounded queue from one thread to another: one producer, one consumer, no locks, no waiting.
//!
//! ```text
//! slots   [ . | x | x | x | . | . | . | . ]     x holds a value
//!               ^head       ^tail               indexes run freely; a slot is index % capacity
//! ```
//!
//! The producer alone writes `tail`, the consumer alone writes `head`. Each keeps a copy of the
//! other's index and reads the shared one only when the copy says full or empty, so that a busy
//! queue moves one cache line a batch and not one a value.

use crate::sys::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};
use std::fmt;
use std::mem::MaybeUninit;

/// Two indexes on the same cache line would move it between cores at every push.
#[repr(align(128))]
struct Padded(AtomicUsize);

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    head: Padded,
    tail: Padded,
}

// SAFETY:
// - A slot is touched by the producer while it lies outside `head..tail`, and by the consumer while
//   it lies inside; the release store and acquire load of the index hand it over.
// - Values move from one thread to the other, which `T: Send` allows.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        for index in self.head.0.load(Ordering::Relaxed)..self.tail.0.load(Ordering::Relaxed) {
            self.slot(index).with_mut(|slot| {
                // SAFETY:
                // - Both ends are gone, so nothing else touches the slot.
                let slot = unsafe { &mut *slot };
                // SAFETY:
                // - Slots in `head..tail` hold values.
                unsafe { slot.assume_init_drop() };
            });
        }
    }
}

/// The end that pushes.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The end that pops.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

/// A queue with room for at least `count_min` values.
#[must_use]
pub fn queue<T: Send>(count_min: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = count_min.next_power_of_two();
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let index = || Padded(AtomicUsize::new(0));
    let shared = Arc::new(Shared { slots, head: index(), tail: index() });
    (
        Producer { shared: Arc::clone(&shared), tail: 0, head_seen: 0 },
        Consumer { shared, head: 0, tail_seen: 0 },
    )
}

impl<T> Producer<T> {
    /// Whether a push would fail.
    #[must_use]
    pub fn is_full(&mut self) -> bool {
        let capacity = self.shared.slots.len();
        if self.tail - self.head_seen == capacity {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        }
        self.tail - self.head_seen == capacity
    }

    /// How many values can be pushed.
    #[must_use]
    pub fn room(&mut self) -> usize {
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        self.shared.slots.len() - (self.tail - self.head_seen)
    }

    /// Appends `value`; the consumer can see it at once.
    ///
    /// # Panics
    /// If the queue is full: whoever pushes keeps room, or asks [`Producer::is_full`] before.
    pub fn push(&mut self, value: T) {
        assert!(!self.is_full(), "room is kept before a value is made");
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY:
            // - The slot lies outside `head..tail`: `is_full` has just compared the indexes.
            // - There is one producer, and `&mut self` keeps it to one thread at a time.
            unsafe { (*slot).write(value) };
        });
        self.tail += 1;
        self.shared.tail.0.store(self.tail, Ordering::Release);
    }
}

impl<T> Consumer<T> {
    /// Whether a pop would find nothing.
    #[must_use]
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }

    /// Takes the oldest value.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let value = self.shared.slot(self.head).with(|slot| {
            // SAFETY:
            // - The slot lies inside `head..tail`: `is_empty` has just compared the indexes, so the
            //   producer leaves it alone until `head` has moved past it.
            let slot = unsafe { &*slot };
            // SAFETY:
            // - Its value was written before the store of `tail` that `is_empty` has loaded.
            // - It is read once: `head` moves past it below.
            unsafe { slot.assume_init_read() }
        });
        self.head += 1;
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_leave_in_order_and_a_full_queue_says_so() {
        let (mut producer, mut consumer) = queue(3);
        for round in 0..10 {
            for value in 0..4 {
                assert!(!producer.is_full());
                producer.push(round * 4 + value);
            }
            assert!(producer.is_full());
            for value in 0..4 {
                assert_eq!(consumer.pop(), Some(round * 4 + value));
            }
            assert_eq!(consumer.pop(), None);
        }
    }

    #[test]
    fn values_left_behind_are_dropped_once() {
        let counted = Arc::new(());
        let (mut producer, mut consumer) = queue(4);
        for _ in 0..3 {
            producer.push(Arc::clone(&counted));
        }
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&counted), 3);
        drop(producer);
        drop(consumer);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn a_million_values_cross_two_threads_unharmed() {
        let (mut producer, mut consumer) = queue(64);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for value in 0..1_000_000_u64 {
                    while producer.is_full() {
                        std::thread::yield_now();
                    }
                    producer.push(Box::new(value));
                }
            });
            let mut expected = 0;
            while expected < 1_000_000 {
                match consumer.pop() {
                    Some(value) => {
                        assert_eq!(*value, expected);
                        expected += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
    }
}
