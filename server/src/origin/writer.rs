//! The embedded store's writing thread: writes that wait together become one commit.
//!
//! A commit is on the disk before any of its writes is answered, and costs about the same for one
//! write as for many: those that arrive while it runs are the next one. Writes are done in the
//! order in which they arrive, each on what the one before it has left. Reads have a thread of
//! their own, so that no fetch waits for the disk to be flushed.

use super::Write;
use super::store::{Store, StoreFailure};
use crate::error::FetchFailure;
use crate::mesh::Written;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The most writes of one commit, so that the first of them is not kept waiting by the last.
const COMMIT_WRITES_MAX: usize = 256;

/// A write, and who is told what became of it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) write: Write,
    pub(super) answer: oneshot::Sender<Written>,
}

/// Writes until nobody can ask for it any more.
pub(super) fn write_all(store: &Arc<Store>, mut waiting: mpsc::Receiver<Asked>) {
    let mut batch = Vec::with_capacity(COMMIT_WRITES_MAX);
    while waiting.blocking_recv_many(&mut batch, COMMIT_WRITES_MAX) > 0 {
        let outcomes = commit(store, &batch);
        for (asked, outcome) in batch.drain(..).zip(outcomes) {
            // Whoever asked may have gone.
            asked.answer.send(outcome).ok();
        }
    }
}

/// Does all writes of `batch`, or none of them. Returns what became of each.
fn commit(store: &Store, batch: &[Asked]) -> Vec<Written> {
    let opened_count = store.opened_count();
    let fail = |error: &StoreFailure, outcome| {
        tracing::error!(%error, "the store cannot be written");
        store.recover(opened_count);
        vec![outcome; batch.len()]
    };
    let written = store.batch().and_then(|mut writes| {
        let mut outcomes = Vec::with_capacity(batch.len());
        writes.put_all::<StoreFailure>(|puts| {
            for asked in batch {
                outcomes.push(puts.write(&asked.write)?);
            }
            Ok(())
        })?;
        Ok((writes, outcomes))
    });
    let (writes, outcomes) = match written {
        Ok(written) => written,
        // Dropped without a commit: nothing of it can ever be seen.
        Err(error) => return fail(&error, Written::Failed(FetchFailure::Unavailable)),
    };
    let is_change = |outcome: &Written| matches!(outcome, Written::Stored(_) | Written::Deleted);
    if !outcomes.iter().any(is_change) {
        return outcomes;
    }
    match writes.commit() {
        Ok(()) => outcomes,
        // It may have failed before the disk had it, or in telling so.
        Err(error) => fail(&error, Written::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::EtagSet;
    use crate::mesh::{Change, ContentType, Held, Key, Lifetime, Precondition, Stale, Stored};
    use crate::origin::StoreOptions;
    use crate::origin::store::tests::sick;
    use shard_cache::hash::Etag;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    fn store(folder: &Path) -> Store {
        let path = folder.join("store.redb");
        Store::open(&StoreOptions { path, cache_bytes: 1 << 20 }).expect("opens")
    }

    fn set(text: &str) -> EtagSet {
        let mut set = EtagSet::EMPTY;
        set.read(text.as_bytes());
        set
    }

    const ALWAYS: Precondition = Precondition { if_match: None, if_none_match: EtagSet::EMPTY };

    fn write(key: &str, change: Change, value: &str, precondition: Precondition) -> Write {
        let key = Key::new(key.as_bytes()).expect("short");
        Write { key, change, value: value.as_bytes().into(), precondition }
    }

    fn put(key: &str, value: &str, precondition: Precondition) -> Write {
        let change = Change::Put {
            content_type: ContentType::JSON,
            lifetime: Lifetime::Default,
            stale: Stale::default(),
        };
        write(key, change, value, precondition)
    }

    fn delete(key: &str, precondition: Precondition) -> Write {
        write(key, Change::Delete, "", precondition)
    }

    /// What becomes of writes that have been waiting together.
    fn write_together(store: &Arc<Store>, writes: Vec<Write>) -> Vec<Written> {
        let (to_write, waiting) = mpsc::channel(writes.len());
        let answers: Vec<_> = writes
            .into_iter()
            .map(|write| {
                let (answer, answered) = oneshot::channel();
                to_write.try_send(Asked { write, answer }).expect("there is room");
                answered
            })
            .collect();
        drop(to_write);
        write_all(store, waiting);
        answers.into_iter().map(|answer| answer.blocking_recv().expect("answered")).collect()
    }

    fn value(store: &Store, key: &str) -> Option<String> {
        let records = store.read().expect("reads");
        let found = records.get(key.as_bytes(), 100, |_| Held::default()).expect("reads");
        found.map(|found| String::from_utf8(found.value.into()).expect("text"))
    }

    fn stored(value: &str, is_new: bool) -> Written {
        let etag = Etag::of("application/json", value.as_bytes());
        let content_type = ContentType::JSON.checked_json();
        let (lifetime, stale) = (Lifetime::Unlimited, Stale::default());
        Written::Stored(Stored { content_type, etag, is_new, lifetime, stale })
    }

    #[test]
    fn each_write_finds_what_the_one_before_it_has_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(store(folder.path()));
        let tag = format!("\"{:016x}\"", Etag::of("application/json", b"1").bits());
        let if_new = Precondition { if_none_match: set("*"), ..ALWAYS };
        let if_one = Precondition { if_match: Some(set(&tag)), ..ALWAYS };
        let if_there = Precondition { if_match: Some(set("*")), ..ALWAYS };
        let writes = vec![
            put("k", "0", if_there),
            delete("k", ALWAYS),
            put("k", "1", if_new),
            put("k", "2", if_new),
            put("k", "3", if_one),
            delete("k", if_one),
            delete("other", if_there),
            put("k", "4", if_there),
            put("gone", "5", ALWAYS),
            delete("gone", ALWAYS),
        ];
        let outcomes = write_together(&store, writes);
        let expected = [
            Written::PreconditionFailed,
            Written::Absent,
            stored("1", true),
            Written::PreconditionFailed,
            stored("3", false),
            Written::PreconditionFailed,
            Written::PreconditionFailed,
            stored("4", false),
            stored("5", true),
            Written::Deleted,
        ];
        assert_eq!(outcomes, expected);
        assert_eq!((value(&store, "k").as_deref(), value(&store, "gone")), (Some("4"), None));
    }

    #[test]
    fn more_writes_than_one_commit_takes_are_all_done_in_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(store(folder.path()));
        let count = 2 * COMMIT_WRITES_MAX + 1;
        let writes = (0..count).map(|number| put("k", &number.to_string(), ALWAYS)).collect();
        let outcomes = write_together(&store, writes);
        let expected = (0..count).map(|number| stored(&number.to_string(), number == 0));
        assert!(outcomes.into_iter().eq(expected));
        assert_eq!(value(&store, "k"), Some((count - 1).to_string()));
    }

    #[test]
    fn lifetime_and_windows_are_kept_and_told_as_a_fetch_tells_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(store(folder.path()));
        let lifetime = Lifetime::For(Duration::from_secs(7));
        let stale = Stale { while_revalidate: Some(Duration::from_secs(8)), if_error: None };
        let content_type = ContentType::new("text/plain").expect("plain");
        let change = Change::Put { content_type, lifetime, stale };
        let outcomes = write_together(&store, vec![write("k", change, "text", ALWAYS)]);
        let etag = Etag::of("text/plain", b"text");
        let expected = Stored { content_type, etag, is_new: true, lifetime, stale };
        assert_eq!(outcomes, [Written::Stored(expected)]);
        let records = store.read().expect("reads");
        let found = records.get(b"k", 100, |_| Held::default()).expect("reads").expect("found");
        assert_eq!((found.etag, found.lifetime, found.stale), (etag, lifetime, stale));
        assert_eq!(found.content_type, content_type);
    }

    #[test]
    fn json_is_checked_and_what_is_none_is_stored_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(store(folder.path()));
        for (name, value, is_json) in [
            ("application/json", &b" [1, {\"a\": null}]\n"[..], true),
            ("application/geo+json; a=b", b"\"\\u00e9\"", true),
            ("application/json", b"[1,]", false),
            ("application/json", b"1 2", false),
            ("application/json", b"\"\xff\"", false),
            ("application/json", b"", false),
            ("text/plain", b"1", false),
        ] {
            let content_type = ContentType::new(name).expect("a type");
            let change =
                Change::Put { content_type, lifetime: Lifetime::Default, stale: Stale::default() };
            let put = Write { value: value.into(), ..write("k", change, "", ALWAYS) };
            let [Written::Stored(stored)] = write_together(&store, vec![put])[..] else {
                panic!("{name}")
            };
            let records = store.read().expect("reads");
            let found = records.get(b"k", 100, |_| Held::default()).expect("reads");
            let found = found.expect("found");
            assert_eq!((&*found.value, found.content_type), (value, stored.content_type));
            assert_eq!(found.content_type.is_checked_json(), is_json, "{name}: {value:?}");
            assert_eq!((found.etag, stored.etag), (Etag::of(name, value), found.etag));
        }
    }

    #[test]
    fn writes_whose_commit_fails_are_unknown_and_the_next_ones_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let is_sick = Arc::new(AtomicBool::new(false));
        let store = Arc::new(sick(folder.path(), &is_sick));
        let two = || vec![put("k", "1", ALWAYS), put("other", "1", ALWAYS)];
        is_sick.store(true, Ordering::Relaxed);
        assert_eq!(write_together(&store, two()), [Written::Unknown; 2]);
        is_sick.store(false, Ordering::Relaxed);
        // It could not be opened either; whoever asks next has it tried again.
        let failed = Written::Failed(FetchFailure::Unavailable);
        assert_eq!(write_together(&store, two()), [failed; 2]);
        assert_eq!(write_together(&store, two()), [stored("1", true); 2]);
    }

    #[test]
    fn bytes_that_are_no_record_can_be_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(store(folder.path()));
        let mut batch = store.batch().expect("a batch");
        let damage = |puts: &mut crate::origin::Puts<'_>| {
            puts.put_raw(b"k", b"\xff");
            Ok(())
        };
        batch.put_all::<StoreFailure>(damage).expect("stored");
        batch.commit().expect("committed");
        let if_there = Precondition { if_match: Some(set("*")), ..ALWAYS };
        let writes = vec![put("k", "1", if_there), put("k", "2", ALWAYS)];
        let expected = [Written::PreconditionFailed, stored("2", false)];
        assert_eq!(write_together(&store, writes), expected);
    }
}
