//! The embedded store as an origin: a thread that reads and one that writes, asked over bounded
//! queues.
//!
//! redb blocks, so it never runs on the plane's thread. The reading thread takes all waiting
//! questions at once, at most [`BATCH_COUNT_MAX`], and answers them from one read transaction: a
//! transaction costs as much as several reads. It waits for room on the way to the shards before it
//! copies a value: slow shards and large values are no more memory.

use super::store::{ReadFailure, Records, Store};
use super::writer::{Asked, write_all};
use super::{Fetch, Fetched, Origin, Room, Write, Writing};
use crate::error::{FetchFailure, StartError};
use crate::mesh::{Audit, Look, Written};
use shard_cache::hash::Etag;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// The most questions answered from one read transaction, so that commits show soon.
const BATCH_COUNT_MAX: usize = 1_024;

/// Of this many damaged records one is logged: a damaged file must not flood the log.
const DAMAGED_LOG_EVERY: u64 = 1_000;

/// A question to the reading thread.
#[derive(Debug)]
enum Question {
    /// The value of a key.
    Get { key: Box<[u8]>, answer: oneshot::Sender<Fetched> },
    /// Whether a read works at all.
    Ready { answer: oneshot::Sender<bool> },
}

/// The embedded store, asked from the origin plane.
#[derive(Debug)]
pub struct Embedded {
    store: Arc<Store>,
    /// These two are `None` only while it is dropped.
    questions: Option<mpsc::Sender<Question>>,
    writes: Option<mpsc::Sender<Asked>>,
    room: Room,
    threads: Vec<JoinHandle<()>>,
}

impl Embedded {
    /// Starts the store's threads. At most `reads_max` reads and `writes_max` writes wait (what the
    /// plane has under way: then the queues are never full); values above `value_size_max` bytes
    /// are refused before they are copied, and no others than `room` has room for.
    ///
    /// # Errors
    /// A thread cannot be started.
    ///
    /// # Panics
    /// If a queue has no room.
    pub fn start(
        store: Store,
        reads_max: usize,
        writes_max: usize,
        value_size_max: usize,
        room: Room,
    ) -> Result<Self, StartError> {
        let (questions, to_read) = mpsc::channel(reads_max);
        let (writes, to_write) = mpsc::channel(writes_max);
        let store = Arc::new(store);
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let (read, written, room) = (Arc::clone(&store), Arc::clone(&store), room.clone());
            let reader = Reader {
                store: read,
                value_size_max,
                room,
                runtime,
                damaged_count: 0,
                has_failed: false,
            };
            Ok(vec![
                thread("pelton-store").spawn(move || reader.answer_all(to_read))?,
                thread("pelton-writer").spawn(move || write_all(&written, to_write))?,
            ])
        };
        let threads = start().map_err(|error: io::Error| {
            StartError::failed(
                format!("The store's threads cannot be started: {error}."),
                "Raise the limit on processes (ulimit -u, or TasksMax of the unit).",
            )
        })?;
        let (questions, writes) = (Some(questions), Some(writes));
        Ok(Self { store, questions, writes, room, threads })
    }

    async fn read(&self, key: &[u8]) -> Fetched {
        let (answer, answered) = oneshot::channel();
        if !self.ask(Question::Get { key: key.into(), answer }) {
            return Err(FetchFailure::Unavailable);
        }
        answered.await.unwrap_or(Err(FetchFailure::Unavailable))
    }

    /// Asks without waiting for room: a full queue is an answer to new work.
    fn ask(&self, question: Question) -> bool {
        let questions = self.questions.as_ref().expect("present until it is dropped");
        questions.try_send(question).is_ok()
    }
}

/// A thread of this name.
fn thread(name: &str) -> Builder {
    Builder::new().name(name.to_owned())
}

impl Origin for Embedded {
    fn describe(&self) -> String {
        format!("embedded store {}", self.store.path().display())
    }

    fn fetch<'a>(&'a self, key: &'a [u8], _known: Option<Etag>) -> Fetch<'a> {
        Box::pin(async move { self.read(key).await.into() })
    }

    fn write(&self, write: Write) -> Writing<'_> {
        let (answer, answered) = oneshot::channel();
        let writes = self.writes.as_ref().expect("present until it is dropped");
        let is_asked = writes.try_send(Asked { write, answer }).is_ok();
        Box::pin(async move {
            match is_asked {
                true => answered.await.unwrap_or(Written::Unknown),
                false => Written::Failed(FetchFailure::Unavailable),
            }
        })
    }

    fn audit(&self) -> Option<Audit> {
        let store = Arc::clone(&self.store);
        Some(Box::new(move || -> Look {
            match store.read() {
                Ok(records) => Box::new(move |key, etag| records.holds(key, etag)),
                Err(error) => {
                    tracing::error!(%error, "the store cannot be read");
                    Box::new(|_, _| false)
                }
            }
        }))
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.ask(Question::Ready { answer }) && answered.await.unwrap_or(false)
        })
    }
}

impl Drop for Embedded {
    /// Ends the store's threads: they answer what they have been asked, and close the file.
    fn drop(&mut self) {
        drop((self.questions.take(), self.writes.take()));
        self.room.close();
        for thread in self.threads.drain(..) {
            // A panic of the thread has already ended the process.
            thread.join().expect("the store's threads end by themselves");
        }
    }
}

/// What the reading thread works with.
struct Reader {
    store: Arc<Store>,
    value_size_max: usize,
    room: Room,
    /// Waits for room.
    runtime: Runtime,
    damaged_count: u64,
    /// A read has met an error of the disk.
    has_failed: bool,
}

impl Reader {
    /// Answers until nobody can ask any more.
    fn answer_all(mut self, mut waiting: mpsc::Receiver<Question>) {
        let mut batch = Vec::with_capacity(BATCH_COUNT_MAX);
        while waiting.blocking_recv_many(&mut batch, BATCH_COUNT_MAX) > 0 {
            let opened_count = self.store.opened_count();
            let records = self.store.read();
            if let Err(error) = &records {
                let path = self.store.path().display();
                tracing::error!(%path, %error, "the store cannot be read");
            }
            for question in batch.drain(..) {
                match question {
                    Question::Get { key, answer } => {
                        let records = records.as_ref().map_err(|_| FetchFailure::Unavailable);
                        let fetched = records.and_then(|records| self.get(records, &key));
                        // Whoever asked may have given up.
                        answer.send(fetched).ok();
                    }
                    Question::Ready { answer } => {
                        answer.send(records.is_ok() && self.store.count().is_ok()).ok();
                    }
                }
            }
            if records.is_err() || self.has_failed {
                self.has_failed = false;
                self.store.recover(opened_count);
            }
        }
    }

    /// Reads one key; failures are logged, damaged records only now and then.
    fn get(&mut self, records: &Records, key: &[u8]) -> Fetched {
        let hold = |size| self.runtime.block_on(self.room.hold(size));
        records.get(key, self.value_size_max, hold).map_err(|failure| {
            match &failure {
                ReadFailure::Damaged => {
                    if self.damaged_count.is_multiple_of(DAMAGED_LOG_EVERY) {
                        let (key, damaged_count) = (key.escape_ascii(), self.damaged_count);
                        tracing::error!(%key, damaged_count, "a record of the store is damaged");
                    }
                    self.damaged_count += 1;
                }
                ReadFailure::Store(error) => {
                    self.has_failed = true;
                    tracing::error!(%error, "the store cannot be read");
                }
                ReadFailure::TooLarge => {}
            }
            failure.outcome()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::{StoreFailure, StoreOptions};
    use super::*;
    use crate::mesh::{Change, ContentType, Key, Lifetime, Precondition, Stale, Stored};
    use std::time::Duration;

    fn store(folder: &std::path::Path) -> Store {
        let path = folder.join("store.redb");
        let store = Store::open(&StoreOptions { path, cache_bytes: 1 << 20 }).expect("opens");
        let mut batch = store.batch().expect("a batch");
        batch
            .put_all::<StoreFailure>(|puts| {
                let plain = ContentType::new("text/plain").expect("plain");
                puts.put(b"k", plain, Some(Duration::from_secs(60)), b"value")?;
                puts.put(b"large", plain, None, &[7; 101])?;
                puts.put_raw(b"damaged", b"\xff");
                Ok(())
            })
            .expect("stored");
        batch.commit().expect("committed");
        store
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn values_absences_and_failures_come_back_as_what_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let embedded =
            Embedded::start(store(folder.path()), 8, 8, 100, Room::new(10)).expect("starts");
        block_on(async {
            assert!(embedded.ready().await);
            let found = embedded.read(b"k").await.expect("read").expect("found");
            assert_eq!(&*found.value, b"value");
            assert_eq!(found.content_type.as_str(), "text/plain");
            assert_eq!(found.lifetime, Lifetime::For(Duration::from_secs(60)));
            assert!(embedded.read(b"absent").await.expect("read").is_none());
            let failure = embedded.read(b"large").await.expect_err("too large");
            assert_eq!(failure, FetchFailure::TooLarge);
            let failure = embedded.read(b"damaged").await.expect_err("damaged");
            assert_eq!(failure, FetchFailure::Unavailable);
        });
    }

    #[test]
    fn a_fetch_after_a_write_sees_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let embedded =
            Embedded::start(store(folder.path()), 8, 8, 100, Room::new(10)).expect("starts");
        let write = |change, value: &[u8]| Write {
            key: Key::new(b"k").expect("short"),
            change,
            value: value.into(),
            precondition: Precondition::default(),
        };
        let put = Change::Put {
            content_type: ContentType::JSON,
            lifetime: Lifetime::Default,
            stale: Stale::default(),
        };
        block_on(async {
            for value in [&b"1"[..], b"2"] {
                let written = embedded.write(write(put, value)).await;
                let etag = Etag::of(ContentType::JSON.as_str(), value);
                let stored = Stored {
                    content_type: ContentType::JSON.checked_json(),
                    etag,
                    is_new: false,
                    lifetime: Lifetime::Unlimited,
                    stale: Stale::default(),
                };
                assert_eq!(written, Written::Stored(stored));
                let found = embedded.read(b"k").await.expect("read").expect("found");
                assert_eq!((&*found.value, found.etag), (value, etag));
            }
            assert_eq!(embedded.write(write(Change::Delete, b"")).await, Written::Deleted);
            assert!(embedded.read(b"k").await.expect("read").is_none());
        });
    }

    #[test]
    fn a_value_holds_room_until_it_is_spent_or_nobody_takes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let room = Room::new(10);
        let embedded =
            Embedded::start(store(folder.path()), 8, 8, 100, room.clone()).expect("starts");
        let fetch = async || embedded.read(b"k").await.expect("read").expect("found");
        block_on(async {
            // Two values of five bytes fill the room; a third one waits for it.
            let (first, second) = (fetch().await, fetch().await);
            assert!(!room.has(1));
            let (answer, third) = oneshot::channel();
            assert!(embedded.ask(Question::Get { key: b"k"[..].into(), answer }));
            drop(first);
            drop(third.await);
            drop(second);
            assert!(room.has(10));
        });
    }

    #[test]
    fn dropping_it_closes_the_file_even_while_a_value_waits_for_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let embedded =
            Embedded::start(store(folder.path()), 8, 8, 100, Room::new(5)).expect("starts");
        let held = block_on(embedded.read(b"k")).expect("read").expect("found");
        let (answer, _waits) = oneshot::channel();
        assert!(embedded.ask(Question::Get { key: b"k"[..].into(), answer }));
        drop(embedded);
        store(folder.path());
        drop(held);
    }

    #[test]
    fn dropping_it_closes_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Embedded::start(store(folder.path()), 8, 8, 100, Room::new(10)).expect("starts"));
        store(folder.path());
    }
}
