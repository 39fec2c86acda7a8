//! The generator against a server whose faults are planted, in a time that is made up: what comes
//! out is compared with what can be computed by hand, exactly.
//!
//! A made-up server answers requests one after the other and takes a time for each that its
//! [`Behaviour`] says. Time moves only when the generator waits.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a made-up time has to begin at some moment"
)]

use super::link::Link;
use super::{Outcome, Plan, Stream, Until, Worker};
use crate::address::Address;
use crate::ring::{Buffer, Completion, Event, Kind, Token};
use crate::traffic::{Keys, Recipe, Records, Requests, Verify};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const US: Duration = Duration::from_micros(1);

/// What the server does with request number `index`, which arrived at `now` since the start.
struct Answer {
    /// When its reply is sent.
    at: Duration,
    reply: Vec<u8>,
    /// The server closes then.
    closes: bool,
}

type Behaviour = Box<dyn FnMut(u64, Duration) -> Answer>;

fn good(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn answer(at: Duration, reply: Vec<u8>) -> Answer {
    Answer { at, reply, closes: false }
}

/// The made-up world: a server, and a clock that jumps to the next thing that happens.
struct Planted {
    start: Instant,
    now: Duration,
    behaviour: Behaviour,
    requests: u64,
    /// What will complete, by time and order.
    due: BTreeMap<(Duration, u64), (Token, Planned)>,
    order: u64,
    lent: BTreeMap<u16, Vec<u8>>,
    next_buffer: u16,
}

#[derive(Debug)]
enum Planned {
    Connected,
    Sent(usize),
    Received(Vec<u8>),
    Ended,
}

impl Planted {
    fn new(behaviour: Behaviour) -> Self {
        Self {
            start: Instant::now(),
            now: Duration::ZERO,
            behaviour,
            requests: 0,
            due: BTreeMap::new(),
            order: 0,
            lent: BTreeMap::new(),
            next_buffer: 0,
        }
    }

    fn plan(&mut self, at: Duration, kind: Kind, connection: u32, planned: Planned) {
        self.order += 1;
        self.due.insert((at, self.order), (Token::new(kind, connection), planned));
    }

    fn complete(&mut self, token: Token, planned: Planned) -> Completion {
        let event = match planned {
            Planned::Connected => Event::Connected,
            Planned::Sent(size) => Event::Sent(size),
            Planned::Ended => Event::Ended,
            Planned::Received(bytes) => {
                let index = self.next_buffer;
                self.next_buffer = index.wrapping_add(1);
                let len = u32::try_from(bytes.len()).unwrap();
                assert!(self.lent.insert(index, bytes).is_none(), "buffers come back");
                Event::Received(Buffer::lend(index, len))
            }
        };
        let more = matches!(event, Event::Received(_));
        Completion { token, event, more }
    }
}

impl Link for Planted {
    fn now(&self) -> Instant {
        self.start + self.now
    }

    fn connect(&mut self, connection: u32) -> io::Result<()> {
        self.plan(self.now, Kind::Connect, connection, Planned::Connected);
        Ok(())
    }

    fn receive(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn send(&mut self, connection: u32, bytes: &'static [u8]) -> io::Result<()> {
        self.plan(self.now, Kind::Send, connection, Planned::Sent(bytes.len()));
        for _ in 0..bytes.windows(4).filter(|window| window == b"\r\n\r\n").count() {
            let Answer { at, reply, closes } = (self.behaviour)(self.requests, self.now);
            self.requests += 1;
            self.plan(at, Kind::Receive, connection, Planned::Received(reply));
            if closes {
                self.plan(at, Kind::Receive, connection, Planned::Ended);
            }
        }
        Ok(())
    }

    fn shutdown(&mut self, connection: u32) {
        let is_received =
            |token: &Token| token.connection == connection && token.kind == Kind::Receive;
        self.due.retain(|_, (token, _)| !is_received(token));
        self.plan(self.now, Kind::Receive, connection, Planned::Ended);
    }

    fn close(&mut self, connection: u32) {
        self.due.retain(|_, (token, _)| token.connection != connection);
    }

    fn turn(&mut self, wait_max: Duration, completions: &mut Vec<Completion>) -> io::Result<()> {
        let until = self.now + wait_max;
        let first = self.due.first_key_value().map_or(until, |((at, _), _)| *at);
        self.now = self.now.max(first.min(until));
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (token, planned) = entry.remove();
            let completion = self.complete(token, planned);
            completions.push(completion);
        }
        Ok(())
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        &self.lent[&buffer.index()]
    }

    fn recycle(&mut self, buffer: Buffer) {
        assert!(self.lent.remove(&buffer.index()).is_some(), "a buffer comes back once");
    }
}

/// What a run against a planted server is to be.
struct Case {
    connections: usize,
    rate: Option<f64>,
    duration: Duration,
    pipeline: usize,
    timeout: Duration,
    records: Records,
}

impl Default for Case {
    fn default() -> Self {
        let records = Records { keys: vec!["a".to_owned()], bodies: vec![Box::from(*b"good")] };
        let (connections, rate, pipeline) = (1, Some(1_000.0), 1);
        Self { connections, rate, duration: 10_000 * MS, pipeline, timeout: 2_000 * MS, records }
    }
}

impl Case {
    fn run(&self, behaviour: impl FnMut(u64, Duration) -> Answer + 'static) -> Outcome {
        let requests = Requests::new(&Recipe {
            keys: Keys { known: &self.records.keys, cold: &[] },
            portion: self.pipeline,
            count: Some(self.pipeline),
            ..Recipe::get("/{key}", "h")
        })
        .unwrap();
        let address = Address::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let plan = Plan {
            address: Box::leak(Box::new(address)),
            threads: 1,
            cpus: Vec::new(),
            streams: vec![Stream {
                name: "all",
                connections: self.connections,
                rate: self.rate,
                pipeline: self.pipeline,
                requests: &requests,
                first_request: 0,
                verify: Some((Verify::Records, &self.records)),
                bodiless: false,
            }],
            until: Until::Elapsed(self.duration),
            warm_up: Duration::ZERO,
            timeout: self.timeout,
            deadline: self.timeout,
            spin: false,
        };
        Worker::new(Planted::new(Box::new(behaviour)), &plan, 0).run().unwrap()
    }
}

/// The latency at a percentile, exactly, as far as three digits tell.
fn at(outcome: &Outcome, percentile: f64) -> f64 {
    let latency = outcome.total().latency;
    latency.lowest_equivalent(latency.value_at_quantile(percentile / 100.0)) as f64
}

/// Equal within the three digits that a histogram keeps.
fn is(measured: f64, by_hand: Duration) -> bool {
    let by_hand = by_hand.as_secs_f64() * 1e6;
    (measured - by_hand).abs() <= by_hand / 1000.0
}

#[test]
fn an_even_server_is_as_fast_as_it_is() {
    let outcome = Case::default().run(|_, now| answer(now + 250 * US, good("good")));
    let total = outcome.total();
    assert_eq!((total.answered, total.errors.count(), total.errors.unsent), (10_000, 0, 0));
    for percentile in [0.0, 50.0, 99.9, 100.0] {
        assert_eq!(at(&outcome, percentile), 250.0);
    }
    assert_eq!(total.lateness.max(), 0, "in a made-up time nobody is late");
}

#[test]
fn a_stall_is_charged_to_all_who_would_have_asked_meanwhile() {
    // Of 1,000 requests a second, those of the first 100 ms of each second are answered at its end:
    // after 100, 99, ..., 1 ms, one after the other on one connection. All others take 10 us.
    let outcome = Case::default().run(|_, now| {
        let into = Duration::from_nanos((now.as_nanos() % 1_000_000_000) as u64);
        let stalled = into < 100 * MS;
        answer(if stalled { now - into + 100 * MS } else { now + 10 * US }, good("good"))
    });
    assert_eq!(outcome.total().answered, 10_000);
    // So one in ten waited, evenly up to 100 ms, and the requests behind the stall 10 us each.
    assert!(is(at(&outcome, 89.0), 10 * US), "{}", at(&outcome, 89.0));
    for (percentile, ms) in [(95.0, 50), (99.0, 90), (99.9, 99)] {
        let by_hand = Duration::from_millis(ms);
        let measured = at(&outcome, percentile);
        let queued = 1_000.0 + 10.0 * 100.0;
        let by_hand_us = by_hand.as_secs_f64() * 1e6;
        assert!((measured - by_hand_us).abs() <= queued, "{percentile}: {measured}");
    }
    assert!(is(at(&outcome, 100.0), 100 * MS));
    // Without the correction nearly all of that is hidden: one request a second was slow.
    let uncorrected = outcome.total().uncorrected;
    assert_eq!(uncorrected.count_between(1_000, u64::MAX), 10);
}

#[test]
fn a_closed_loop_does_not_see_a_stall() {
    let case = Case { rate: None, ..Case::default() };
    let outcome = case.run(|_, now| {
        let into = Duration::from_nanos((now.as_nanos() % 1_000_000_000) as u64);
        let stalled = into < 100 * MS;
        answer(if stalled { now - into + 100 * MS } else { now + MS }, good("good"))
    });
    // 900 answers of a millisecond a second, and one of 100 ms.
    assert_eq!(outcome.total().answered, 9_010);
    assert!(is(at(&outcome, 99.8), MS) && is(at(&outcome, 100.0), 100 * MS));
}

#[test]
fn one_slow_request_in_a_thousand_is_the_last_of_a_thousand() {
    let case = Case { connections: 100, ..Case::default() };
    let outcome = case.run(|index, now| {
        let takes = if index % 1_000 == 999 { 50 * MS } else { 20 * US };
        answer(now + takes, good("good"))
    });
    assert_eq!(outcome.total().answered, 10_000);
    assert!(is(at(&outcome, 99.89), 20 * US) && is(at(&outcome, 99.95), 50 * MS));
}

#[test]
fn a_server_at_its_limit_leaves_a_backlog_that_grows() {
    // It takes 2 ms a request and is asked every millisecond: the request at t waits about t.
    let case = Case { duration: 1_000 * MS, timeout: 100 * MS, ..Case::default() };
    let outcome = case.run(|_, now| answer(now + 2 * MS, good("good")));
    let total = outcome.total();
    // 500 in the second, 50 in the time that the end is waited for, the last one given up.
    assert_eq!(total.answered + total.errors.unanswered + total.errors.unsent, 1_000);
    assert!((549..=551).contains(&total.answered), "{}", total.answered);
    assert!(is(at(&outcome, 0.0), 2 * MS));
    // The k-th is due at k ms and answered at 2 (k + 1) ms: the median of 550 waits 277 ms.
    assert!((at(&outcome, 50.0) - 277_000.0).abs() < 2_000.0, "{}", at(&outcome, 50.0));
}

#[test]
fn a_batch_is_timed_from_its_start() {
    let case = Case { pipeline: 4, ..Case::default() };
    let outcome =
        case.run(|index, now| answer(now + Duration::from_millis(1 + index % 4), good("good")));
    let total = outcome.total();
    assert_eq!((total.answered, total.errors.count()), (10_000, 0));
    for (percentile, ms) in [(25.0, 1), (50.0, 2), (75.0, 3), (100.0, 4)] {
        assert!(is(at(&outcome, percentile), ms * MS), "{percentile}");
    }
}

#[test]
fn wrong_bodies_and_statuses_are_counted_one_by_one() {
    let outcome = Case::default().run(|index, now| {
        let reply = match index % 10 {
            3 => good("baad"),
            4 => good("goo"),
            5 => b"HTTP/1.1 503 Overloaded\r\nContent-Length: 0\r\n\r\n".to_vec(),
            _ => good("good"),
        };
        answer(now, reply)
    });
    let total = outcome.total();
    assert_eq!((total.answered, total.refused), (10_000, 1_000));
    assert_eq!((total.errors.body, total.errors.status), (2_000, 1_000));
    assert_eq!(total.errors.count(), 3_000);
}

#[test]
fn short_replies_and_closes_cost_their_requests_and_no_others() {
    let outcome = Case::default().run(|index, now| {
        let (reply, closes) = match index % 100 {
            10 => (good("good")[..20].to_vec(), true),
            20 => (Vec::new(), true),
            30 => (b"nonsense\r\n\r\n".to_vec(), false),
            40 => (good("good"), true),
            _ => (good("good"), false),
        };
        Answer { at: now, reply, closes }
    });
    let total = outcome.total();
    // Three in a hundred got no reply; the fourth got one, and its connection was made anew.
    assert_eq!((total.answered, total.errors.unanswered), (9_700, 300));
    assert_eq!((total.errors.read, total.errors.connect, total.errors.body), (300, 0, 0));
    assert_eq!(total.connects, 1 + 400);
}

#[test]
fn a_timeout_is_counted_once_for_each_request_and_never_for_an_idle_connection() {
    // Two requests a second over ten connections: each is idle for five seconds at a time.
    let case = Case { connections: 10, rate: Some(2.0), timeout: 100 * MS, ..Case::default() };
    let outcome = case.run(|index, now| {
        let takes = if index == 7 { 1_000 * MS } else { MS };
        answer(now + takes, good("good"))
    });
    let total = outcome.total();
    assert_eq!((total.answered, total.errors.timeout, total.errors.count()), (20, 1, 0));
}
