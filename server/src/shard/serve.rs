//! A request meets the cache: its reply is written, or it waits for somebody.
//!
//! The hot path of the server is [`Shard::serve_all`] from top to bottom: a parsed request, the
//! lookup, the head from its template, the body behind it. What cannot be written at once becomes
//! a reply that is owed.

use super::Shard;
use super::mailbox::term;
use super::replicas::Replica;
use super::replies::{Ask, Owed, Plain};
use super::requests::{Request, What};
use super::slots::NONE;
use crate::hot::Lookup;
use crate::http::{REPLY_HEAD_SIZE_MAX, Refusal, Served, Source, Term};
use crate::mesh::{Answer, LentId, Message, Parcel, ReplyRef, TenantIndex, Upload, Value};
use crate::metrics::Counters;
use crate::ring::Ring;
use shard_cache::hash::KeyHash;
use shard_cache::{EntryRef, Freshness, Hit};

/// How many requests ahead an entry is loaded into the processor's cache.
const PREFETCH_AHEAD: usize = 4;

impl<R: Ring> Shard<R> {
    /// Second pass of the pump: serves all requests parsed in this turn, in order.
    pub(super) fn serve_all(&mut self) {
        for index in 0..self.requests.len().min(PREFETCH_AHEAD) {
            self.prefetch_entry(index);
        }
        for index in 0..self.requests.len() {
            self.prefetch_entry(index + PREFETCH_AHEAD);
            let Some(&request) = self.requests.get(index) else { break };
            let Request { slot, what, mut ask } = request;
            match what {
                What::Lookup { hash, owner, by, start, size } => {
                    if self.hot_keys.is_next() {
                        self.count_lookup(&mut ask, hash, owner, start, size);
                    }
                    self.lookup(slot, ask, (hash, owner, by), start, size);
                }
                What::Plain(plain) => self.reply_plain(slot, ask, plain),
                What::Write => self.serve_write(slot, ask),
            }
        }
        self.admit_misses();
        self.requests.clear();
    }

    fn prefetch_entry(&self, index: usize) {
        if let Some(&Request { what: What::Lookup { hash, owner, .. }, .. }) =
            self.requests.get(index)
        {
            if owner == self.index {
                self.cache.prefetch_entry(hash);
            } else {
                self.replicas.prefetch_entry(hash);
            }
        }
    }

    /// Counts one lookup of the few that are, for the list of hot keys.
    #[inline(never)]
    fn count_lookup(&mut self, ask: &mut Ask, hash: KeyHash, owner: u16, start: u32, size: u16) {
        let key = self.requests.key(start, size);
        let is_own = owner == self.index;
        let is_remote = !is_own && self.replicas.lookup(hash, key, self.now).is_none();
        let lookup = Lookup { hash, key, owner, is_remote };
        ask.sample = Some(self.hot_keys.count(&lookup));
        self.look_ahead(hash, owner, start, size);
    }

    fn lookup(
        &mut self,
        slot: u32,
        ask: Ask,
        (hash, owner, by): (KeyHash, u16, TenantIndex),
        start: u32,
        size: u16,
    ) {
        let key = self.requests.key(start, size);
        if owner != self.index {
            match self.replicas.lookup(hash, key, self.now) {
                Some(entry) if self.leases.is_valid(owner, self.now) => {
                    self.reply_replica(slot, ask, entry, (owner, hash));
                }
                Some(_) | None => self.read_remote(slot, ask, (hash, owner, by), start, size),
            }
            return;
        }
        match self.cache.lookup(hash, key, self.now) {
            Some(Hit { entry, freshness: Freshness::Fresh }) => {
                self.reply_hit(slot, ask, entry);
            }
            Some(Hit { entry, freshness: Freshness::Stale }) => {
                self.reply_hit(slot, ask, entry);
                self.refresh_parsed(hash, start, size);
            }
            Some(Hit { freshness: Freshness::Retained, .. }) | None => {
                self.miss(slot, ask, (hash, by), start, size);
            }
        }
    }

    /// Asks the owner of a key for its value.
    fn read_remote(
        &mut self,
        slot: u32,
        ask: Ask,
        (hash, owner, by): (KeyHash, u16, TenantIndex),
        start: u32,
        size: u16,
    ) {
        let mut parcel = self.parcels.take().expect("parse has counted the parcels");
        let name = self.owe(slot, ask, Owed::Waiting);
        parcel.address(name, hash, self.requests.key(start, size));
        parcel.tenant = by;
        parcel.wants_copy = self.replicas.wants(hash);
        self.counters.remote_reads += 1;
        self.peers.send(owner, Message::Read(parcel));
    }

    /// Serves a copy of another shard's value.
    fn reply_replica(
        &mut self,
        slot: u32,
        ask: Ask,
        entry: EntryRef,
        (owner, hash): (u16, KeyHash),
    ) {
        self.counters.replica_hits += 1;
        if ask.sample.is_some() {
            // The owner sees only what is remote: without this it would drop the hottest keys.
            self.peers.mention(owner, Message::Hit(hash));
        }
        let Replica { etag, content_type, beyond, value, .. } = self.replicas.get(entry);
        let term = self.replicas.get(entry).term(self.now);
        let size = u32::try_from(value.len()).expect("a copy is small");
        if !self.can_write(slot, value.len()) {
            // It may be gone when its turn to be written comes.
            let mut parcel = self.parcels.take().expect("parse has counted the parcels");
            let content_type = self.content_types.name(content_type);
            parcel.address(ReplyRef::NONE, hash, &[]);
            let facts = Value { etag, content_type, term, beyond, size };
            parcel.fill(facts, Source::Hit, value, None);
            self.owe(slot, ask, Owed::Parcel(parcel, 0));
            return;
        }
        let block = self.slots[slot].block;
        let served = Served { etag, term, beyond, source: Source::Hit };
        if !self.write_value_head(block, ask, &served, content_type, size) {
            let value = self.replicas.get(entry).value;
            self.output.append(block, |out| {
                out[..value.len()].copy_from_slice(value);
                value.len()
            });
        }
        self.replied.hits += 1;
    }

    /// Appends a reply that waits, or stands behind one that waits.
    pub(super) fn owe(&mut self, slot: u32, ask: Ask, owed: Owed) -> ReplyRef {
        self.replies.append(&mut self.slots[slot], slot, ask, self.now, owed)
    }

    fn reply_hit(&mut self, slot: u32, ask: Ask, entry: EntryRef) {
        #[cfg(feature = "busy-cost")]
        self.overload.busy_cost.spend_on_hit();
        if self.can_write(slot, self.cache.entry(entry).value().len()) {
            self.write_entry(slot, ask, entry, Source::Hit);
            self.replied.hits += 1;
        } else {
            let pin = self.cache.pin(entry);
            self.owe(slot, ask, Owed::Entry(pin, Source::Hit));
        }
    }

    fn reply_plain(&mut self, slot: u32, ask: Ask, plain: Plain) {
        if self.can_write(slot, 0) {
            self.write_plain(slot, ask, plain);
            self.replied.others += 1;
        } else {
            self.owe(slot, ask, Owed::Plain(plain));
        }
    }

    /// Whether a reply with a body of this size can be written now: no other is owed before it, and
    /// the connection's block has room.
    fn can_write(&self, slot: u32, body_size: usize) -> bool {
        self.slots[slot].owed_count == 0 && self.fits(slot, body_size)
    }

    fn fits(&self, slot: u32, body_size: usize) -> bool {
        let block = self.slots[slot].block;
        if body_size >= self.limits.copy_threshold as usize {
            self.output.can_attach(block) && self.output.room(block) >= REPLY_HEAD_SIZE_MAX
        } else {
            self.output.room(block) >= REPLY_HEAD_SIZE_MAX + body_size
        }
    }

    /// Writes the replies of a connection that have become ready, in order, as far as they fit.
    pub(super) fn write_owed(&mut self, index: u32) {
        while self.replies.is_ready(&self.slots[index]) {
            if self.slots[index].block == NONE {
                let Some(block) = self.output.acquire() else {
                    self.starved = true;
                    self.ready.add(&mut self.slots, index);
                    return;
                };
                self.slots[index].block = block;
                self.slots[index].blocked_since = self.now;
            }
            let (owed, ask, arrived) = self.replies.take_first(&mut self.slots[index]);
            match self.write_one(index, ask, owed) {
                // Of a batch, the reply is counted, and so are the lookups, but not their times.
                Written::Whole if ask.item.is_some() => {}
                Written::Whole if self.replied_late.len() == self.replied_late.capacity() => {}
                Written::Whole => self.replied_late.push(arrived),
                Written::Part(rest) => {
                    let slot = &mut self.slots[index];
                    self.replies.put_back_first(slot, index, ask, arrived, rest);
                    return;
                }
                Written::Piece { parcel, lent, written, left } => {
                    let slot = &mut self.slots[index];
                    let waits = Owed::Waiting;
                    let name = self.replies.put_back_first(slot, index, ask, arrived, waits);
                    let mut parcel = self.parcels.for_rest(parcel, left);
                    parcel.ask_piece(name, written);
                    self.peers.send(lent.owner, Message::Piece(parcel));
                    return;
                }
                Written::Begun(upload) => {
                    let slot = &mut self.slots[index];
                    let waits = Owed::Waiting;
                    let name = self.replies.put_back_first(slot, index, ask, arrived, waits);
                    self.send_write(upload, name);
                    return;
                }
            }
        }
    }

    /// Writes one reply.
    fn write_one(&mut self, index: u32, ask: Ask, owed: Owed) -> Written {
        if let Some(token) = ask.item {
            return self.write_item(index, ask, token, owed);
        }
        match owed {
            Owed::Waiting => unreachable!("only a reply that is ready is written"),
            Owed::Entry(pin, source) => {
                let entry = pin.entry();
                if !self.fits(index, self.cache.entry(entry).value().len()) {
                    return Written::Part(Owed::Entry(pin, source));
                }
                self.write_entry(index, ask, entry, source);
                self.cache.unpin(pin);
                Written::Whole
            }
            Owed::Plain(plain) => {
                if !self.fits(index, 0) {
                    return Written::Part(Owed::Plain(plain));
                }
                self.write_plain(index, ask, plain);
                Written::Whole
            }
            Owed::Parcel(parcel, written) => self.write_parcel(index, ask, parcel, written),
            Owed::Upload(upload) => Written::Begun(upload),
        }
    }

    fn write_entry(&mut self, index: u32, ask: Ask, entry: EntryRef, source: Source) {
        let found = self.cache.entry(entry);
        let term = term(&found, self.now);
        if found.is_negative() {
            self.write_plain(index, ask, Plain::Absent(term, source));
            return;
        }
        count_value(&mut self.counters, term, source);
        let block = self.slots[index].block;
        let beyond = self.beyond(found.kind());
        let served = Served { etag: found.etag(), term, beyond, source };
        if ask.if_none_match.matches(served.etag) {
            self.counters.replies_not_modified += 1;
            let heads = &self.heads;
            self.output.append(block, |out| heads.not_modified(out, &served, ask.connection));
            return;
        }
        let template = self.content_types.template(found.kind().content_type);
        let value = found.value();
        let size = u32::try_from(value.len()).expect("values are bounded");
        let attach = value.len() >= self.limits.copy_threshold as usize;
        if let (Some(sample), false) = (ask.sample, ask.head_only) {
            self.hot_keys.add_bytes(sample, size.into());
        }
        let heads = &self.heads;
        self.output.append(block, |out| {
            let head = heads.found(out, template, &served, size, ask.connection);
            if ask.head_only || attach {
                return head;
            }
            out[head..][..value.len()].copy_from_slice(value);
            head + value.len()
        });
        if attach && !ask.head_only {
            let (offset, len) = self.cache.value_span(entry);
            let pin = self.cache.pin(entry);
            self.output.attach(block, offset, len, pin);
        }
    }

    fn write_plain(&mut self, index: u32, ask: Ask, plain: Plain) {
        match plain {
            Plain::Items => return self.write_items(index),
            Plain::ItemsEnd => return self.write_items_end(index),
            Plain::Health
            | Plain::Continue
            | Plain::Absent(..)
            | Plain::Stored(..)
            | Plain::Deleted
            | Plain::Refused(_) => count_plain(&mut self.counters, plain),
        }
        let heads = &self.heads;
        let Ask { head_only, connection, .. } = ask;
        self.output.append(self.slots[index].block, |out| match plain {
            Plain::Health => heads.health(out, head_only, connection),
            Plain::Continue => heads.go_on(out),
            Plain::Items | Plain::ItemsEnd => unreachable!("written above"),
            Plain::Absent(term, source) => heads.absent(out, term, source, head_only, connection),
            Plain::Stored(etag, is_new) => heads.stored(out, etag, is_new, connection),
            Plain::Deleted => heads.deleted(out, connection),
            Plain::Refused(refusal) => heads.refused(out, refusal, head_only, connection),
        });
    }

    /// Writes the head of a value from another shard. Returns whether that is the whole reply.
    fn write_value_head(
        &mut self,
        block: u32,
        ask: Ask,
        served: &Served,
        content_type: u8,
        size: u32,
    ) -> bool {
        count_value(&mut self.counters, served.term, served.source);
        let template = self.content_types.template(content_type);
        let heads = &self.heads;
        let not_modified = ask.if_none_match.matches(served.etag);
        self.counters.replies_not_modified += u64::from(not_modified);
        self.output.append(block, |out| {
            if not_modified {
                heads.not_modified(out, served, ask.connection)
            } else {
                heads.found(out, template, served, size, ask.connection)
            }
        });
        let complete = not_modified || ask.head_only;
        if let (Some(sample), false) = (ask.sample, complete) {
            self.hot_keys.add_bytes(sample, size.into());
        }
        complete
    }

    /// Writes a value from another shard, as much of it as has come and fits.
    fn write_parcel(&mut self, index: u32, ask: Ask, parcel: Box<Parcel>, written: u32) -> Written {
        let Answer::Value(value, source) = parcel.answer else {
            unreachable!("only a parcel with a value is owed")
        };
        let block = self.slots[index].block;
        if written == 0 {
            // At least a byte behind the head: who has written nothing begins with the head.
            if !self.fits(index, 1) {
                return Written::Part(Owed::Parcel(parcel, 0));
            }
            let Value { etag, term, beyond, .. } = value;
            let served = Served { etag, term, beyond, source };
            let content_type = self.content_types.intern(value.content_type, &self.heads);
            let complete = self.write_value_head(block, ask, &served, content_type, value.size);
            if complete || value.size == 0 {
                self.put_parcel(parcel);
                return Written::Whole;
            }
        }
        let piece = parcel.piece();
        let rest = &piece[(written - parcel.offset()) as usize..];
        let size = rest.len().min(self.output.room(block));
        let is_all = size == rest.len();
        self.output.append(block, |out| {
            out[..size].copy_from_slice(&rest[..size]);
            size
        });
        let written = written + u32::try_from(size).expect("a block is a few kilobytes");
        match parcel.lent {
            _ if !is_all => Written::Part(Owed::Parcel(parcel, written)),
            Some(lent) => Written::Piece { parcel, lent, written, left: value.size - written },
            None => {
                assert_eq!(written, value.size, "what is not lent has come whole");
                self.parcels.put(parcel);
                Written::Whole
            }
        }
    }
}

/// How much of a reply was written.
#[derive(Debug)]
pub(super) enum Written {
    /// All of it.
    Whole,
    /// As much as fits; this is left.
    Part(Owed),
    /// All that has come; the parcel fetches more of the value, of which so many bytes are written
    /// and left.
    Piece { parcel: Box<Parcel>, lent: LentId, written: u32, left: u32 },
    /// Nothing: a write begins, whose answer will be the reply.
    Begun(Box<Upload>),
}

/// Counts a lookup that was answered with a value.
pub(super) fn count_value(counters: &mut Counters, term: Term, source: Source) {
    let is_stale = matches!(term, Term::Ends { lifetime_s, age_s } if age_s > lifetime_s);
    *match source {
        Source::Hit | Source::Kept(_) if is_stale => &mut counters.requests_stale,
        Source::Hit | Source::Kept(_) => &mut counters.requests_hit,
        Source::Fetched => &mut counters.requests_miss,
        Source::Collapsed => &mut counters.requests_collapsed,
    } += 1;
}

/// Counts what is answered without an entry.
pub(super) fn count_plain(counters: &mut Counters, plain: Plain) {
    *match plain {
        Plain::Items | Plain::ItemsEnd => return,
        Plain::Health => &mut counters.requests_health,
        Plain::Continue => &mut counters.replies_continue,
        Plain::Stored(..) | Plain::Deleted => &mut counters.requests_write,
        Plain::Absent(_, Source::Hit | Source::Kept(_)) => &mut counters.requests_negative,
        Plain::Absent(_, Source::Fetched) => &mut counters.requests_miss,
        Plain::Absent(_, Source::Collapsed) => &mut counters.requests_collapsed,
        Plain::Refused(Refusal::OriginUnavailable | Refusal::OriginTimeout) => {
            &mut counters.requests_error
        }
        Plain::Refused(Refusal::Overloaded | Refusal::TooManyConnections) => {
            &mut counters.requests_shed
        }
        Plain::Refused(Refusal::Unauthorized) => &mut counters.requests_unauthorized,
        Plain::Refused(Refusal::Forbidden) => &mut counters.requests_forbidden,
        Plain::Refused(Refusal::RateLimited) => &mut counters.requests_limited,
        Plain::Refused(_) => &mut counters.requests_refused,
    } += 1;
}
