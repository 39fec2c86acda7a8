//! Writes: through the key's owner to the origin, into the owner's cache, and back to the client.
//!
//! The owner lets the writes of a key go one after the other, in the order in which they arrived
//! (see `changes`). What the origin has taken is stored before anybody is told; a fetch of the key
//! that is under way then may bring what was there before, so it is void. So is a write that a
//! purge of many keys has overtaken: what it leaves is not kept. Where nobody knows whether a write
//! was done, or a client was wrong about what is there, the cached value goes.

use super::Shard;
use super::changes::Change;
use super::mailbox::refusal;
use super::replies::{Owed, Plain};
use super::retire::Starving;
use crate::http::Refusal;
use crate::limits::Limits;
use crate::mesh::{Change as Effect, Message, Stored, Taken, Upload, Written};
use crate::ring::Ring;
use shard_cache::hash::KeyHash;

/// The uploads of a shard that are at home.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "uploads travel by their boxes")]
pub(super) struct Writes {
    uploads: Vec<Box<Upload>>,
    /// Connections of this shard that wait for one.
    pub(super) wanting: Starving,
}

impl Writes {
    /// All uploads of the shard `index`.
    pub(super) fn new(index: u16, limits: &Limits) -> Self {
        let upload = |_| Upload::new(index, limits.upload_size);
        Self {
            uploads: (0..limits.uploads_count).map(upload).collect(),
            wanting: Starving::new(limits.connections_max),
        }
    }

    /// Uploads at home.
    pub(super) fn at_home(&self) -> usize {
        self.uploads.len()
    }

    /// Takes an upload for a new request.
    pub(super) fn take(&mut self) -> Option<Box<Upload>> {
        let mut upload = self.uploads.pop()?;
        upload.clear();
        Some(upload)
    }

    /// An upload comes home.
    pub(super) fn put(&mut self, upload: Box<Upload>) {
        self.uploads.push(upload);
    }

    /// Whether somebody waits for an upload.
    pub(super) fn is_wanted(&self) -> bool {
        self.uploads.is_empty() && !self.wanting.is_empty()
    }

    /// An upload comes home, if there is one.
    pub(super) fn put_if_any(&mut self, upload: Option<Box<Upload>>) {
        self.uploads.extend(upload);
    }
}

impl<R: Ring> Shard<R> {
    /// A client writes a key of ours.
    pub(super) fn write(&mut self, upload: Box<Upload>) {
        self.change(upload.hash, Change::Write(upload));
    }

    /// The origin has answered a write.
    pub(super) fn land_write(&mut self, upload: Box<Upload>) {
        let hash = upload.hash;
        self.apply(&upload);
        if upload.home == self.index {
            self.receive_written(upload);
        } else {
            self.peers.send(upload.home, Message::Written(upload));
        }
        self.end_change(hash);
        self.go_on();
    }

    /// Lets the cache say what the origin holds now.
    fn apply(&mut self, upload: &Upload) {
        let (hash, key) = (upload.hash, upload.key().as_bytes());
        match (upload.outcome, upload.change) {
            (Written::Failed(_), _) => return,
            (Written::Stored(_), Effect::Put { .. }) if self.changes.is_void(hash) => {
                self.drop_written(hash, key);
            }
            (Written::Stored(stored), Effect::Put { .. }) => {
                let Stored { content_type, etag, lifetime, stale, .. } = stored;
                let group = self.group_of(hash, upload.key().as_bytes());
                let bytes = (group, upload.body());
                let value = self.new_value(etag, content_type, lifetime, stale, bytes);
                self.cache.supersede(hash);
                match self.cache.store(hash, key, &value, self.now) {
                    Ok(entry) => self.recent.written(hash, self.kept_until(entry).until_ms),
                    Err(_) => self.drop_written(hash, key),
                }
            }
            (
                Written::Deleted | Written::Absent | Written::PreconditionFailed | Written::Unknown,
                _,
            ) => self.drop_written(hash, key),
            (Written::Pending, _) | (Written::Stored(_), Effect::Delete) => {
                unreachable!("the origin says what became of the change")
            }
        }
        self.counters.fetches_void += u64::from(self.flights.void(hash, key));
    }

    /// Drops a key that a client has written.
    fn drop_written(&mut self, hash: KeyHash, key: &[u8]) {
        self.cache.remove(hash, key);
        self.recent.take(hash, Taken::Written);
    }

    /// What became of a write of a client of ours.
    pub(super) fn receive_written(&mut self, upload: Box<Upload>) {
        let plain = match upload.outcome {
            Written::Stored(Stored { etag, is_new, .. }) => Plain::Stored(etag, is_new),
            Written::Deleted => Plain::Deleted,
            Written::Absent => Plain::Refused(Refusal::NotFound),
            Written::PreconditionFailed => Plain::Refused(Refusal::PreconditionFailed),
            Written::Failed(failure) => Plain::Refused(refusal(failure)),
            Written::Unknown => Plain::Refused(Refusal::OriginTimeout),
            Written::Pending => unreachable!("an answer says something"),
        };
        let name = upload.reply;
        self.writes.put(upload);
        self.resolve(name, Owed::Plain(plain));
    }
}
