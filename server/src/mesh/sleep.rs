//! The flag that says whether a thread sleeps, so that a wake-up is sent only to one that does.
//!
//! A sleeper raises the flag and then looks at its queues once more; a sender pushes and then looks
//! at the flag. Both put a full fence between the two steps, so at least one of them sees the
//! other: either the sleeper finds the message, or the sender finds the flag and wakes it. No
//! wake-up is lost, and the swap makes sure that only one sender pays for it.

use crate::sys::sync::{Arc, AtomicBool, Ordering, fence};

/// One thread's flag, shared with those who send to it.
#[derive(Clone, Debug, Default)]
pub struct Sleep(Arc<Flag>);

/// Alone on its cache line: senders read it after every batch.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Flag(AtomicBool);

impl Sleep {
    /// A flag of a thread that is awake.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The sleeper is about to wait; it must look at its queues once more before it does.
    pub fn prepare(&self) {
        self.0.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper is awake, or never slept.
    pub fn end(&self) {
        self.0.0.store(false, Ordering::Relaxed);
    }

    /// After pushing: whether the caller must send a wake-up. True for one caller a sleep.
    #[must_use]
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.0.load(Ordering::Relaxed) && self.0.0.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_wakes_a_sleeper_and_none_one_that_is_awake() {
        let sleep = Sleep::new();
        assert!(!sleep.must_wake());
        sleep.prepare();
        assert!(sleep.clone().must_wake());
        assert!(!sleep.must_wake());
        sleep.prepare();
        sleep.end();
        assert!(!sleep.must_wake());
    }
}
