//! A stand-in for the kernel: what a thread waits for, be it an eventfd or a message to its ring.
//!
//! A signal that comes before the wait ends it at once, as a completion does that lies in the ring.

use loom::sync::{Condvar, Mutex};

/// What one thread waits for and others signal.
#[derive(Debug)]
pub struct EventFd {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl Default for EventFd {
    fn default() -> Self {
        Self { signalled: Mutex::new(false), changed: Condvar::new() }
    }
}

impl EventFd {
    /// Ends the wait of the other thread, or its next one.
    ///
    /// # Panics
    /// Never: no thread panics while it holds the lock.
    pub fn signal(&self) {
        *self.signalled.lock().expect("nobody panics with it") = true;
        self.changed.notify_one();
    }

    /// Waits for a signal, and takes it.
    ///
    /// # Panics
    /// Never: no thread panics while it holds the lock.
    pub fn wait(&self) {
        let mut signalled = self.signalled.lock().expect("nobody panics with it");
        while !std::mem::take(&mut *signalled) {
            signalled = self.changed.wait(signalled).expect("nobody panics with it");
        }
    }
}
