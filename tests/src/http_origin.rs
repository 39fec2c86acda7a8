//! An HTTP server that follows a script: what a real server has as its origin.

#![expect(clippy::disallowed_methods, reason = "the origin is a few threads")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the origin answers to a key, and how often it was asked.
#[derive(Debug, Default)]
struct Script {
    answers: BTreeMap<String, Arc<str>>,
    /// What it answers instead to a request with this line.
    unchanged: BTreeMap<(String, String), Arc<str>>,
    /// The conditions of all requests for a key: a line each, or nothing.
    asked: BTreeMap<String, Vec<String>>,
    /// Fields of the last request.
    fields: Vec<String>,
    /// Answers are held back.
    is_held: bool,
    /// How long it thinks before each answer.
    pause: Duration,
    /// Requests that it thinks about: now, and at most.
    in_flight: usize,
    in_flight_max: usize,
}

/// The server. It runs until the process ends.
#[derive(Clone, Debug)]
pub struct HttpOrigin {
    /// Where it listens.
    pub address: SocketAddr,
    script: Arc<(Mutex<Script>, Condvar)>,
}

impl HttpOrigin {
    /// A server that knows no key yet.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let origin = Self { address, script: Arc::default() };
        let of_all = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let origin = of_all.clone();
                std::thread::spawn(move || origin.serve(&stream));
            }
        });
        origin
    }

    /// Answers until the peer is gone, or the script says nothing of a key.
    fn serve(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while let Some(first) = lines.next() {
            let head: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let condition = head.iter().find(|line| line.starts_with("if-")).cloned();
            self.script().fields = head;
            let target = first.split(' ').nth(1).expect("a request has a target");
            let key = target.trim_start_matches("/items/");
            let answer = self.answer_to(key, condition.unwrap_or_default());
            let Some(answer) = answer else { return };
            if (&mut &*stream).write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer_to(&self, key: &str, condition: String) -> Option<Arc<str>> {
        let mut script = self.script();
        script.asked.entry(key.to_owned()).or_default().push(condition.clone());
        script.in_flight += 1;
        script.in_flight_max = script.in_flight_max.max(script.in_flight);
        self.script.1.notify_all();
        let pause = script.pause;
        if !pause.is_zero() {
            drop(script);
            std::thread::sleep(pause);
            script = self.script();
        }
        let waited = self.script.1.wait_while(script, |script| script.is_held);
        let mut script = waited.unwrap_or_else(PoisonError::into_inner);
        script.in_flight -= 1;
        let unchanged = script.unchanged.get(&(key.to_owned(), condition));
        unchanged.or_else(|| script.answers.get(key)).cloned()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The setting for a server that asks this origin, or `address` in its place.
    #[must_use]
    pub fn url_at(address: SocketAddr) -> String {
        format!("upstream.url=http://{address}/items/{{key}}")
    }

    /// What it answers to a key, percent-encoded, from now on, with further `lines` in the head.
    pub fn answer(&self, key: &str, status: u16, lines: &str, body: &str) {
        let size = body.len();
        let answer = format!("HTTP/1.1 {status} It\r\nContent-Length: {size}\r\n{lines}\r\n{body}");
        self.script().answers.insert(key.to_owned(), answer.into());
    }

    /// It answers 304, with further `lines` in the head, to requests with this condition.
    pub fn unchanged(&self, key: &str, condition: &str, lines: &str) {
        let answer = format!("HTTP/1.1 304 It\r\n{lines}\r\n");
        let (key, condition) = (key.to_owned(), condition.to_owned());
        self.script().unchanged.insert((key, condition), answer.into());
    }

    /// From now on it closes connections instead of an answer.
    pub fn forget(&self, key: &str) {
        self.script().answers.remove(key);
    }

    /// Holds answers back, or lets them go.
    pub fn hold(&self, is_held: bool) {
        self.script().is_held = is_held;
        self.script.1.notify_all();
    }

    /// Thinks for so long before each answer, from now on.
    pub fn slow_down(&self, pause: Duration) {
        self.script().pause = pause;
    }

    /// Waits for the first request for a key.
    pub fn wait_until_asked(&self, key: &str) {
        let script = self.script();
        let waited = self.script.1.wait_while(script, |script| !script.asked.contains_key(key));
        drop(waited);
    }

    /// How often it was asked for a key.
    #[must_use]
    pub fn asked(&self, key: &str) -> usize {
        self.conditions(key).len()
    }

    /// The conditions of the requests for a key: a line each, or nothing.
    #[must_use]
    pub fn conditions(&self, key: &str) -> Vec<String> {
        self.script().asked.get(key).cloned().unwrap_or_default()
    }

    /// The fields of the last request, in small letters.
    #[must_use]
    pub fn last_fields(&self) -> Vec<String> {
        self.script().fields.iter().map(|field| field.to_ascii_lowercase()).collect()
    }

    /// The most requests that it had at a time.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        self.script().in_flight_max
    }
}
