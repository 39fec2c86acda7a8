//! Whether what is served is what the origin has: a sample of the keys that have changed there.
//!
//! Of the keys that the origin said have changed, one a second at most is looked at a second later,
//! and again after 5 s and after 60 s as long as something older is served. What is right by then
//! was late; what is not is a fault. (So Meta's Polaris watches its caches.)
//!
//! A look asks the owner of the key, then the origin, then the owner again. It joins no flight, and
//! what it fetches is dropped.
#![expect(clippy::disallowed_types, reason = "one thread: the origin is shared with its samples")]

use super::Origin;
use crate::mesh::{ExplainRequest, Explanation, Key, Outcome, State};
use crate::metrics::{SampleBoard, SampleCounters};
use shard_cache::hash::Etag;
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// When a key is looked at, after it was said to have changed.
const WINDOWS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(60)];

/// The least time from one key to the next.
const EVERY: Duration = Duration::from_secs(1);

/// Keys that are looked at, at a time. It bounds the log too: a key has two lines in a minute.
const UNDER_WAY_MAX: usize = 4;

/// Looks at some of the keys that have changed; what is under way ends with it.
#[derive(Debug)]
pub(super) struct Sampler {
    looker: Rc<Looker>,
    next_at: Instant,
    under_way: JoinSet<()>,
}

struct Looker {
    origin: Rc<dyn Origin>,
    timeout: Duration,
    owners: mpsc::Sender<ExplainRequest>,
    board: SampleBoard,
}

/// What a look has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// What is served is what the origin has, or is about to change.
    Same,
    /// Something older is served.
    Older,
    /// Nothing is served without asking the origin.
    Nothing,
    /// The origin did not answer.
    Unknown,
}

impl Sampler {
    /// Looks at keys of `origin`, which has `timeout` for each, and counts on `board`. The plane
    /// is to pass the requests on to the owners.
    pub(super) fn new(
        origin: Rc<dyn Origin>,
        timeout: Duration,
        board: SampleBoard,
    ) -> (Self, mpsc::Receiver<ExplainRequest>) {
        let (owners, requests) = mpsc::channel(UNDER_WAY_MAX);
        let looker = Rc::new(Looker { origin, timeout, owners, board });
        (Self { looker, next_at: Instant::now(), under_way: JoinSet::new() }, requests)
    }

    /// The origin said that this key has changed.
    pub(super) fn changed(&mut self, key: &Key) {
        let now = Instant::now();
        if now < self.next_at {
            return;
        }
        while self.under_way.try_join_next().is_some() {}
        if self.under_way.len() < UNDER_WAY_MAX {
            self.next_at = now + EVERY;
            let (looker, key) = (Rc::clone(&self.looker), key.clone());
            self.under_way.spawn_local(async move { looker.follow(&key, now).await });
        }
    }
}

impl std::fmt::Debug for Looker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Looker").field("origin", &self.origin.describe()).finish_non_exhaustive()
    }
}

impl Looker {
    /// Looks at a key as long as something older is served.
    async fn follow(&self, key: &Key, changed: Instant) {
        for (index, window) in WINDOWS.into_iter().enumerate() {
            sleep_until(changed + window).await;
            let seen = self.look(key).await;
            self.count(index, seen);
            match seen {
                Seen::Older if index > 0 => {
                    let (key, seconds) = (key.as_bytes().escape_ascii(), window.as_secs());
                    tracing::error!(
                        "\"{key}\" has changed {seconds} s ago and is served as it was"
                    );
                }
                Seen::Older => {}
                // Whether it is right by now is seen the next time.
                Seen::Unknown if index > 0 => {}
                Seen::Same | Seen::Nothing | Seen::Unknown => return,
            }
        }
    }

    async fn look(&self, key: &Key) -> Seen {
        let Some(served) = self.served(key).await else { return Seen::Nothing };
        let fetch = timeout(self.timeout, self.origin.fetch(key.as_bytes(), None));
        let there = match fetch.await {
            Ok(Outcome::Found(found)) => Some(found.etag),
            Ok(Outcome::Absent) => None,
            // It was told of nothing that could be unchanged.
            Ok(Outcome::Unchanged(_) | Outcome::Failed(_)) | Err(_) => return Seen::Unknown,
        };
        // Where the owner has got another one meanwhile, it has heard of a change.
        if there == served || self.served(key).await != Some(served) {
            return Seen::Same;
        }
        Seen::Older
    }

    /// What the owner of a key serves without asking the origin: a value with this tag, or that
    /// there is none.
    async fn served(&self, key: &Key) -> Option<Option<Etag>> {
        let (answer, answered) = oneshot::channel();
        let explanation = Box::new(Explanation::of(key.clone()));
        let asked = self.owners.send(ExplainRequest { explanation, answer }).await;
        asked.expect("the plane outlives its samples");
        let explanation = answered.await.expect("the plane outlives its samples").explanation;
        // A change that waits until no copy is served is one that was heard of.
        if explanation.changes_count > 0 || explanation.is_purging {
            return None;
        }
        match explanation.state {
            State::Absent => Some(None),
            State::Fresh => explanation.entry?.value.map(|value| Some(value.etag)),
            State::Missing | State::Stale | State::Retained | State::Expired | State::Purged => {
                None
            }
        }
    }

    fn count(&self, window: usize, seen: Seen) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let SampleCounters { consistent, inconsistent, unserved, unknown, .. } = &mut *board;
        let counter = match (window, seen) {
            (0, Seen::Same) => consistent,
            (0, Seen::Older) => inconsistent,
            (0, Seen::Nothing) => unserved,
            (0, Seen::Unknown) => unknown,
            (1, Seen::Older) => &mut board.inconsistent_5s,
            (_, Seen::Older) => &mut board.inconsistent_60s,
            (_, Seen::Same | Seen::Nothing | Seen::Unknown) => return,
        };
        *counter += 1;
    }
}
