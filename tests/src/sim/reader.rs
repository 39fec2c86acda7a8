//! Checks what a client reads against what it is owed, byte by byte as it comes.
//!
//! At all times the bytes read are a prefix of correct replies, in the order of the requests. So
//! a wrong byte is found when it is read, not when its reply is complete. What a reply tells of a
//! key is known from when all of it was read: nobody who asks later may be told something older.

use super::badge::{Quota, Standing};
use super::batch;
use super::items::{Items, Shown, Terms};
use super::marks::{Mark, Marks};
use super::reply;
use super::request::{self, Ask, Body, Excuses, Expected, Interim, Owed, Told};
use crate::model::{Change, Content, Edition, Fate, KeyNumber, Model, Tag, Version, WriteId};
use pelton::error::FetchFailure;
use shard_cache::time::Instant;
use std::collections::VecDeque;

/// The replies of one connection.
#[derive(Debug, Default)]
pub struct Reader {
    /// Requests without a complete reply, oldest first.
    pub owed: VecDeque<Owed>,
    /// What the server may fail to do.
    pub excuses: Excuses,
    /// Read, but not yet a whole head.
    unparsed: Vec<u8>,
    reply: Option<Reply>,
    closed: bool,
    /// Complete replies.
    pub replies_count: u32,
}

/// What all clients of a world know.
#[derive(Debug)]
pub struct Common<'a> {
    /// What the origin holds.
    pub model: &'a mut Model,
    /// Which rare paths were walked.
    pub marks: &'a mut Marks,
    /// What the tenant with a rate has got.
    pub quota: &'a mut Quota,
    /// When it is.
    pub now: Instant,
}

/// A reply whose head was read.
#[derive(Debug)]
struct Reply {
    status: u16,
    expected: Expected,
    close: bool,
    /// Bytes of the body read so far.
    offset: usize,
    size: usize,
    /// How much of it was read, where it is the items of a batch.
    items: Option<Items>,
}

impl Reader {
    /// The server has said that there will be no more replies.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Nothing is owed, and nothing was read of a next reply.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.owed.is_empty() && self.unparsed.is_empty()
    }

    /// Part of a reply was read, but not all.
    #[must_use]
    pub const fn is_within(&self) -> bool {
        self.reply.is_some() || !self.unparsed.is_empty()
    }

    /// Part of the items of a batch was read, but not all.
    #[must_use]
    pub fn is_within_items(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| reply.items.is_some())
    }

    /// A request that is owed its reply may be the last that the server reads.
    #[must_use]
    pub fn may_be_refused(&self) -> bool {
        // Where a client waits to be told to send its body, nobody knows whether that follows.
        let may_be = |owed: &Owed| {
            matches!(&owed.ask, Ask::Batch(batch) if batch.may_be_last())
                || owed.badge.is_some() && owed.interim != Interim::Unasked
        };
        self.owed.iter().any(may_be)
    }

    /// Whether the request of this number, from 0, is to wait before it sends its body: the server
    /// has neither asked for it nor answered.
    #[must_use]
    pub fn holds_back(&self, number: u32) -> bool {
        let place = number.checked_sub(self.replies_count);
        let owed = place.and_then(|place| self.owed.get(place as usize));
        !self.closed && owed.is_some_and(|owed| owed.interim == Interim::Asked)
    }

    /// Takes what was read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, bytes: &[u8], common: &mut Common<'_>) -> Result<(), String> {
        if self.unparsed.is_empty() {
            let taken = self.take_from(bytes, common)?;
            self.unparsed.extend(&bytes[taken..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.unparsed);
        all.extend(bytes);
        let taken = self.take_from(&all, common)?;
        all.drain(..taken);
        self.unparsed = all;
        Ok(())
    }

    /// Takes what it can; returns how much that is.
    fn take_from(&mut self, bytes: &[u8], common: &mut Common<'_>) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.reply.is_none() {
                match self.take_head(rest, common)? {
                    Some(size) => at += size,
                    None => return Ok(at),
                }
            }
            match &self.reply {
                Some(Reply { items: Some(_), .. }) => {
                    at += self.take_items(&bytes[at..], common)?
                }
                Some(_) => at += self.take_body(&bytes[at..], common)?,
                None => {}
            }
        }
        Ok(at)
    }

    /// Takes the next head, if all of it is there; returns its size.
    fn take_head(
        &mut self,
        bytes: &[u8],
        common: &mut Common<'_>,
    ) -> Result<Option<usize>, String> {
        if self.closed {
            return Err(format!("bytes after the last reply: {}", reply::show(bytes)));
        }
        let Some(owed) = self.owed.front_mut() else {
            return Err(format!("a reply that nobody asked for: {}", reply::show(bytes)));
        };
        let Some((head, size)) = reply::parse(bytes)? else { return Ok(None) };
        if head.status == 100 && owed.interim == Interim::Asked {
            owed.interim = Interim::Given;
            let is_batch = matches!(owed.ask, Ask::Batch(_));
            common.marks.hit(if is_batch { Mark::BatchContinued } else { Mark::WriteContinued });
            return Ok(Some(size));
        }
        let expected = request::check(owed, &head, common.model, self.excuses)
            .map_err(|error| format!("{error}\n{owed:?}\n{head:?}"))?;
        let has_none = expected.body == Body::None;
        let body_size = if has_none { 0 } else { head.content_length.unwrap_or(0) };
        let has_items = expected.body == Body::Items;
        let items = if let (Ask::Batch(batch), true) = (&owed.ask, has_items) {
            Some(Items::new(batch))
        } else {
            None
        };
        let (status, close) = (head.status, head.close);
        self.reply = Some(Reply { status, expected, close, offset: 0, size: body_size, items });
        Ok(Some(size))
    }

    /// Takes what there is of the items, up to the end of one; returns how much that is.
    fn take_items(&mut self, bytes: &[u8], common: &mut Common<'_>) -> Result<usize, String> {
        let reply = self.reply.as_mut().expect("a head was read");
        let items = reply.items.as_mut().expect("they are read as such");
        let owed = self.owed.front().expect("each reply was asked for");
        let Ask::Batch(batch) = &owed.ask else { unreachable!("nothing else has items") };
        let terms = Terms { owed, batch, model: common.model, excuses: self.excuses };
        let (size, shown) =
            items.take(bytes, terms, common.marks).map_err(|error| format!("{error}\n{owed:?}"))?;
        match shown {
            None => {}
            Some(Shown::Item(index, versions)) => {
                let (key, floor) = (batch.items[index].key, batch.items[index].floor);
                if !versions.is_empty() {
                    self.learn(key, None, &versions, common)?;
                    common.marks.hit_if(floor > 0, Mark::BatchBehindWrite);
                }
            }
            Some(Shown::End) => {
                self.end_reply(common)?;
            }
        }
        Ok(size)
    }

    /// A reply is complete: what was expected, and of what request.
    fn end_reply(&mut self, common: &mut Common<'_>) -> Result<(Expected, Owed), String> {
        let Reply { status, expected, close, items, .. } =
            self.reply.take().expect("it is complete");
        let owed = self.owed.pop_front().expect("each reply was asked for");
        self.replies_count += 1;
        self.closed = close;
        let Common { model, marks, quota, now } = common;
        let standing = owed.standing(model);
        let is_refused = standing.refusal().is_some_and(|(refusal, _)| refusal == status);
        marks.hit_if(is_refused && status == 401, Mark::Unauthorized);
        marks.hit_if(is_refused && status == 403, Mark::Forbidden);
        marks.hit_if(is_refused && status == 429, Mark::RateLimited);
        if let (Ask::Batch(batch), false) = (&owed.ask, is_refused) {
            batch::note(batch, model, marks);
        }
        // A head that says how large its body is may be refused for that alone.
        if standing == Standing::Limited && !is_refused && status != 413 {
            let items = match (&owed.ask, items) {
                (Ask::Batch(batch), Some(items)) => batch.items.len() - items.limited_count,
                _ => 0,
            };
            quota.admit(1 + items as u64, owed.composed, *now)?;
        }
        Ok((expected, owed))
    }

    /// Takes what there is of the body; returns how much that is.
    fn take_body(&mut self, bytes: &[u8], common: &mut Common<'_>) -> Result<usize, String> {
        let reply = self.reply.as_mut().expect("a head was read");
        let size = bytes.len().min(reply.size - reply.offset);
        check_body(reply, &bytes[..size], common.model)?;
        reply.offset += size;
        if reply.offset < reply.size {
            return Ok(size);
        }
        let (expected, owed) = self.end_reply(common)?;
        match expected.told {
            Told::Nothing => {}
            Told::Versions { key, tag, versions } => {
                self.learn(key, tag, &versions, common)?;
                common.marks.hit_if(owed.floor > 0, Mark::ReadBehindWrite);
            }
            Told::Write { key, id } => self.learn_write(key, id, common)?,
        }
        Ok(size)
    }

    /// A reader was shown one of these versions of a key.
    fn learn(
        &self,
        key: KeyNumber,
        tag: Option<Tag>,
        versions: &[Version],
        common: &mut Common<'_>,
    ) -> Result<(), String> {
        let Common { model, marks, now, .. } = common;
        // Small values may be the same.
        if let [version] = versions
            && let Content::Value(edition) = model.at(key, *version)
        {
            learn_etag(model, key, edition, tag)?;
            if let Some(write) = model.writer_of(key, edition) {
                marks.hit_if(!model.is_answered(write), Mark::ShownBeforeAnswer);
                let is_behind = |owed: &Owed| owed.ask == Ask::Write { key, id: write };
                if self.owed.iter().any(is_behind) {
                    return Err(format!("key {key} is as a write behind the read makes it"));
                }
            }
        }
        let oldest = versions.first().expect("a reply has one of some versions");
        model.show(key, *oldest, *now);
        Ok(())
    }

    /// A client was told what became of its write.
    fn learn_write(
        &mut self,
        key: KeyNumber,
        id: WriteId,
        common: &mut Common<'_>,
    ) -> Result<(), String> {
        let Common { model, marks, now, .. } = common;
        model.answer(id);
        let fate = model.fate(id);
        marks.hit_if(fate == Fate::Failed(FetchFailure::NoRoom), Mark::WriteShed);
        if let (Fate::Stored { .. }, (_, Change::Put(edition), _)) = (fate, model.written(id)) {
            let tag = model.tag(key, Content::Value(edition));
            learn_etag(model, key, edition, tag)?;
        }
        if let Fate::Refused(version) = fate {
            model.show(key, version, *now);
        }
        let Some(version) = fate.version() else { return Ok(()) };
        model.forget_before(key, version, *now);
        // The server reads on only when it has written.
        for owed in &mut self.owed {
            owed.raise_floor(key, version);
        }
        Ok(())
    }
}

fn learn_etag(
    model: &mut Model,
    key: KeyNumber,
    edition: Edition,
    tag: Option<Tag>,
) -> Result<(), String> {
    match tag {
        Some(tag) if !model.learn_etag(key, edition, tag) => {
            Err(format!("edition {edition} of key {key} has two ETags"))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_body(reply: &mut Reply, bytes: &[u8], model: &Model) -> Result<(), String> {
    let offset = reply.offset;
    let right = match (&reply.expected.body, &mut reply.expected.told) {
        (Body::None, _) => true,
        (Body::Value, Told::Versions { key, versions, .. }) => {
            versions.retain(|version| {
                let content = model.at(*key, *version);
                matches!(content, Content::Value(edition)
                    if model.agrees(*key, edition, offset, bytes))
            });
            !versions.is_empty()
        }
        (Body::Value, Told::Nothing | Told::Write { .. }) | (Body::Items, _) => false,
        (Body::Text(text), _) => text.as_bytes()[offset..].starts_with(bytes),
        (Body::Error, _) => {
            let start = br#"{"error":""#;
            (offset..).zip(bytes).all(|(at, byte)| match start.get(at) {
                Some(want) => byte == want,
                None if at + 1 == reply.size => *byte == b'}',
                None if at + 2 == reply.size => *byte == b'"',
                None => byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_',
            })
        }
    };
    if right {
        Ok(())
    } else {
        let (expected, shown) = (&reply.expected, reply::show(bytes));
        Err(format!("wrong body at {offset} of {}, {expected:?}: {shown}", reply.size))
    }
}
