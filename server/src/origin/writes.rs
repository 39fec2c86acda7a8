//! Writes on the plane: each is answered once and in time, also where the origin is late.
//!
//! An origin that has not answered within `origin.timeout` may have done a write, or do it later.
//! Its client is told so, and the key's owner drops what it has. Whatever is cached until the write
//! is done may be what was there before it: the owner has to drop the key once more then.
//!
//! Invariant: what waits for a late write or is to be dropped after it is bounded; at the bound no
//! write is begun.
#![expect(clippy::disallowed_types, reason = "one thread: the origin is shared by its writes")]

use super::{Origin, Room, Write};
use crate::error::FetchFailure;
use crate::mesh::{Key, Upload, Written};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A write that the origin has not answered in time. It resolves when it has.
pub(super) type Late = Pin<Box<dyn Future<Output = Written>>>;

/// Asks the origin to do what the upload says, once `room` has room for the body, and puts its
/// answer there. A write that is late goes on.
pub(super) async fn write(
    origin: Rc<dyn Origin>,
    timeout: Duration,
    room: Room,
    upload: &mut Upload,
) -> Option<Late> {
    let deadline = Instant::now() + timeout;
    let Ok(held) = timeout_at(deadline, room.hold(upload.body().len())).await else {
        upload.outcome = Written::Failed(FetchFailure::NoRoom);
        return None;
    };
    let write = Write::of(upload);
    let mut writing: Late = Box::pin(async move {
        let _held = held;
        origin.write(write).await
    });
    match timeout_at(deadline, &mut writing).await {
        Ok(written) => {
            upload.outcome = written;
            None
        }
        Err(_elapsed) => {
            upload.outcome = Written::Unknown;
            Some(writing)
        }
    }
}

/// The late writes.
#[derive(Debug, Default)]
pub(super) struct LateWrites {
    /// How many the origin still has.
    waiting: usize,
    /// The keys of those that have ended since, to be dropped, and the shards that own them.
    ended: VecDeque<(usize, Box<Key>)>,
}

impl LateWrites {
    /// How many keys may have to be dropped.
    pub(super) fn count(&self) -> usize {
        self.waiting + self.ended.len()
    }

    /// A write is late.
    pub(super) const fn begin(&mut self) {
        self.waiting += 1;
    }

    /// One has ended.
    pub(super) fn end(&mut self, owner: usize, key: Box<Key>) {
        self.waiting -= 1;
        self.ended.push_back((owner, key));
    }

    /// The next key to drop, and its owner.
    pub(super) fn next_ended(&mut self) -> Option<(usize, Box<Key>)> {
        self.ended.pop_front()
    }
}
