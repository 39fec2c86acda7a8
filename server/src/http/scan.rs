//! Finds where a run of bytes of one class ends: the only place that looks at every byte of a head.
//!
//! Each class is defined by a table of bytes, and there are two searches for its end. `portable`
//! looks at eight bytes of a register at once where runs are long (paths and values), and asks
//! the table only where one of them may end the run. On x86-64, where SSE2 is part of the
//! architecture, sixteen bytes are compared at once; slices shorter than that go to `portable`.
//! Both give the same answers, so nothing is chosen at run time. Wider registers were not worth a
//! third search: most runs of a request are shorter than sixteen bytes.
//!
//! ```text
//! bytes  H o s t :   l o c a l h o s t CR      one load
//! ends   0 0 0 0 1 1 0 0 0 0 0 0 0 0 0 1       compare, movemask, trailing_zeros -> 4
//! ```

/// The classes of every byte, one bit each.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    loop {
        let letter_or_digit = byte.is_ascii_alphanumeric();
        let token = letter_or_digit
            || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
            || matches!(byte, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        let host = letter_or_digit
            || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_' | b'~' | b'%' | b'!' | b'$')
            || matches!(byte, b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        let path = byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?' | b'%');
        let value = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        let class = [(token, TOKEN), (host, HOST), (path, PATH), (value, VALUE)];
        let mut index = 0;
        while index < class.len() {
            if class[index].0 {
                classes[byte as usize] |= class[index].1;
            }
            index += 1;
        }
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

const TOKEN: u8 = 1;
const HOST: u8 = 2;
const PATH: u8 = 4;
const VALUE: u8 = 8;

/// Whether `byte` may stand in a method or a field name: tchar of RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// Whether `byte` may stand in a host with its port (RFC 3986 section 3.2; no user information).
pub(crate) fn is_host(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & HOST != 0
}

/// Whether `byte` belongs to a path as it stands: visible ASCII that begins neither the query nor
/// an escape. A fragment has no place in a request (RFC 9112 section 3.2).
fn is_path(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & PATH != 0
}

/// Whether `byte` may stand in a field value: HTAB, SP, VCHAR or obs-text (RFC 9110 section 5.5).
pub(crate) fn is_value(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & VALUE != 0
}

/// Whether `byte` is one of the tchars that names are mostly made of: few enough that SSE2 tells
/// them from all others in six operations.
const fn is_plain_token(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'-'
}

/// Index of the first byte from `from` on that is no tchar, or the length.
#[inline]
pub(crate) fn token_end(bytes: &[u8], from: usize) -> usize {
    let mut at = search::plain_token_end(bytes, from);
    while bytes.get(at).is_some_and(|&byte| is_token(byte)) {
        at += 1;
    }
    at
}

/// Index of the first byte from `from` on that is not of a path as it stands, or the length.
#[inline]
pub(crate) fn path_end(bytes: &[u8], from: usize) -> usize {
    search::path_end(bytes, from)
}

/// Index of the first byte from `from` on that may not stand in a field value, or the length.
#[inline]
pub(crate) fn value_end(bytes: &[u8], from: usize) -> usize {
    search::value_end(bytes, from)
}

#[cfg(not(target_arch = "x86_64"))]
use portable as search;
#[cfg(target_arch = "x86_64")]
use sse2 as search;

/// Needs registers of 64 bits and nothing else.
mod portable {
    use super::{is_path, is_plain_token, is_value};

    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;

    /// Nonzero if a byte of `word` is below `bound` (at most 128); carries may name wrong bytes.
    const fn any_below(word: u64, bound: u8) -> u64 {
        word.wrapping_sub(ONES * bound as u64) & !word & HIGHS
    }

    /// Nonzero if a byte of `word` is `byte`.
    const fn any_equal(word: u64, byte: u8) -> u64 {
        any_below(word ^ (ONES * byte as u64), 1)
    }

    /// Index of the first byte from `from` on that is not of `class`, or the length.
    fn end_of(bytes: &[u8], from: usize, class: impl Fn(u8) -> bool) -> usize {
        let rest = &bytes[from..];
        from + rest.iter().position(|&byte| !class(byte)).unwrap_or(rest.len())
    }

    /// Index of the first word from `from` on in which `may_end` finds something, or of the bytes
    /// behind the last word.
    fn skip_words(bytes: &[u8], from: usize, may_end: impl Fn(u64) -> u64) -> usize {
        let mut at = from;
        while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
            if may_end(u64::from_le_bytes(*word)) != 0 {
                break;
            }
            at += word.len();
        }
        at
    }

    #[inline]
    pub(super) fn plain_token_end(bytes: &[u8], from: usize) -> usize {
        end_of(bytes, from, is_plain_token)
    }

    #[inline]
    pub(super) fn path_end(bytes: &[u8], from: usize) -> usize {
        let may_end = |word| {
            (word & HIGHS)
                | any_below(word, b'!')
                | any_equal(word, 0x7f)
                | any_equal(word, b'#')
                | any_equal(word, b'%')
                | any_equal(word, b'?')
        };
        end_of(bytes, skip_words(bytes, from, may_end), is_path)
    }

    #[inline]
    pub(super) fn value_end(bytes: &[u8], from: usize) -> usize {
        let may_end = |word| any_below(word, b' ') | any_equal(word, 0x7f);
        end_of(bytes, skip_words(bytes, from, may_end), is_value)
    }
}

/// Sixteen bytes at once; SSE2 is part of x86-64.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use super::portable;
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8, _mm_sub_epi8,
    };

    const LANES: usize = 16;

    /// Sixteen bytes; a mask has 0xff in the lanes that it names and 0 in the others.
    #[derive(Clone, Copy)]
    struct Lanes(__m128i);

    impl Lanes {
        fn load(bytes: &[u8; LANES]) -> Self {
            // SAFETY:
            // - The reference is valid for reads of 16 bytes; the load has no demand on alignment.
            // - SSE2 is part of every x86-64.
            Self(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
        }

        fn splat(byte: u8) -> Self {
            // SAFETY:
            // - SSE2 is part of every x86-64.
            Self(unsafe { _mm_set1_epi8(byte.cast_signed()) })
        }

        fn or(self, other: Self) -> Self {
            // SAFETY:
            // - SSE2 is part of every x86-64.
            Self(unsafe { _mm_or_si128(self.0, other.0) })
        }

        /// Lane by lane, wrapping.
        fn minus(self, byte: u8) -> Self {
            // SAFETY:
            // - SSE2 is part of every x86-64.
            Self(unsafe { _mm_sub_epi8(self.0, Self::splat(byte).0) })
        }

        /// The lanes that are `byte`.
        fn equal(self, byte: u8) -> Self {
            // SAFETY:
            // - SSE2 is part of every x86-64.
            Self(unsafe { _mm_cmpeq_epi8(self.0, Self::splat(byte).0) })
        }

        /// The lanes that are below `bound` as signed bytes.
        fn below_signed(self, bound: u8) -> Self {
            // SAFETY:
            // - SSE2 is part of every x86-64.
            Self(unsafe { _mm_cmplt_epi8(self.0, Self::splat(bound).0) })
        }

        /// One bit a lane, the first lane lowest.
        fn bits(self) -> u32 {
            // SAFETY:
            // - SSE2 is part of every x86-64.
            unsafe { _mm_movemask_epi8(self.0) }.cast_unsigned()
        }

        /// The lanes from `first` to `last`. Moving `first` to the lowest signed byte makes both
        /// bounds one comparison.
        fn within(self, first: u8, last: u8) -> Self {
            self.minus(first ^ 0x80).below_signed((last - first + 1) ^ 0x80)
        }
    }

    /// Bits of the lanes that end a run of plain token bytes.
    fn ends_plain_token(lanes: Lanes) -> u32 {
        let letter = lanes.or(Lanes::splat(0x20)).within(b'a', b'z');
        !letter.or(lanes.equal(b'-')).bits() & 0xffff
    }

    /// Bits of the lanes that end a run of path bytes. As signed bytes, those from 0x80 on are
    /// below `!` as well.
    fn ends_path(lanes: Lanes) -> u32 {
        let invisible = lanes.below_signed(b'!').or(lanes.equal(0x7f));
        invisible.or(lanes.equal(b'#')).or(lanes.equal(b'%')).or(lanes.equal(b'?')).bits()
    }

    /// Bits of the lanes that end a run of value bytes.
    fn ends_value(lanes: Lanes) -> u32 {
        let control = lanes.within(0, 0x1f).or(lanes.equal(0x7f));
        control.bits() & !lanes.equal(b'\t').bits()
    }

    /// Searches in steps of 16 bytes. The last step looks at the last 16 bytes of the slice, and
    /// so again at bytes that were seen or lie before `from`: their bits are shifted out.
    #[inline(always)]
    fn run_end(
        bytes: &[u8],
        from: usize,
        ends: impl Fn(Lanes) -> u32,
        short: impl Fn(&[u8], usize) -> usize,
    ) -> usize {
        let mut at = from;
        while let Some(lanes) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
            let bits = ends(Lanes::load(lanes));
            if bits != 0 {
                return at + bits.trailing_zeros() as usize;
            }
            at += LANES;
        }
        let Some(lanes) = bytes.last_chunk() else { return short(bytes, from) };
        let seen = at - (bytes.len() - LANES);
        let bits = ends(Lanes::load(lanes)).unbounded_shr(u32::try_from(seen).unwrap_or(u32::MAX));
        if bits == 0 { bytes.len() } else { at + bits.trailing_zeros() as usize }
    }

    #[inline]
    pub(super) fn plain_token_end(bytes: &[u8], from: usize) -> usize {
        run_end(bytes, from, ends_plain_token, portable::plain_token_end)
    }

    #[inline]
    pub(super) fn path_end(bytes: &[u8], from: usize) -> usize {
        run_end(bytes, from, ends_path, portable::path_end)
    }

    #[inline]
    pub(super) fn value_end(bytes: &[u8], from: usize) -> usize {
        run_end(bytes, from, ends_value, portable::value_end)
    }
}

#[cfg(test)]
mod tests {
    use super::{is_path, is_plain_token, is_token, is_value, search};
    use super::{path_end, portable, token_end, value_end};
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    type Search = fn(&[u8], usize) -> usize;
    type Class = fn(u8) -> bool;

    /// Every search beside the class that defines its answer.
    const SEARCHES: &[(&str, Search, Class)] = &[
        ("token", token_end, is_token),
        ("path", path_end, is_path),
        ("value", value_end, is_value),
        ("plain token", search::plain_token_end, is_plain_token),
        ("portable plain token", portable::plain_token_end, is_plain_token),
        ("portable path", portable::path_end, is_path),
        ("portable value", portable::value_end, is_value),
    ];

    fn expected(bytes: &[u8], from: usize, class: Class) -> usize {
        from + bytes[from..].iter().take_while(|&&byte| class(byte)).count()
    }

    #[test]
    fn every_byte_ends_a_run_at_every_place_exactly_if_its_class_says_so() {
        for (name, search, class) in SEARCHES {
            for size in 1..=40 {
                for at in 0..size {
                    for byte in 0..=u8::MAX {
                        let mut bytes = vec![b'a'; size];
                        bytes[at] = byte;
                        let found = search(&bytes, 0);
                        assert_eq!(found, expected(&bytes, 0, *class), "{name} {at} {byte:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_that_begins_at_the_end_is_empty() {
        for (name, search, _) in SEARCHES {
            for size in [0, 7, 8, 15, 16, 17, 32] {
                assert_eq!(search(&vec![b' '; size], size), size, "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn both_searches_agree_with_the_table(
            bytes in proptest::collection::vec(
                proptest::prop_oneof![8 => proptest::char::range('-', 'z').prop_map(|c| c as u8),
                    1 => any::<u8>()], 0..200),
            from in any::<proptest::sample::Index>(),
        ) {
            let from = from.index(bytes.len() + 1);
            for (name, search, class) in SEARCHES {
                prop_assert_eq!(search(&bytes, from), expected(&bytes, from, *class), "{}", name);
            }
        }
    }
}
