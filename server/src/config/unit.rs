//! Values with units: sizes, durations, shares. Reads them, and writes them back the same.
//!
//! A number is a whole one; a unit follows it without a space. What [`size`] or [`duration`]
//! reads, [`size_text`] and [`duration_text`] write in the largest unit that divides it, so that
//! a value read, written and read again is the same value.

use std::time::Duration;

/// Binary units of sizes with their bytes, largest first: the ones that are written.
const SIZE_UNITS: &[(&str, u64)] =
    &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Decimal units of sizes, read only.
const SIZE_UNITS_DECIMAL: &[(&str, u64)] =
    &[("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000)];

/// Units of durations with their milliseconds, largest first.
const DURATION_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a size in bytes: `"64MiB"`, `"512B"`, `"1GB"`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let mut units = SIZE_UNITS.iter().chain(SIZE_UNITS_DECIMAL);
    units.find(|(name, _)| *name == unit).and_then(|(_, bytes)| number.checked_mul(*bytes))
}

/// Reads a duration of whole milliseconds: `"250ms"`, `"10s"`, `"5m"`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let (_, ms) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*ms).map(Duration::from_millis)
}

/// Reads a share in percent: `"25%"`.
pub(crate) fn percent(text: &str) -> Option<u8> {
    let (number, unit) = split(text)?;
    u8::try_from(number).ok().filter(|percent| unit == "%" && *percent <= 100)
}

/// Reads a share in tenths of a percent: `"2%"`, `"0.5%"`.
pub(crate) fn permille(text: &str) -> Option<u16> {
    let text = text.strip_suffix('%')?;
    let (whole, tenth) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(tenth) || tenth.len() > 1 {
        return None;
    }
    let permille = whole.parse::<u16>().ok()?.checked_mul(10)? + tenth.parse::<u16>().ok()?;
    Some(permille).filter(|permille| *permille <= 1000)
}

/// Writes a share of so many tenths of a percent.
pub(crate) fn permille_text(permille: u16) -> String {
    match (permille / 10, permille % 10) {
        (whole, 0) => format!("{whole}%"),
        (whole, tenth) => format!("{whole}.{tenth}%"),
    }
}

/// Writes a size of `bytes` in the largest binary unit that divides it.
pub(crate) fn size_text(bytes: u64) -> String {
    whole(bytes, SIZE_UNITS, "B")
}

/// Writes a duration of whole milliseconds in the largest unit that divides it.
pub(crate) fn duration_text(duration: Duration) -> String {
    whole(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), DURATION_UNITS, "s")
}

/// Cuts `text` into its digits and what follows them.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

/// `value` in the largest of `units` that divides it; zero in `zero_unit`.
fn whole(value: u64, units: &[(&str, u64)], zero_unit: &str) -> String {
    if value == 0 {
        return format!("0{zero_unit}");
    }
    let (unit, scale) = units
        .iter()
        .find(|(_, scale)| value.is_multiple_of(*scale))
        .expect("the smallest unit is one and divides everything");
    format!("{}{unit}", value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_each_unit() {
        assert_eq!(size("8KiB"), Some(8192));
        assert_eq!(size("3MB"), Some(3_000_000));
        assert_eq!(size("0B"), Some(0));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(percent("5%"), Some(5));
        assert_eq!(permille("5%"), Some(50));
        assert_eq!(permille("0.5%"), Some(5));
    }

    #[test]
    fn refuses_what_is_nearly_a_value() {
        for text in ["", "64", "64mb", "64 MiB", "-1B", "1.5GiB", "MiB", "99999999999TiB"] {
            assert_eq!(size(text), None, "{text:?}");
        }
        for text in ["", "10", "10sec", "1 s", "-1s", "s", "999999999999999999d"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
        for text in ["101%", "5", "%", "5 %", "300%"] {
            assert_eq!(percent(text), None, "{text:?}");
        }
        for text in ["100.1%", "5", "%", "0.55%", ".5%", "5.%", "-1%", "99999%"] {
            assert_eq!(permille(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_size_written_reads_back(bytes: u64) {
            prop_assert_eq!(size(&size_text(bytes)), Some(bytes));
        }

        #[test]
        fn a_duration_written_reads_back(ms: u64) {
            let value = Duration::from_millis(ms);
            prop_assert_eq!(duration(&duration_text(value)), Some(value));
        }

        #[test]
        fn a_share_written_reads_back(value in 0..=1000_u16) {
            prop_assert_eq!(permille(&permille_text(value)), Some(value));
        }

        #[test]
        fn no_text_breaks_the_readers(text: String) {
            let _: (Option<u64>, Option<Duration>, Option<u8>, Option<u16>) =
                (size(&text), duration(&text), percent(&text), permille(&text));
        }
    }
}
