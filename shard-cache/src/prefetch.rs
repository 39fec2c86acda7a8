//! Loads a cache line ahead of its use, where the processor has an instruction for it.
//!
//! A lookup touches two lines that are rarely in the processor's cache: the index bucket and the
//! entry. Asking for them a few requests ahead hides most of that wait.

/// Asks for the cache line that `value` begins in. Changes nothing that a program can see.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY:
        // - A prefetch is a hint: it reads and writes nothing and cannot fault.
        // - SSE is part of every x86_64 processor.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _: &T = value;
}
