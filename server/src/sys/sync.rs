//! What the queue and the flag between two threads are made of: the standard library's, under
//! names that another crate can give a meaning of its own.
//!
//! `spsc`, and those files of `mesh` that move values between threads, take their atomics from
//! here and from nowhere else. `tests/models` compiles the same files over the types of loom,
//! which tries every order that the memory model allows. A cell hands its pointer to a closure,
//! because loom must know how long an access lasts; here that is nothing but the pointer.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// A cell of which two threads have pointers; whoever follows one says why that is sound.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Reads through the pointer.
    #[inline(always)]
    pub(crate) fn with<R>(&self, access: impl FnOnce(*const T) -> R) -> R {
        access(self.0.get())
    }

    /// Writes through the pointer.
    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}
