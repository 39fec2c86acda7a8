//! Room for fetched values on their way to the shards, in bytes.
//!
//! A value lives from its reading until its shard has stored it and its memory has come back. How
//! many do so at once is bounded by the flights; how large they are together is bounded here: an
//! origin holds room for a value before it takes memory for it.
//!
//! Invariant: what is held is at most the bound, or one value that is larger.

use crate::mesh::Held;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The room of an origin, shared by who holds parts of it. First come, first served.
#[derive(Clone, Debug)]
pub struct Room {
    free: Arc<Semaphore>,
    size: u32,
}

impl Room {
    /// A room of `size` bytes.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(size as usize)), size }
    }

    /// Holds `size` bytes of it, or all of it for what is larger; waits while others hold too much.
    pub async fn hold(&self, size: usize) -> Held {
        let size = u32::try_from(size).unwrap_or(u32::MAX).min(self.size);
        let permit = Arc::clone(&self.free).acquire_many_owned(size).await;
        permit.map_or_else(|_closed| Held::default(), Held::from)
    }

    /// Whether so much of it is free.
    #[cfg(test)]
    pub(crate) fn has(&self, size: usize) -> bool {
        self.free.available_permits() >= size
    }

    /// Lets everybody through from now on, and holds nothing: nobody gives anything back.
    pub fn close(&self) {
        self.free.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// What is held at once, or `None` if it would have to wait.
    fn held(room: &Room, size: usize) -> Option<Held> {
        match poll(room.hold(size)) {
            Poll::Ready(held) => Some(held),
            Poll::Pending => None,
        }
    }

    #[test]
    fn no_more_is_held_than_there_is_until_some_comes_back() {
        let room = Room::new(10);
        let (six, four) = (held(&room, 6), held(&room, 4));
        assert!(six.is_some() && four.is_some());
        assert!(held(&room, 1).is_none());
        drop(four);
        assert!(held(&room, 5).is_none());
        assert!(held(&room, 4).is_some());
    }

    #[test]
    fn what_is_larger_than_the_room_has_it_alone() {
        let room = Room::new(10);
        let one = held(&room, 1);
        assert!(held(&room, 11).is_none());
        drop(one);
        let all = held(&room, usize::MAX);
        assert!(all.is_some());
        assert!(held(&room, 1).is_none());
    }

    #[test]
    fn a_room_that_is_closed_keeps_nobody_waiting() {
        let room = Room::new(10);
        let all = held(&room, 10);
        assert!(all.is_some());
        let mut waits = pin!(room.hold(1));
        assert!(poll(waits.as_mut()).is_pending());
        room.close();
        assert!(matches!(poll(waits.as_mut()), Poll::Ready(_)));
    }
}
