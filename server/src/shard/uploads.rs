//! Requests with a body on their way in: bodies are collected, and writes wait for their turn.
//!
//! A request takes one of the shard's uploads when its head is there; while none is at home, its
//! connection reads no further. So a slow client holds at most one, until `http.body_timeout`.
//!
//! Invariant: a write is a barrier on its connection (RFC 9112 section 9.3.2): it goes to its owner
//! when every reply before it is written, and nothing behind it is parsed until it is answered.

use super::Shard;
use super::pump::Stop;
use super::replies::{Ask, Owed, Plain};
use super::requests::{Request, What};
use super::slots::Hold;
use crate::http::{self, KEY_SIZE_MAX, Put, Refusal, Route, Write};
use crate::mesh::{
    Change, ContentType, Lifetime, Message, Precondition, ReplyRef, Stale, TenantIndex, Upload,
};
use crate::ring::Ring;
use shard_cache::hash::KeyHasher;
use std::time::Duration;

impl<R: Ring> Shard<R> {
    /// A head has come whose body goes into the upload that was taken for it, or is skipped if it
    /// is refused. A client that waits is told to go on.
    pub(super) fn begin_upload(
        &mut self,
        index: u32,
        consumed: usize,
        expects_continue: bool,
        by: Result<TenantIndex, Refusal>,
    ) -> Option<Stop> {
        let slot = &mut self.slots[index];
        slot.wants_upload = false;
        self.input.consume(&mut slot.inbox, &mut self.ring, consumed);
        if let Err(refusal) = by {
            self.writes.put_if_any(slot.upload.take());
            let request = slot.exchange.refuse(refusal, expects_continue)?;
            let what = What::Plain(Plain::Refused(refusal));
            let is_last = self.draining_since.is_some() || what.is_last();
            let ask = Ask::of(&request, is_last);
            self.take_up(Request { slot: index, what, ask });
            return None;
        }
        // Whoever sends the body already does not wait (RFC 9110 section 10.1.1).
        if expects_continue && slot.inbox.is_empty() {
            let what = What::Plain(Plain::Continue);
            self.take_up(Request { slot: index, what, ask: Ask::NONE });
        }
        let request = self.slots[index].exchange.end_empty_body()?;
        self.end_upload(index, &request)
    }

    /// No upload is at home: the connection waits for one, and its head is read again then.
    pub(super) fn want_upload(&mut self, index: u32) -> Option<Stop> {
        let slot = &mut self.slots[index];
        slot.exchange.put_back();
        slot.wants_upload = true;
        self.writes.wanting.add(index);
        Some(Stop::Drained)
    }

    /// The last piece of a body has come: nothing behind it is parsed before it is answered.
    pub(super) fn end_upload(&mut self, index: u32, request: &http::Request<'_>) -> Option<Stop> {
        if request.route == Route::Batch {
            return self.begin_batch(index, request);
        }
        self.slots[index].hold = Hold::Reply;
        let ask = self.ask_of(index, request);
        self.take_up(Request { slot: index, what: What::Write, ask });
        Some(Stop::Drained)
    }

    /// Lets as many connections go on as there are uploads for.
    pub(super) fn offer_uploads(&mut self) {
        for _ in 0..self.writes.at_home() {
            let Some(index) = self.writes.wanting.next() else { return };
            if std::mem::take(&mut self.slots[index].wants_upload) {
                self.ready.add(&mut self.slots, index);
            }
        }
    }

    /// A write has come whole.
    pub(super) fn serve_write(&mut self, slot: u32, ask: Ask) {
        let upload = self.slots[slot].upload.take().expect("a write has its upload");
        self.owe(slot, ask, Owed::Upload(upload));
    }

    /// A write begins: every reply before it is written.
    pub(super) fn send_write(&mut self, mut upload: Box<Upload>, name: ReplyRef) {
        upload.reply = name;
        let owner = self.owners.of(upload.hash, upload.key().as_bytes());
        if owner == self.index {
            self.write(upload);
        } else {
            self.peers.send(owner, Message::Write(upload));
        }
    }
}

/// Lets `upload` be the write whose head this is.
pub(super) fn address(upload: &mut Upload, write: &Write<'_>, hasher: &KeyHasher) {
    let mut key = [0; KEY_SIZE_MAX];
    let size = write.key.copy_to(&mut key);
    let key = &key[..size];
    let nobody = ReplyRef { index: 0, generation: 0 };
    upload.address(nobody, hasher.hash(key), key);
    upload.precondition =
        Precondition { if_match: write.if_match, if_none_match: write.if_none_match };
    upload.change = write.put.map_or(Change::Delete, change);
}

fn change(put: Put<'_>) -> Change {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Change::Put {
        content_type: ContentType::new(put.content_type).expect("the parser has checked it"),
        lifetime: put.max_age_s.map_or(Lifetime::Default, |age| Lifetime::For(seconds(age))),
        stale: Stale {
            while_revalidate: put.stale_while_revalidate_s.map(seconds),
            if_error: put.stale_if_error_s.map(seconds),
        },
    }
}
