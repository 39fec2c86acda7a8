//! The models: a few threads, a few values, and every order in which they can meet.
//!
//! `loom` runs each model once for every interleaving of its threads and every value that a load
//! may return, and fails where an assertion breaks, two threads touch a cell at once, all wait, or
//! an `Arc` is never dropped. `fences` says which of loom's promises the others build upon.
//!
//! The orders of a model grow beyond all bounds with what its threads do. Where they take more than
//! some seconds, a thread is interrupted so many times at most; the variable LOOM_MAX_PREEMPTIONS
//! says otherwise, and holds for all models then.

mod boxes;
mod fences;
mod queue;
mod reads;
mod sleep;

#[cfg(test)]
fn model_interrupted(times: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(times);
    model.check(run);
}
