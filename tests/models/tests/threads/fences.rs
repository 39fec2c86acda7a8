//! What the flag of a sleeper relies on: of two threads that write one word, pass a full fence and
//! read the other word, at least one sees the other's. Loom knows that of fences, and that nothing
//! else makes it so; it does not know it of sequentially consistent loads and stores, which no file
//! here uses.

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, Ordering, fence};
    use std::sync::atomic::AtomicU32;

    /// Runs that there were in which neither thread saw the other's word.
    fn runs_that_miss(fenced: bool) -> u32 {
        let missed = std::sync::Arc::new(AtomicU32::new(0));
        let misses = std::sync::Arc::clone(&missed);
        loom::model(move || {
            let words = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
            let pass = move |words: &[AtomicBool; 2], own: usize| {
                words[own].store(true, Ordering::Relaxed);
                if fenced {
                    fence(Ordering::SeqCst);
                }
                words[1 - own].load(Ordering::Relaxed)
            };
            let other = {
                let words = Arc::clone(&words);
                loom::thread::spawn(move || pass(&words, 1))
            };
            let seen = pass(&words, 0);
            if !other.join().unwrap() && !seen {
                misses.fetch_add(1, Ordering::Relaxed);
            }
        });
        missed.load(Ordering::Relaxed)
    }

    #[test]
    fn one_of_two_threads_sees_the_other_behind_full_fences() {
        assert_eq!(runs_that_miss(true), 0);
    }

    #[test]
    fn without_fences_both_may_miss() {
        assert!(runs_that_miss(false) > 0);
    }
}
