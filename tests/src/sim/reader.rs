//! Checks what a client reads against what it is owed, byte by byte as it comes.
//!
//! At all times the bytes read are a prefix of correct replies, in the order of the requests. So
//! a wrong byte is found when it is read, not when its reply is complete.

use super::reply::{self, Head};
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
    unparsed: Vec<u8>,
    reply: Option<Reply>,
    closed: bool,
    /// Complete replies.
    pub replies_count: u32,
}

/// A reply whose head was read.
#[derive(Debug)]
struct Reply {
    head: Head,
    body: Body,
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
        self.unparsed.extend(bytes);
        while !self.unparsed.is_empty() {
            if self.closed {
                return Err(format!("bytes after the last reply: {}", reply::show(&self.unparsed)));
            }
            let Some(owed) = self.owed.front() else {
                return Err(format!(
                    "a reply that nobody asked for: {}",
                    reply::show(&self.unparsed)
                ));
            };
            if self.reply.is_none() {
                let Some((head, size)) = reply::parse(&self.unparsed)? else { return Ok(()) };
                let body = request::check(owed, &head, model, self.excuses)
                    .map_err(|error| format!("{error}\n{owed:?}\n{head:?}"))?;
                self.unparsed.drain(..size);
                let size = if body == Body::None { 0 } else { head.content_length.unwrap_or(0) };
                self.reply = Some(Reply { head, body, offset: 0, size });
            }
            if !self.take_body(model)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes what there is of the body. Returns whether the reply is complete.
    fn take_body(&mut self, model: &mut Model) -> Result<bool, String> {
        let reply = self.reply.as_mut().expect("a head was read");
        let size = self.unparsed.len().min(reply.size - reply.offset);
        let bytes: Vec<u8> = self.unparsed.drain(..size).collect();
        check_body(reply, &bytes, model)?;
        reply.offset += size;
        if reply.offset < reply.size {
            return Ok(false);
        }
        let Reply { head, body, .. } = self.reply.take().expect("it is complete");
        let owed = self.owed.pop_front().expect("each reply was asked for");
        self.replies_count += 1;
        self.closed = head.close;
        if let Body::Value { key, versions } = body {
            // Small values of two versions may be the same.
            let fresh: Vec<usize> = versions
                .into_iter()
                .filter(|version| model.may_serve(key, *version, owed.asked))
                .collect();
            let Some(version) = fresh.last() else {
                return Err(format!("a value of key {key} that is older than allowed"));
            };
            let etag = head.etag.expect("checked with the head");
            if fresh.len() == 1 && !model.learn_etag(key, *version, &etag) {
                return Err(format!("key {key} version {version} has two ETags"));
            }
        }
        Ok(true)
    }
}

fn check_body(reply: &mut Reply, bytes: &[u8], model: &Model) -> Result<(), String> {
    let offset = reply.offset;
    let right = match &mut reply.body {
        Body::None => true,
        Body::Value { key, versions } => {
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
        Err(format!(
            "wrong body at {offset} of {}, {body:?}: {shown}\n{:?}",
            reply.size, reply.head
        ))
    }
}
