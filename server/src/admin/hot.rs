//! `/hot`: the keys that were asked for most in the last 10 to 20 s, over all shards.
//!
//! Each shard is lent an empty window, which is the question, and gives it back with its counters
//! within a turn of its loop: a quarter of a second where it has nothing else to do. A table that
//! was handed over regularly would be as old as the visit before.

use super::{Admin, key};
use crate::hot::{Heavy, Ranking, SAMPLED_ONE_IN, Window};
use crate::mesh::Taker;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Keys that are shown where nothing else is asked for.
const TOP_DEFAULT: u16 = 20;

/// Keys that are shown at most: as many as a shard counts in a half.
pub const TOP_MAX: u16 = 1000;

/// How often it is looked whether the shards have answered.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks before a shard is taken for silent: four times its longest wait.
const LOOKS_MAX: u32 = 200;

/// What `/hot` answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HotReport {
    /// How long was counted.
    pub window_seconds: f64,
    /// Of so many lookups one was counted, on average.
    pub sampled_one_in: u32,
    /// Lookups that were counted. A share of p is within 2 sqrt(p (1 - p) / samples), 19 times
    /// in 20.
    pub samples: u64,
    /// The hottest first.
    pub keys: Vec<HotKey>,
}

/// One key of a [`HotReport`]; shares are from 0 to 1.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HotKey {
    /// The key: as text, or as it stands in a request's path.
    pub key: String,
    /// Which of both: `text`, or `percent` where it is not UTF-8.
    pub encoding: String,
    /// Only its first 64 bytes are known.
    pub cut: bool,
    /// Its share of the lookups that were counted, at most.
    pub requests_share: f64,
    /// What of that may be other keys'.
    pub requests_share_error: f64,
    /// Its share of body bytes, at least.
    pub bytes_share: f64,
    /// The share of its lookups for which another shard was asked.
    pub remote_share: f64,
    /// The shard that owns it.
    pub owner_shard: u16,
}

/// Where one shard's window lies while nobody asks.
#[derive(Debug)]
pub(super) struct Desk {
    taker: Taker<Window>,
    window: Option<Box<Window>>,
}

impl Desk {
    pub(super) fn new(taker: Taker<Window>) -> Self {
        Self { taker, window: Some(Box::new(Window::new())) }
    }

    /// Lends the window to the shard. An answer that nobody waited for is asked for anew.
    fn ask(&mut self) {
        if let Some(window) = self.window.take().or_else(|| self.taker.take()) {
            self.taker.give_back(window);
        }
    }

    fn is_answered(&mut self) -> bool {
        if self.window.is_none() {
            self.window = self.taker.take();
        }
        self.window.is_some()
    }
}

pub(super) async fn hot(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    let top = match top(query.as_deref().unwrap_or_default()) {
        Ok(top) => top,
        Err(wrong) => return (StatusCode::BAD_REQUEST, wrong).into_response(),
    };
    // One reader at a time: a shard has one window.
    let mut desks = admin.hot_keys.lock().await;
    desks.iter_mut().for_each(Desk::ask);
    for _ in 0..LOOKS_MAX {
        if desks.iter_mut().all(Desk::is_answered) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let mut silent = String::new();
    for (shard, desk) in desks.iter_mut().enumerate() {
        if !desk.is_answered() {
            writeln!(silent, "shard {shard} has not answered within 1 s").expect("a string grows");
        }
    }
    if !silent.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, silent).into_response();
    }
    let report = report(desks.iter().filter_map(|desk| desk.window.as_deref()), top).await;
    let text = serde_json::to_string_pretty(&report).expect("names and numbers");
    ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

/// How many keys a query asks for.
fn top(query: &str) -> Result<u16, String> {
    const ALLOWED: RangeInclusive<u16> = 1..=TOP_MAX;
    let mut top = TOP_DEFAULT;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name != "top" {
            return Err(format!("there is no parameter {name:?}, only \"top\"\n"));
        }
        let number = value.parse().ok().filter(|number| ALLOWED.contains(number));
        top = number
            .ok_or_else(|| format!("top is a number from 1 to {TOP_MAX}, and not {value:?}\n"))?;
    }
    Ok(top)
}

/// Adds up the shards, one after the other: the origin plane on the same thread has its turns in
/// between.
async fn report(windows: impl Iterator<Item = &Window>, top: u16) -> HotReport {
    let mut ranking = Ranking::default();
    let mut longest = Duration::ZERO;
    for window in windows {
        longest = longest.max(window.duration());
        window.halves().iter().for_each(|table| ranking.add(table));
        tokio::task::yield_now().await;
    }
    let (samples, bytes) = (ranking.samples(), ranking.bytes());
    HotReport {
        window_seconds: longest.as_secs_f64(),
        sampled_one_in: SAMPLED_ONE_IN,
        samples,
        keys: ranking.top(top.into()).iter().map(|heavy| hot_key(heavy, samples, bytes)).collect(),
    }
}

fn hot_key(heavy: &Heavy<'_>, samples: u64, bytes: u64) -> HotKey {
    let counter = heavy.counter;
    let (key, encoding) = key::shown(counter.key(), counter.is_cut());
    HotKey {
        key,
        encoding,
        cut: counter.is_cut(),
        requests_share: share(heavy.count, samples),
        requests_share_error: share(heavy.error, samples),
        bytes_share: share(heavy.bytes, bytes),
        remote_share: share(heavy.remote, heavy.seen),
        owner_shard: counter.owner(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is shown to a few digits")]
fn share(part: u64, total: u64) -> f64 {
    part as f64 / total.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::{HotKeys, Lookup};
    use crate::mesh::boxes;
    use shard_cache::hash::KeyHash;
    use shard_cache::time::Instant;

    /// A shard of two at which one key was asked for, and another three times as often.
    fn keys(index: u16) -> HotKeys {
        let mut keys = HotKeys::new(index.into());
        keys.forget(Instant::ZERO);
        for lookup in 0..40_000 {
            let owner = u16::from(lookup % 4 == 0);
            let key = [b"hot".as_slice(), b"warm\xff"][usize::from(owner)];
            let hash = KeyHash::from_bits(owner.into());
            let is_remote = owner != index;
            if keys.is_next() {
                let sample = keys.count(&Lookup { hash, key, owner, is_remote });
                keys.add_bytes(sample, if owner == 0 { 100 } else { 900 });
            }
        }
        keys
    }

    fn is_about(share: f64, expected: f64) -> bool {
        (share - expected).abs() < 0.02
    }

    #[test]
    fn the_shards_are_added_up() {
        let window = |index| {
            let mut window = Window::new();
            let now = Instant::ZERO + Duration::from_millis(1500);
            keys(index).copy_to(&mut window, now);
            window
        };
        let windows = [window(0), window(1)];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let all = runtime.block_on(report(windows.iter(), 20));
        assert!(is_about(all.window_seconds, 1.5));
        assert!((4_700..5_300).contains(&all.samples), "{}", all.samples);
        let [hot, warm] = &all.keys[..] else { panic!("two keys: {all:?}") };
        assert_eq!((&*hot.key, &*hot.encoding, hot.owner_shard), ("hot", "text", 0));
        assert_eq!((&*warm.key, &*warm.encoding, warm.owner_shard), ("warm%FF", "percent", 1));
        assert!(is_about(hot.requests_share, 0.75) && is_about(warm.requests_share, 0.25));
        assert!(is_about(hot.bytes_share, 0.25) && is_about(warm.bytes_share, 0.75));
        assert!(is_about(hot.remote_share, 0.5) && is_about(warm.remote_share, 0.5));
        assert_eq!((hot.requests_share_error, hot.cut), (0.0, false));
        assert_eq!(runtime.block_on(report(windows.iter(), 1)).keys.len(), 1);
    }

    #[test]
    fn an_answer_that_nobody_waited_for_is_not_shown_later() {
        let (mut giver, taker) = boxes(1);
        let mut desk = Desk::new(taker);
        let keys = keys(0);
        let mut answer = |ms| {
            let now = Instant::ZERO + Duration::from_millis(ms);
            giver.give(|window: &mut Box<Window>| keys.copy_to(window, now))
        };
        assert!(!answer(1), "nobody has asked");
        desk.ask();
        assert!(!desk.is_answered());
        assert!(answer(2));
        desk.ask();
        assert!(!desk.is_answered(), "it is asked again");
        assert!(answer(3) && desk.is_answered());
        assert_eq!(desk.window.as_ref().unwrap().duration(), Duration::from_millis(3));
    }

    #[test]
    fn a_query_asks_for_a_number_of_keys_and_nothing_else() {
        for (query, wanted) in [("", 20), ("top=1", 1), ("top=1000", 1000), ("&top=7&", 7)] {
            assert_eq!(top(query), Ok(wanted));
        }
        for query in ["top=0", "top=1001", "top=", "top", "top=-1", "top=a", "top=70000"] {
            assert!(top(query).unwrap_err().starts_with("top is a number from 1 to 1000"));
        }
        assert_eq!(top("n=3"), Err("there is no parameter \"n\", only \"top\"\n".into()));
    }
}
