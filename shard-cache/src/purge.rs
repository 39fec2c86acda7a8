//! Purging without a walk: rules that hide what was stored before them.
//!
//! Every entry bears the *stamp* of its storing, in milliseconds on a clock of the cache's own that
//! never lags the caller's and that a purge puts ahead of all entries stored so far. A rule says
//! what it hides and up to which stamp; an entry is served only if no rule hides it. So a purge is
//! exact, also within a millisecond, and costs the same whatever it hides.
//!
//! ```text
//! rule   everything                  one number
//!        a prefix of keys            at most 32, looked through
//!        a group of keys             at most 1,024, sorted by the hash of the group's name
//! ```
//!
//! The *group* of a key is what stands before its first separator (`:`, if the owner has set no
//! other): `user` is the group of `user:42`. It is read from the key, so it costs no byte an entry,
//! and it needs no list of members. A key without a separator is in no group. A purge by group is
//! not a purge by prefix: it is matched by a hash, so there may be many, and `user` does not hide
//! `users:1`.
//!
//! Without rules a lookup makes one comparison; with some, entries newer than the newest rule are
//! not looked at further. A segment takes only entries that no rule of its time hides, whether
//! stored or moved, so a rule *retires* when no segment is left that was opened before it. Where
//! more than half of the rules of a kind are in use, upkeep moves the oldest segments' entries to
//! make that happen.

use crate::hash::KeyHasher;
use crate::layout::KEY_SIZE_MAX;

/// Rules for prefixes. Each is compared with the key of an entry that is older than it.
pub(crate) const PREFIXES_MAX: usize = 32;

/// Rules for groups.
pub(crate) const GROUPS_MAX: usize = 1_024;

/// Separates a group's name from the rest of a key, if the owner says nothing else.
const SEPARATOR: u8 = b':';

/// What a purge hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge<'a> {
    /// All entries.
    Everything,
    /// The entries whose keys begin with these bytes.
    Prefix(&'a [u8]),
    /// The entries whose keys have these bytes, and no separator in them, before their first
    /// separator.
    Group(&'a [u8]),
}

/// All rules of this kind are in use: purge something larger, or try again when some have retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeRefused;

/// Hides what begins with its bytes.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    until: u64,
    size: u16,
    bytes: [u8; KEY_SIZE_MAX],
}

impl Prefix {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

/// Hides a group.
#[derive(Clone, Copy, Debug)]
struct Group {
    name: u64,
    until: u64,
}

/// Bytes that the rules take.
pub(crate) const RULES_SIZE: usize =
    PREFIXES_MAX * size_of::<Prefix>() + GROUPS_MAX * size_of::<Group>();

/// The rules of a cache.
#[derive(Debug)]
pub(crate) struct Rules {
    separator: u8,
    /// The newest stamp that an entry bears.
    stamped: u64,
    /// The next one is at least this.
    floor: u64,
    /// The newest stamp that a rule hides; 0, which no entry bears, without rules.
    newest: u64,
    /// The stamp up to which the oldest rule hides; `u64::MAX` without rules.
    oldest: u64,
    /// Everything up to this stamp is hidden; 0 if that is no rule.
    everything: u64,
    prefixes: Vec<Prefix>,
    groups: Vec<Group>,
    /// None retires: entries are under way in a snapshot that are older than any segment.
    are_held: bool,
}

/// A rule that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule<'a> {
    Everything,
    Prefix(&'a [u8]),
    /// The hash of the group's name.
    Group(u64),
}

impl Rules {
    pub(crate) fn new() -> Self {
        Self {
            separator: SEPARATOR,
            stamped: 0,
            floor: 1,
            newest: 0,
            oldest: u64::MAX,
            everything: 0,
            prefixes: Vec::with_capacity(PREFIXES_MAX),
            groups: Vec::with_capacity(GROUPS_MAX),
            are_held: false,
        }
    }

    pub(crate) const fn hold(&mut self, are_held: bool) {
        self.are_held = are_held;
    }

    /// All rules, each with the stamp up to which it hides.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Rule<'_>, u64)> {
        let everything = Some(self.everything).filter(|until| *until > 0);
        let prefixes = self.prefixes.iter().map(|rule| (Rule::Prefix(rule.bytes()), rule.until));
        let groups = self.groups.iter().map(|rule| (Rule::Group(rule.name), rule.until));
        everything.map(|until| (Rule::Everything, until)).into_iter().chain(prefixes).chain(groups)
    }

    pub(crate) fn set_separator(&mut self, separator: u8) {
        assert!(self.groups.is_empty(), "groups that were purged keep their meaning");
        self.separator = separator;
    }

    /// The stamp of an entry that is stored now, or a segment that is opened.
    pub(crate) fn stamp(&mut self, now_ms: u64) -> u64 {
        self.stamped = now_ms.max(self.floor);
        self.stamped
    }

    /// Everything up to this stamp is hidden.
    pub(crate) const fn everything(&self) -> u64 {
        self.everything
    }

    /// The stamp up to which the oldest rule hides; `u64::MAX` without rules.
    pub(crate) const fn oldest(&self) -> u64 {
        self.oldest
    }

    /// Rules in use.
    pub(crate) fn count(&self) -> usize {
        self.prefixes.len() + self.groups.len() + usize::from(self.everything > 0)
    }

    /// Whether rules should retire soon.
    pub(crate) fn is_crowded(&self) -> bool {
        self.prefixes.len() > PREFIXES_MAX / 2 || self.groups.len() > GROUPS_MAX / 2
    }

    /// Hides what was stored so far.
    pub(crate) fn add(&mut self, what: Purge<'_>, hasher: &KeyHasher) -> Result<(), PurgeRefused> {
        let until = self.stamped;
        self.put(
            match what {
                Purge::Everything | Purge::Prefix([]) => Rule::Everything,
                // Longer than any key.
                Purge::Prefix(bytes) if bytes.len() > KEY_SIZE_MAX => return Ok(()),
                Purge::Prefix(bytes) => Rule::Prefix(bytes),
                Purge::Group(name) => Rule::Group(hasher.hash(name).bits()),
            },
            until,
        )?;
        self.floor = until + 1;
        Ok(())
    }

    /// Puts a rule in force that is newer than those that are.
    pub(crate) fn put(&mut self, rule: Rule<'_>, until: u64) -> Result<(), PurgeRefused> {
        match rule {
            Rule::Everything => {
                self.everything = until;
                self.prefixes.clear();
                self.groups.clear();
            }
            Rule::Prefix(bytes) => self.add_prefix(bytes, until)?,
            Rule::Group(name) => {
                match self.groups.binary_search_by_key(&name, |group| group.name) {
                    Ok(at) => self.groups[at].until = until,
                    Err(_) if self.groups.len() == GROUPS_MAX => return Err(PurgeRefused),
                    Err(at) => self.groups.insert(at, Group { name, until }),
                }
            }
        }
        self.find_bounds();
        Ok(())
    }

    fn add_prefix(&mut self, wanted: &[u8], until: u64) -> Result<(), PurgeRefused> {
        // What begins with the new one needs no rule of its own.
        self.prefixes.retain(|prefix| !prefix.bytes().starts_with(wanted));
        if self.prefixes.len() == PREFIXES_MAX {
            return Err(PurgeRefused);
        }
        let mut bytes = [0; KEY_SIZE_MAX];
        bytes[..wanted.len()].copy_from_slice(wanted);
        let size = u16::try_from(wanted.len()).expect("at most a key's size");
        self.prefixes.push(Prefix { until, size, bytes });
        Ok(())
    }

    fn find_bounds(&mut self) {
        let prefixes = self.prefixes.iter().map(|prefix| prefix.until);
        let groups = self.groups.iter().map(|group| group.until);
        let everything = Some(self.everything).filter(|until| *until > 0);
        (self.oldest, self.newest) = prefixes
            .chain(groups)
            .chain(everything)
            .fold((u64::MAX, 0), |(least, most), until| (least.min(until), most.max(until)));
    }

    /// Whether there are rules.
    #[inline]
    pub(crate) const fn are_any(&self) -> bool {
        self.newest > 0
    }

    /// Whether an entry with this key and stamp is hidden.
    pub(crate) fn hide(&self, hasher: &KeyHasher, key: &[u8], stamp: u64) -> bool {
        stamp <= self.newest && self.match_any(hasher, key, stamp)
    }

    fn match_any(&self, hasher: &KeyHasher, key: &[u8], stamp: u64) -> bool {
        if stamp <= self.everything {
            return true;
        }
        let is_match = |prefix: &Prefix| stamp <= prefix.until && key.starts_with(prefix.bytes());
        if self.prefixes.iter().any(is_match) {
            return true;
        }
        if self.groups.is_empty() {
            return false;
        }
        let Some(size) = key.iter().position(|byte| *byte == self.separator) else { return false };
        let name = hasher.hash(&key[..size]).bits();
        let found = self.groups.binary_search_by_key(&name, |group| group.name);
        found.is_ok_and(|at| stamp <= self.groups[at].until)
    }

    /// Drops the rules that hide nothing that was stored after `opened`, where nothing older is
    /// left.
    pub(crate) fn retire(&mut self, opened: u64) {
        if self.oldest < opened && !self.are_held {
            self.prefixes.retain(|prefix| prefix.until >= opened);
            self.groups.retain(|group| group.until >= opened);
            if self.everything < opened {
                self.everything = 0;
            }
            self.find_bounds();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHER: KeyHasher = KeyHasher::new([3, 4]);

    fn hides(rules: &Rules, key: &str, stamp: u64) -> bool {
        rules.hide(&HASHER, key.as_bytes(), stamp)
    }

    #[test]
    fn a_rule_hides_what_was_stored_before_it_also_within_a_millisecond() {
        let mut rules = Rules::new();
        let before = rules.stamp(5);
        rules.add(Purge::Prefix(b"a"), &HASHER).unwrap();
        let between = rules.stamp(5);
        rules.add(Purge::Group(b"b"), &HASHER).unwrap();
        let after = rules.stamp(5);
        assert_eq!([before, between, after], [5, 6, 7]);
        assert_eq!([5, 6, 7].map(|stamp| hides(&rules, "ab", stamp)), [true, false, false]);
        assert_eq!([5, 6, 7].map(|stamp| hides(&rules, "b:1", stamp)), [true, true, false]);
        assert_eq!(["b", "bb:1", "c:b:"].map(|key| hides(&rules, key, 5)), [false; 3]);
        rules.add(Purge::Everything, &HASHER).unwrap();
        assert_eq!([7, 8].map(|stamp| hides(&rules, "c", stamp)), [true, false]);
        assert_eq!(rules.count(), 1, "one rule says it all");
    }

    #[test]
    fn rules_are_bounded_merge_and_retire() {
        let mut rules = Rules::new();
        for number in 0..PREFIXES_MAX as u64 {
            rules.stamp(number + 1);
            rules.add(Purge::Prefix(format!("a{number:02}").as_bytes()), &HASHER).unwrap();
        }
        assert!(rules.is_crowded());
        assert_eq!(rules.add(Purge::Prefix(b"b"), &HASHER), Err(PurgeRefused));
        rules.add(Purge::Prefix(b"a07"), &HASHER).unwrap();
        rules.retire(31);
        assert_eq!(rules.count(), 3, "30 and 31 are left, and a07, which is as young");
        rules.add(Purge::Prefix(b"a"), &HASHER).unwrap();
        assert_eq!(rules.count(), 1, "it covers the others");
        rules.retire(33);
        assert_eq!((rules.count(), rules.oldest()), (0, u64::MAX));
    }

    #[test]
    fn groups_are_bounded() {
        let mut rules = Rules::new();
        rules.stamp(1);
        for number in 0..GROUPS_MAX {
            rules.add(Purge::Group(&number.to_le_bytes()), &HASHER).unwrap();
        }
        assert_eq!(rules.add(Purge::Group(b"one more"), &HASHER), Err(PurgeRefused));
        assert_eq!(rules.add(Purge::Group(&7_usize.to_le_bytes()), &HASHER), Ok(()));
    }
}
