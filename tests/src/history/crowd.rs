//! A crowd of clients that read and write the same few keys over many connections, and note what
//! they see.
//!
//! Each thread has a share of the connections, one request on each at a time, and asks anew
//! wherever a reply has come. What it has just changed it asks for next, over whichever connection
//! is free: a stale copy is seen at once if at all. Keys are drawn with Zipf's weights, so some
//! have many operations at a time.
//!
//! An operation begins before its first byte is sent and ends after the last of its reply has
//! come: that it happened in between is all that is claimed.

#![expect(clippy::disallowed_methods, reason = "clients have a clock")]
#![expect(clippy::disallowed_types, reason = "clients have a clock")]

use super::connection::Connection;
use super::{Action, History, Operation, Outcome, Seen, Version, values};
use crate::http::Reply;
use crate::prng::Prng;
use crate::process::PATIENCE;
use nix::poll::{PollFd, PollTimeout, poll};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

/// Times that a key which was just changed is asked for next.
const CHASES: usize = 3;

/// Bytes of a chunk, where a body is sent in chunks.
const CHUNK_SIZE: usize = 5_000;

/// How the body of a 503 begins that says that nothing was done.
const SHED: &[u8] = br#"{"error":"overloaded_try_again""#;

/// Who asks whom for what, and for how long.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Where the connections go, in turn: the ports of the shards.
    pub addresses: Vec<SocketAddr>,
    /// Threads, each with a share of the connections.
    pub threads: usize,
    /// Connections, all threads together.
    pub connections: usize,
    /// Keys that are asked for.
    pub keys: usize,
    /// Of a thousand operations, those that write and those that delete.
    pub writes_per_mille: u32,
    /// See there.
    pub deletes_per_mille: u32,
    /// Who bears it may write.
    pub token: String,
    /// Where chance begins.
    pub seed: u64,
    /// Operations after which no other begins, all threads together.
    pub operations_max: usize,
    /// Time after which no other begins.
    pub time_max: Duration,
}

/// What the operations came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Reads that said a value, whole.
    pub values: usize,
    /// Reads that said that the value is still the one that the client has.
    pub not_modified: usize,
    /// Reads, and deletes, that found nothing.
    pub absences: usize,
    /// Writes that are done.
    pub writes: usize,
    /// Deletes that are done.
    pub deletes: usize,
    /// Operations that were refused.
    pub refused: usize,
    /// Changes whose outcome is not known.
    pub unknown: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.values += other.values;
        self.not_modified += other.not_modified;
        self.absences += other.absences;
        self.writes += other.writes;
        self.deletes += other.deletes;
        self.refused += other.refused;
        self.unknown += other.unknown;
    }
}

impl Crowd {
    /// Lets all of them ask while `meanwhile` does something else, for as long as it is told to.
    ///
    /// # Panics
    /// If a connection ends, a reply is not what HTTP or the server's own documents allow, or a
    /// body is not that of its key.
    pub fn run<T>(&self, meanwhile: impl FnOnce(&dyn Fn() -> bool) -> T) -> (History, Tally, T) {
        let clock = Instant::now();
        thread::scope(|scope| {
            let client = |number| scope.spawn(move || Client::new(self, number, clock).run());
            let clients: Vec<_> = (0..self.threads).map(client).collect();
            let result = meanwhile(&|| clients.iter().any(|client| !client.is_finished()));
            let (mut history, mut tally) = (History::default(), Tally::default());
            for client in clients {
                let (seen, counted) = client.join().expect("a client says itself what is wrong");
                history.merge(seen);
                tally += counted;
            }
            (history, tally, result)
        })
    }
}

/// A connection, and what was asked over it.
struct Line {
    connection: Connection,
    asked: Option<Asked>,
}

struct Asked {
    key: usize,
    action: Ask,
    invoked_ns: u64,
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    /// Unless it still has this version.
    Get(Option<Version>),
    Put(Version),
    Delete,
}

/// One thread's share of the crowd.
struct Client<'a> {
    crowd: &'a Crowd,
    number: usize,
    clock: Instant,
    prng: Prng,
    lines: Vec<Line>,
    /// Sums of the keys' weights, up to and with each.
    weights: Vec<u64>,
    /// Keys to ask for next.
    chased: VecDeque<usize>,
    /// By key, the last ETag that was seen and its version.
    tags: Vec<Option<(String, Version)>>,
    begun: usize,
    history: History,
    tally: Tally,
}

impl<'a> Client<'a> {
    fn new(crowd: &'a Crowd, number: usize, clock: Instant) -> Self {
        let address = |index: usize| crowd.addresses[index % crowd.addresses.len()];
        let line = |index: usize| Line {
            connection: Connection::open(address(index)).expect("the server listens"),
            asked: None,
        };
        let weight = |sum: &mut u64, key: usize| {
            *sum += 1_000_000 / (key as u64 + 1);
            Some(*sum)
        };
        Self {
            crowd,
            number,
            clock,
            prng: Prng::new(crowd.seed ^ ((number as u64 + 1) << 32)),
            lines: (0..crowd.connections / crowd.threads).map(line).collect(),
            weights: (0..crowd.keys).scan(0, weight).collect(),
            chased: VecDeque::new(),
            tags: vec![None; crowd.keys],
            begun: 0,
            history: History::default(),
            tally: Tally::default(),
        }
    }

    fn run(mut self) -> (History, Tally) {
        for line in 0..self.lines.len() {
            self.ask(line);
        }
        while self.lines.iter().any(|line| line.asked.is_some()) {
            // First what has come, then what it means: who is busy sees a reply late.
            let heard: Vec<(usize, Reply, u64)> = self
                .ready()
                .into_iter()
                .filter_map(|line| {
                    let reply = self.lines[line].connection.advance();
                    let reply = reply.expect("the server ends no connection")?;
                    Some((line, reply, self.now_ns()))
                })
                .collect();
            for (line, reply, responded_ns) in heard {
                self.hear(line, &reply, responded_ns);
                self.ask(line);
            }
        }
        (self.history, self.tally)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).expect("a run ends within centuries")
    }

    fn is_over(&self) -> bool {
        self.begun * self.crowd.threads >= self.crowd.operations_max
            || self.clock.elapsed() >= self.crowd.time_max
    }

    /// Connections over which something can be sent or received. Waits for one.
    fn ready(&self) -> Vec<usize> {
        let asked = |line: &usize| self.lines[*line].asked.is_some();
        let asked: Vec<usize> = (0..self.lines.len()).filter(asked).collect();
        let wait = |line: &usize| {
            let connection = &self.lines[*line].connection;
            PollFd::new(connection.as_fd(), connection.interest())
        };
        let mut waits: Vec<PollFd<'_>> = asked.iter().map(wait).collect();
        let patience = PollTimeout::try_from(PATIENCE).expect("some seconds");
        let count = poll(&mut waits, patience).expect("sockets can be waited for");
        assert!(count > 0, "no reply for {PATIENCE:?}");
        let is_ready = |wait: &PollFd<'_>| wait.any().unwrap_or(true);
        asked.iter().zip(&waits).filter(|(_, wait)| is_ready(wait)).map(|(line, _)| *line).collect()
    }

    /// Asks for something else over a connection, if there is still time.
    fn ask(&mut self, line: usize) {
        if self.is_over() {
            return;
        }
        self.begun += 1;
        let (key, action) = self.next();
        let request = self.request(key, action);
        let invoked_ns = self.now_ns();
        let line = &mut self.lines[line];
        line.asked = Some(Asked { key, action, invoked_ns });
        line.connection.ask(request).expect("the server ends no connection");
    }

    fn next(&mut self) -> (usize, Ask) {
        let chased = self.chased.pop_front();
        let is_chase = chased.is_some();
        let key = chased.unwrap_or_else(|| {
            let drawn = self.prng.below(*self.weights.last().expect("there are keys"));
            self.weights.partition_point(|&sum| sum <= drawn)
        });
        let share = self.prng.below(1000);
        let writes = u64::from(self.crowd.writes_per_mille);
        let deletes = u64::from(self.crowd.deletes_per_mille);
        let action = if is_chase || share >= writes + deletes {
            let tag = self.tags[key].as_ref().filter(|_| self.prng.chance(250));
            Ask::Get(tag.map(|(_, version)| *version))
        } else if share < writes {
            // No other write of any client has this version.
            Ask::Put((self.begun * self.crowd.threads + self.number) as Version)
        } else {
            Ask::Delete
        };
        (key, action)
    }

    fn request(&self, key: usize, action: Ask) -> Vec<u8> {
        let target = format!("/lookup/{} HTTP/1.1\r\nHost: history\r\n", values::key(key));
        let token = format!("Authorization: Bearer {}\r\n", self.crowd.token);
        match (action, &self.tags[key]) {
            (Ask::Get(Some(_)), Some((tag, _))) => {
                format!("GET {target}If-None-Match: {tag}\r\n\r\n").into_bytes()
            }
            (Ask::Get(_), _) => format!("GET {target}\r\n").into_bytes(),
            (Ask::Delete, _) => format!("DELETE {target}{token}\r\n").into_bytes(),
            (Ask::Put(version), _) => {
                let value = values::value(key, version);
                let head = format!("PUT {target}{token}Content-Type: application/json\r\n");
                [head.as_bytes(), &framed(&value, version.is_multiple_of(4))].concat()
            }
        }
    }

    /// Notes what a reply says.
    fn hear(&mut self, line: usize, reply: &Reply, responded_ns: u64) {
        let asked = self.lines[line].asked.take().expect("a reply comes to who asked");
        let (action, outcome) = meaning(&asked, reply).unwrap_or_else(|what| panic!("{what}"));
        let Asked { key, invoked_ns, .. } = asked;
        let small = |number: usize| u16::try_from(number).expect("a crowd is small");
        let (client, connection) = (small(self.number), small(line));
        let seen = Seen { client, connection, status: reply.status };
        let operation = Operation { action, outcome, invoked_ns, responded_ns, seen };
        self.history.note(key, operation);
        self.tally.count(action, outcome, reply.status == 304);
        if let (Action::Read(Some(version)) | Action::Write(version), Some(tag)) =
            (action, reply.header("ETag"))
        {
            self.tags[key] = Some((tag.to_owned(), version));
        }
        if !matches!(action, Action::Read(_)) {
            self.chased.extend([key; CHASES]);
        }
    }
}

impl Tally {
    const fn count(&mut self, action: Action, outcome: Outcome, is_not_modified: bool) {
        let count = match (outcome, action) {
            (Outcome::NotDone, _) => &mut self.refused,
            (Outcome::Unknown, _) => &mut self.unknown,
            (Outcome::Done, Action::Read(Some(_))) if is_not_modified => &mut self.not_modified,
            (Outcome::Done, Action::Read(Some(_))) => &mut self.values,
            (Outcome::Done, Action::Read(None)) => &mut self.absences,
            (Outcome::Done, Action::Write(_)) => &mut self.writes,
            (Outcome::Done, Action::Delete) => &mut self.deletes,
        };
        *count += 1;
    }
}

/// A body behind its length, or in chunks.
fn framed(body: &[u8], in_chunks: bool) -> Vec<u8> {
    if !in_chunks {
        return [format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    }
    let mut framed = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(CHUNK_SIZE) {
        framed.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        framed.extend([chunk, b"\r\n"].concat());
    }
    framed.extend(b"0\r\n\r\n");
    framed
}

/// What a reply says of the operation. A delete that found nothing changed nothing: it is a read.
fn meaning(asked: &Asked, reply: &Reply) -> Result<(Action, Outcome), String> {
    let action = match (asked.action, reply.status) {
        (Ask::Get(_), 200) => Action::Read(Some(values::version_of(asked.key, &reply.body)?)),
        (Ask::Get(Some(version)), 304) => Action::Read(Some(version)),
        (Ask::Get(_), 404 | 502..=504) | (Ask::Delete, 404) => Action::Read(None),
        (Ask::Put(version), 200..=204 | 502..=504) => Action::Write(version),
        (Ask::Delete, 204 | 502..=504) => Action::Delete,
        (ask, status) => {
            let body = String::from_utf8_lossy(&reply.body);
            return Err(format!("{ask:?} of key {} is answered {status}: {body}", asked.key));
        }
    };
    let is_shed = reply.status == 503 && reply.body.starts_with(SHED);
    let outcome = match (action, reply.status) {
        (_, ..=404) => Outcome::Done,
        (Action::Read(_), _) => Outcome::NotDone,
        _ if is_shed => Outcome::NotDone,
        _ => Outcome::Unknown,
    };
    Ok((action, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::stub::{Fault, Stub};

    const CONNECTIONS: usize = 24;

    /// What a crowd sees of a server with this fault.
    fn see(fault: Option<Fault>) -> (History, Tally) {
        let stub = Stub::start(fault, CONNECTIONS);
        let crowd = Crowd {
            addresses: stub.addresses.clone(),
            threads: 2,
            connections: CONNECTIONS,
            keys: 8,
            writes_per_mille: 80,
            deletes_per_mille: 40,
            token: "token".into(),
            seed: 1,
            operations_max: 4_000,
            time_max: PATIENCE,
        };
        let (history, tally, ()) = crowd.run(|_| ());
        (history, tally)
    }

    #[test]
    fn a_server_that_does_one_thing_at_a_time_is_believed() {
        let (history, tally) = see(None);
        if let Err((key, violation)) = history.check() {
            panic!("key {key}: {violation}");
        }
        assert_eq!(history.keys().iter().map(Vec::len).sum::<usize>(), 4_000);
        assert!(tally.values > 500 && tally.writes > 100 && tally.deletes > 20, "{tally:?}");
        assert!(tally.absences > 100 && tally.not_modified > 100, "{tally:?}");
        assert!(history.overlaps() > 20, "{}", history.overlaps());
    }

    #[test]
    fn a_server_that_errs_is_found_out() {
        for fault in [Fault::StaleCopies, Fault::LostWrites, Fault::LateDeletes] {
            let (history, tally) = see(Some(fault));
            assert!(history.check().is_err(), "{fault:?}, {tally:?}");
        }
    }

    #[test]
    fn what_nobody_knows_is_told_from_what_was_not_done() {
        let say = |action, status, body: &str| {
            let asked = Asked { key: 1, action, invoked_ns: 0 };
            let reply = Reply { status, headers: Vec::new(), body: body.into() };
            meaning(&asked, &reply)
        };
        let shed = r#"{"error":"overloaded_try_again"}"#;
        let put = Ask::Put(3);
        assert_eq!(say(put, 201, ""), Ok((Action::Write(3), Outcome::Done)));
        assert_eq!(say(put, 503, shed), Ok((Action::Write(3), Outcome::NotDone)));
        assert_eq!(say(put, 503, "{}"), Ok((Action::Write(3), Outcome::Unknown)));
        assert_eq!(say(put, 504, ""), Ok((Action::Write(3), Outcome::Unknown)));
        assert_eq!(say(Ask::Delete, 504, ""), Ok((Action::Delete, Outcome::Unknown)));
        assert_eq!(say(Ask::Delete, 404, ""), Ok((Action::Read(None), Outcome::Done)));
        assert_eq!(say(Ask::Get(None), 504, ""), Ok((Action::Read(None), Outcome::NotDone)));
        assert_eq!(say(Ask::Get(Some(2)), 304, ""), Ok((Action::Read(Some(2)), Outcome::Done)));
        assert!(say(Ask::Get(None), 304, "").is_err());
        assert!(say(put, 405, "").is_err());
        assert!(say(Ask::Get(None), 200, "something else").is_err());
    }
}
