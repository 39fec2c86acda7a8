//! Purging without a walk: rules that hide what was stored before them, or end its freshness.
//!
//! Every entry bears the *stamp* of its storing, in milliseconds on a clock of the cache's own that
//! never lags the caller's and that a purge puts ahead of all entries stored so far. A rule says
//! what it names and up to which stamp; an entry is served only if no rule hides it, and is stale
//! from the stamp of a rule that ends its freshness. So a purge is exact, also within a
//! millisecond, and costs the same whatever it names.
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
    2 * (PREFIXES_MAX * size_of::<Prefix>() + GROUPS_MAX * size_of::<Group>());

/// What a rule does to what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Hides it: it is gone.
    Hard,
    /// Ends its freshness: it is served, where stale values are, while it is fetched anew.
    Soft,
}

/// A rule that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule<'a> {
    Everything,
    Prefix(&'a [u8]),
    /// The hash of the group's name.
    Group(u64),
}

/// The rules of a cache.
#[derive(Debug)]
pub(crate) struct Rules {
    separator: u8,
    /// The next stamp is at least this.
    floor: u64,
    hard: Set,
    soft: Set,
    /// None retires: entries are under way in a snapshot that are older than any segment.
    are_held: bool,
}

/// Rules of one force.
#[derive(Debug)]
struct Set {
    /// The newest stamp that a rule speaks of; 0, which no entry bears, without rules.
    newest: u64,
    /// The stamp up to which the oldest rule speaks; `u64::MAX` without rules.
    oldest: u64,
    /// The rule on everything speaks up to this stamp; 0 if there is none.
    everything: u64,
    prefixes: Vec<Prefix>,
    groups: Vec<Group>,
}

impl Rules {
    pub(crate) fn new() -> Self {
        Self { separator: SEPARATOR, floor: 1, hard: Set::new(), soft: Set::new(), are_held: false }
    }

    pub(crate) const fn hold(&mut self, are_held: bool) {
        self.are_held = are_held;
    }

    /// All rules that hide something, each with the stamp up to which it does.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Rule<'_>, u64)> {
        self.hard.all()
    }

    pub(crate) fn set_separator(&mut self, separator: u8) {
        let are_none = self.hard.groups.is_empty() && self.soft.groups.is_empty();
        assert!(are_none, "groups that were purged keep their meaning");
        self.separator = separator;
    }

    /// The stamp of an entry that is stored now, or a segment that is opened.
    pub(crate) fn stamp(&self, now_ms: u64) -> u64 {
        now_ms.max(self.floor)
    }

    /// Everything up to this stamp is hidden.
    pub(crate) const fn everything(&self) -> u64 {
        self.hard.everything
    }

    /// The stamp up to which the oldest rule speaks; `u64::MAX` without rules.
    pub(crate) fn oldest(&self) -> u64 {
        self.hard.oldest.min(self.soft.oldest)
    }

    /// Rules in use.
    pub(crate) fn count(&self) -> usize {
        self.hard.count() + self.soft.count()
    }

    /// Whether rules should retire soon.
    pub(crate) fn is_crowded(&self) -> bool {
        self.hard.is_crowded() || self.soft.is_crowded()
    }

    /// Speaks of what was stored so far.
    pub(crate) fn add(
        &mut self,
        what: Purge<'_>,
        force: Force,
        now_ms: u64,
        hasher: &KeyHasher,
    ) -> Result<(), PurgeRefused> {
        let rule = match what {
            Purge::Everything | Purge::Prefix([]) => Rule::Everything,
            // Longer than any key.
            Purge::Prefix(bytes) if bytes.len() > KEY_SIZE_MAX => return Ok(()),
            Purge::Prefix(bytes) => Rule::Prefix(bytes),
            Purge::Group(name) => Rule::Group(hasher.hash(name).bits()),
        };
        let until = self.stamp(now_ms);
        match force {
            Force::Hard => self.put(rule, until)?,
            Force::Soft => self.soft.put(rule, until)?,
        }
        self.floor = until + 1;
        Ok(())
    }

    /// Puts a rule that hides in force, which is newer than those that are.
    pub(crate) fn put(&mut self, rule: Rule<'_>, until: u64) -> Result<(), PurgeRefused> {
        self.hard.put(rule, until)
    }

    /// Whether there are rules that hide something.
    #[inline]
    pub(crate) const fn are_any(&self) -> bool {
        self.hard.newest > 0
    }

    /// Whether there are rules that end the freshness of something.
    #[inline]
    pub(crate) const fn are_any_soft(&self) -> bool {
        self.soft.newest > 0
    }

    /// Whether an entry with this key and stamp is hidden.
    pub(crate) fn hide(&self, hasher: &KeyHasher, key: &[u8], stamp: u64) -> bool {
        stamp <= self.hard.newest && stamp <= self.hard.until(hasher, self.separator, key)
    }

    /// When the freshness of an entry with this key and stamp was ended, if it was.
    pub(crate) fn ended(&self, hasher: &KeyHasher, key: &[u8], stamp: u64) -> Option<u64> {
        if stamp > self.soft.newest {
            return None;
        }
        let until = self.soft.until(hasher, self.separator, key);
        (stamp <= until).then_some(until)
    }

    /// Whether `what` names this key.
    pub(crate) fn is_named(&self, what: Purge<'_>, key: &[u8]) -> bool {
        match what {
            Purge::Everything => true,
            Purge::Prefix(prefix) => key.starts_with(prefix),
            Purge::Group(name) => group(self.separator, key) == Some(name),
        }
    }

    /// Drops the rules that speak of nothing that was stored after `opened`, where nothing older is
    /// left.
    pub(crate) fn retire(&mut self, opened: u64) {
        if !self.are_held {
            self.hard.retire(opened);
            self.soft.retire(opened);
        }
    }
}

impl Set {
    fn new() -> Self {
        Self {
            newest: 0,
            oldest: u64::MAX,
            everything: 0,
            prefixes: Vec::with_capacity(PREFIXES_MAX),
            groups: Vec::with_capacity(GROUPS_MAX),
        }
    }

    fn all(&self) -> impl Iterator<Item = (Rule<'_>, u64)> {
        let everything = Some(self.everything).filter(|until| *until > 0);
        let prefixes = self.prefixes.iter().map(|rule| (Rule::Prefix(rule.bytes()), rule.until));
        let groups = self.groups.iter().map(|rule| (Rule::Group(rule.name), rule.until));
        everything.map(|until| (Rule::Everything, until)).into_iter().chain(prefixes).chain(groups)
    }

    fn count(&self) -> usize {
        self.prefixes.len() + self.groups.len() + usize::from(self.everything > 0)
    }

    fn is_crowded(&self) -> bool {
        self.prefixes.len() > PREFIXES_MAX / 2 || self.groups.len() > GROUPS_MAX / 2
    }

    fn put(&mut self, rule: Rule<'_>, until: u64) -> Result<(), PurgeRefused> {
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
        (self.oldest, self.newest) = self
            .all()
            .fold((u64::MAX, 0), |(least, most), (_, until)| (least.min(until), most.max(until)));
    }

    /// The stamp up to which rules speak of this key; 0 if none does.
    fn until(&self, hasher: &KeyHasher, separator: u8, key: &[u8]) -> u64 {
        let named = self.prefixes.iter().filter(|prefix| key.starts_with(prefix.bytes()));
        let until = named.map(|prefix| prefix.until).fold(self.everything, u64::max);
        if self.groups.is_empty() {
            return until;
        }
        let Some(name) = group(separator, key) else { return until };
        let name = hasher.hash(name).bits();
        let found = self.groups.binary_search_by_key(&name, |group| group.name);
        found.map_or(until, |at| until.max(self.groups[at].until))
    }

    fn retire(&mut self, opened: u64) {
        if self.oldest < opened {
            self.prefixes.retain(|prefix| prefix.until >= opened);
            self.groups.retain(|group| group.until >= opened);
            if self.everything < opened {
                self.everything = 0;
            }
            self.find_bounds();
        }
    }
}

/// The name of the group that a key belongs to.
fn group(separator: u8, key: &[u8]) -> Option<&[u8]> {
    key.iter().position(|byte| *byte == separator).map(|size| &key[..size])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHER: KeyHasher = KeyHasher::new([3, 4]);

    fn add(rules: &mut Rules, what: Purge<'_>, now_ms: u64) -> Result<(), PurgeRefused> {
        rules.add(what, Force::Hard, now_ms, &HASHER)
    }

    fn hides(rules: &Rules, key: &str, stamp: u64) -> bool {
        rules.hide(&HASHER, key.as_bytes(), stamp)
    }

    #[test]
    fn a_rule_hides_what_was_stored_before_it_also_within_a_millisecond() {
        let mut rules = Rules::new();
        let before = rules.stamp(5);
        add(&mut rules, Purge::Prefix(b"a"), 5).unwrap();
        let between = rules.stamp(5);
        add(&mut rules, Purge::Group(b"b"), 5).unwrap();
        let after = rules.stamp(5);
        assert_eq!([before, between, after], [5, 6, 7]);
        assert_eq!([5, 6, 7].map(|stamp| hides(&rules, "ab", stamp)), [true, false, false]);
        assert_eq!([5, 6, 7].map(|stamp| hides(&rules, "b:1", stamp)), [true, true, false]);
        assert_eq!(["b", "bb:1", "c:b:"].map(|key| hides(&rules, key, 5)), [false; 3]);
        add(&mut rules, Purge::Everything, 5).unwrap();
        assert_eq!([7, 8].map(|stamp| hides(&rules, "c", stamp)), [true, false]);
        assert_eq!(rules.count(), 1, "one rule says it all");
    }

    #[test]
    fn rules_are_bounded_merge_and_retire() {
        let mut rules = Rules::new();
        for number in 0..PREFIXES_MAX as u64 {
            let name = format!("a{number:02}");
            add(&mut rules, Purge::Prefix(name.as_bytes()), number + 1).unwrap();
        }
        assert!(rules.is_crowded());
        assert_eq!(add(&mut rules, Purge::Prefix(b"b"), 5), Err(PurgeRefused));
        add(&mut rules, Purge::Prefix(b"a07"), 5).unwrap();
        rules.retire(31);
        assert_eq!(rules.count(), 3, "30 and 31 are left, and a07, which is as young");
        add(&mut rules, Purge::Prefix(b"a"), 5).unwrap();
        assert_eq!(rules.count(), 1, "it covers the others");
        rules.retire(35);
        assert_eq!((rules.count(), rules.oldest()), (0, u64::MAX));
    }

    #[test]
    fn a_soft_rule_says_when_freshness_has_ended_and_hides_nothing() {
        let mut rules = Rules::new();
        rules.add(Purge::Group(b"b"), Force::Soft, 5, &HASHER).unwrap();
        rules.add(Purge::Prefix(b"b:1"), Force::Soft, 9, &HASHER).unwrap();
        let ended = |key: &[u8], stamp| rules.ended(&HASHER, key, stamp);
        assert_eq!([4, 5].map(|stamp| ended(b"b:2", stamp)), [Some(5); 2]);
        assert_eq!(
            [5, 6, 9, 10].map(|stamp| ended(b"b:1", stamp)),
            [Some(9), Some(9), Some(9), None]
        );
        assert_eq!(ended(b"b:2", 6), None);
        assert_eq!(ended(b"c:2", 1), None);
        assert!(!rules.are_any() && rules.are_any_soft() && !hides(&rules, "b:1", 1));
        assert_eq!((rules.count(), rules.oldest()), (2, 5));
        rules.retire(6);
        assert_eq!((rules.count(), rules.oldest()), (1, 9));
    }

    #[test]
    fn groups_are_bounded() {
        let mut rules = Rules::new();
        for number in 0..GROUPS_MAX {
            add(&mut rules, Purge::Group(&number.to_le_bytes()), 5).unwrap();
        }
        assert_eq!(add(&mut rules, Purge::Group(b"one more"), 5), Err(PurgeRefused));
        assert_eq!(add(&mut rules, Purge::Group(&7_usize.to_le_bytes()), 5), Ok(()));
    }
}
