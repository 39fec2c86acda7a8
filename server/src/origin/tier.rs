//! Origins one in front of the other: the last has the truth, those above it copies of it.
//!
//! A read asks them in order, and what one has is put into those above it, for `cache.ttl` at most
//! and only where nothing is, so that it never replaces what a write has left. A write goes to the
//! last, then to those above. One of them that fails is gone round: a read asks the next, and a key
//! whose write it has missed is not read from it before it was deleted there.
//!
//! Invariant: what this process has written is never followed by what was there before, unless the
//! process ends between the two. Others that write the last, or read it for their own copies, can
//! leave something older above, for `cache.ttl`.
#![expect(clippy::disallowed_types, reason = "one thread: reads and writes share the levels")]

use super::{Fetch, News, Origin, Write, Writing};
use crate::error::FetchFailure;
use crate::mesh::{Change, Found, Key, Lifetime, OriginServer, Outcome, Precondition, Written};
use shard_cache::hash::Etag;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::timeout;

/// Keys that one level may hold something older of, at most; with more, writes are not begun.
const DOUBTS_MAX: usize = 16_384;

/// Keys of a level that are deleted there before a write is refused.
const SETTLED_MAX: usize = 64;

/// Origins one in front of the other.
pub struct Tier {
    above: Vec<Level>,
    last: Box<dyn Origin>,
    /// What a level above the last may take for a request.
    share: Duration,
    /// How long what is put into a level lives there at most.
    ttl: Duration,
    /// Counts up whenever the last may be about to change, or has changed: what was read before is
    /// not put anywhere.
    changes: Cell<u64>,
}

/// A level above the last.
struct Level {
    origin: Box<dyn Origin>,
    /// Keys whose last write it may have missed.
    doubts: RefCell<BTreeSet<Box<[u8]>>>,
}

impl std::fmt::Debug for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tier").field("levels", &self.describe()).finish_non_exhaustive()
    }
}

impl Tier {
    /// `origins` from the first that is asked to the last; a request may take `timeout`, and what
    /// is put into a level lives there for `ttl`.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn new(mut origins: Vec<Box<dyn Origin>>, timeout: Duration, ttl: Duration) -> Self {
        let last = origins.pop().expect("a tier has origins");
        let share = timeout / u32::try_from(2 * origins.len() + 1).expect("few");
        let level = |origin| Level { origin, doubts: RefCell::default() };
        let above = origins.into_iter().map(level).collect();
        Self { above, last, share, ttl, changes: Cell::new(0) }
    }

    /// All, in the order in which they are asked.
    fn all(&self) -> impl Iterator<Item = &dyn Origin> {
        self.above.iter().map(|level| &*level.origin).chain([&*self.last])
    }

    /// What is known is said to none of them: a level above that has nothing wants the value.
    async fn read(&self, key: &[u8]) -> Outcome {
        let changes = self.changes.get();
        for (index, level) in self.above.iter().enumerate() {
            if let Some(found) = level.fetch(key, self.share).await {
                self.fill(&self.above[..index], key, &found, changes).await;
                return Outcome::Found(found);
            }
        }
        let outcome = self.last.fetch(key, None).await;
        if let Outcome::Found(found) = &outcome {
            self.fill(&self.above, key, found, changes).await;
        }
        outcome
    }

    /// Puts what was found into levels that have nothing, unless a write has come meanwhile.
    async fn fill(&self, levels: &[Level], key: &[u8], found: &Found, changes: u64) {
        for level in levels {
            let is_doubtful = level.doubts.borrow().contains(key);
            if is_doubtful || self.changes.get() != changes {
                continue;
            }
            let change = Change::Put {
                content_type: found.content_type,
                lifetime: self.at_most(found.lifetime),
                stale: found.stale,
            };
            let key = Key::new(key).expect("it was asked for");
            let value = found.value.clone();
            let precondition = Precondition::ABSENT;
            let write = Write { key, change, value, precondition };
            // Whatever becomes of it, the next who reads finds what was there, this, or nothing.
            drop(timeout(self.share, level.origin.write(write)).await);
        }
    }

    async fn change(&self, write: Write) -> Written {
        if self.above.iter().any(|level| level.doubts.borrow().len() >= DOUBTS_MAX) {
            // Nobody could remember that a level has missed it.
            self.settle_some().await;
            return Written::Failed(FetchFailure::NoRoom);
        }
        let (key, change, value) = (write.key.clone(), write.change, write.value.clone());
        self.changes.set(self.changes.get() + 1);
        let written = self.last.write(write).await;
        self.changes.set(self.changes.get() + 1);
        let change = match (written, change) {
            (Written::Failed(_), _) => return written,
            (Written::Stored(stored), Change::Put { content_type, stale, .. }) => {
                Change::Put { content_type, lifetime: self.at_most(stored.lifetime), stale }
            }
            _ => Change::Delete,
        };
        for level in &self.above {
            let value = if change == Change::Delete { Box::default() } else { value.clone() };
            let (key, precondition) = (key.clone(), Precondition::default());
            level.write(Write { key, change, value, precondition }, self.share).await;
        }
        written
    }

    /// Deletes keys that levels may hold something older of, some of them.
    async fn settle_some(&self) {
        for level in &self.above {
            let some: Vec<_> = level.doubts.borrow().iter().take(SETTLED_MAX).cloned().collect();
            for key in some {
                if !level.settle(&key, self.share).await {
                    break;
                }
            }
        }
    }

    fn at_most(&self, lifetime: Lifetime) -> Lifetime {
        match lifetime {
            Lifetime::For(own) => Lifetime::For(own.min(self.ttl)),
            Lifetime::Default | Lifetime::Unlimited => Lifetime::For(self.ttl),
        }
    }
}

impl Level {
    /// What it has of a key, if it can be believed.
    async fn fetch(&self, key: &[u8], share: Duration) -> Option<Found> {
        let is_doubtful = self.doubts.borrow().contains(key);
        if is_doubtful && !self.settle(key, share).await {
            return None;
        }
        match timeout(share, self.origin.fetch(key, None)).await {
            Ok(Outcome::Found(found)) => Some(found),
            Ok(Outcome::Absent | Outcome::Unchanged(_) | Outcome::Failed(_)) | Err(_) => None,
        }
    }

    /// Deletes a key of which it may hold something older; whether that was done.
    async fn settle(&self, key: &[u8], share: Duration) -> bool {
        let (key, value) = (Key::new(key).expect("it was written"), Box::default());
        let precondition = Precondition::default();
        self.write(Write { key, change: Change::Delete, value, precondition }, share).await
    }

    /// Writes, and remembers that it may have missed this until it has done a write of the key.
    async fn write(&self, write: Write, share: Duration) -> bool {
        let key: Box<[u8]> = write.key.as_bytes().into();
        self.doubts.borrow_mut().insert(key.clone());
        let written = timeout(share, self.origin.write(write)).await;
        let is_done =
            matches!(written, Ok(Written::Stored(_) | Written::Deleted | Written::Absent));
        if is_done {
            self.doubts.borrow_mut().remove(&key);
        }
        is_done
    }
}

impl Origin for Tier {
    fn describe(&self) -> String {
        self.all().map(Origin::describe).collect::<Vec<_>>().join(", then ")
    }

    fn fetch<'a>(&'a self, key: &'a [u8], _known: Option<Etag>) -> Fetch<'a> {
        Box::pin(self.read(key))
    }

    fn write(&self, write: Write) -> Writing<'_> {
        Box::pin(self.change(write))
    }

    fn news(&self) -> Option<&News> {
        self.all().find_map(Origin::news)
    }

    fn servers(&self) -> Vec<OriginServer> {
        self.all().flat_map(Origin::servers).collect()
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        self.last.ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{ContentType, Held, Stale, Stored};
    use std::collections::BTreeMap;
    use std::rc::Rc;
    use tokio::sync::Notify;

    /// A map that can be down, and that can hold a read back after it has looked.
    #[derive(Default)]
    struct Store {
        values: RefCell<BTreeMap<Vec<u8>, Box<[u8]>>>,
        is_down: Cell<bool>,
        is_held: Cell<bool>,
        released: Notify,
        reads: Cell<u32>,
        ttl: Cell<Option<Lifetime>>,
    }

    #[derive(Clone, Default)]
    struct Shared(Rc<Store>);

    impl Shared {
        fn set(&self, key: &str, value: &str) {
            self.0.values.borrow_mut().insert(key.into(), value.as_bytes().into());
        }

        fn value(&self, key: &str) -> Option<String> {
            let values = self.0.values.borrow();
            values.get(key.as_bytes()).map(|value| String::from_utf8(value.to_vec()).expect("text"))
        }
    }

    impl Origin for Shared {
        fn describe(&self) -> String {
            "a store".to_owned()
        }

        fn fetch<'a>(&'a self, key: &'a [u8], _known: Option<Etag>) -> Fetch<'a> {
            Box::pin(async move {
                self.0.reads.set(self.0.reads.get() + 1);
                if self.0.is_down.get() {
                    return Outcome::Failed(FetchFailure::Unavailable);
                }
                let value = self.0.values.borrow().get(key).cloned();
                if self.0.is_held.get() {
                    self.0.released.notified().await;
                }
                let found = value.map(|value| Found {
                    etag: Etag::of("text/plain", &value),
                    content_type: ContentType::JSON,
                    lifetime: Lifetime::Default,
                    stale: Stale::default(),
                    held: Held::default(),
                    value,
                });
                Ok(found).into()
            })
        }

        fn write(&self, write: Write) -> Writing<'_> {
            Box::pin(async move {
                if self.0.is_down.get() {
                    return Written::Failed(FetchFailure::Unavailable);
                }
                let mut values = self.0.values.borrow_mut();
                let key = write.key.as_bytes().to_vec();
                let tag = |value: &[u8]| Etag::of("text/plain", value);
                if !write.precondition.holds(values.get(&key).map(|value| tag(value))) {
                    return Written::PreconditionFailed;
                }
                match write.change {
                    Change::Put { content_type, lifetime, stale } => {
                        self.0.ttl.set(Some(lifetime));
                        let etag = tag(&write.value);
                        let is_new = values.insert(key, write.value).is_none();
                        Written::Stored(Stored { content_type, etag, is_new, lifetime, stale })
                    }
                    Change::Delete if values.remove(&key).is_some() => Written::Deleted,
                    Change::Delete => Written::Absent,
                }
            })
        }

        fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
            Box::pin(async { true })
        }
    }

    const TTL: Duration = Duration::from_secs(60);

    /// A tier of two stores, which are shared.
    fn tier() -> (Tier, Shared, Shared) {
        let (first, last) = (Shared::default(), Shared::default());
        let origins: Vec<Box<dyn Origin>> = vec![Box::new(first.clone()), Box::new(last.clone())];
        (Tier::new(origins, Duration::from_secs(3), TTL), first, last)
    }

    async fn read(tier: &Tier, key: &str) -> Option<String> {
        match tier.fetch(key.as_bytes(), None).await {
            Outcome::Found(found) => Some(String::from_utf8(found.value.into()).expect("text")),
            Outcome::Absent => None,
            other @ (Outcome::Unchanged(_) | Outcome::Failed(_)) => panic!("no answer: {other:?}"),
        }
    }

    fn change(key: &str, value: Option<&str>) -> Write {
        let (content_type, lifetime) = (ContentType::JSON, Lifetime::Default);
        let put = Change::Put { content_type, lifetime, stale: Stale::default() };
        Write {
            key: Key::new(key.as_bytes()).expect("short"),
            change: if value.is_some() { put } else { Change::Delete },
            value: value.unwrap_or_default().as_bytes().into(),
            precondition: Precondition::default(),
        }
    }

    #[tokio::test]
    async fn a_read_asks_in_order_and_fills_what_is_above() {
        let (tier, first, last) = tier();
        last.set("k", "1");
        assert_eq!(read(&tier, "k").await.as_deref(), Some("1"));
        assert_eq!(first.value("k").as_deref(), Some("1"));
        assert_eq!(first.0.ttl.get(), Some(Lifetime::For(TTL)), "a copy does not live for ever");
        assert_eq!(read(&tier, "k").await.as_deref(), Some("1"));
        assert_eq!(last.0.reads.get(), 1, "the first has it now");
        assert_eq!(read(&tier, "none").await, None);
        first.0.is_down.set(true);
        assert_eq!(read(&tier, "k").await.as_deref(), Some("1"));
        last.0.is_down.set(true);
        let failed = |outcome| matches!(outcome, Outcome::Failed(FetchFailure::Unavailable));
        assert!(failed(tier.fetch(b"k", None).await));
        first.0.is_down.set(false);
        assert_eq!(read(&tier, "k").await.as_deref(), Some("1"), "it is enough that one has it");
        assert!(failed(tier.fetch(b"none", None).await), "only the last knows what is not there");
    }

    #[tokio::test]
    async fn a_write_goes_to_the_last_and_then_to_those_above() {
        let (tier, first, last) = tier();
        assert!(matches!(tier.write(change("k", Some("1"))).await, Written::Stored(_)));
        let both = || [&first, &last].map(|store| store.value("k"));
        assert_eq!(both(), [Some("1".to_owned()), Some("1".to_owned())]);
        assert_eq!(tier.write(change("k", None)).await, Written::Deleted);
        assert_eq!(both(), [None, None]);
        last.0.is_down.set(true);
        let written = tier.write(change("k", Some("2"))).await;
        assert_eq!((written, both()), (Written::Failed(FetchFailure::Unavailable), [None, None]));
    }

    #[tokio::test]
    async fn a_level_that_has_missed_a_write_is_not_believed() {
        let (tier, first, last) = tier();
        tier.write(change("k", Some("1"))).await;
        first.0.is_down.set(true);
        assert!(matches!(tier.write(change("k", Some("2"))).await, Written::Stored(_)));
        assert_eq!(first.value("k").as_deref(), Some("1"), "it was down");
        assert_eq!(read(&tier, "k").await.as_deref(), Some("2"));
        first.0.is_down.set(false);
        assert_eq!(read(&tier, "k").await.as_deref(), Some("2"));
        assert_eq!(first.value("k").as_deref(), Some("2"));
        assert_eq!(last.0.reads.get(), 2);
        assert_eq!(read(&tier, "k").await.as_deref(), Some("2"));
        assert_eq!(last.0.reads.get(), 2, "it is believed again");
    }

    #[tokio::test]
    async fn what_was_read_before_a_write_is_not_put_above_after_it() {
        for value in [Some("2"), None] {
            let (tier, first, last) = tier();
            last.set("k", "1");
            last.0.is_held.set(true);
            let reading = read(&tier, "k");
            let writing = async {
                tokio::task::yield_now().await;
                tier.write(change("k", value)).await;
                last.0.released.notify_one();
            };
            let (seen, ()) = tokio::join!(reading, writing);
            assert_eq!(seen.as_deref(), Some("1"), "it was asked before");
            assert_eq!(first.value("k").as_deref(), value);
        }
    }

    #[tokio::test]
    async fn more_missed_writes_than_can_be_remembered_are_not_begun() {
        let (tier, first, last) = tier();
        first.0.is_down.set(true);
        for number in 0..DOUBTS_MAX {
            let written = tier.write(change(&number.to_string(), Some("1"))).await;
            assert!(matches!(written, Written::Stored(_)), "{number}: {written:?}");
        }
        let refused = Written::Failed(FetchFailure::NoRoom);
        assert_eq!(tier.write(change("k", Some("1"))).await, refused);
        assert_eq!(last.value("k"), None, "nothing was done");
        first.0.is_down.set(false);
        assert_eq!(tier.write(change("k", Some("1"))).await, refused);
        assert!(matches!(tier.write(change("k", Some("1"))).await, Written::Stored(_)));
    }
}
