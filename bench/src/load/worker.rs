//! One thread of the generator: its connections, driven over one link.
//!
//! A turn starts what is due, waits for completions until the next thing is due, and deals with
//! them. A connection has one batch in flight; one that is due meanwhile starts when that is
//! answered, late, and is timed from when it was due.

#![expect(clippy::disallowed_types, reason = "a generator keeps its own time")]

use super::connection::{Batch, Connection, Phase};
use super::link::Link;
use super::schedule::{Connections, Schedule};
use super::tally::{Failure, Latencies, Tally, histogram, record};
use super::{Outcome, Plan, Stream, Thread, Until};
use crate::procfs::Usage;
use crate::ring::{Buffer, Completion, Event, Kind};
use crate::traffic::{Verifier, Verify};
use pelton_bench::replies::{Replies, Reply};
use std::io;
use std::mem::take;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How often a rate is sampled at least this far apart, as in wrk2.
const SAMPLE_EVERY_MIN: Duration = Duration::from_millis(10);
/// How often it is sampled where there is no warm-up to tell.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// How often requests that wait too long are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Before a batch is due, one who spins does not sleep for so long.
const SPIN: Duration = Duration::from_micros(100);

/// The share of one thread in a plan.
pub(crate) struct Worker<'a, L> {
    link: L,
    plan: &'a Plan<'a>,
    lanes: Vec<Lane<'a>>,
    connections: Vec<Connection>,
    /// Connections with a batch.
    in_flight: usize,
    start: Instant,
    thread: Thread,
    /// When the rate was last sampled, and how many replies there were; none before the warm-up
    /// is over.
    sampled: Option<(Instant, u64)>,
    looked: Instant,
}

/// One stream's part in this thread.
struct Lane<'a> {
    stream: &'a Stream<'a>,
    schedule: Schedule,
    /// The first of its connections, and how many.
    connections: (usize, usize),
    /// The next portion of the sequence.
    cursor: usize,
    warm_until: Instant,
    deadline: Duration,
    verifier: Option<Verifier<'a>>,
    tally: Tally,
}

impl<'a, L: Link> Worker<'a, L> {
    /// The worker `index` of a plan.
    pub(crate) fn new(link: L, plan: &'a Plan<'a>, index: usize) -> Self {
        let start = link.now();
        let mut connections = Vec::new();
        let mut lanes = Vec::new();
        for (number, stream) in plan.streams.iter().enumerate() {
            let share =
                Connections { count: stream.connections, first: index, stride: plan.threads };
            lanes.push(Lane::new(plan, stream, share, connections.len(), start));
            connections.extend((0..share.here()).map(|_| {
                let replies = Replies::new(stream.bodiless, stream.verify.is_some());
                Connection::new(number, replies, start)
            }));
        }
        let thread =
            Thread { warm_mean_us: 0.0, sample_every: SAMPLE_EVERY, rates: Vec::new(), busy: 0.0 };
        Self {
            link,
            plan,
            lanes,
            connections,
            in_flight: 0,
            start,
            thread,
            sampled: None,
            looked: start,
        }
    }

    /// Does it all, and closes all connections.
    pub(crate) fn run(mut self) -> io::Result<Outcome> {
        // Timers of a usual thread may be 50 us late.
        nix::sys::prctl::set_timerslack(1)?;
        let before = Usage::of_this_thread()?;
        for id in 0..self.connections.len() {
            self.connect(id)?;
        }
        let elapsed = self.work()? - self.start;
        let used = Usage::of_this_thread()?.since(before);
        self.thread.busy = used.cpu_ns as f64 / elapsed.as_nanos() as f64;
        self.close()?;
        let tallies = self.lanes.into_iter().map(|lane| lane.tally).collect();
        Ok(Outcome { elapsed, tallies, threads: vec![self.thread] })
    }

    /// Until all that was sent is answered, or given up. Returns when that was; the time in which
    /// nothing came any more does not count.
    fn work(&mut self) -> io::Result<Instant> {
        let mut completions = Vec::new();
        let mut over_since = None;
        let end = loop {
            let now = self.link.now();
            self.start_due(now)?;
            self.look(now)?;
            if self.lanes.iter().all(|lane| lane.schedule.is_over(now)) {
                let since = *over_since.get_or_insert(now);
                if self.in_flight == 0 {
                    break now;
                } else if now >= since + self.plan.timeout {
                    break since;
                }
            }
            let wait_max = self.wait_max(now);
            self.link.turn(wait_max, &mut completions)?;
            let now = self.link.now();
            for completion in completions.drain(..) {
                self.dispatch(completion, now)?;
            }
        };
        for id in 0..self.connections.len() {
            self.give_up(id);
        }
        for lane in &mut self.lanes {
            let (first, count) = lane.connections;
            let connections = &self.connections[first..first + count];
            lane.tally.per_connection = connections.iter().map(|c| c.served).collect();
            let started: u64 = connections.iter().map(|c| c.batches_started).sum();
            let unsent = lane.schedule.released().saturating_sub(started);
            lane.tally.errors.unsent = unsent * lane.stream.pipeline as u64;
        }
        Ok(end)
    }

    /// How long to wait for completions: until the next batch is due, or the next look.
    fn wait_max(&self, now: Instant) -> Duration {
        let due = self.lanes.iter().filter_map(|lane| lane.schedule.next(now)).min();
        let wait = due.map_or(LOOK_EVERY, |due| due.saturating_duration_since(now).min(LOOK_EVERY));
        if self.plan.spin && due.is_some() { wait.saturating_sub(SPIN) } else { wait }
    }

    /// Starts what is due on connections that are free.
    fn start_due(&mut self, now: Instant) -> io::Result<()> {
        for lane in 0..self.lanes.len() {
            if !self.lanes[lane].schedule.is_open_loop() {
                continue;
            }
            while let Some(local) = self.lanes[lane].schedule.release(now) {
                self.start_next(self.lanes[lane].connections.0 + local, now)?;
            }
        }
        Ok(())
    }

    /// Gives a connection its next batch, if that is due and the connection has none.
    fn start_next(&mut self, id: usize, now: Instant) -> io::Result<()> {
        let connection = &mut self.connections[id];
        let lane = &mut self.lanes[connection.stream];
        if connection.batch.is_some() {
            return Ok(());
        }
        let due = if lane.schedule.is_open_loop() {
            let (first, count) = lane.connections;
            let batch = (id - first) as u64 + connection.batches_started * count as u64;
            if batch >= lane.schedule.released() {
                return Ok(());
            }
            lane.schedule.due(batch, now)
        } else {
            // A closed loop does not storm a server that refuses connections.
            if connection.phase == Phase::Closed && now < connection.since + LOOK_EVERY
                || lane.schedule.release(now).is_none()
            {
                return Ok(());
            }
            now
        };
        let expected = lane.take_batch(&mut connection.portion);
        let lateness = now.saturating_duration_since(due.max(connection.since));
        record(&mut lane.tally.lateness, lateness);
        connection.batches_started += 1;
        connection.batch =
            Some(Batch { due, started: now, expected, is_sent: false, timed_out: false });
        self.in_flight += 1;
        match connection.phase {
            Phase::Open => self.send_batch(id),
            Phase::Closed => self.connect(id),
            Phase::Connecting | Phase::Leaving | Phase::Ending => Ok(()),
        }
    }

    fn connect(&mut self, id: usize) -> io::Result<()> {
        self.link.connect(number(id))?;
        let connection = &mut self.connections[id];
        connection.replies.reset();
        connection.phase = Phase::Connecting;
        connection.since = self.link.now();
        Ok(())
    }

    fn send_batch(&mut self, id: usize) -> io::Result<()> {
        let connection = &mut self.connections[id];
        let lane = &self.lanes[connection.stream];
        let Some(batch) = &mut connection.batch else { return Ok(()) };
        batch.is_sent = true;
        if let (Some(verifier), Some((Verify::Pattern, _))) = (&lane.verifier, lane.stream.verify) {
            let asked = |index| lane.stream.requests.asked(index).key.unwrap_or(0) as usize;
            connection.versions.clear();
            let versions = batch.expected.clone().map(|index| verifier.version_seen(asked(index)));
            connection.versions.extend(versions);
        }
        connection.unsent = lane.stream.requests.text(&batch.expected);
        self.send(id)
    }

    fn send(&mut self, id: usize) -> io::Result<()> {
        let connection = &mut self.connections[id];
        connection.sending = true;
        self.link.send(number(id), connection.unsent)
    }

    fn receive(&mut self, id: usize) -> io::Result<()> {
        self.connections[id].receiving = true;
        self.link.receive(number(id))
    }

    fn dispatch(&mut self, completion: Completion, now: Instant) -> io::Result<()> {
        let id = completion.token.connection as usize;
        match completion.event {
            Event::Connected => {
                let connection = &mut self.connections[id];
                self.lanes[connection.stream].tally.connects += 1;
                connection.phase = Phase::Open;
                connection.since = now;
                self.receive(id)?;
                self.send_batch(id)?;
                return self.start_next(id, now);
            }
            Event::Received(buffer) => {
                let read = self.read(id, &buffer, now);
                self.link.recycle(buffer);
                self.connections[id].receiving = completion.more;
                if let Err(what) = read {
                    self.fail(id, Failure::Read, &what);
                } else if !completion.more {
                    self.receive(id)?;
                }
            }
            Event::Lapsed => self.receive(id)?,
            Event::Sent(size) => {
                let connection = &mut self.connections[id];
                connection.unsent = &connection.unsent[size..];
                connection.sending = false;
                if !connection.unsent.is_empty() && connection.phase == Phase::Open {
                    self.send(id)?;
                }
            }
            Event::Ended => {
                self.connections[id].receiving = false;
                self.end_of_stream(id, now);
            }
            Event::Failed(error) => self.failed(id, completion.token.kind, error, now),
            Event::Accepted(_) => unreachable!("a generator accepts nothing"),
        }
        self.settle(id, now)
    }

    /// Frees a connection that is over, and gives one that is free its next batch.
    fn settle(&mut self, id: usize, now: Instant) -> io::Result<()> {
        let connection = &mut self.connections[id];
        if connection.phase == Phase::Ending && !connection.is_held() {
            connection.phase = Phase::Closed;
            self.link.close(number(id));
            // A batch that came while it was ending.
            if connection.batch.is_some() {
                return self.connect(id);
            }
        }
        self.start_next(id, now)
    }

    /// Takes the replies out of a buffer.
    fn read(&mut self, id: usize, buffer: &Buffer, now: Instant) -> Result<(), String> {
        let bytes = self.link.bytes(buffer);
        let connection = &mut self.connections[id];
        let lane = &mut self.lanes[connection.stream];
        lane.tally.bytes_read += bytes.len() as u64;
        let mut replies = take(&mut connection.replies);
        let mut surplus = false;
        let read = replies.read(bytes, |reply| {
            surplus |= !lane.take_reply(connection, reply, now);
        });
        connection.replies = replies;
        self.finish_batch(id, now);
        match read {
            Err(malformed) => Err(malformed.0),
            Ok(()) if surplus => Err("a reply that nobody asked for".to_owned()),
            Ok(()) => Ok(()),
        }
    }

    /// Notes that a batch is over if its last reply has come.
    fn finish_batch(&mut self, id: usize, now: Instant) {
        let connection = &mut self.connections[id];
        if connection.batch.as_ref().is_some_and(|batch| batch.is_sent && batch.expected.is_empty())
        {
            connection.batch = None;
            connection.since = now;
            self.in_flight -= 1;
        }
    }

    fn end_of_stream(&mut self, id: usize, now: Instant) {
        let connection = &mut self.connections[id];
        let lane = &mut self.lanes[connection.stream];
        let mut replies = take(&mut connection.replies);
        let is_whole = replies.end(|reply| {
            lane.take_reply(connection, reply, now);
        });
        connection.replies = replies;
        self.finish_batch(id, now);
        let is_owed = self.connections[id].batch.as_ref().is_some_and(|batch| batch.is_sent);
        if is_owed || !is_whole {
            self.fail(id, Failure::Read, "the server closed the connection early");
        }
        self.end(id);
    }

    fn failed(&mut self, id: usize, kind: Kind, error: i32, now: Instant) {
        let connection = &mut self.connections[id];
        let is_ending = connection.phase == Phase::Ending;
        let error = io::Error::from_raw_os_error(error);
        match kind {
            Kind::Connect => {
                connection.phase = Phase::Closed;
                connection.since = now;
                self.link.close(number(id));
                let what = format!("cannot connect: {error}");
                self.fail(id, Failure::Connect, &what);
            }
            Kind::Receive => {
                connection.receiving = false;
                let is_over = is_ending || connection.phase == Phase::Leaving;
                if !is_over {
                    let what = format!("cannot receive: {error}");
                    self.fail(id, Failure::Read, &what);
                }
                self.end(id);
            }
            Kind::Send => {
                connection.sending = false;
                if !is_ending {
                    let what = format!("cannot send: {error}");
                    self.fail(id, Failure::Write, &what);
                }
            }
            Kind::Accept => unreachable!("a generator accepts nothing"),
        }
    }

    /// Counts a failure and ends the connection; what it was asked stays unanswered.
    fn fail(&mut self, id: usize, failure: Failure, what: &str) {
        let connection = &mut self.connections[id];
        self.lanes[connection.stream].tally.errors.count_failure(failure, what);
        self.end(id);
        self.give_up(id);
    }

    /// Makes everything of a connection that is under way complete, to no effect.
    fn end(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        if !matches!(connection.phase, Phase::Closed | Phase::Connecting) {
            connection.phase = Phase::Ending;
        }
        if connection.phase != Phase::Closed {
            self.link.shutdown(number(id));
        }
    }

    /// Gives up the batch of a connection, if it has one.
    fn give_up(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        if let Some(batch) = connection.batch.take() {
            let errors = &mut self.lanes[connection.stream].tally.errors;
            errors.unanswered += batch.expected.len() as u64;
            errors.note(|| "requests were not answered".to_owned());
            // The rest of a life goes with its connection.
            connection.portion = 0..0;
            self.in_flight -= 1;
        }
    }

    /// What is done now and then: samples of the rate, and a look for what takes too long.
    fn look(&mut self, now: Instant) -> io::Result<()> {
        match self.sampled {
            None if now >= self.start + self.plan.warm_up => self.calibrate(now),
            Some((sampled, before)) if now >= sampled + self.thread.sample_every => {
                let answered = self.answered();
                let rate = (answered - before) as f64 / (now - sampled).as_secs_f64();
                self.thread.rates.push(rate);
                self.sampled = Some((now, answered));
            }
            _ => {}
        }
        if now >= self.looked + LOOK_EVERY {
            self.looked = now;
            for id in 0..self.connections.len() {
                self.look_at(id, now)?;
            }
        }
        Ok(())
    }

    fn look_at(&mut self, id: usize, now: Instant) -> io::Result<()> {
        let timeout = self.plan.timeout;
        let connection = &mut self.connections[id];
        let errors = &mut self.lanes[connection.stream].tally.errors;
        if let Some(batch) = &mut connection.batch
            && now > batch.started + timeout
            && !batch.timed_out
        {
            batch.timed_out = true;
            errors.timeout += batch.expected.len() as u64;
        }
        let is_stuck = matches!(connection.phase, Phase::Connecting | Phase::Leaving);
        if is_stuck && now > connection.since + timeout {
            errors.note(|| "the server neither accepted nor closed a connection".to_owned());
            self.end(id);
        }
        // In a closed loop nothing else comes back to a connection that was refused.
        self.start_next(id, now)
    }

    /// The end of the warm-up: how often to sample depends on how slow replies are, as in wrk2.
    fn calibrate(&mut self, now: Instant) {
        let mut warm = histogram();
        for lane in &self.lanes {
            warm.add(&lane.tally.warm).expect("all have the same bounds");
        }
        if !self.plan.warm_up.is_zero() {
            self.thread.warm_mean_us = warm.mean();
            let slow = Duration::from_micros(2 * warm.value_at_quantile(0.9));
            self.thread.sample_every = slow.max(SAMPLE_EVERY_MIN);
        }
        self.sampled = Some((now, self.answered()));
    }

    fn answered(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.tally.answered).sum()
    }

    /// Closes every connection and takes the last completion of each, so that the ring is clean.
    fn close(&mut self) -> io::Result<()> {
        for id in 0..self.connections.len() {
            self.end(id);
        }
        let mut completions = Vec::new();
        while self.connections.iter().any(Connection::is_held) {
            self.link.turn(LOOK_EVERY, &mut completions)?;
            for Completion { token, event, more } in completions.drain(..) {
                let connection = &mut self.connections[token.connection as usize];
                match token.kind {
                    Kind::Receive => connection.receiving = more,
                    Kind::Send => connection.sending = false,
                    Kind::Connect => connection.phase = Phase::Closed,
                    Kind::Accept => unreachable!("a generator accepts nothing"),
                }
                if let Event::Received(buffer) = event {
                    self.link.recycle(buffer);
                }
            }
        }
        Ok(())
    }
}

impl<'a> Lane<'a> {
    fn new(
        plan: &Plan<'_>,
        stream: &'a Stream<'a>,
        share: Connections,
        first: usize,
        start: Instant,
    ) -> Self {
        let interval =
            stream.rate.map(|rate| Duration::from_secs_f64(stream.pipeline as f64 / rate));
        let batches = (stream.requests.count() / stream.pipeline) as u64;
        let (end, batches_max) = match plan.until {
            Until::Elapsed(duration) => (Some(start + duration), u64::MAX),
            Until::Swept => (None, batches),
        };
        // Threads begin at different places of the sequence.
        let portions = stream.requests.count() / stream.requests.portion();
        let skipped = share.first * portions / share.stride * stream.requests.portion();
        let cursor = (stream.first_request + skipped) % stream.requests.count();
        Self {
            stream,
            schedule: Schedule::new(start, interval, share, end, batches_max),
            connections: (first, share.here()),
            cursor,
            warm_until: start + plan.warm_up,
            deadline: plan.deadline,
            verifier: stream.verify.map(|(verify, records)| Verifier::new(verify, records)),
            tally: Tally::new(),
        }
    }

    /// The next batch of a connection: of its portion, or else of a new one.
    fn take_batch(&mut self, portion: &mut Range<usize>) -> Range<usize> {
        let requests = self.stream.requests;
        if portion.start >= portion.end {
            *portion = self.cursor..self.cursor + requests.portion();
            self.cursor = if portion.end == requests.count() { 0 } else { portion.end };
        }
        let end = portion.end.min(portion.start + self.stream.pipeline);
        let batch = portion.start..end;
        portion.start = end;
        batch
    }

    /// Counts a reply; whether one was expected.
    fn take_reply(&mut self, connection: &mut Connection, reply: &Reply<'_>, now: Instant) -> bool {
        let Some(batch) = connection.batch.as_mut().filter(|batch| batch.is_sent) else {
            return false;
        };
        let Some(index) = batch.expected.next() else { return false };
        let asked = self.stream.requests.asked(index);
        let tally = &mut self.tally;
        tally.count_reply(asked.kind, reply.status);
        let latency = now.saturating_duration_since(batch.due);
        if batch.due >= self.warm_until {
            connection.served += u64::from(reply.status < 300);
            tally.record(&Latencies {
                latency,
                uncorrected: now.saturating_duration_since(batch.started),
                status: reply.status,
                deadline: self.deadline,
            });
        } else {
            record(&mut tally.warm, latency);
        }
        if let (Some(verifier), Some(key), 200) = (&mut self.verifier, asked.key, reply.status) {
            let left = batch.expected.len();
            let version = connection.versions.iter().rev().nth(left).copied().unwrap_or(0);
            if let Err(what) = verifier.check(key as usize, version, reply.body) {
                tally.errors.body += 1;
                tally.errors.note(|| what);
            }
        }
        if (asked.closing || reply.closes) && connection.phase == Phase::Open {
            connection.phase = Phase::Leaving;
            connection.since = now;
        }
        true
    }
}

fn number(id: usize) -> u32 {
    u32::try_from(id).expect("descriptors are fewer")
}
