//! The embedded store as an origin: its own thread, asked over a bounded queue.
//!
//! Reads of redb block, so they never run on the plane's thread. The store's thread takes all
//! waiting questions at once, at most [`BATCH_COUNT_MAX`], and answers them from one read
//! transaction: a transaction costs as much as several reads.

use super::store::{ReadFailure, Records, Store};
use super::{Fetch, Fetched, Origin};
use crate::error::{FetchFailure, StartError};
use std::future::Future;
use std::pin::Pin;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// The most questions answered from one read transaction, so that commits show soon.
const BATCH_COUNT_MAX: usize = 1_024;

/// Of this many damaged records one is logged: a damaged file must not flood the log.
const DAMAGED_LOG_EVERY: u64 = 1_000;

/// A question to the store's thread.
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
    description: String,
    /// `None` only while it is dropped.
    questions: Option<mpsc::Sender<Question>>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Starts the store's thread. At most `queue_count_max` questions wait (the flights of all
    /// shards together: then the queue is never full); values above `value_size_max` bytes are
    /// refused before they are copied.
    ///
    /// # Errors
    /// The thread cannot be started.
    ///
    /// # Panics
    /// If `queue_count_max` is 0.
    pub fn start(
        store: Store,
        queue_count_max: usize,
        value_size_max: usize,
    ) -> Result<Self, StartError> {
        let description = format!("embedded store {}", store.path().display());
        let (questions, waiting) = mpsc::channel(queue_count_max);
        let thread = std::thread::Builder::new()
            .name("pelton-store".to_owned())
            .spawn(move || answer_all(&store, waiting, value_size_max))
            .map_err(|error| {
                StartError::failed(
                    format!("The store's thread cannot be started: {error}."),
                    "Raise the limit on processes (ulimit -u, or TasksMax of the unit).",
                )
            })?;
        Ok(Self { description, questions: Some(questions), thread: Some(thread) })
    }

    /// Asks without waiting for room: a full queue is an answer to new work.
    fn ask(&self, question: Question) -> bool {
        let questions = self.questions.as_ref().expect("present until it is dropped");
        questions.try_send(question).is_ok()
    }
}

impl Origin for Embedded {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn fetch<'a>(&'a self, key: &'a [u8]) -> Fetch<'a> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            if !self.ask(Question::Get { key: key.into(), answer }) {
                return Err(FetchFailure::Unavailable);
            }
            answered.await.unwrap_or(Err(FetchFailure::Unavailable))
        })
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.ask(Question::Ready { answer }) && answered.await.unwrap_or(false)
        })
    }
}

impl Drop for Embedded {
    /// Ends the store's thread: it answers its batch and closes the file.
    fn drop(&mut self) {
        drop(self.questions.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already ended the process.
            thread.join().expect("the store's thread ends by itself");
        }
    }
}

/// The store's thread: until nobody can ask any more.
fn answer_all(store: &Store, mut waiting: mpsc::Receiver<Question>, value_size_max: usize) {
    let mut batch = Vec::with_capacity(BATCH_COUNT_MAX);
    let mut damaged_count = 0;
    while waiting.blocking_recv_many(&mut batch, BATCH_COUNT_MAX) > 0 {
        let records = store.read();
        if let Err(error) = &records {
            tracing::error!(path = %store.path().display(), %error, "the store cannot be read");
        }
        for question in batch.drain(..) {
            match question {
                Question::Get { key, answer } => {
                    let fetched = records
                        .as_ref()
                        .map_err(|_| FetchFailure::Unavailable)
                        .and_then(|records| get(records, &key, value_size_max, &mut damaged_count));
                    // Whoever asked may have given up.
                    answer.send(fetched).ok();
                }
                Question::Ready { answer } => {
                    answer.send(records.is_ok() && store.count().is_ok()).ok();
                }
            }
        }
    }
}

/// Reads one key; failures are logged, damaged records only now and then.
fn get(records: &Records, key: &[u8], value_size_max: usize, damaged_count: &mut u64) -> Fetched {
    records.get(key, value_size_max).map_err(|failure| {
        match &failure {
            ReadFailure::Damaged => {
                if damaged_count.is_multiple_of(DAMAGED_LOG_EVERY) {
                    let key = key.escape_ascii();
                    tracing::error!(%key, damaged_count, "a record of the store is damaged");
                }
                *damaged_count += 1;
            }
            ReadFailure::Store(error) => tracing::error!(%error, "the store cannot be read"),
            ReadFailure::TooLarge => {}
        }
        failure.outcome()
    })
}

#[cfg(test)]
mod tests {
    use super::super::store::{StoreFailure, StoreOptions};
    use super::*;
    use crate::mesh::{ContentType, Lifetime};
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
        let embedded = Embedded::start(store(folder.path()), 8, 100).expect("starts");
        block_on(async {
            assert!(embedded.ready().await);
            let found = embedded.fetch(b"k").await.expect("read").expect("found");
            assert_eq!(&*found.value, b"value");
            assert_eq!(found.content_type.as_str(), "text/plain");
            assert_eq!(found.lifetime, Lifetime::For(Duration::from_secs(60)));
            assert!(embedded.fetch(b"absent").await.expect("read").is_none());
            let failure = embedded.fetch(b"large").await.expect_err("too large");
            assert_eq!(failure, FetchFailure::TooLarge);
            let failure = embedded.fetch(b"damaged").await.expect_err("damaged");
            assert_eq!(failure, FetchFailure::Unavailable);
        });
    }

    #[test]
    fn dropping_it_closes_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(Embedded::start(store(folder.path()), 8, 100).expect("starts"));
        store(folder.path());
    }
}
