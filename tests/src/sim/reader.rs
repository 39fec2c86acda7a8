//! Checks what a client reads against what it is owed, byte by byte as it comes.
//!
//! At all times the bytes read are a prefix of correct replies, in the order of the requests. So
//! a wrong byte is found when it is read, not when its reply is complete. What a reply tells of a
//! key is known from when all of it was read: nobody who asks later may be told something older.

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
    /// When it is.
    pub now: Instant,
}

/// A reply whose head was read.
#[derive(Debug)]
struct Reply {
    expected: Expected,
    close: bool,
    /// Bytes of the body read so far.
    offset: usize,
    size: usize,
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
            if self.reply.is_some() {
                at += self.take_body(&bytes[at..], common)?;
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
            common.marks.hit(Mark::WriteContinued);
            return Ok(Some(size));
        }
        let expected = request::check(owed, &head, common.model, self.excuses)
            .map_err(|error| format!("{error}\n{owed:?}\n{head:?}"))?;
        let has_none = expected.body == Body::None;
        let body_size = if has_none { 0 } else { head.content_length.unwrap_or(0) };
        self.reply = Some(Reply { expected, close: head.close, offset: 0, size: body_size });
        Ok(Some(size))
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
        let Reply { expected, close, .. } = self.reply.take().expect("it is complete");
        let owed = self.owed.pop_front().expect("each reply was asked for");
        self.replies_count += 1;
        self.closed = close;
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
        let Common { model, marks, now } = common;
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
        let Common { model, marks, now } = common;
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
        for owed in self.owed.iter_mut().filter(|owed| owed.key() == Some(key)) {
            owed.floor = owed.floor.max(version);
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
        (Body::Value, Told::Nothing | Told::Write { .. }) => false,
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
