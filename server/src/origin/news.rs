//! What an origin says unasked: which keys have changed.
//!
//! Whoever listens to a server tells of each key here, from whatever thread; the plane lets the
//! owners of these keys drop them. Of more keys than can wait, and of what may have happened while
//! nobody listened, only one thing can be said: anything may have changed.
//!
//! Invariant: what was told is heard, or that anything may have changed is heard after it.

use crate::mesh::Key;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, Notify, mpsc};

/// Keys that wait to be heard, at most.
const KEYS_WAITING_MAX: usize = 16_384;

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// This key, or it may have.
    Key(Box<Key>),
    /// Nobody knows.
    Anything,
}

/// Tells of changes.
#[derive(Clone, Debug)]
pub struct Teller {
    keys: mpsc::Sender<Box<Key>>,
    lost: Arc<Lost>,
}

/// Hears of them.
#[derive(Debug)]
pub struct News {
    keys: Mutex<mpsc::Receiver<Box<Key>>>,
    lost: Arc<Lost>,
}

/// Whether anything may have changed.
#[derive(Debug, Default)]
struct Lost {
    is_lost: AtomicBool,
    notify: Notify,
}

/// The two ends.
#[must_use]
pub fn news() -> (Teller, News) {
    let (to, from) = mpsc::channel(KEYS_WAITING_MAX);
    let lost = Arc::new(Lost::default());
    (Teller { keys: to, lost: Arc::clone(&lost) }, News { keys: Mutex::new(from), lost })
}

impl Teller {
    /// A key has changed, and who fetches it from now on is given what it has become. Where several
    /// servers are read from, each that gets to know of the change says so.
    pub fn key(&self, key: Key) {
        if self.keys.try_send(Box::new(key)).is_err() {
            self.anything();
        }
    }

    /// Anything may have changed.
    pub fn anything(&self) {
        self.lost.is_lost.store(true, Ordering::Release);
        self.lost.notify.notify_one();
    }
}

impl News {
    /// The next change. Nothing is lost where this is dropped before it is ready.
    ///
    /// # Panics
    /// If somebody else waits for it.
    pub async fn next(&self) -> Changed {
        let mut keys = self.keys.try_lock().expect("one plane listens");
        loop {
            if self.lost.is_lost.swap(false, Ordering::AcqRel) {
                return Changed::Anything;
            }
            tokio::select! {
                biased;
                () = self.lost.notify.notified() => {}
                Some(key) = keys.recv() => return Changed::Key(key),
            }
        }
    }

    /// The next change, if there is one now.
    ///
    /// # Panics
    /// If somebody waits for it.
    pub fn try_next(&self) -> Option<Changed> {
        if self.lost.is_lost.swap(false, Ordering::AcqRel) {
            return Some(Changed::Anything);
        }
        let mut keys = self.keys.try_lock().expect("one plane listens");
        keys.try_recv().ok().map(Changed::Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(number.to_string().as_bytes()).expect("short")
    }

    #[test]
    fn keys_are_heard_in_their_order_and_nothing_twice() {
        let (teller, news) = news();
        teller.key(key(1));
        teller.key(key(2));
        assert_eq!(news.try_next(), Some(Changed::Key(Box::new(key(1)))));
        assert_eq!(news.try_next(), Some(Changed::Key(Box::new(key(2)))));
        teller.anything();
        teller.anything();
        assert_eq!(news.try_next(), Some(Changed::Anything));
        assert_eq!(news.try_next(), None);
    }

    #[test]
    fn what_finds_no_room_may_be_anything() {
        let (teller, news) = news();
        (0..KEYS_WAITING_MAX).for_each(|number| teller.key(key(number)));
        assert!(matches!(news.try_next(), Some(Changed::Key(_))));
        teller.key(key(0));
        teller.key(key(1));
        assert_eq!(news.try_next(), Some(Changed::Anything));
        assert!(matches!(news.try_next(), Some(Changed::Key(_))));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let (teller, news) = news();
        let tell = async {
            tokio::task::yield_now().await;
            teller.anything();
            tokio::task::yield_now().await;
            teller.key(key(7));
        };
        let hear = async { (news.next().await, news.next().await) };
        let ((), heard) = tokio::join!(tell, hear);
        assert_eq!(heard, (Changed::Anything, Changed::Key(Box::new(key(7)))));
    }
}
