//! What other threads have sent: reads and replies of other shards, landings of the origin plane.
//!
//! Inbound mail is taken before anything is sent, and every queue a bounded number of messages a
//! turn. A landed value is stored here, in the owner's cache and nowhere else; its waiters are
//! woken by the rush, a bounded number a turn as well.

use super::flights::{Landed, Rush, Waiter};
use super::replies::{Owed, Plain};
use super::{STORE_PATIENCE, Shard, jitter};
use crate::error::{CloseReason, FetchFailure};
use crate::http::{Beyond, Refusal, Source, Term};
use crate::mesh::{
    Answer, ContentType, Delivery, FetchAnswer, FlightId, Found, Grant, Key, Landing, Lifetime,
    Message, Order, Outcome, Parcel, ReplyRef, Stale, Unchanged, Value, Why,
};
use crate::ring::Ring;
use shard_cache::hash::{Etag, KeyHash};
use shard_cache::time::Instant;
use shard_cache::{
    Entry, EntryRef, FreshFor, Freshness, Kind, NewValue, Pin, Renewal, StaleWindows, Standing,
    StoreRefused,
};
use std::time::Duration;

impl<R: Ring> Shard<R> {
    /// Takes what has arrived.
    pub(super) fn receive_mail(&mut self) {
        self.obey_epochs();
        for from in 0..self.peers.count() {
            let mut followed = None;
            for _ in 0..self.limits.messages_per_peer_turn_max {
                match self.peers.receive(from) {
                    Some(Message::Read(parcel)) => self.serve_peer(from, parcel),
                    Some(Message::Piece(parcel)) => self.serve_piece(from, parcel),
                    Some(Message::Reply(parcel)) => self.receive_reply(parcel),
                    Some(Message::Write(upload)) => self.write(upload),
                    Some(Message::Written(upload)) => self.receive_written(upload),
                    Some(Message::Invalidate { number, hash }) => {
                        self.replicas.remove(hash);
                        followed = Some(number);
                    }
                    Some(Message::Followed(number)) => self.receive_followed(from, number),
                    Some(Message::Hit(hash)) => self.receive_hit(hash),
                    Some(Message::Connection(fd)) => self.open(fd),
                    None => break,
                }
            }
            if let Some(number) = followed {
                self.peers.send(from, Message::Followed(number));
            }
        }
        self.keep_leases();
        self.go_on();
        for _ in 0..self.limits.landings_per_turn_max {
            let stalled = self.stalled.take().map(Delivery::Landing);
            match stalled.or_else(|| self.link.next_delivery()) {
                Some(Delivery::Landing(landing)) => {
                    if !self.land(landing) {
                        break;
                    }
                }
                Some(Delivery::Written(upload)) => self.land_write(upload),
                Some(Delivery::Purge(order)) => self.purge(order),
                Some(Delivery::Forget(key)) => self.hear_of(key),
                Some(Delivery::Explain(explanation)) => self.explain(explanation),
                None => break,
            }
        }
    }

    /// Drops the copies that their owners have taken back all at once.
    fn obey_epochs(&mut self) {
        if !self.leases.take_bell() {
            return;
        }
        self.replicas.clear(self.now);
        for owner in self.others() {
            let epoch = self.leases.epoch(owner, self.index);
            if self.leases.drop_before(owner, epoch) {
                self.peers.nudge(owner);
            }
        }
    }

    /// Another shard reads a key of ours.
    fn serve_peer(&mut self, from: u16, mut parcel: Box<Parcel>) {
        self.counters.remote_served += 1;
        let hash = parcel.hash;
        match self.cache.lookup(hash, parcel.key(), self.now) {
            Some(hit) if hit.freshness != Freshness::Retained => {
                if hit.freshness == Freshness::Stale {
                    self.refresh(hash, parcel.key());
                } else if parcel.wants_copy {
                    self.look_ahead_for_peer(hash, parcel.key(), hit.entry);
                    self.allow_copy(from, &mut parcel, hit.entry);
                }
                self.fill(&mut parcel, hit.entry, Source::Hit);
                self.peers.send(from, Message::Reply(parcel));
            }
            Some(_) | None => self.miss_of_peer(from, hash, parcel),
        }
    }

    /// Lets another shard keep a copy of a fresh value, if it may.
    fn allow_copy(&mut self, to: u16, parcel: &mut Parcel, entry: EntryRef) {
        let found = self.cache.entry(entry);
        let (size, born_ms) = (found.value().len(), found.born_ms());
        let fresh_until_ms = found.fresh_until_ms();
        let is_small = size <= self.limits.replica_value_size_max as usize;
        // What is being fetched early may be replaced in a moment, and nobody would drop the copy.
        let is_lasting = !self.flights.is_fetching(parcel.hash, parcel.key());
        let may = is_small && is_lasting && !found.is_negative();
        if may && self.grant(parcel.hash, to) {
            let epoch = self.leases.epoch(self.index, to);
            parcel.allow_copy(Grant { epoch, born_ms, fresh_until_ms }, size);
        }
    }

    /// Keeps the copy that came with a reply, unless all of its owner's are void by now.
    fn keep_copy(&mut self, parcel: &Parcel, grant: &Grant, value: &Value) {
        let owner = self.owners.of(parcel.hash, parcel.copied_key());
        if self.leases.epoch(owner, self.index) == grant.epoch {
            let content_type = self.content_types.intern(value.content_type, &self.heads);
            let facts = (parcel.hash, value.etag, content_type, value.beyond);
            let key = parcel.copied_key();
            let is_kept = self.replicas.store(key, facts, grant, parcel.piece(), self.now);
            self.counters.replica_stored += u64::from(is_kept);
        }
    }

    /// Another shard has answered a read of ours.
    fn receive_reply(&mut self, parcel: Box<Parcel>) {
        let name = parcel.reply;
        let owed = match parcel.answer {
            Answer::Value(value, _) => {
                if let Some(grant) = parcel.grant {
                    self.keep_copy(&parcel, &grant, &value);
                }
                let offset = parcel.offset();
                Owed::Parcel(parcel, offset)
            }
            Answer::Withdrawn => {
                self.cut_short(parcel);
                return;
            }
            Answer::Absent(term, source) => self.settle(parcel, Plain::Absent(term, source)),
            Answer::Failed(failure) => self.settle(parcel, Plain::Refused(refusal(failure))),
            Answer::Shed => self.settle(parcel, Plain::Refused(Refusal::Overloaded)),
            Answer::Pending => unreachable!("a reply says something"),
        };
        self.resolve(name, owed);
    }

    fn settle(&mut self, parcel: Box<Parcel>, plain: Plain) -> Owed {
        self.parcels.put(parcel);
        Owed::Plain(plain)
    }

    /// The rest of a value does not come, whose beginning was sent: nothing else can be said.
    fn cut_short(&mut self, parcel: Box<Parcel>) {
        let slot = self.replies.slot_of(parcel.reply);
        self.parcels.put(parcel);
        if let Some(slot) = slot {
            self.terminate(slot, CloseReason::OutputBound);
        }
    }

    /// Gives a waiting reply what it waited for; its connection writes it in the pump.
    pub(super) fn resolve(&mut self, name: ReplyRef, owed: Owed) {
        match self.replies.resolve(name, owed) {
            Ok(slot) => self.ready.add(&mut self.slots, slot),
            Err(owed) => self.let_go(owed),
        }
    }

    /// Answers a parcel from an entry of ours.
    pub(super) fn fill(&mut self, parcel: &mut Parcel, entry: EntryRef, source: Source) {
        let found = self.cache.entry(entry);
        let term = term(&found, self.now);
        let value = found.value();
        if found.is_negative() {
            parcel.answer = Answer::Absent(term, source);
        } else {
            let facts = Value {
                etag: found.etag(),
                content_type: self.content_types.name(found.kind().content_type),
                term,
                beyond: self.beyond(found.kind()),
                size: u32::try_from(value.len()).expect("values are bounded"),
            };
            let is_whole = value.len() <= parcel.size_max();
            let pin = if is_whole { None } else { Some(self.cache.pin(entry)) };
            let lent = pin.map(|pin| self.lending.lend(pin, self.now));
            parcel.fill(facts, source, self.cache.entry(entry).value(), lent);
        }
    }

    /// Stores what a fetch has brought. Returns whether there was room, and no copy is served any
    /// more that may be older; the landing waits if not.
    fn land(&mut self, landing: Landing) -> bool {
        let Landing { flight, outcome } = landing;
        if !self.is_settled(self.flights.asked(flight)) {
            self.stalled = Some(Landing { flight, outcome });
            return false;
        }
        let (landed, answer) = match outcome {
            Outcome::Found(found) => match self.store_found(flight, &found) {
                Ok(pin) => {
                    self.give_back(found);
                    (Landed::Entry(pin), FetchAnswer::Found)
                }
                Err(StoreRefused::NoRoom) if self.may_stall() => {
                    self.stalled = Some(Landing { flight, outcome: Outcome::Found(found) });
                    return false;
                }
                Err(refused) => {
                    self.counters.cache_store_refused += 1;
                    self.give_back(found);
                    let failure = match refused {
                        StoreRefused::TooLarge => FetchFailure::TooLarge,
                        StoreRefused::NoRoom => FetchFailure::NoRoom,
                    };
                    (self.fail(flight, failure), FetchAnswer::Failed(failure))
                }
            },
            Outcome::Absent if self.flights.is_void(flight) => {
                (self.kept(flight).map_or(Landed::Absent, Landed::Entry), FetchAnswer::Absent)
            }
            Outcome::Absent => (self.store_absent(flight), FetchAnswer::Absent),
            Outcome::Unchanged(unchanged) => match self.renew(flight, unchanged) {
                Some(pin) => (Landed::Entry(pin), FetchAnswer::Unchanged),
                None => {
                    self.stalled_since = None;
                    let key = self.flights.key(flight).1.clone();
                    self.ask(flight, key, None);
                    return true;
                }
            },
            Outcome::Failed(failure) => (self.fail(flight, failure), FetchAnswer::Failed(failure)),
        };
        self.stalled_since = None;
        self.remember(flight, &landed, answer);
        self.flights.land(flight, landed);
        true
    }

    /// Whether a landing may wait for room in the cache a while longer.
    fn may_stall(&mut self) -> bool {
        self.now < *self.stalled_since.get_or_insert(self.now) + STORE_PATIENCE
    }

    /// Stores a fetched value, or keeps it aside if its key was purged or written meanwhile.
    fn store_found(&mut self, flight: FlightId, found: &Found) -> Result<Pin, StoreRefused> {
        if self.flights.is_void(flight)
            && let Some(pin) = self.kept(flight)
        {
            return Ok(pin);
        }
        let Found { etag, content_type, lifetime, stale, .. } = *found;
        let bytes = (self.flights.group(flight), &*found.value);
        let mut value = self.new_value(etag, content_type, lifetime, stale, bytes);
        value.fresh_for = self.left_of(value.fresh_for, flight);
        let (hash, key) = self.flights.key(flight);
        if self.flights.is_void(flight) {
            return self.cache.store_aside(key.as_bytes(), &value, self.now);
        }
        let entry = self.cache.store(hash, key.as_bytes(), &value, self.now)?;
        Ok(self.cache.pin(entry))
    }

    /// Renews the value that is still the one that the cache had when the origin was asked. None
    /// where the cache has it no more, or another one: the origin is to be asked for what it has.
    fn renew(&mut self, flight: FlightId, unchanged: Unchanged) -> Option<Pin> {
        let Unchanged { etag, lifetime, stale } = unchanged;
        let pin = if self.flights.is_void(flight) {
            self.kept(flight)?
        } else {
            let fresh_for = self.left_of(self.fresh_for(lifetime), flight);
            let renewal = Renewal { etag, windows: self.windows_of(stale), fresh_for };
            let (hash, key) = self.flights.key(flight);
            let entry = self.cache.renew(hash, key.as_bytes(), &renewal, self.now)?;
            self.cache.pin(entry)
        };
        self.counters.fetches_unchanged += 1;
        Some(pin)
    }

    /// What the cache serves for the key of a void flight. Those who wait for the flight are given
    /// that: what was fetched may come of the next write, which is not applied yet, and who reads
    /// after them would be served what is older. Where there is nothing they are given what was
    /// fetched, and what the cache retains for errors is dropped: it may be older than that, too.
    fn kept(&mut self, flight: FlightId) -> Option<Pin> {
        let (hash, key) = self.flights.key(flight);
        let hit = self.cache.lookup(hash, key.as_bytes(), self.now)?;
        if hit.freshness == Freshness::Retained {
            self.cache.remove(hash, key.as_bytes());
            return None;
        }
        Some(self.cache.pin(hit.entry))
    }

    /// A value as the cache stores it.
    pub(super) fn new_value<'a>(
        &mut self,
        etag: Etag,
        content_type: ContentType,
        lifetime: Lifetime,
        stale: Stale,
        (group, bytes): (u8, &'a [u8]),
    ) -> NewValue<'a> {
        let content_type = self.content_types.intern(content_type, &self.heads);
        let fresh_for = self.fresh_for(lifetime);
        let kind = Kind { content_type, windows: self.windows_of(stale) };
        NewValue { etag, kind, group, fresh_for, negative: false, bytes }
    }

    fn fresh_for(&self, lifetime: Lifetime) -> FreshFor {
        match lifetime {
            Lifetime::Unlimited => FreshFor::Ever,
            Lifetime::Default => FreshFor::Ms(self.settings.ttl_ms),
            Lifetime::For(ttl) => FreshFor::Ms(u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX)),
        }
    }

    /// The index of a value's stale windows: what its writer has not said is as configured.
    fn windows_of(&mut self, stale: Stale) -> u8 {
        if stale == Stale::default() {
            return super::WINDOWS_VALUE;
        }
        let configured = self.settings.windows;
        let or = |own: Option<Duration>, or_ms| own.map_or(or_ms, ms_at_most_a_week);
        let windows = StaleWindows {
            while_revalidate_ms: or(stale.while_revalidate, configured.while_revalidate_ms),
            if_error_ms: or(stale.if_error, configured.if_error_ms),
        };
        self.cache.windows_index(windows).unwrap_or(super::WINDOWS_NEVER)
    }

    /// How long a value is served beyond its freshness, as a reply says it.
    #[inline]
    pub(super) fn beyond(&self, kind: Kind) -> Beyond {
        match kind.windows {
            super::WINDOWS_VALUE => Beyond::AS_CONFIGURED,
            _ => self.own_beyond(kind),
        }
    }

    #[cold]
    fn own_beyond(&self, kind: Kind) -> Beyond {
        match self.cache.windows(kind) {
            StaleWindows { while_revalidate_ms: 0, if_error_ms: 0 } => Beyond::NEVER,
            windows => Beyond(windows.while_revalidate_ms / 1000),
        }
    }

    /// What is left of the lifetime of what a fetch has brought, less some jitter. It began when
    /// the origin was asked, since the origin may have read the value right then (RFC 9111 section
    /// 4.2.3 counts the delay of a response to its age for the same reason). So what is called
    /// fresh is never older than its lifetime, however long the answer took, or waited for copies
    /// to be dropped.
    fn left_of(&self, fresh_for: FreshFor, flight: FlightId) -> FreshFor {
        match fresh_for {
            FreshFor::Ever => FreshFor::Ever,
            FreshFor::Ms(ms) => {
                let (hash, _) = self.flights.key(flight);
                let permille = self.settings.ttl_jitter_permille.into();
                let most = Duration::from_millis(ms.into()) * permille / 1000;
                let jitter = jitter::share_of(most, hash, self.now).as_millis();
                let waited_ms = self.now.ms() - self.flights.ordered(flight).ms();
                let gone_ms = u128::from(waited_ms) + jitter;
                FreshFor::Ms(ms.saturating_sub(u32::try_from(gone_ms).unwrap_or(u32::MAX)))
            }
        }
    }

    fn store_absent(&mut self, flight: FlightId) -> Landed {
        let value = NewValue {
            etag: Etag::from_bits(0),
            kind: Kind { content_type: 0, windows: super::WINDOWS_NEGATIVE },
            group: 0,
            fresh_for: self.left_of(FreshFor::Ms(self.settings.negative_ttl_ms), flight),
            negative: true,
            bytes: &[],
        };
        let (hash, key) = self.flights.key(flight);
        match self.cache.store(hash, key.as_bytes(), &value, self.now) {
            Ok(entry) => Landed::Entry(self.cache.pin(entry)),
            Err(_) => {
                self.counters.cache_store_refused += 1;
                Landed::Absent
            }
        }
    }

    /// A fetch failed: what we still have is served instead, if it may be.
    fn fail(&mut self, flight: FlightId, failure: FetchFailure) -> Landed {
        self.counters.flights_failed += 1;
        let (hash, key) = self.flights.key(flight);
        match self.cache.lookup(hash, key.as_bytes(), self.now) {
            Some(hit) => Landed::Stale(self.cache.pin(hit.entry), failure),
            None => Landed::Failed(failure),
        }
    }

    /// Wakes the waiters of landed flights.
    pub(super) fn rush(&mut self) {
        for _ in 0..self.limits.rush_per_turn_max {
            let (waiter, given) = match self.flights.rush() {
                None => return,
                Some(Rush::End(Landed::Entry(pin) | Landed::Stale(pin, _))) => {
                    self.cache.unpin(pin);
                    continue;
                }
                Some(Rush::End(Landed::Absent | Landed::Failed(_))) => continue,
                Some(Rush::Waiter(waiter, source, landed)) => (waiter, Given::of(landed, source)),
            };
            match waiter {
                Waiter::Local(name) => self.wake_local(name, given),
                Waiter::Remote(shard, parcel) => self.wake_remote(shard, parcel, given),
            }
        }
    }

    fn wake_local(&mut self, name: ReplyRef, given: Given) {
        let owed = match given {
            Given::Entry(entry, source) => Owed::Entry(self.cache.pin(entry), source),
            Given::Absent(source) => Owed::Plain(Plain::Absent(self.negative_term(), source)),
            Given::Failed(failure) => Owed::Plain(Plain::Refused(refusal(failure))),
        };
        self.resolve(name, owed);
    }

    fn wake_remote(&mut self, shard: u16, mut parcel: Box<Parcel>, given: Given) {
        match given {
            Given::Entry(entry, source) => self.fill(&mut parcel, entry, source),
            Given::Absent(source) => {
                parcel.answer = Answer::Absent(self.negative_term(), source);
            }
            Given::Failed(failure) => parcel.answer = Answer::Failed(failure),
        }
        self.peers.send(shard, Message::Reply(parcel));
    }

    /// The term of an absence that was learned just now.
    fn negative_term(&self) -> Term {
        Term::Ends { lifetime_s: self.settings.negative_ttl_ms / 1000, age_s: 0 }
    }

    /// Asks the origin for the key of a flight that was begun just now. What it brings is of this
    /// group of entries, or of that of the entry that it replaces.
    pub(super) fn order(&mut self, id: FlightId, group: Option<u8>) {
        #[cfg(feature = "busy-cost")]
        self.overload.busy_cost.spend_on_miss();
        let (hash, key) = self.flights.key(id);
        let key = key.clone();
        let group = group.unwrap_or_else(|| self.group_of(hash, key.as_bytes()));
        self.flights.set_group(id, group);
        let why = self.why(hash, key.as_bytes());
        self.counters.fetches_early += u64::from(why == Why::Early);
        self.recent.begin(hash, id, self.now, why);
        let known = self.known(hash, key.as_bytes());
        self.ask(id, key, known);
    }

    /// The tag of the value that the cache has, also where it is not served any more: the origin
    /// may say that it is still the one.
    fn known(&self, hash: KeyHash, key: &[u8]) -> Option<Etag> {
        let (at, standing) = self.cache.inspect(hash, key, self.now)?;
        let entry = self.cache.entry(at);
        let is_there = matches!(standing, Standing::Live(_) | Standing::Kept);
        let is_value = is_there && !entry.is_negative();
        is_value.then(|| entry.etag())
    }

    /// The group of the entry of a key; none's where there is no entry.
    pub(super) fn group_of(&self, hash: KeyHash, key: &[u8]) -> u8 {
        self.cache.inspect(hash, key, self.now).map_or(0, |(at, _)| self.cache.entry(at).group())
    }

    /// Asks the origin for the key of a flight, of which it is told what the cache has.
    fn ask(&mut self, id: FlightId, key: Key, known: Option<Etag>) {
        self.counters.flights_led += 1;
        let (hash, _) = self.flights.key(id);
        let asked = self.invalidate(hash);
        self.flights.note_order(id, self.now, asked);
        self.link.order(Order::Fetch { flight: id, key, known });
    }
}

/// What one waiter is given of what landed.
#[derive(Clone, Copy, Debug)]
enum Given {
    Entry(EntryRef, Source),
    Absent(Source),
    Failed(FetchFailure),
}

impl Given {
    fn of(landed: &Landed, source: Source) -> Self {
        match landed {
            Landed::Entry(pin) => Self::Entry(pin.entry(), source),
            // It was not the origin that answered.
            Landed::Stale(pin, failure) => Self::Entry(pin.entry(), Source::Kept(*failure)),
            Landed::Absent => Self::Absent(source),
            Landed::Failed(failure) => Self::Failed(*failure),
        }
    }
}

/// Milliseconds of a window, which is as long at most as one that can be configured.
fn ms_at_most_a_week(window: Duration) -> u32 {
    let week = Duration::from_hours(7 * 24);
    u32::try_from(window.min(week).as_millis()).expect("a week has fewer than 2^32")
}

/// How long an entry lives, as a reply says it.
pub(super) fn term(entry: &Entry<'_>, now: Instant) -> Term {
    match entry.fresh_left_s(now) {
        None => Term::Ever,
        Some(left_s) => {
            let age_s = entry.age_s(now);
            Term::Ends { lifetime_s: age_s.saturating_add_signed(left_s), age_s }
        }
    }
}

/// What a client is told of a failed fetch.
pub(super) fn refusal(failure: FetchFailure) -> Refusal {
    match failure {
        FetchFailure::Timeout => Refusal::OriginTimeout,
        FetchFailure::Unavailable | FetchFailure::TooLarge => Refusal::OriginUnavailable,
        FetchFailure::NoRoom => Refusal::Overloaded,
    }
}
