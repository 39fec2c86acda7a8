//! In place of the server's `sys::sync`: loom's types under the same names.
//!
//! Two things are not as loom has them.
//!
//! A model that fails is unwound, and loom can then be asked nothing more: a destructor that does
//! would end the process before it says which model it was. So here nothing is asked by then.
//!
//! Loom does not know that a store cannot come between another thread's exchange and what that
//! exchange has replaced. It lets the exchange seem newer than a store that was made after it, and
//! finds wake-ups lost that no machine loses. So a flag is stored by an exchange as well, of which
//! loom knows the place. Nothing hides behind that: which store an exchange has replaced says in
//! any case which stores it precedes, and whatever else an exchange orders takes the two fences.

pub use loom::cell::UnsafeCell;
use loom::sync::atomic;
pub use loom::sync::atomic::{Ordering, fence};
use std::mem;
use std::ops::Deref;
use std::thread::panicking;

/// A flag.
#[derive(Debug, Default)]
pub struct AtomicBool(atomic::AtomicBool);

impl AtomicBool {
    /// Its value.
    #[track_caller]
    pub fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }

    /// Sets it.
    #[track_caller]
    pub fn store(&self, value: bool, order: Ordering) {
        self.0.swap(value, order);
    }

    /// Sets it. Returns what it was.
    #[track_caller]
    pub fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value, order)
    }
}

/// An index.
#[derive(Debug)]
pub struct AtomicUsize(atomic::AtomicUsize);

impl AtomicUsize {
    /// With a first value.
    #[track_caller]
    pub fn new(value: usize) -> Self {
        Self(atomic::AtomicUsize::new(value))
    }

    /// Its value.
    #[track_caller]
    pub fn load(&self, order: Ordering) -> usize {
        if panicking() { 0 } else { self.0.load(order) }
    }

    /// Sets it.
    #[track_caller]
    pub fn store(&self, value: usize, order: Ordering) {
        self.0.store(value, order);
    }
}

/// What several threads own.
#[derive(Debug)]
pub struct Arc<T>(Option<loom::sync::Arc<T>>);

impl<T> Arc<T> {
    /// With one owner.
    #[track_caller]
    pub fn new(value: T) -> Self {
        Self(Some(loom::sync::Arc::new(value)))
    }
}

impl<T: Default> Default for Arc<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        if panicking() {
            mem::forget(self.0.take());
        }
    }
}
