//! Clients, honest and rude: each drives one connection through its end of the network.
//!
//! All of them check every byte they read. An honest client also insists on being served: it
//! counts a connection that ends while replies are owed, and the world asks the server why.

use super::badge::Badge;
use super::batch::Batches;
use super::host::Host;
use super::marks::Mark;
use super::net::{Read, SocketId};
use super::reader::{Common, Reader};
use super::request::{self, Ask, Excuses, Wish};
use super::swarm::Options;
use super::trace::Who;
use crate::model::Model;
use crate::prng::Prng;
use shard_cache::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Reads of one act.
const READS_MAX: u32 = 16;

/// Requests of an examiner, one at a time.
const EXAM_REQUESTS_MAX: u32 = 6;

/// Acts in which a client writes and reads little at a time; then it has shown what it can.
const DRIBBLES_MAX: u32 = 150;

/// Bytes that a client which does not read keeps to be written.
const OUTBOX_MAX: usize = 1 << 20;

/// How long a reply may take when nothing is slow: less than a shard's longest wait, so that one
/// which sleeps although it has something to do is found.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// How a client ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Reads all replies, then closes, or asks the server to.
    Honest,
    /// Ends its direction right after the last request, and reads all replies.
    HalfClose,
    /// Resets the connection at some time.
    Reset,
    /// Closes at some time, replies unread or not.
    Leave,
    /// Falls silent at some time: the server is told nothing.
    Vanish,
    /// Stops reading at some time, and goes on asking as long as the window takes it.
    Deaf,
    /// Sends something malformed.
    Broken,
    /// Connects and says nothing.
    Mute,
    /// Reads all replies, a few bytes at a time and with pauses.
    Slow,
}

impl Manner {
    /// All manners.
    pub const ALL: &[Self] = &[
        Self::Honest,
        Self::HalfClose,
        Self::Reset,
        Self::Leave,
        Self::Vanish,
        Self::Deaf,
        Self::Broken,
        Self::Mute,
        Self::Slow,
    ];
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As the client wanted, or as the server announced.
    Agreed,
    /// The server ended it while replies were owed.
    CutOff {
        /// It may have refused a request that its client goes on writing behind. Then it waits a
        /// while for the refusal to be read, and not longer.
        is_refused: bool,
    },
}

/// One client.
#[derive(Debug)]
pub struct Client {
    number: u32,
    prng: Prng,
    manner: Manner,
    options: ClientOptions,
    /// It has read all that it was sent and is owed the rest: the server may not cut it off.
    insists: bool,
    socket: Option<SocketId>,
    reader: Reader,
    outbox: Vec<u8>,
    /// Bytes of the outbox that were written.
    written: usize,
    /// Bytes written before those of the outbox.
    written_before: u64,
    /// Bodies that are not sent yet, because the server is to ask for them.
    holds: VecDeque<Hold>,
    requests_count: u32,
    inbox: Vec<u8>,
    requests_left: u32,
    finished: bool,
    deaf: bool,
    /// The window is full.
    blocked: bool,
    /// It stopped reading although there may be more.
    sated: bool,
    /// When it acts next.
    pub(super) acts_at: Instant,
    ending: Option<Ending>,
}

/// A body that waits to be asked for.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// The number of its request, from 0.
    number: u32,
    /// Where it begins among all that the client writes.
    at: u64,
    /// Until when the client waits, from when it has written all before.
    until: Option<Instant>,
}

/// How a client goes about it, drawn once.
#[derive(Clone, Copy, Debug)]
struct ClientOptions {
    pipeline_max: usize,
    write_max: usize,
    read_max: usize,
    reads_max: u32,
    /// Acts until it writes and reads as much as there is.
    dribbles_left: u32,
    think_ns_max: u64,
    keys_count: u32,
    /// It writes, per mille of its requests.
    writes: u32,
    batches: Batches,
    /// What it shows.
    badge: Option<Badge>,
    /// How long it waits to be asked for a body.
    hold_ns: u64,
    /// Bytes that may be on their way to the server, and to the client.
    windows: [usize; 2],
}

impl Client {
    /// A client that connects at once.
    #[must_use]
    pub fn new(
        number: u32,
        mut prng: Prng,
        manner: Manner,
        options: &Options,
        now: Instant,
    ) -> Self {
        let keys_count = options.keys_count;
        let hot = u32::try_from(prng.range(1, keys_count.into())).expect("it is at most a u32");
        // Large values through small windows take more acts than a run has.
        let window_min = options.limits.value_size_max as usize / 200;
        let window = |prng: &mut Prng| prng.pick(&[100, 4096, 65_536, 1 << 20]).max(window_min);
        let keys_drawn_count = if prng.coin() { hot } else { keys_count };
        let batches = Batches {
            share: options.batches,
            keys_count: keys_drawn_count,
            limits: options.settings.http.batch,
            bytes_max: options.settings.batch_bytes_max as usize,
        };
        let mut drawn = ClientOptions {
            windows: [window(&mut prng), window(&mut prng)],
            pipeline_max: prng.pick(&[1, 4, options.pipeline_max, options.pipeline_max]),
            write_max: if prng.chance(200) { prng.pick(&[1, 20, 4096]) } else { usize::MAX },
            read_max: prng.pick(&[4096, 65_536]),
            reads_max: READS_MAX,
            dribbles_left: DRIBBLES_MAX,
            think_ns_max: prng.pick(&[1_000, 50_000, 1_000_000, 100_000_000]),
            keys_count: keys_drawn_count,
            writes: options.writes,
            batches,
            badge: options.badges.map(|badges| badges.draw(&mut prng)),
            hold_ns: prng.pick(&[10_000, 10_000_000, 1_000_000_000]),
        };
        if manner == Manner::Slow {
            drawn.read_max = prng.pick(&[7, 50, 1000]).max(window_min / 10);
            drawn.reads_max = 1;
        }
        let most = prng.pick(&[1, 40, 400, 4_000]);
        let requests_left = u32::try_from(prng.range(1, most)).expect("it is small");
        Self {
            number,
            prng,
            manner,
            options: drawn,
            insists: false,
            socket: None,
            reader: Reader::default(),
            outbox: Vec::new(),
            written: 0,
            written_before: 0,
            holds: VecDeque::new(),
            requests_count: 0,
            inbox: Vec::new(),
            requests_left,
            finished: false,
            deaf: false,
            blocked: false,
            sated: false,
            acts_at: now,
            ending: None,
        }
    }

    /// A client for the end of a run, when nothing fails and nothing is slow: it leaves the server
    /// no excuses.
    #[must_use]
    pub fn examiner(number: u32, prng: Prng, options: &Options, now: Instant) -> Self {
        let mut client = Self::new(number, prng, Manner::Honest, options, now);
        let limits = &options.limits;
        // Refreshes may take up all of a few flights, and so may the keys of a batch, which may all
        // be the same.
        let keys_max = u32::from(options.settings.http.batch.keys_max);
        // What the storm has left behind may take a second to be forgotten.
        let is_slow = options.settings.lag_target < Duration::from_secs(1);
        let is_few = is_slow
            || limits.flights_max < 7 + keys_max
            || limits.flight_waiters_max < keys_max
            || limits.parcels_waiting_max < limits.parcels_count.min(keys_max);
        client.reader.excuses = if is_few { Excuses::Overload } else { Excuses::None };
        // Its values are held until they are written: they must not take up the cache.
        let held_max = u64::from(keys_max) * u64::from(limits.value_size_max);
        if held_max > (limits.cache_size - limits.replicas_size) / 4 {
            client.options.batches.share = 0;
        }
        // With few small buffers, a single request may be more input than the shard may hold.
        client.insists = limits.input_held_max * limits.input_buffer_size >= 2 * 4096;
        client.options.read_max = 65_536;
        client.options.write_max = client.options.write_max.max(100);
        client.options.windows = [65_536; 2];
        client.options.think_ns_max = 10_000;
        client.options.pipeline_max = 1;
        client.requests_left = client.requests_left.min(EXAM_REQUESTS_MAX);
        client
    }

    /// Its connection, if it has one.
    #[must_use]
    pub const fn socket(&self) -> Option<SocketId> {
        self.socket
    }

    /// How it ended, if it has.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Where it stands, for a failure's message.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { number, manner, requests_left, acts_at, .. } = self;
        let (owed, unwritten) = (self.reader.owed.len(), self.outbox.len() - self.written);
        format!(
            "client {number}: {manner:?}, {owed} replies owed, {unwritten} bytes unwritten, \
             {requests_left} requests left, deaf: {}, acts at {} ns",
            self.deaf,
            acts_at.ns()
        )
    }

    /// Whether it holds its connection and does nothing.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.deaf || self.manner == Manner::Mute
    }

    /// Replies it has read.
    #[must_use]
    pub const fn replies_count(&self) -> u32 {
        self.reader.replies_count
    }

    /// Something happened at its socket: it looks soon.
    pub fn touch(&mut self, at: Instant) {
        if !self.deaf {
            self.acts_at = self.acts_at.min(at);
        }
    }

    /// Does what it likes to do now.
    ///
    /// # Panics
    /// If what it read is not what it is owed.
    pub fn act(&mut self, host: &mut Host, model: &mut Model) {
        let think = self.prng.range(1, self.options.think_ns_max);
        self.acts_at = host.now() + Duration::from_nanos(think);
        self.dribble();
        let Some(socket) = self.connect(host) else { return };
        if !self.deaf {
            self.read(host, model, socket);
        }
        if self.ending.is_none() {
            self.misbehave(host, socket);
        }
        if self.ending.is_none() {
            self.compose(host, model);
            self.write(host, socket);
            self.conclude(host, socket);
        }
        if self.waits() {
            // Whatever happens at its socket wakes it before.
            self.acts_at = host.now() + Duration::from_secs(1);
            let until = self.holds.front().and_then(|hold| hold.until);
            self.acts_at = until.map_or(self.acts_at, |until| until.min(self.acts_at));
        }
        if self.ending.is_some() {
            self.acts_at = NEVER;
        }
    }

    /// Whether there is nothing to do but to wait for the server.
    fn waits(&self) -> bool {
        let may_ask = self.requests_left > 0 && self.reader.owed.len() < self.options.pipeline_max;
        let idle =
            self.manner == Manner::Mute || self.blocked || self.outbox.is_empty() && !may_ask;
        self.deaf || (idle && !self.sated)
    }

    /// After a while, what is done in many small acts is done in few large ones.
    fn dribble(&mut self) {
        let options = &mut self.options;
        options.dribbles_left = options.dribbles_left.saturating_sub(1);
        if options.dribbles_left == 0 {
            options.write_max = usize::MAX;
            options.read_max = usize::MAX;
            options.reads_max = READS_MAX;
        }
    }

    fn connect(&mut self, host: &mut Host) -> Option<SocketId> {
        if self.socket.is_none() {
            let listener = self.prng.index(host.net.listeners_count());
            self.socket = host.net.connect(listener, self.options.windows);
            match self.socket {
                Some(socket) => self.note(host, "connects", [socket.number().into(), 0]),
                None => self.ending = Some(Ending::Agreed),
            }
        }
        self.socket
    }

    fn read(&mut self, host: &mut Host, model: &mut Model, socket: SocketId) {
        self.sated = false;
        for _ in 0..self.options.reads_max {
            let most = self.prng.size(1, self.options.read_max);
            self.inbox.clear();
            match host.net.read(socket, most, &mut self.inbox) {
                Read::Bytes(size) => {
                    let before = self.reader.replies_count;
                    let asked = self.reader.owed.front().map(|owed| owed.asked);
                    let now = host.now();
                    let Host { marks, quota, .. } = host;
                    let mut common = Common { model, marks, quota, now };
                    if let Err(error) = self.reader.take(&self.inbox, &mut common) {
                        panic!("client {}: {error}", self.number);
                    }
                    let count = u64::from(self.reader.replies_count - before);
                    self.note(host, "reads (bytes, replies)", [size as u64, count]);
                    host.marks.hit_if(count > 1, Mark::RepliesAtOnce);
                    if self.insists && count > 0 {
                        let late = asked.is_some_and(|asked| asked + PATIENCE < host.now());
                        assert!(!late, "client {}: a reply took too long", self.number);
                    }
                }
                Read::Nothing => return,
                Read::End => return self.end(host, socket, "reads the end"),
                Read::Reset => return self.end(host, socket, "is reset"),
            }
        }
        self.sated = true;
    }

    fn end(&mut self, host: &mut Host, socket: SocketId, what: &'static str) {
        let agreed = self.reader.is_closed() || self.reader.is_idle();
        let is_refused = self.reader.may_be_refused();
        let ending = if agreed { Ending::Agreed } else { Ending::CutOff { is_refused } };
        self.note(host, what, [self.reader.owed.len() as u64, u64::from(agreed)]);
        assert!(agreed || !self.insists, "client {}: cut off without a reason", self.number);
        let left = self.requests_left > 0 && self.outbox.is_empty();
        host.marks.hit_if(agreed && left && !self.reader.is_closed(), Mark::ClosedWhenIdle);
        host.marks.hit_if(!agreed && self.reader.is_within(), Mark::CutOffWithinReply);
        host.marks.hit_if(!agreed && self.reader.is_within_items(), Mark::BatchCut);
        self.ending = Some(ending);
        host.net.close_client(socket);
    }

    /// Once in a while a rude client does what it is here for.
    fn misbehave(&mut self, host: &mut Host, socket: SocketId) {
        let manner = self.manner;
        let polite =
            matches!(manner, Manner::Honest | Manner::HalfClose | Manner::Broken | Manner::Slow);
        if polite || self.deaf || !self.prng.chance(50) {
            return;
        }
        self.note_left(host);
        match self.manner {
            Manner::Reset => {
                let lost = host.net.reset(socket);
                host.marks.hit_if(lost > 0, Mark::ResetLostInput);
                self.note(host, "resets (bytes lost)", [lost as u64, 0]);
                self.ending = Some(Ending::Agreed);
            }
            Manner::Leave => {
                host.net.close_client(socket);
                self.note(host, "leaves", [0, 0]);
                self.ending = Some(Ending::Agreed);
            }
            Manner::Vanish => {
                host.net.vanish(socket);
                self.note(host, "vanishes", [0, 0]);
                self.ending = Some(Ending::Agreed);
            }
            Manner::Deaf => {
                self.deaf = true;
                self.note(host, "turns deaf", [0, 0]);
            }
            Manner::Mute | Manner::Honest | Manner::HalfClose | Manner::Broken | Manner::Slow => {}
        }
    }

    /// It leaves now: what becomes of its writes?
    fn note_left(&self, host: &mut Host) {
        let written = self.written_before + self.written as u64;
        for owed in self.reader.owed.iter().filter(|owed| matches!(owed.ask, Ask::Write { .. })) {
            let is_within = (owed.begin + 1..owed.end).contains(&written);
            host.marks.hit_if(is_within, Mark::LeftWithinBody);
            host.marks.hit_if(written >= owed.end, Mark::LeftBeforeAnswer);
        }
    }

    fn compose(&mut self, host: &Host, model: &mut Model) {
        if self.manner == Manner::Mute {
            if self.requests_left > 0 {
                self.requests_left = 0;
                self.outbox.extend(self.prng.pick(&request::HALVES));
            }
            return;
        }
        let most = if self.deaf { usize::MAX } else { self.options.pipeline_max };
        while self.requests_left > 0
            && !self.finished
            && !self.reader.is_closed()
            && self.reader.owed.len() < most
            && self.outbox.len() < OUTBOX_MAX
        {
            self.requests_left -= 1;
            let last = self.requests_left == 0 && self.manner == Manner::Honest && self.prng.coin();
            let broken = self.manner == Manner::Broken && self.requests_left == 0;
            let key = u32::try_from(self.prng.below(self.options.keys_count.into()))
                .expect("it is below a u32");
            let begin = self.outbox.len();
            let (mut owed, body_at) = if broken {
                (request::compose_broken(&mut self.outbox, &mut self.prng, host.now()), None)
            } else {
                let ClientOptions { writes, batches, badge, .. } = self.options;
                let wish = Wish { key, last, writes, batches, badge };
                request::compose(&mut self.outbox, model, &mut self.prng, wish, host.now())
            };
            let place = |at: usize| self.written_before + at as u64;
            (owed.begin, owed.end) = (place(begin), place(self.outbox.len()));
            let number = self.requests_count;
            self.holds.extend(body_at.map(|at| Hold { number, at: place(at), until: None }));
            self.requests_count += 1;
            self.reader.owed.push_back(owed);
        }
    }

    fn write(&mut self, host: &mut Host, socket: SocketId) {
        self.blocked = false;
        if self.outbox.is_empty() || self.finished {
            return;
        }
        let end = self.sendable_end(host);
        let rest = &self.outbox[self.written..end];
        if rest.is_empty() {
            self.blocked = true;
            return;
        }
        let most = self.prng.size(1, self.options.write_max).min(rest.len());
        let size = host.net.write(socket, &rest[..most]);
        self.written += size;
        let left = self.outbox.len() - self.written;
        self.note_asked(host.now());
        if left == 0 {
            self.written_before += self.outbox.len() as u64;
            self.outbox.clear();
            self.written = 0;
        }
        self.blocked = size == 0;
        if self.blocked {
            return;
        }
        self.note(host, "writes (bytes, left)", [size as u64, left as u64]);
    }

    /// How much of the outbox may be sent: up to the first body that is to be asked for.
    fn sendable_end(&mut self, host: &mut Host) -> usize {
        let written = self.written_before + self.written as u64;
        while let Some(hold) = self.holds.front_mut() {
            let now = host.now();
            if hold.at > written {
                let end = hold.at - self.written_before;
                return usize::try_from(end).expect("it lies in the outbox");
            }
            let until = now + Duration::from_nanos(self.options.hold_ns);
            let until = *hold.until.get_or_insert(until);
            if self.reader.holds_back(hold.number) {
                if now < until {
                    return self.written;
                }
                host.marks.hit(Mark::BodySentUnasked);
            }
            self.holds.pop_front();
        }
        self.outbox.len()
    }

    /// Requests that are wholly written now have been asked now.
    fn note_asked(&mut self, now: Instant) {
        let written = self.written_before + self.written as u64;
        let owed = self.reader.owed.iter_mut().rev();
        for owed in owed.skip_while(|owed| owed.end > written).take_while(|owed| !owed.is_asked) {
            (owed.asked, owed.is_asked) = (now, true);
        }
    }

    /// Ends what is to be ended by the client.
    fn conclude(&mut self, host: &mut Host, socket: SocketId) {
        if self.requests_left > 0 || !self.outbox.is_empty() || self.deaf {
            return;
        }
        if self.manner == Manner::HalfClose && !self.finished {
            self.finished = true;
            host.net.finish(socket);
            self.note(host, "ends its direction", [self.reader.owed.len() as u64, 0]);
        }
        // A client whose last reply says close waits for the server to do so.
        if self.reader.is_idle() && !self.reader.is_closed() && self.manner != Manner::Mute {
            self.note(host, "closes", [0, 0]);
            host.net.close_client(socket);
            self.ending = Some(Ending::Agreed);
        }
    }

    /// The storm is over: asks for nothing more, and lets go if it would hold on for ever.
    pub fn let_go(&mut self, host: &mut Host) {
        self.requests_left = 0;
        self.options.dribbles_left = 0;
        self.acts_at = self.acts_at.min(host.now());
        if self.manner == Manner::Deaf {
            self.manner = Manner::Leave;
        }
        if let (true, Some(socket)) = (self.deaf, self.socket) {
            host.net.reset(socket);
            self.note(host, "lets go", [0, 0]);
            self.ending = Some(Ending::Agreed);
            self.acts_at = NEVER;
        }
    }

    fn note(&self, host: &mut Host, what: &'static str, words: [u64; 2]) {
        host.trace.note(host.now(), Who::Client(self.number), what, words);
    }
}

/// When it acts no more.
pub(super) const NEVER: Instant = Instant::from_ns(u64::MAX);
