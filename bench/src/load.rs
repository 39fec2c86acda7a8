//! The load generator: one thread, one ring, a fixed rate or a closed loop.
//!
//! At a fixed rate every batch of requests has an intended start, evenly spaced, whatever the
//! server does; latency counts from it, so a server that stalls is charged with all who wait
//! meanwhile. In a closed loop a connection asks again when it was answered: that measures the
//! peak, and its latencies mean little.
//!
//! Batch k belongs to connection k mod n. A connection has one batch in flight; one that is due
//! while the last is under way starts when that is answered, late, and is timed from when it was
//! due.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a generator keeps its own time, on a thread of its own"
)]

use crate::procfs::Usage;
use crate::replies::{Replies, Reply};
use crate::requests::Requests;
use crate::ring::{Completion, Event, Ring};
use hdrhistogram::Histogram;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long replies may take to come in after the last request was due.
const GRACE: Duration = Duration::from_secs(2);
/// The longest latency that is told from longer ones.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What to do.
pub(crate) struct Plan<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Requests in a batch: sent at once, answered in order.
    pub(crate) pipeline: usize,
    /// Requests a second, or `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) until: Until,
    pub(crate) requests: &'a Requests,
    /// Where in the sequence to begin; the end of a batch.
    pub(crate) first_request: usize,
    /// The right body of each key, or empty where bodies are not compared.
    pub(crate) bodies: &'a [Box<[u8]>],
}

/// When to stop starting batches.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After this long.
    Elapsed(Duration),
    /// After every request of the sequence was sent once.
    Swept,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) answered: u64,
    /// From the first intended start to the last answer.
    pub(crate) elapsed: Duration,
    /// Nanoseconds from the intended start of a batch to each of its replies.
    pub(crate) latency: Histogram<u64>,
    /// How late this generator itself was at most, as opposed to the server.
    pub(crate) lateness_max: Duration,
    /// Share of the time that this generator spent on its CPU, from 0 to 1.
    pub(crate) busy: f64,
    pub(crate) errors: Errors,
}

impl Outcome {
    /// Replies a second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

/// What went wrong, by kind, and the first of it in words.
#[derive(Default)]
pub(crate) struct Errors {
    pub(crate) status: u64,
    pub(crate) body: u64,
    pub(crate) connection: u64,
    pub(crate) unanswered: u64,
    pub(crate) first: Option<String>,
}

impl Errors {
    pub(crate) const fn count(&self) -> u64 {
        self.status + self.body + self.connection + self.unanswered
    }

    fn note(&mut self, say: impl FnOnce() -> String) {
        self.first.get_or_insert_with(say);
    }
}

/// Carries a plan out and closes all its connections.
pub(crate) fn run(ring: &mut Ring, plan: &Plan<'_>) -> io::Result<Outcome> {
    let connections = connect(plan)?;
    let before = Usage::of_this_thread()?;
    let start = Instant::now();
    let mut load = Load {
        ring,
        plan,
        connections,
        schedule: Schedule::new(plan, start),
        cursor: plan.first_request,
        outcome: Outcome {
            answered: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds are in order"),
            lateness_max: Duration::ZERO,
            busy: 0.0,
            errors: Errors::default(),
        },
    };
    load.arm_receives()?;
    load.work()?;
    load.outcome.elapsed = start.elapsed();
    let used = Usage::of_this_thread()?.since(before);
    load.outcome.busy = used.cpu_ns as f64 / load.outcome.elapsed.as_nanos() as f64;
    load.close()?;
    Ok(load.outcome)
}

fn connect(plan: &Plan<'_>) -> io::Result<Vec<Connection>> {
    let now = Instant::now();
    let open = |_| {
        let stream = TcpStream::connect(plan.address)?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            replies: Replies::default(),
            batches_started: 0,
            expected: 0..0,
            due: now,
            idle_since: now,
            unsent: &[],
            sending: false,
            receiving: true,
            lost: false,
        })
    };
    (0..plan.connections).map(open).collect()
}

/// When batches are due.
struct Schedule {
    start: Instant,
    /// Between two batches of all connections; `None` in a closed loop: they are due when free.
    interval: Option<Duration>,
    /// Batches that will ever be due.
    batches_max: u64,
    /// No batch starts after this.
    end: Option<Instant>,
    /// Batches that are due so far.
    released: u64,
}

impl Schedule {
    fn new(plan: &Plan<'_>, start: Instant) -> Self {
        let interval = plan.rate.map(|rate| Duration::from_secs_f64(plan.pipeline as f64 / rate));
        let (batches_max, end) = match plan.until {
            Until::Elapsed(duration) => (u64::MAX, Some(start + duration)),
            Until::Swept => ((plan.requests.count() / plan.pipeline) as u64, None),
        };
        Self { start, interval, batches_max, end, released: 0 }
    }

    /// When batch `index` is due; `now` in a closed loop.
    fn due(&self, index: u64, now: Instant) -> Instant {
        let since_start = |interval: Duration| {
            Duration::from_nanos(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX))
                .mul_f64(index as f64)
        };
        self.interval.map_or(now, |interval| self.start + since_start(interval))
    }

    /// Whether no further batch will be due.
    fn is_over(&self, now: Instant) -> bool {
        self.released >= self.batches_max || self.end.is_some_and(|end| now >= end)
    }

    /// Releases the next batch if it is due.
    fn release(&mut self, now: Instant) -> Option<u64> {
        let batch = self.released;
        let ended = self.end.is_some_and(|end| self.due(batch, now) >= end);
        if ended || self.is_over(now) || self.due(batch, now) > now {
            return None;
        }
        self.released += 1;
        Some(batch)
    }
}

struct Connection {
    stream: TcpStream,
    replies: Replies,
    batches_started: u64,
    /// Requests of the batch in flight that are not answered yet.
    expected: Range<usize>,
    /// When the batch in flight was due.
    due: Instant,
    /// When the batch before it was answered.
    idle_since: Instant,
    /// What the kernel has not taken yet of the batch in flight.
    unsent: &'static [u8],
    sending: bool,
    /// A receive is armed.
    receiving: bool,
    lost: bool,
}

impl Connection {
    const fn is_idle(&self) -> bool {
        self.expected.start >= self.expected.end && !self.sending && !self.lost
    }
}

struct Load<'a> {
    ring: &'a mut Ring,
    plan: &'a Plan<'a>,
    connections: Vec<Connection>,
    schedule: Schedule,
    /// The next request of the sequence.
    cursor: usize,
    outcome: Outcome,
}

impl Load<'_> {
    fn arm_receives(&mut self) -> io::Result<()> {
        for (id, connection) in self.connections.iter().enumerate() {
            self.ring.receive(connection.stream.as_fd(), connection_id(id))?;
        }
        Ok(())
    }

    /// Until all that was due is answered, or the grace is over.
    fn work(&mut self) -> io::Result<()> {
        let mut completions = Vec::new();
        loop {
            let now = Instant::now();
            self.start_due(now)?;
            let over = self.schedule.is_over(now);
            let all_lost = self.connections.iter().all(|connection| connection.lost);
            let in_grace = now <= self.schedule.end.unwrap_or(now) + GRACE;
            let pending = (0..self.connections.len()).any(|id| self.is_pending(id));
            if all_lost || over && !(in_grace && pending) {
                break;
            }
            let wait_until = if over || self.schedule.interval.is_none() {
                now + GRACE
            } else {
                self.schedule.due(self.schedule.released, now)
            };
            self.ring.turn(Some(wait_until.saturating_duration_since(now)), &mut completions)?;
            let now = Instant::now();
            for completion in completions.drain(..) {
                self.dispatch(completion, now)?;
            }
        }
        let unanswered = self.connections.iter().map(|connection| connection.expected.len());
        self.outcome.errors.unanswered += unanswered.sum::<usize>() as u64;
        Ok(())
    }

    /// Starts what is due on connections that are free.
    fn start_due(&mut self, now: Instant) -> io::Result<()> {
        if self.schedule.interval.is_none() {
            for id in 0..self.connections.len() {
                if self.connections[id].is_idle() && self.schedule.release(now).is_some() {
                    self.start(id, now, now)?;
                }
            }
            return Ok(());
        }
        while let Some(batch) = self.schedule.release(now) {
            self.start_next(position(batch, self.connections.len()), now)?;
        }
        Ok(())
    }

    /// The next batch of a connection by the schedule, whether or not it is due.
    fn next_batch(&self, id: usize) -> u64 {
        let count = self.connections.len() as u64;
        id as u64 + self.connections[id].batches_started * count
    }

    /// Whether a connection waits for replies or holds up a batch that is due.
    fn is_pending(&self, id: usize) -> bool {
        let connection = &self.connections[id];
        let behind =
            self.schedule.interval.is_some() && self.next_batch(id) < self.schedule.released;
        !connection.lost && (behind || !connection.is_idle())
    }

    /// Starts a connection's next batch if that is due and the connection free.
    fn start_next(&mut self, id: usize, now: Instant) -> io::Result<()> {
        let batch = self.next_batch(id);
        let open_loop = self.schedule.interval.is_some();
        if open_loop && batch < self.schedule.released && self.connections[id].is_idle() {
            let due = self.schedule.due(batch, now);
            self.start(id, due, now)?;
        }
        Ok(())
    }

    fn start(&mut self, id: usize, due: Instant, now: Instant) -> io::Result<()> {
        let batch = self.cursor..self.cursor + self.plan.pipeline;
        self.cursor = if batch.end == self.plan.requests.count() { 0 } else { batch.end };
        let connection = &mut self.connections[id];
        let could_start = due.max(connection.idle_since);
        let lateness = now.saturating_duration_since(could_start);
        self.outcome.lateness_max = self.outcome.lateness_max.max(lateness);
        connection.batches_started += 1;
        connection.due = due;
        connection.unsent = self.plan.requests.text(&batch);
        connection.expected = batch;
        connection.sending = true;
        self.ring.send(connection.stream.as_fd(), connection.unsent, connection_id(id))
    }

    fn dispatch(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let id = completion.token.connection as usize;
        let connection = &mut self.connections[id];
        match completion.event {
            Event::Received(buffer) => {
                let checks = Checks { plan: self.plan, outcome: &mut self.outcome, now };
                let read = checks.read(connection, self.ring.bytes(&buffer));
                self.ring.recycle(buffer);
                if !completion.more {
                    self.ring.receive(connection.stream.as_fd(), connection_id(id))?;
                }
                if let Err(what) = read {
                    self.lose(id, &what);
                } else if connection.is_idle() {
                    connection.idle_since = now;
                    self.start_next(id, now)?;
                }
            }
            Event::Sent(size) => {
                connection.unsent = &connection.unsent[size..];
                connection.sending = !connection.unsent.is_empty();
                if connection.sending {
                    let bytes = connection.unsent;
                    self.ring.send(connection.stream.as_fd(), bytes, connection_id(id))?;
                } else if connection.is_idle() {
                    connection.idle_since = now;
                    self.start_next(id, now)?;
                }
            }
            Event::SendFailed => {
                connection.sending = false;
                self.lose(id, "a send failed");
            }
            Event::Ended => {
                connection.receiving = false;
                self.lose(id, "the server closed the connection");
            }
            Event::Lapsed => {
                self.ring.receive(connection.stream.as_fd(), connection_id(id))?;
            }
            Event::Accepted(_) => unreachable!("a generator accepts nothing"),
        }
        Ok(())
    }

    /// Gives a connection up; what it was asked stays unanswered.
    fn lose(&mut self, id: usize, what: &str) {
        let connection = &mut self.connections[id];
        if !connection.lost {
            connection.lost = true;
            self.outcome.errors.connection += 1;
            self.outcome.errors.note(|| what.to_owned());
        }
    }

    /// Closes every connection and takes the last completion of each, so that the ring is clean.
    fn close(&mut self) -> io::Result<()> {
        for connection in &self.connections {
            // It may be closed by now, which is as good.
            drop(connection.stream.shutdown(Shutdown::Both));
        }
        let mut completions = Vec::new();
        while self.connections.iter().any(|connection| connection.receiving || connection.sending) {
            self.ring.turn(None, &mut completions)?;
            for completion in completions.drain(..) {
                let connection = &mut self.connections[completion.token.connection as usize];
                match completion.event {
                    Event::Received(buffer) => {
                        self.ring.recycle(buffer);
                        connection.receiving = completion.more;
                    }
                    Event::Ended | Event::Lapsed => connection.receiving = false,
                    Event::Sent(_) | Event::SendFailed => connection.sending = false,
                    Event::Accepted(_) => unreachable!("a generator accepts nothing"),
                }
            }
        }
        Ok(())
    }
}

/// Compares replies with what they should be.
struct Checks<'a> {
    plan: &'a Plan<'a>,
    outcome: &'a mut Outcome,
    now: Instant,
}

impl Checks<'_> {
    /// Reads what came in on a connection; an error means that it is of no use any more.
    fn read(self, connection: &mut Connection, bytes: &[u8]) -> Result<(), String> {
        let Self { plan, outcome, now } = self;
        let waited = now.saturating_duration_since(connection.due);
        let latency_ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        let expected = &mut connection.expected;
        let mut surplus = false;
        let read = connection.replies.read(bytes, |reply| match expected.next() {
            Some(request) => {
                outcome.answered += 1;
                outcome.latency.saturating_record(latency_ns);
                check(reply, plan, request, &mut outcome.errors);
            }
            None => surplus = true,
        });
        read.map_err(|malformed| malformed.0)?;
        if surplus { Err("a reply that nothing asked for".to_owned()) } else { Ok(()) }
    }
}

fn check(reply: &Reply<'_>, plan: &Plan<'_>, request: usize, errors: &mut Errors) {
    if reply.status != 200 {
        errors.status += 1;
        errors.note(|| format!("status {}", reply.status));
        return;
    }
    let body = plan.requests.key(request).and_then(|key| plan.bodies.get(key));
    if body.is_some_and(|body| **body != *reply.body) {
        errors.body += 1;
        errors.note(|| format!("wrong body: {}", String::from_utf8_lossy(reply.body)));
    }
}

/// The connection that a batch belongs to.
fn position(batch: u64, connections: usize) -> usize {
    usize::try_from(batch % connections as u64).expect("connections are counted in usize")
}

fn connection_id(id: usize) -> u32 {
    u32::try_from(id).expect("descriptors are fewer than 4 billion")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::Target;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Serves one connection after another: a `reply` for each of `count` requests, then closes.
    fn serve(reply: &'static [u8], count: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut bytes = Vec::new();
                let mut piece = [0; 4096];
                let mut answered = 0;
                while answered < count {
                    let size = stream.read(&mut piece).unwrap_or(0);
                    if size == 0 {
                        break;
                    }
                    bytes.extend_from_slice(&piece[..size]);
                    let seen = bytes.windows(4).filter(|window| window == b"\r\n\r\n").count();
                    for _ in answered..seen.min(count) {
                        stream.write_all(reply).unwrap();
                    }
                    answered = seen;
                }
            }
        });
        address
    }

    fn sweep(address: SocketAddr, rate: Option<f64>, bodies: &[Box<[u8]>]) -> Outcome {
        let keys: Vec<String> = (0..12).map(|key| key.to_string()).collect();
        let requests = Requests::new(&Target::Sweep { keys: &keys }, "h", 4);
        let plan = Plan {
            address,
            connections: 1,
            pipeline: 4,
            rate,
            until: Until::Swept,
            requests: &requests,
            first_request: 0,
            bodies,
        };
        run(&mut Ring::new().unwrap(), &plan).unwrap()
    }

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";

    #[test]
    fn a_sweep_asks_once_for_everything() {
        let outcome = sweep(serve(GOOD, usize::MAX), None, &[]);
        assert_eq!((outcome.answered, outcome.errors.count()), (12, 0));
        assert_eq!(outcome.latency.len(), 12);
    }

    #[test]
    fn a_schedule_is_kept_to_its_end() {
        let outcome = sweep(serve(GOOD, usize::MAX), Some(1e6), &[]);
        assert_eq!((outcome.answered, outcome.errors.count()), (12, 0));
    }

    #[test]
    fn a_wrong_body_is_counted() {
        let mut bodies = vec![Box::from(b"ab".as_slice()); 12];
        assert_eq!(sweep(serve(GOOD, usize::MAX), None, &bodies).errors.count(), 0);
        bodies[5] = Box::from(b"ac".as_slice());
        assert_eq!(sweep(serve(GOOD, usize::MAX), None, &bodies).errors.body, 1);
    }

    #[test]
    fn a_wrong_status_is_counted() {
        let reply = b"HTTP/1.1 503 Overloaded\r\nContent-Length: 0\r\n\r\n";
        let outcome = sweep(serve(reply, usize::MAX), None, &[]);
        assert_eq!((outcome.answered, outcome.errors.status), (12, 12));
    }

    #[test]
    fn a_connection_that_closes_early_is_counted() {
        let outcome = sweep(serve(GOOD, 6), None, &[]);
        assert_eq!((outcome.answered, outcome.errors.connection), (6, 1));
        assert_eq!(outcome.errors.unanswered, 2);
    }

    #[test]
    fn what_is_no_reply_ends_the_connection() {
        let outcome = sweep(serve(b"HTTP/1.1 200 OK\r\n\r\n", usize::MAX), None, &[]);
        assert_eq!((outcome.answered, outcome.errors.connection), (0, 1));
    }

    #[test]
    fn batches_are_due_evenly_from_the_start() {
        let start = Instant::now();
        let mut schedule = Schedule {
            start,
            interval: Some(Duration::from_millis(10)),
            batches_max: 3,
            end: None,
            released: 0,
        };
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(schedule.release(start), Some(0));
        assert_eq!(schedule.release(at(9)), None);
        assert_eq!(schedule.release(at(25)), Some(1));
        assert_eq!(schedule.release(at(25)), Some(2));
        assert_eq!(schedule.release(at(99)), None);
        assert!(schedule.is_over(at(99)));
    }
}
