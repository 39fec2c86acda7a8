//! One-line faults, and which test finds each: whether the tests are worth anything.
//!
//! `table` is the list, `workshop` a copy of the tree that faults are planted in, `trial` runs the
//! tests against one.

pub mod table;
pub mod trial;
pub mod workshop;
