//! How long a value is fresh, and may be served after that, by the head it came with.
//!
//! RFC 9111 sections 4.2 and 5.2.2, RFC 5861. Pelton is a shared cache: `s-maxage` wins over
//! `max-age`, and that over `Expires`; of two of a kind the smaller counts, and what cannot be read
//! means stale at once. Where the server forbids a stale answer, or to keep one, its word stands
//! over `cache.stale_while_revalidate` and `cache.stale_if_error`.
//!
//! `Vary` (RFC 9111 section 4.1) names fields of the request. Ours for a key are all alike, so an
//! answer that varies fits the next one; only `*` says that it fits none.

use crate::mesh::{Lifetime, Stale};
use hyper::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderMap, HeaderValue, VARY};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nobody is shown the value later than those who wait for it.
const NEVER: Stale =
    Stale { while_revalidate: Some(Duration::ZERO), if_error: Some(Duration::ZERO) };

/// The longest time that a value can be fresh: as in the configuration.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What a server says of how long a value is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    directives: Option<Directives>,
    expires: Option<SystemTime>,
    varies_by_anything: Option<bool>,
}

/// What `Cache-Control` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Directives {
    max_age: Option<Duration>,
    s_maxage: Option<Duration>,
    while_revalidate: Option<Duration>,
    if_error: Option<Duration>,
    is_never_stale: bool,
    is_never_fresh: bool,
    is_never_kept: bool,
}

impl Words {
    /// What this head says.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let directives = headers.contains_key(CACHE_CONTROL).then(|| Directives::of(headers));
        // What cannot be read is over.
        let expires = headers.get(EXPIRES).map(|value| time(value).unwrap_or(UNIX_EPOCH));
        let varies_by_anything = headers.contains_key(VARY).then(|| varies_by_anything(headers));
        Self { directives, expires, varies_by_anything }
    }

    /// This, and what was said before where this says nothing: a line of a 304 takes the place of
    /// that of its value (RFC 9111 section 3.2).
    pub(super) fn or(self, before: Self) -> Self {
        Self {
            directives: self.directives.or(before.directives),
            expires: self.expires.or(before.expires),
            varies_by_anything: self.varies_by_anything.or(before.varies_by_anything),
        }
    }

    /// Whether anything of the value may be kept.
    pub(super) fn may_be_kept(&self) -> bool {
        !self.directives.unwrap_or_default().is_never_kept
    }

    /// How long a value is fresh, and may be served after that, of which this was said and which
    /// has come with this head, or has not changed by it.
    pub(super) fn freshness(&self, headers: &HeaderMap) -> (Lifetime, Stale) {
        let directives = self.directives.unwrap_or_default();
        if directives.is_never_fresh || self.varies_by_anything == Some(true) {
            return (Lifetime::For(Duration::ZERO), NEVER);
        }
        let until_expiry = || self.expires.map(|expires| until(expires, headers));
        let given = directives.s_maxage.or(directives.max_age).or_else(until_expiry);
        let lifetime = given.map_or(Lifetime::Default, |given| {
            Lifetime::For(given.saturating_sub(age(headers)).min(WEEK))
        });
        let Directives { while_revalidate, if_error, .. } = directives;
        let is_never_stale = directives.is_never_stale || directives.s_maxage.is_some();
        let stale = if is_never_stale { NEVER } else { Stale { while_revalidate, if_error } };
        (lifetime, stale)
    }
}

impl Directives {
    fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for value in headers.get_all(CACHE_CONTROL) {
            // What is no text forbids everything, to be safe.
            value.to_str().unwrap_or("no-store").split(',').for_each(|text| found.read(text));
        }
        found
    }

    fn read(&mut self, text: &str) {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let seconds = || seconds(value.trim().trim_matches('"'));
        let least = |place: &mut Option<Duration>| {
            *place = Some(place.unwrap_or(WEEK).min(seconds()));
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "max-age" => least(&mut self.max_age),
            "s-maxage" => least(&mut self.s_maxage),
            "stale-while-revalidate" => least(&mut self.while_revalidate),
            "stale-if-error" => least(&mut self.if_error),
            "must-revalidate" | "proxy-revalidate" => self.is_never_stale = true,
            "no-cache" => self.is_never_fresh = true,
            "no-store" | "private" => (self.is_never_fresh, self.is_never_kept) = (true, true),
            _ => {}
        }
    }
}

/// A number of seconds; what is none counts as zero.
fn seconds(text: &str) -> Duration {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are a very long time.
    let seconds = if is_number { text.parse().unwrap_or(u64::MAX) } else { 0 };
    Duration::from_secs(seconds).min(WEEK)
}

/// How long the value was on its way through other caches.
fn age(headers: &HeaderMap) -> Duration {
    let text = headers.get(AGE).and_then(|value| value.to_str().ok());
    text.map_or(Duration::ZERO, |text| seconds(text.trim()))
}

/// Whether no other request gets this answer.
fn varies_by_anything(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(VARY).iter();
    // What is no text may say so.
    lines.any(|line| line.to_str().unwrap_or("*").split(',').any(|name| name.trim() == "*"))
}

/// From `Date` to `Expires`; zero if that cannot be read.
fn until(expires: SystemTime, headers: &HeaderMap) -> Duration {
    let date = headers.get(DATE).and_then(time);
    date.and_then(|date| expires.duration_since(date).ok()).unwrap_or_default()
}

fn time(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;

    type Lines = [(HeaderName, &'static str)];

    fn head(lines: &Lines) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn told(lines: &Lines) -> (Lifetime, Stale) {
        let headers = head(lines);
        Words::of(&headers).freshness(&headers)
    }

    const fn s(seconds: u64) -> Lifetime {
        Lifetime::For(Duration::from_secs(seconds))
    }

    #[test]
    fn the_lifetime_is_the_first_of_those_that_count_less_the_age() {
        for (lines, lifetime) in [
            (&[][..], Lifetime::Default),
            (&[(CACHE_CONTROL, "public, max-age=60")], s(60)),
            (&[(CACHE_CONTROL, "Max-Age=\"60\"")], s(60)),
            (&[(CACHE_CONTROL, "max-age=60"), (AGE, "20")], s(40)),
            (&[(CACHE_CONTROL, "max-age=60"), (AGE, "80")], s(0)),
            (&[(CACHE_CONTROL, "max-age=60, s-maxage=7")], s(7)),
            (&[(CACHE_CONTROL, "max-age=60"), (CACHE_CONTROL, "max-age=30")], s(30)),
            (&[(CACHE_CONTROL, "max-age=soon")], s(0)),
            (&[(CACHE_CONTROL, "max-age=99999999999999999999999")], s(604_800)),
            (
                &[
                    (DATE, "Sun, 06 Nov 1994 08:49:37 GMT"),
                    (EXPIRES, "Sun, 06 Nov 1994 08:50:37 GMT"),
                ],
                s(60),
            ),
            (&[(EXPIRES, "0")], s(0)),
        ] {
            assert_eq!(told(lines).0, lifetime, "{lines:?}");
        }
    }

    #[test]
    fn nothing_is_kept_that_must_not_be_and_nothing_stale_served() {
        for value in ["no-store", "no-cache", "private, max-age=60", "max-age=60, No-Store"] {
            assert_eq!(told(&[(CACHE_CONTROL, value)]), (s(0), NEVER), "{value}");
        }
        for value in ["max-age=5, must-revalidate", "max-age=5, proxy-revalidate", "s-maxage=5"] {
            assert_eq!(told(&[(CACHE_CONTROL, value)]), (s(5), NEVER), "{value}");
        }
    }

    #[test]
    fn an_answer_that_varies_is_kept_unless_it_fits_no_other_request() {
        for (vary, lifetime) in
            [("Accept-Encoding, User-Agent", s(60)), ("*", s(0)), ("Accept-Language, *", s(0))]
        {
            assert_eq!(told(&[(CACHE_CONTROL, "max-age=60"), (VARY, vary)]).0, lifetime, "{vary}");
        }
        let twice = [(CACHE_CONTROL, "max-age=60"), (VARY, "Accept"), (VARY, "*")];
        assert_eq!(told(&twice), (s(0), NEVER));
    }

    #[test]
    fn the_server_may_say_how_long_stale_answers_are_good() {
        let value = "max-age=5, stale-while-revalidate=7, stale-if-error=9";
        let (_, stale) = told(&[(CACHE_CONTROL, value)]);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(stale, Stale { while_revalidate: seconds(7), if_error: seconds(9) });
    }
    #[test]
    fn a_line_of_a_304_takes_the_place_of_that_of_the_value_and_others_stay() {
        const DATE_1: (HeaderName, &str) = (DATE, "Sun, 06 Nov 1994 08:49:37 GMT");
        const DATE_2: (HeaderName, &str) = (DATE, "Sun, 06 Nov 1994 08:49:47 GMT");
        const UNTIL: (HeaderName, &str) = (EXPIRES, "Sun, 06 Nov 1994 08:50:37 GMT");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let seven = Stale { while_revalidate: seconds(7), if_error: None };
        for (first, then, expected) in [
            (&[][..], &[][..], (Lifetime::Default, Stale::default())),
            (&[(CACHE_CONTROL, "max-age=5, stale-while-revalidate=7")], &[], (s(5), seven)),
            (&[(CACHE_CONTROL, "max-age=5")], &[(AGE, "2")], (s(3), Stale::default())),
            (&[(CACHE_CONTROL, "max-age=5"), (AGE, "2")], &[], (s(5), Stale::default())),
            (
                &[(CACHE_CONTROL, "max-age=5, stale-while-revalidate=7")],
                &[(CACHE_CONTROL, "max-age=9")],
                (s(9), Stale::default()),
            ),
            (&[(CACHE_CONTROL, "max-age=5")], &[(CACHE_CONTROL, "no-cache")], (s(0), NEVER)),
            (&[DATE_1, UNTIL], &[DATE_2], (s(50), Stale::default())),
            (&[DATE_1, UNTIL], &[(CACHE_CONTROL, "max-age=5")], (s(5), Stale::default())),
            (&[(EXPIRES, "0")], &[DATE_2, UNTIL], (s(50), Stale::default())),
            (&[(CACHE_CONTROL, "max-age=5")], &[DATE_2, UNTIL], (s(5), Stale::default())),
        ] {
            let (before, headers) = (Words::of(&head(first)), head(then));
            let words = Words::of(&headers).or(before);
            assert_eq!(words.freshness(&headers), expected, "{first:?}, then {then:?}");
        }
    }
}
