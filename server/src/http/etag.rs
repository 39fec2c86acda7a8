//! Entity tags as text, and the tags of If-None-Match and If-Match.
//!
//! Ours are strong and look like `"00c0ffee00c0ffee"`: 16 lower-case hex digits. A tag of another
//! form cannot be ours, so it is skipped where it is read.

use shard_cache::hash::Etag;

/// Digits of a tag, without the quotes.
pub(crate) const ETAG_DIGITS: usize = 16;

/// Candidates kept of one If-None-Match; further ones are ignored, which costs a body, not truth.
const TAGS_MAX: usize = 4;

/// The digits of `etag`, most significant first.
///
/// Works on all nibbles at once: each is spread to a byte of its own, and a byte beyond 9 gets the
/// distance from `'0' + 10` to `'a'` added.
#[must_use]
pub(crate) fn digits(etag: Etag) -> [u8; ETAG_DIGITS] {
    const ONES: u128 = u128::from_le_bytes([1; 16]);
    let mut spread = u128::from(etag.bits());
    spread = (spread | spread << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & (ONES * 0x0f);
    let beyond_nine = (spread + ONES * 6) >> 4 & ONES;
    (spread + ONES * u128::from(b'0') + beyond_nine * u128::from(b'a' - b'9' - 1)).to_be_bytes()
}

/// The tag whose digits are `text`, or `None` if they cannot be of ours.
fn parse(text: &[u8]) -> Option<Etag> {
    if text.len() != ETAG_DIGITS {
        return None;
    }
    let mut bits = 0;
    for &byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        bits = bits << 4 | u64::from(digit);
    }
    Some(Etag::from_bits(bits))
}

/// What If-None-Match can match of our tags (RFC 9110 section 13.1.2).
///
/// The comparison is weak (section 8.8.3.2), so `W/` makes no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EtagSet {
    any: bool,
    count: u8,
    tags: [u64; TAGS_MAX],
}

impl EtagSet {
    /// The set that matches any tag: `*`.
    pub const ANY: Self = Self { any: true, count: 0, tags: [0; TAGS_MAX] };

    /// The set that matches nothing: the request is not conditional.
    pub const EMPTY: Self = Self { any: false, count: 0, tags: [0; TAGS_MAX] };

    /// Whether the client holds what `etag` names, so that 304 is the answer.
    #[must_use]
    pub fn matches(&self, etag: Etag) -> bool {
        self.any || self.tags[..usize::from(self.count)].contains(&etag.bits())
    }

    /// Adds the tags of one header value. What is malformed ends the list: it matches nothing.
    pub(crate) fn read(&mut self, value: &[u8]) {
        if value == b"*" {
            self.any = true;
            return;
        }
        let mut rest = value;
        loop {
            rest = match rest {
                [b' ' | b'\t' | b',', rest @ ..] | [b'W', b'/', rest @ ..] => rest,
                [b'"', rest @ ..] => {
                    let Some(size) = rest.iter().position(|&byte| byte == b'"') else { return };
                    self.keep(parse(&rest[..size]));
                    &rest[size + 1..]
                }
                _ => return,
            };
        }
    }

    /// Adds the tags of one header value on which a write depends. Returns whether all of it was
    /// understood and kept: a tag that is left out would let a write pass, or fail, that must not.
    ///
    /// Weak tags are ours where the comparison is weak, as for If-None-Match; for If-Match they
    /// match nothing (RFC 9110 section 13.1.1).
    pub(crate) fn read_whole(&mut self, value: &[u8], is_weak: bool) -> bool {
        let was_empty = *self == Self::EMPTY;
        if value == b"*" {
            self.any = true;
            return was_empty;
        }
        let mut rest = value;
        let mut is_separated = !self.any;
        loop {
            rest = match rest {
                [] => return !self.any,
                [b' ' | b'\t', rest @ ..] => rest,
                [b',', rest @ ..] => {
                    is_separated = true;
                    rest
                }
                _ if is_separated => {
                    is_separated = false;
                    let (counts, tag) = match rest {
                        [b'W', b'/', b'"', tag @ ..] => (is_weak, tag),
                        [b'"', tag @ ..] => (true, tag),
                        _ => return false,
                    };
                    let Some(size) = tag.iter().position(|&byte| byte == b'"') else {
                        return false;
                    };
                    // The parser of heads lets nothing else through that no tag has.
                    if tag[..size].iter().any(|byte| matches!(byte, b' ' | b'\t')) {
                        return false;
                    }
                    let ours = parse(&tag[..size]).filter(|_| counts);
                    if ours.is_some() && usize::from(self.count) == TAGS_MAX {
                        return false;
                    }
                    self.keep(ours);
                    &tag[size + 1..]
                }
                _ => return false,
            };
        }
    }

    fn keep(&mut self, tag: Option<Etag>) {
        let free = self.tags.get_mut(usize::from(self.count));
        if let (Some(tag), Some(free)) = (tag, free) {
            *free = tag.bits();
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EtagSet, digits, parse};
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use shard_cache::hash::Etag;

    const ONE: Etag = Etag::from_bits(0x00c0_ffee_00c0_ffee);
    const TWO: Etag = Etag::from_bits(2);

    fn set(values: &[&str]) -> EtagSet {
        let mut set = EtagSet::EMPTY;
        values.iter().for_each(|value| set.read(value.as_bytes()));
        set
    }

    proptest! {
        #[test]
        fn digits_are_those_of_the_formatter_and_are_read_back(bits in any::<u64>()) {
            let etag = Etag::from_bits(bits);
            prop_assert_eq!(digits(etag).to_vec(), format!("{bits:016x}").into_bytes());
            prop_assert_eq!(parse(&digits(etag)), Some(etag));
        }

        #[test]
        fn no_value_of_the_field_panics(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            EtagSet::default().read(&value);
        }
    }

    #[test]
    fn lists_weak_tags_foreign_tags_and_repeated_lines_are_read() {
        for values in [
            &[r#""00c0ffee00c0ffee""#] as &[&str],
            &[r#"W/"00c0ffee00c0ffee""#],
            &[r#""abc", "00c0ffee00c0ffee""#],
            &[r#""a,b" ,, W/"x","00c0ffee00c0ffee","z""#],
            &[r#""0000000000000009""#, r#""00c0ffee00c0ffee""#],
            &["*"],
        ] {
            assert!(set(values).matches(ONE), "{values:?}");
        }
    }

    #[test]
    fn what_is_not_our_tag_matches_nothing() {
        for value in [
            "",
            "00c0ffee00c0ffee",
            r#""00C0FFEE00C0FFEE""#,
            r#""00c0ffee00c0ffee"#,
            r#"w/"00c0ffee00c0ffee""#,
            r#""00c0ffee00c0ffee0""#,
            r#""*""#,
            r#"x, "00c0ffee00c0ffee""#,
        ] {
            assert!(!set(&[value]).matches(ONE), "{value}");
        }
    }

    #[test]
    fn a_write_depends_on_all_tags_or_is_refused() {
        let read = |value: &str, is_weak| {
            let mut set = EtagSet::EMPTY;
            set.read_whole(value.as_bytes(), is_weak).then(|| set.matches(ONE))
        };
        for (value, weak, strong) in [
            ("*", true, true),
            (r#""00c0ffee00c0ffee""#, true, true),
            (r#""x,y" , "00c0ffee00c0ffee","#, true, true),
            (r#"W/"00c0ffee00c0ffee""#, true, false),
            (r#""x""#, false, false),
            ("", false, false),
        ] {
            assert_eq!((read(value, true), read(value, false)), (Some(weak), Some(strong)));
        }
        let five = (1..=5).map(|bits| format!("\"{bits:016x}\"")).collect::<Vec<_>>().join(",");
        for value in
            ["x", r#""a b""#, r#""00c0ffee00c0ffee"#, r#""a" "b""#, r#"*, "a""#, "**", &five]
        {
            assert_eq!(read(value, true), None, "{value}");
        }
        let mut set = EtagSet::EMPTY;
        assert!(set.read_whole(br#""00c0ffee00c0ffee""#, true) && !set.read_whole(b"*", true));
        assert!(!set.read_whole(br#""a""#, true), "any and one");
    }

    #[test]
    fn the_first_four_candidates_are_kept() {
        let list = (1..=5).map(|bits| format!("\"{bits:016x}\"")).collect::<Vec<_>>().join(",");
        let set = set(&[&list]);
        assert!(set.matches(TWO));
        assert!(set.matches(Etag::from_bits(4)));
        assert!(!set.matches(Etag::from_bits(5)));
        assert!(!set.matches(Etag::from_bits(0)));
    }
}
