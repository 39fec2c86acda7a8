//! Quantities as wrk and wrk2 read and write them: `50k`, `2.5s`, `0.91ms`, `4.16M`.

use std::time::Duration;

/// A number is shown in the next unit from this share of it: 850 us are 0.85 ms.
const NEXT_FROM: f64 = 0.85;

const TIME_US: Scale = Scale { step: 1000.0, units: &["us", "ms", "s"] };
const TIME_S: Scale = Scale { step: 60.0, units: &["s", "m", "h"] };
const METRIC: Scale = Scale { step: 1000.0, units: &["", "k", "M", "G", "T", "P"] };
const BINARY: Scale = Scale { step: 1024.0, units: &["", "K", "M", "G", "T", "P"] };

struct Scale {
    step: f64,
    units: &'static [&'static str],
}

impl Scale {
    fn format(&self, mut amount: f64, width: usize) -> String {
        let mut unit = 0;
        while unit + 1 < self.units.len() && amount >= self.step * NEXT_FROM {
            amount /= self.step;
            unit += 1;
        }
        let unit = self.units[unit];
        let text = format!("{amount:.2}{unit}");
        // Places for two letters, so that units stand below each other.
        let pad = 2_usize.saturating_sub(unit.len());
        if width == 0 { text } else { format!("{text:>0$}{1:2$}", width - pad, "", pad) }
    }
}

/// Microseconds, right-aligned with the unit's letters; `width` 0 for no more than it takes.
pub(super) fn time_us(us: f64, width: usize) -> String {
    if us >= 1e6 { TIME_S.format(us / 1e6, width) } else { TIME_US.format(us, width) }
}

/// A number in steps of 1000.
pub(super) fn metric(number: f64, width: usize) -> String {
    METRIC.format(number, width)
}

/// Bytes in steps of 1024, without the B.
pub(super) fn binary(bytes: f64) -> String {
    BINARY.format(bytes, 0)
}

/// A duration as it would be given on a command line.
pub(super) fn span(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    match s {
        _ if s >= 3600.0 && s % 3600.0 == 0.0 => format!("{}h", s / 3600.0),
        _ if s >= 60.0 && s % 60.0 == 0.0 => format!("{}m", s / 60.0),
        _ => format!("{s}s"),
    }
}

/// A number with or without `k`, `M` or `G`.
pub(crate) fn parse_metric(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let parsed = number.parse::<f64>().ok().map(|number| number * factor);
    parsed
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| format!("{text:?} is no number above zero, such as 500, 20k or 1.5M"))
}

/// A whole number with or without `k`, `M` or `G`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
pub(crate) fn parse_count(text: &str) -> Result<u32, String> {
    let number = parse_metric(text)?;
    if number.fract() == 0.0 && number <= f64::from(u32::MAX) {
        Ok(number as u32)
    } else {
        Err(format!("{text:?} is no whole number up to 4 billion"))
    }
}

/// A duration: `500us`, `250ms`, `30s`, `2m`, `1h`, or a number of seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "us" => Some(1e-6),
        "ms" => Some(1e-3),
        "" | "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let seconds = factor.zip(digits.parse::<f64>().ok()).map(|(factor, number)| factor * number);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is no duration, such as 250ms, 30s or 2m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_change_at_85_hundredths() {
        assert_eq!(time_us(849.0, 0), "849.00us");
        assert_eq!(time_us(850.0, 0), "0.85ms");
        assert_eq!(time_us(849_000.0, 0), "849.00ms");
        assert_eq!(time_us(850_000.0, 0), "0.85s");
        assert_eq!(time_us(2e6, 0), "2.00s");
        assert_eq!(time_us(51e6, 0), "0.85m");
        assert_eq!(time_us(3060e6, 0), "0.85h");
        assert_eq!(metric(1_060.0, 0), "1.06k");
        assert_eq!(binary(4.16 * 1024.0 * 1024.0), "4.16M");
        assert_eq!(binary(800.0), "800.00");
    }

    #[test]
    fn units_are_aligned() {
        assert_eq!(time_us(910.0, 8), "  0.91ms");
        assert_eq!(metric(1_060.0, 8), "  1.06k ");
        assert_eq!(metric(564.71, 10), "  564.71  ");
    }

    #[test]
    fn numbers_are_read() {
        assert_eq!(parse_metric("20k"), Ok(20_000.0));
        assert_eq!(parse_metric("1.5M"), Ok(1_500_000.0));
        assert_eq!(parse_count("2G"), Ok(2_000_000_000));
        for wrong in ["", "k", "-1", "0", "nan", "inf", "5x"] {
            assert!(parse_metric(wrong).is_err(), "{wrong}");
        }
        assert!(parse_count("1.5").is_err() && parse_count("5G").is_err());
    }

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("3us"), Ok(Duration::from_micros(3)));
        for wrong in ["", "s", "-1s", "5 s", "5d", "1e99s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        let shown = |text| span(parse_duration(text).unwrap());
        assert_eq!(
            [shown("25"), shown("120s"), shown("1h"), shown("90s")],
            ["25s", "2m", "1h", "90s"]
        );
        assert_eq!(shown("250ms"), "0.25s");
    }
}
