//! The system calls we make ourselves, one file a concern; everything else goes through the ring.
//!
//! `memory` maps and populates the arenas, `socket` and `unix` make listeners, `steer` says which
//! of them gets a connection, `eventfd` wakes planes, `signal` waits for the operator, `clock`
//! reads the time for the ring, `cpu`, `cgroup`, `rlimit`, `interfaces` and `queues` look at what
//! we run on, `spsc` is the queue between two threads, `sync` what it is made of,
//! `alloc` catches allocations on a shard's thread.

#[allow(unsafe_code, reason = "wraps the global allocator")]
pub mod alloc;
pub mod cgroup;
pub mod clock;
#[allow(unsafe_code, reason = "sched_setscheduler(2)")]
pub mod cpu;
#[allow(unsafe_code, reason = "eventfd(2) has no safe wrapper among our dependencies")]
pub mod eventfd;
#[allow(unsafe_code, reason = "getifaddrs(3)")]
pub mod interfaces;
#[allow(unsafe_code, reason = "mmap(2) and madvise(2)")]
pub mod memory;
pub mod pressure;
pub mod queues;
#[allow(unsafe_code, reason = "getrlimit(2) and setrlimit(2)")]
pub mod rlimit;
#[allow(unsafe_code, reason = "sigwait(3)")]
pub mod signal;
#[allow(unsafe_code, reason = "socket options that must precede bind(2)")]
pub mod socket;
#[allow(unsafe_code, reason = "a slot is written by one thread and read by another")]
pub mod spsc;
#[allow(unsafe_code, reason = "a socket option that takes a program")]
pub mod steer;
pub(crate) mod sync;
pub mod unix;
