//! The `Date` of replies: IMF-fixdate (RFC 9110 section 5.6.7), rendered once a second.
//!
//! ```text
//! Sun, 06 Nov 1994 08:49:37 GMT
//! 0    5  8   12   17 20 23 26   29
//! ```

use shard_cache::time::WallSeconds;

/// Length of the text.
pub(crate) const DATE_SIZE: usize = 29;

const SECONDS_A_DAY: u64 = 86_400;
const WEEKDAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// A date and its text.
#[derive(Clone, Debug)]
pub(crate) struct Date {
    second: WallSeconds,
    text: [u8; DATE_SIZE],
}

impl Date {
    /// The date of `second`.
    ///
    /// # Panics
    /// From the year 10000 on: the format has four digits for the year.
    pub(crate) fn new(second: WallSeconds) -> Self {
        Self { second, text: render(second.0) }
    }

    /// Becomes the date of `second`; renders only when that is another one.
    pub(crate) fn set(&mut self, second: WallSeconds) {
        if self.second != second {
            *self = Self::new(second);
        }
    }

    /// The text.
    pub(crate) const fn text(&self) -> &[u8; DATE_SIZE] {
        &self.text
    }
}

/// A day of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    /// From 0.
    month: u64,
    /// From 1.
    day: u64,
}

/// The day `days` after 1970-01-01.
///
/// Counts from 0000-03-01 in eras of 400 years, so that a leap day is the last day of a year and a
/// year's months have their lengths in a row of five months of 153 days.
const fn civil(days: u64) -> Civil {
    const DAYS_AN_ERA: u64 = 146_097;
    const EPOCH: u64 = 719_468;
    let days = days + EPOCH;
    let (era, day_of_era) = (days / DAYS_AN_ERA, days % DAYS_AN_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + if month < 2 { 1 } else { 0 };
    Civil { year, month, day: day_of_year - (153 * month_from_march + 2) / 5 + 1 }
}

fn render(second: u64) -> [u8; DATE_SIZE] {
    let (days, second) = (second / SECONDS_A_DAY, second % SECONDS_A_DAY);
    let Civil { year, month, day } = civil(days);
    assert!(year < 10_000, "the format has four digits for the year");
    let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    text[0..3].copy_from_slice(name(WEEKDAYS, days % 7));
    put_two(&mut text, 5, day);
    text[8..11].copy_from_slice(name(MONTHS, month));
    put_two(&mut text, 12, year / 100);
    put_two(&mut text, 14, year % 100);
    put_two(&mut text, 17, second / 3600);
    put_two(&mut text, 20, second / 60 % 60);
    put_two(&mut text, 23, second % 60);
    text
}

/// The three letters of name `index`.
fn name(names: &[u8], index: u64) -> &[u8] {
    let at = 3 * usize::try_from(index).expect("a week and a year are short");
    &names[at..at + 3]
}

fn put_two(text: &mut [u8; DATE_SIZE], at: usize, number: u64) {
    let number = u8::try_from(number).expect("two digits");
    text[at] = b'0' + number / 10;
    text[at + 1] = b'0' + number % 10;
}

#[cfg(test)]
mod tests {
    use super::{Civil, Date, SECONDS_A_DAY, WallSeconds, civil};

    fn text(second: u64) -> String {
        String::from_utf8(Date::new(WallSeconds(second)).text().to_vec()).expect("ASCII")
    }

    #[test]
    fn known_dates_are_rendered() {
        for (second, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(text(second), date);
        }
    }

    #[test]
    fn days_follow_each_other_as_in_the_calendar_for_800_years() {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let mut expected = Civil { year: 1970, month: 0, day: 1 };
        for days in 0..292_194 {
            assert_eq!(civil(days), expected);
            let february = if is_leap(expected.year) { 29 } else { 28 };
            let month = usize::try_from(expected.month).expect("below 12");
            let length = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month];
            expected.day = expected.day % length + 1;
            if expected.day == 1 {
                expected.month = (expected.month + 1) % 12;
                expected.year += u64::from(expected.month == 0);
            }
        }
    }

    #[test]
    fn the_date_follows_the_clock_in_both_directions() {
        let mut date = Date::new(WallSeconds(SECONDS_A_DAY));
        date.set(WallSeconds(SECONDS_A_DAY + 1));
        assert_eq!(date.text(), b"Fri, 02 Jan 1970 00:00:01 GMT");
        date.set(WallSeconds(59));
        assert_eq!(date.text(), b"Thu, 01 Jan 1970 00:00:59 GMT");
    }
}
