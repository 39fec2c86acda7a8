//! Checks what a client reads against what it is owed, byte by byte as it comes.
//!
//! At all times the bytes read are a prefix of correct replies, in the order of the requests. So
//! a wrong byte is found when it is read, not when its reply is complete.

use super::reply;
use super::request::{self, Body, Excuses, Owed};
use crate::model::Model;
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

/// A reply whose head was read.
#[derive(Debug)]
struct Reply {
    body: Body,
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

    /// Takes what was read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, bytes: &[u8], model: &mut Model) -> Result<(), String> {
        if self.unparsed.is_empty() {
            let taken = self.take_from(bytes, model)?;
            self.unparsed.extend(&bytes[taken..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.unparsed);
        all.extend(bytes);
        let taken = self.take_from(&all, model)?;
        all.drain(..taken);
        self.unparsed = all;
        Ok(())
    }

    /// Takes what it can; returns how much that is.
    fn take_from(&mut self, bytes: &[u8], model: &mut Model) -> Result<usize, String> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.reply.is_none() {
                match self.take_head(rest, model)? {
                    Some(size) => at += size,
                    None => return Ok(at),
                }
            }
            at += self.take_body(&bytes[at..], model)?;
        }
        Ok(at)
    }

    /// Takes the head of the next reply, if all of it is there; returns its size.
    fn take_head(&mut self, bytes: &[u8], model: &Model) -> Result<Option<usize>, String> {
        if self.closed {
            return Err(format!("bytes after the last reply: {}", reply::show(bytes)));
        }
        let Some(owed) = self.owed.front() else {
            return Err(format!("a reply that nobody asked for: {}", reply::show(bytes)));
        };
        let Some((head, size)) = reply::parse(bytes)? else { return Ok(None) };
        let body = request::check(owed, &head, model, self.excuses)
            .map_err(|error| format!("{error}\n{owed:?}\n{head:?}"))?;
        let body_size = if body == Body::None { 0 } else { head.content_length.unwrap_or(0) };
        self.reply = Some(Reply { body, close: head.close, offset: 0, size: body_size });
        Ok(Some(size))
    }

    /// Takes what there is of the body; returns how much that is.
    fn take_body(&mut self, bytes: &[u8], model: &mut Model) -> Result<usize, String> {
        let reply = self.reply.as_mut().expect("a head was read");
        let size = bytes.len().min(reply.size - reply.offset);
        check_body(reply, &bytes[..size], model)?;
        reply.offset += size;
        if reply.offset < reply.size {
            return Ok(size);
        }
        let Reply { body, close, .. } = self.reply.take().expect("it is complete");
        self.owed.pop_front().expect("each reply was asked for");
        self.replies_count += 1;
        self.closed = close;
        // Small values of two versions may be the same.
        if let Body::Value { key, tag, versions } = body
            && let [version] = versions[..]
            && !model.learn_etag(key, version, tag)
        {
            return Err(format!("key {key} version {version} has two ETags"));
        }
        Ok(size)
    }
}

fn check_body(reply: &mut Reply, bytes: &[u8], model: &Model) -> Result<(), String> {
    let offset = reply.offset;
    let right = match &mut reply.body {
        Body::None => true,
        Body::Value { key, versions, .. } => {
            versions.retain(|version| model.agrees(*key, *version, offset, bytes));
            !versions.is_empty()
        }
        Body::Text(text) => text.as_bytes()[offset..].starts_with(bytes),
        Body::Error => {
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
        let (body, shown) = (&reply.body, reply::show(bytes));
        Err(format!("wrong body at {offset} of {}, {body:?}: {shown}", reply.size))
    }
}
