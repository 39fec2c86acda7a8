//! Batches: one request for many keys, answered by one reply that is streamed.
//!
//! The body lies in an upload and is checked whole. Then its keys are taken one after the other, as
//! if each was a pipelined request, so the shards, the cache and the origin see lookups, and what
//! bounds those bounds these; a key that is slow or fails costs its own item. While a batch is
//! under way, nothing behind it is parsed, and the connection owes one reply more than its list
//! has: so every item takes a place in the list, and the items are written in order.
//!
//! Invariant: the upload stays with the connection until the reply's end is written.

use super::Shard;
use super::mailbox::term;
use super::output::Output;
use super::pump::Stop;
use super::replies::{Ask, Owed, Plain};
use super::requests::{Request, What};
use super::serve::{Written, count_plain, count_value};
use super::slots::{Hold, Slot};
use crate::http::{
    self, BatchToken, Chunk, Connection, Form, ITEM_SIZE_MAX, Refusal, Source, Term, take_key,
};
use crate::mesh::{Answer, ContentType, Parcel, TenantIndex, Value};
use crate::ring::Ring;
use shard_cache::Pin;

/// A batch under way on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Where in the upload the next key may begin, and how many are left.
    at: u32,
    keys_left: u16,
    /// Bytes of values that the reply may still have.
    bytes_left: u32,
    /// What the reply says about the connection.
    connection: Connection,
    /// The reply comes in chunks, and does not end with the connection.
    is_chunked: bool,
    /// No item is written yet.
    is_first: bool,
    /// Bytes that are written of the value of the item that comes next; none: not even its key.
    written: Option<u32>,
}

/// A value, as much of it as is at hand.
struct Part<'a> {
    content_type: ContentType,
    /// Bytes of all of it.
    size: u32,
    /// Where the piece begins in it.
    offset: u32,
    piece: &'a [u8],
}

impl<R: Ring> Shard<R> {
    /// The body of a batch has come: it is refused, or its keys are taken from now on.
    pub(super) fn begin_batch(&mut self, index: u32, request: &http::Request<'_>) -> Option<Stop> {
        let ask = self.ask_of(index, request);
        let http = &self.settings.http;
        let slot = &mut self.slots[index];
        let upload = slot.upload.as_ref().expect("the head has taken one");
        match http::check_batch(upload.body(), http.batch.keys_max, http.key_size_max) {
            Err(refusal) => {
                self.writes.put_if_any(slot.upload.take());
                let what = What::Plain(Plain::Refused(refusal));
                self.take_up(Request { slot: index, what, ask });
                None
            }
            Ok((count, at)) => {
                self.counters.batches += 1;
                self.counters.batch_keys += u64::from(count);
                slot.hold = Hold::Batch;
                slot.owed_count += 1;
                slot.batch = Some(Batch {
                    at,
                    keys_left: count,
                    bytes_left: self.settings.batch_bytes_max,
                    connection: if request.version_1_0 {
                        Connection::Close
                    } else {
                        ask.connection
                    },
                    is_chunked: !request.version_1_0,
                    is_first: true,
                    written: None,
                });
                let what = What::Plain(Plain::Items);
                self.take_up(Request { slot: index, what, ask: Ask::NONE });
                Some(Stop::Share)
            }
        }
    }

    /// Takes keys of the batch, as many as there may be requests.
    pub(super) fn take_keys(&mut self, index: u32) -> Stop {
        // The batch itself is owed as well, and waits for no reply before it.
        let before = self.requests.len() + 1;
        for _ in 0..self.limits.requests_per_connection_turn_max {
            if let Some(stop) = self.why_not_parse(index, before) {
                return stop;
            }
            let slot = &mut self.slots[index];
            let batch = slot.batch.as_mut().expect("it is under way");
            if batch.keys_left == 0 {
                slot.hold = Hold::Reply;
                let ask = Ask { connection: batch.connection, ..Ask::NONE };
                let what = What::Plain(Plain::ItemsEnd);
                self.take_up(Request { slot: index, what, ask });
                return Stop::Drained;
            }
            let upload = slot.upload.as_ref().expect("it stays until the end");
            let token = take_key(upload.body(), batch.at, self.requests.key_room());
            batch.at = token.end();
            batch.keys_left -= 1;
            let tenant = slot.tenant;
            let ask = Ask { item: Some(token), ..Ask::NONE };
            let what = self.look_up(token, tenant);
            self.take_up(Request { slot: index, what, ask });
        }
        Stop::Share
    }

    /// The lookup of a key that was decoded into the room of the turn.
    fn look_up(&mut self, token: BatchToken, by: TenantIndex) -> What {
        let (start, size) = self.requests.keep_key(usize::from(token.key_size));
        let key = self.requests.key(start, size);
        if let Err(refusal) = self.tenants.admit_item(by, key, self.now) {
            return What::Plain(Plain::Refused(refusal));
        }
        let hash = self.hasher.hash(key);
        let owner = self.owners.of(hash, key);
        if owner == self.index {
            self.cache.prefetch(hash);
        } else {
            self.requests.remote += 1;
        }
        What::Lookup { hash, owner, by, start, size }
    }

    /// Writes the head of the reply and the beginning of its items.
    pub(super) fn write_items(&mut self, index: u32) {
        let slot = &self.slots[index];
        let batch = slot.batch.as_ref().expect("it is under way");
        let heads = &self.heads;
        self.output.append(slot.block, |out| {
            let head = heads.items(out, batch.connection, batch.is_chunked);
            let mut chunk = Chunk::new(&mut out[head..], batch.is_chunked);
            chunk.items();
            head + chunk.finish()
        });
    }

    /// Writes the end of the reply; the batch is over.
    pub(super) fn write_items_end(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        let batch = slot.end_batch().expect("it is under way");
        self.writes.put_if_any(slot.upload.take());
        self.output.append(slot.block, |out| {
            let mut chunk = Chunk::new(out, batch.is_chunked);
            chunk.items_end();
            let end = chunk.finish();
            if !batch.is_chunked {
                return end;
            }
            out[end..][..LAST_CHUNK.len()].copy_from_slice(LAST_CHUNK);
            end + LAST_CHUNK.len()
        });
    }

    /// Writes an item, as much of it as fits.
    pub(super) fn write_item(
        &mut self,
        index: u32,
        ask: Ask,
        token: BatchToken,
        owed: Owed,
    ) -> Written {
        let slot = &self.slots[index];
        let is_begun = slot.batch.as_ref().is_some_and(|batch| batch.written.is_some());
        if !is_begun && self.output.room(slot.block) < usize::from(token.size) + ITEM_SIZE_MAX {
            return Written::Part(owed);
        }
        match owed {
            Owed::Plain(plain) => self.write_item_plain(index, token, plain),
            Owed::Entry(pin, source) => self.write_item_entry(index, ask, token, pin, source),
            Owed::Parcel(parcel, _) => self.write_item_parcel(index, ask, token, parcel),
            Owed::Waiting | Owed::Upload(_) => unreachable!("an item is a lookup that is ready"),
        }
    }

    fn write_item_plain(&mut self, index: u32, token: BatchToken, plain: Plain) -> Written {
        count_plain(&mut self.counters, plain);
        let slot = &mut self.slots[index];
        let block = slot.block;
        let (key, batch) = slot.item(token);
        let is_first = std::mem::take(&mut batch.is_first);
        let is_chunked = batch.is_chunked;
        self.output.append(block, |out| {
            let mut chunk = Chunk::new(out, is_chunked);
            chunk.item(key, is_first);
            if let Plain::Refused(refusal) = plain {
                chunk.refused(refusal);
            } else {
                chunk.absent();
            }
            chunk.finish()
        });
        Written::Whole
    }

    fn write_item_entry(
        &mut self,
        index: u32,
        ask: Ask,
        token: BatchToken,
        pin: Pin,
        source: Source,
    ) -> Written {
        let found = self.cache.entry(pin.entry());
        let term = term(&found, self.now);
        let size = u32::try_from(found.value().len()).expect("values are bounded");
        if found.is_negative() {
            self.cache.unpin(pin);
            return self.write_item_plain(index, token, Plain::Absent(term, source));
        }
        if !self.begin_value(index, ask, size, term, source) {
            self.cache.unpin(pin);
            let refused = Plain::Refused(Refusal::BatchTooLarge);
            return self.write_item_plain(index, token, refused);
        }
        let found = self.cache.entry(pin.entry());
        let content_type = self.content_types.name(found.kind().content_type);
        let part = Part { content_type, size, offset: 0, piece: found.value() };
        match write_part(&mut self.slots[index], &mut self.output, token, &part) {
            None => {
                self.cache.unpin(pin);
                Written::Whole
            }
            Some(_) => Written::Part(Owed::Entry(pin, source)),
        }
    }

    fn write_item_parcel(
        &mut self,
        index: u32,
        ask: Ask,
        token: BatchToken,
        parcel: Box<Parcel>,
    ) -> Written {
        let Answer::Value(value, source) = parcel.answer else {
            unreachable!("only a parcel with a value is owed")
        };
        let Value { content_type, size, term, .. } = value;
        if !self.begin_value(index, ask, size, term, source) {
            self.put_parcel(parcel);
            let refused = Plain::Refused(Refusal::BatchTooLarge);
            return self.write_item_plain(index, token, refused);
        }
        let part = Part { content_type, size, offset: parcel.offset(), piece: parcel.piece() };
        let end = part.end();
        match (write_part(&mut self.slots[index], &mut self.output, token, &part), parcel.lent) {
            (None, _) => {
                self.put_parcel(parcel);
                Written::Whole
            }
            // Base64 takes three bytes at a time: what is left over comes again with the next.
            (Some(written), Some(lent)) if end < size && end - written < 3 => {
                Written::Piece { parcel, lent, written, left: size - written }
            }
            (Some(written), _) => Written::Part(Owed::Parcel(parcel, written)),
        }
    }

    /// A value comes next, or goes on. Returns whether the reply may have it.
    fn begin_value(&mut self, index: u32, ask: Ask, size: u32, term: Term, source: Source) -> bool {
        let batch = self.slots[index].batch.as_mut().expect("it is under way");
        if batch.written.is_some() {
            return true;
        }
        let Some(left) = batch.bytes_left.checked_sub(size) else { return false };
        batch.bytes_left = left;
        count_value(&mut self.counters, term, source);
        if let Some(sample) = ask.sample {
            self.hot_keys.add_bytes(sample, size.into());
        }
        true
    }
}

impl Slot {
    /// The batch under way, and the token of one of its keys.
    fn item(&mut self, token: BatchToken) -> (&[u8], &mut Batch) {
        let upload = self.upload.as_ref().expect("it stays until the end");
        let batch = self.batch.as_mut().expect("it is under way");
        (token.of(upload.body()), batch)
    }
}

impl Part<'_> {
    /// Where the piece ends in the value.
    fn end(&self) -> u32 {
        self.offset + u32::try_from(self.piece.len()).expect("values are bounded")
    }
}

/// Writes as much of a value as fits, its item around it. Answers how many of its bytes are written
/// now, or nothing if the item is complete.
fn write_part(
    slot: &mut Slot,
    output: &mut Output,
    token: BatchToken,
    part: &Part<'_>,
) -> Option<u32> {
    let block = slot.block;
    let (key, batch) = slot.item(token);
    let form = if part.content_type.is_checked_json() { Form::Json } else { Form::Base64 };
    let written = batch.written.unwrap_or(part.offset);
    let rest = &part.piece[(written - part.offset) as usize..];
    let is_end = part.end() == part.size;
    let mut taken = 0;
    output.append(block, |out| {
        let mut chunk = Chunk::new(out, batch.is_chunked);
        if batch.written.is_none() {
            chunk.item(key, batch.is_first);
            chunk.value_head(part.content_type.as_str(), form);
        }
        taken = chunk.value(rest, is_end, form);
        chunk.finish()
    });
    batch.is_first = false;
    let written = written + u32::try_from(taken).expect("a block is a few kilobytes");
    batch.written = (written < part.size).then_some(written);
    batch.written
}

/// What ends a reply in chunks.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
