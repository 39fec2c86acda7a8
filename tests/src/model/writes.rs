//! What clients write, and what became of it.
//!
//! A client notes a write before it sends it. When a shard orders it, it is recognised: a value by
//! its bytes, which no other value has that is under way to the key, and a removal by its *stamp*,
//! an ETag in If-None-Match that nothing ever has; one removal of a key at a time goes without.
//!
//! Invariant: a write is ordered once at most, and its fate is decided once at most, but for one
//! that nobody knew of.

use super::{Cause, Content, Edition, KeyNumber, Model, Tag, Version};
use crate::prng::Prng;
use pelton::error::FetchFailure;
use pelton::mesh::Upload;
use shard_cache::hash::Etag;
use shard_cache::time::Instant;

/// A write, by number.
pub type WriteId = usize;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key gets this value.
    Put(Edition),
    /// The key goes.
    Delete,
}

/// ETags, as `If-Match` and `If-None-Match` name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing: there is no such line.
    Nothing,
    /// Any value.
    Any,
    /// Values with these ETags.
    Tags([Option<Tag>; 2]),
}

/// When a write is done (RFC 9110 section 13.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The key has one of these.
    pub if_match: Held,
    /// The key has none of these.
    pub if_none_match: Held,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No shard has ordered it.
    Sent,
    /// The origin is at it.
    Ordered,
    /// The key has this version by it.
    Stored {
        /// The version.
        version: Version,
        /// There was no value before.
        is_new: bool,
    },
    /// The key went with this version.
    Deleted(Version),
    /// There was nothing to delete in this version.
    Absent(Version),
    /// This version did not meet the condition.
    Refused(Version),
    /// It was not done.
    Failed(FetchFailure),
    /// The plane was not told. The key may have this version by it.
    Unknown(Option<Version>),
}

/// All writes of a world.
#[derive(Debug, Default)]
pub(super) struct Writes {
    all: Vec<Write>,
    /// Those that no origin has been asked for yet.
    sent: Vec<WriteId>,
}

#[derive(Debug)]
struct Write {
    key: KeyNumber,
    change: Change,
    condition: Condition,
    fate: Fate,
    /// Its client was told.
    is_answered: bool,
}

impl Held {
    /// Whether an ETag is named.
    #[must_use]
    pub fn has(self, tag: Tag) -> bool {
        match self {
            Self::Nothing => false,
            Self::Any => true,
            Self::Tags(tags) => tags.contains(&Some(tag)),
        }
    }
}

impl Condition {
    /// There is none.
    pub const NONE: Self = Self { if_match: Held::Nothing, if_none_match: Held::Nothing };

    /// Whether it is met by what has the tag `current`, or is not there.
    #[must_use]
    pub fn holds(self, current: Option<Tag>) -> bool {
        let is_in = |held: Held| current.is_some_and(|tag| held.has(tag));
        (self.if_match == Held::Nothing || is_in(self.if_match)) && !is_in(self.if_none_match)
    }

    /// It has the stamp of this write.
    fn stamped(self, id: WriteId) -> Self {
        let known = match self.if_none_match {
            Held::Nothing | Held::Any => None,
            Held::Tags([known, _]) => known,
        };
        Self { if_none_match: Held::Tags([known, Some(stamp(id))]), ..self }
    }
}

impl Fate {
    /// The version that a client knows of who is told this.
    #[must_use]
    pub const fn version(self) -> Option<Version> {
        match self {
            Self::Stored { version, .. } | Self::Deleted(version) | Self::Absent(version) => {
                Some(version)
            }
            Self::Unknown(version) => version,
            Self::Sent | Self::Ordered | Self::Refused(_) | Self::Failed(_) => None,
        }
    }
}

impl Model {
    /// A client is about to put a value that the key never had, or to delete the key.
    pub fn write(&mut self, key: KeyNumber, puts: bool, prng: &mut Prng) -> WriteId {
        let id = self.writes.all.len();
        let mut condition = self.draw_condition(key, prng);
        let change = if puts { Change::Put(self.make_other(key)) } else { Change::Delete };
        let is_recognised = puts || condition == Condition::NONE && !self.has_plain_delete(key);
        if !is_recognised {
            condition = condition.stamped(id);
        }
        let (fate, is_answered) = (Fate::Sent, false);
        self.writes.all.push(Write { key, change, condition, fate, is_answered });
        self.writes.sent.push(id);
        id
    }

    /// A value that is like none that is on its way to the key.
    fn make_other(&mut self, key: KeyNumber) -> Edition {
        loop {
            let edition = self.make_edition(key);
            let value = self.value(key, edition);
            let is_alike = |write: &Write| match write.change {
                Change::Put(other) => self.is_value(key, other, &value),
                Change::Delete => false,
            };
            if !self.sent_to(key).any(|(_, write)| is_alike(write)) {
                return edition;
            }
        }
    }

    fn has_plain_delete(&self, key: KeyNumber) -> bool {
        self.sent_to(key)
            .any(|(_, write)| write.change == Change::Delete && write.condition == Condition::NONE)
    }

    fn sent_to(&self, key: KeyNumber) -> impl Iterator<Item = (WriteId, &Write)> {
        let writes = self.writes.sent.iter().map(|id| (*id, &self.writes.all[*id]));
        writes.filter(move |(_, write)| write.key == key)
    }

    fn draw_condition(&self, key: KeyNumber, prng: &mut Prng) -> Condition {
        let known = self.known_etag(key, prng);
        let tags = known.map_or(Held::Nothing, |tag| Held::Tags([Some(tag), None]));
        let one = |if_match, if_none_match| Condition { if_match, if_none_match };
        match prng.below(16) {
            0 => one(Held::Any, Held::Nothing),
            1 => one(Held::Nothing, Held::Any),
            2 => one(Held::Nothing, tags),
            3 => one(Held::Any, tags),
            4..=6 => one(tags, Held::Nothing),
            _ => Condition::NONE,
        }
    }

    /// What a write does, to which key, and when.
    #[must_use]
    pub fn written(&self, id: WriteId) -> (KeyNumber, Change, Condition) {
        let Write { key, change, condition, .. } = self.writes.all[id];
        (key, change, condition)
    }

    /// What became of a write.
    #[must_use]
    pub fn fate(&self, id: WriteId) -> Fate {
        self.writes.all[id].fate
    }

    /// Its client was told what became of a write.
    pub fn answer(&mut self, id: WriteId) {
        self.writes.all[id].is_answered = true;
    }

    /// Whether its client was told what became of a write.
    #[must_use]
    pub fn is_answered(&self, id: WriteId) -> bool {
        self.writes.all[id].is_answered
    }

    /// The write that a value came by, if it was one.
    #[must_use]
    pub fn writer_of(&self, key: KeyNumber, edition: Edition) -> Option<WriteId> {
        let is_it = |write: &Write| write.key == key && write.change == Change::Put(edition);
        self.writes.all.iter().rposition(is_it)
    }

    /// A shard asks the origin for a write.
    ///
    /// # Panics
    /// If no client is waiting for it: it is asked for twice, or is nobody's.
    pub fn order_write(&mut self, upload: &Upload) -> WriteId {
        let key = self.find(upload.key().as_bytes()).expect("clients write keys that there are");
        let is_it = |id: WriteId, write: &Write| match write.change {
            Change::Put(edition) => {
                matches!(upload.change, pelton::mesh::Change::Put { .. })
                    && self.is_value(key, edition, upload.body())
            }
            Change::Delete => {
                let set = &upload.precondition.if_none_match;
                let has_stamp = |id| set.matches(Etag::from_bits(stamp(id)));
                let is_plain = write.condition == Condition::NONE;
                upload.change == pelton::mesh::Change::Delete
                    && if is_plain { upload.precondition == PLAIN } else { has_stamp(id) }
            }
        };
        let found = self.sent_to(key).find(|(id, write)| is_it(*id, write));
        let (id, _) = found.unwrap_or_else(|| {
            panic!("no client waits for this write of key {key}: {:?}", upload.change)
        });
        self.writes.sent.retain(|other| *other != id);
        self.writes.all[id].fate = Fate::Ordered;
        id
    }

    /// The origin does a write, if its condition is met.
    pub fn do_write(&mut self, id: WriteId, cause: Cause, now: Instant) -> Fate {
        let Write { key, change, condition, fate, .. } = self.writes.all[id];
        assert!(matches!(fate, Fate::Ordered | Fate::Unknown(None)), "a write is done once");
        let (before, content) = (self.newest(key), self.content(key));
        let is_new = content == Content::Absent;
        if !condition.holds(self.tag(key, content)) {
            return Fate::Refused(before);
        }
        match change {
            Change::Put(edition) => {
                let version = self.change(key, Content::Value(edition), cause, now);
                Fate::Stored { version, is_new }
            }
            Change::Delete if is_new => Fate::Absent(before),
            Change::Delete => Fate::Deleted(self.change(key, Content::Absent, cause, now)),
        }
    }

    /// From now on, this is what became of a write.
    pub fn decide(&mut self, id: WriteId, fate: Fate) {
        self.writes.all[id].fate = fate;
    }

    /// The ETag of what a key is; none of what is not there.
    #[must_use]
    pub fn tag(&self, key: KeyNumber, content: Content) -> Option<Tag> {
        match content {
            Content::Value(edition) => {
                let content_type = self.content_type(key, edition);
                Some(Etag::of(content_type, &self.value(key, edition)).bits())
            }
            Content::TooLarge => Some(TAG_TOO_LARGE),
            Content::Absent | Content::Failing => None,
        }
    }

    /// Writes that a shard has asked for, and no client may ever hear of.
    #[must_use]
    pub fn writes_undecided(&self) -> usize {
        self.writes.all.iter().filter(|write| write.fate == Fate::Ordered).count()
    }
}

/// The stamp of a write.
const fn stamp(id: WriteId) -> Tag {
    1 << 63 | id as u64
}

/// The tag of a value that is never served.
const TAG_TOO_LARGE: Tag = 2;

/// No condition, as a shard hands it on.
const PLAIN: pelton::mesh::Precondition =
    pelton::mesh::Precondition { if_match: None, if_none_match: pelton::http::EtagSet::EMPTY };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Ages;

    #[test]
    fn a_condition_speaks_of_what_is_there() {
        let tags = Held::Tags([Some(7), None]);
        for (if_match, if_none_match, current, holds) in [
            (Held::Nothing, Held::Nothing, None, true),
            (Held::Any, Held::Nothing, None, false),
            (Held::Any, Held::Nothing, Some(7), true),
            (tags, Held::Nothing, Some(8), false),
            (Held::Nothing, Held::Any, None, true),
            (Held::Nothing, Held::Any, Some(7), false),
            (Held::Nothing, tags, Some(7), false),
            (Held::Any, tags, Some(8), true),
        ] {
            let condition = Condition { if_match, if_none_match };
            assert_eq!(condition.holds(current), holds, "{condition:?} of {current:?}");
        }
    }

    #[test]
    fn a_write_is_done_if_its_condition_is_met() {
        let mut model = Model::new(5, 200, 1000, 0, Ages::Never);
        let key = (0..200).find(|key| model.content(*key) == Content::Absent).unwrap();
        let mut prng = Prng::new(1);
        let mut write = |model: &mut Model, puts, condition| {
            let id = model.write(key, puts, &mut prng);
            model.writes.all[id].condition = condition;
            model.decide(id, Fate::Ordered);
            model.do_write(id, Cause::Write, Instant::ZERO)
        };
        let any = Condition { if_match: Held::Any, ..Condition::NONE };
        assert_eq!(write(&mut model, true, any), Fate::Refused(0));
        assert_eq!(write(&mut model, false, Condition::NONE), Fate::Absent(0));
        let stored = Fate::Stored { version: 1, is_new: true };
        assert_eq!(write(&mut model, true, Condition::NONE), stored);
        let stored = Fate::Stored { version: 2, is_new: false };
        assert_eq!(write(&mut model, true, any), stored);
        assert_eq!(write(&mut model, false, any), Fate::Deleted(3));
        assert_eq!(model.content(key), Content::Absent);
    }
}
