//! Steps that a test takes on the simulated stage by itself, where no script could say when: which
//! shard turns, what the origin has read, what it tells, which answer lands first.

use super::Pieces;
use super::simulator::SimulatorStage;
use super::stage::{Received, Source, Stage};
use super::writes::TOKEN;
use crate::http::Reply;
use pelton::mesh::{Delivery, Key, Named, Owners, PurgeOrder, Purged};
use shard_cache::Force;
use shard_cache::hash::KeyHasher;
use std::time::Duration;

impl SimulatorStage {
    /// A world of two shards with settings as `section.key=value`, whose connections stay at the
    /// shard that they came to.
    ///
    /// # Panics
    /// If the settings are wrong.
    #[must_use]
    pub fn of_steps(sets: &[&str], seed: u64) -> Self {
        let sets = [sets, &["server.balance=false"]].concat();
        let sets: Vec<String> = sets.into_iter().map(str::to_owned).collect();
        Self::of_config(("", &sets), seed, Pieces(usize::MAX), 2, |_| {})
    }

    /// What the origin has for a key: this JSON text.
    pub fn has(&mut self, key: &str, value: &str) {
        self.source(key, &Source::Has(value.as_bytes().to_vec()));
    }

    /// The shard that owns a key.
    #[must_use]
    pub fn owner(&self, key: &str) -> usize {
        let shards = u16::try_from(self.cluster.places.len()).expect("there are few");
        let hash = KeyHasher::new(self.settings.hash_key).hash(key.as_bytes());
        Owners::new(self.settings.owner_hash, shards).of(hash, key.as_bytes()).into()
    }

    /// Asks a shard for a key, on a connection of its own; the number of its client.
    pub fn ask(&mut self, shard: usize, key: &str) -> usize {
        self.ask_slowly(shard, key, 1 << 20)
    }

    /// The same, and the client reads no more than `window` bytes before its reply is asked for.
    pub fn ask_slowly(&mut self, shard: usize, key: &str, window: usize) -> usize {
        self.send(shard, window, &format!("GET /lookup/{key} HTTP/1.1\r\nHost: h\r\n\r\n"))
    }

    /// Sends a request. No shard turns before the next step.
    fn send(&mut self, shard: usize, window: usize, request: &str) -> usize {
        let client = self.connect_to(shard, window);
        let written = self.host.borrow_mut().net.write(self.sockets[client], request.as_bytes());
        assert_eq!(written, request.len(), "a request is short");
        client
    }

    /// Begins to put a value, or to delete a key where there is none.
    pub fn change(&mut self, shard: usize, key: &str, value: Option<&str>) -> usize {
        let (method, body) = value.map_or(("DELETE", ""), |value| ("PUT", value));
        let size = body.len();
        let request = format!(
            "{method} /lookup/{key} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {size}\r\n\r\n{body}"
        );
        self.send(shard, 1 << 20, &request)
    }

    /// The reply that a client is owed.
    ///
    /// # Panics
    /// If there is none.
    pub fn reply(&mut self, client: usize) -> Reply {
        let mut bytes = Vec::new();
        loop {
            let Received::Bytes(more) = self.read(client) else {
                panic!("no reply, after {}", bytes.escape_ascii())
            };
            bytes.extend(more);
            if let Some(reply) = parse(&bytes) {
                return reply;
            }
        }
    }

    /// Asks a shard for a key; the status and the body of the reply.
    pub fn get(&mut self, shard: usize, key: &str) -> (u16, String) {
        let client = self.ask(shard, key);
        let reply = self.reply(client);
        (reply.status, reply.text().to_owned())
    }

    /// Lets the origin answer all fetches under way with what it has now, whenever they land.
    pub fn read_now(&mut self) {
        for fetch in &mut self.fetches {
            let source = self.sources.get(&fetch.key).cloned().unwrap_or(Source::Absent);
            fetch.read.get_or_insert(source);
        }
    }

    /// Answers one fetch of those under way, counted from the oldest, before all others.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn land_one(&mut self, number: usize) {
        let fetch = self.fetches.remove(number);
        self.land(fetch);
    }

    /// Waits until so many fetches are under way.
    ///
    /// # Panics
    /// If there never are, or more.
    pub fn wait_for_fetches(&mut self, count: usize) {
        let until = self.now() + Duration::from_secs(1);
        while self.fetches.len() < count && self.act(until) {}
        assert_eq!(self.fetches.len(), count, "fetches under way");
    }

    /// The origin tells that a key has changed.
    ///
    /// # Panics
    /// If that is no key.
    pub fn tell(&mut self, key: &str) {
        let owner = self.owner(key);
        let key = Box::new(Key::new(key.as_bytes()).expect("a key"));
        self.told += 1;
        self.deliver(owner, Delivery::Forget(key));
    }

    /// Somebody purges.
    pub fn purge(&mut self, named: &Named, force: Force) {
        for shard in 0..self.cluster.places.len() {
            let order = PurgeOrder { named: named.clone(), force, outcome: Purged::Done };
            self.told += 1;
            self.deliver(shard, Delivery::Purge(Box::new(order)));
        }
    }

    /// Waits until what was told and purged is done.
    ///
    /// # Panics
    /// If it never is.
    pub fn settle(&mut self) {
        let until = self.now() + Duration::from_secs(10);
        while self.told > 0 {
            assert!(self.act(until), "changes are settled within the time of a lease");
        }
    }

    /// Lets one shard turn, and no other, for a millisecond.
    pub fn turn_alone(&mut self, shard: usize) {
        let until = self.now() + Duration::from_millis(1);
        loop {
            let place = &self.cluster.places[shard];
            let next = place.shard.borrow().ring().next_turn(&self.host.borrow());
            self.host.borrow_mut().advance(next.min(until));
            if next > until {
                return;
            }
            self.turn(shard);
        }
    }

    /// From now on the wall clock steps by hours, at almost every moment.
    pub fn unsettle_wall_clock(&mut self) {
        self.host.borrow_mut().faults.wall_step = 900;
    }
}

/// The reply at the beginning of `bytes`, if it is whole.
fn parse(bytes: &[u8]) -> Option<Reply> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(size) = head.parse(bytes).expect("a head") else { return None };
    let headers = head
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).into_owned()));
    let status = head.code.expect("a head has a status");
    let mut reply = Reply { status, headers: headers.collect(), body: Vec::new() };
    let body_size =
        reply.header("Content-Length").map_or(0, |size| size.parse().expect("a number"));
    reply.body = bytes.get(size..size + body_size)?.to_vec();
    Some(reply)
}
