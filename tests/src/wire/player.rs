//! Plays a script on a stage and compares.

use super::script::{Command, Script};
use super::stage::{Received, Stage};
use crate::sim::reply;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Fields that may differ between two replies with the same head: they tell the time, or what is
/// left of it.
const VARYING: &[&str] = &["date", "age", "cache-status", "cache-control"];

/// One client as the player sees it.
#[derive(Debug, Default)]
struct Peer {
    number: usize,
    /// Written in the script and not sent yet: consecutive lines go out together.
    outbox: Vec<u8>,
    inbox: Vec<u8>,
    replies: Vec<Reply>,
    over: bool,
}

#[derive(Debug)]
struct Reply {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

struct Player<'a> {
    stage: &'a mut dyn Stage,
    peers: BTreeMap<String, Peer>,
    conversation: String,
}

/// Plays `script` on `stage`.
///
/// # Errors
/// `file:line: what was expected, what came`, and the conversation so far.
pub fn play(script: &Script, stage: &mut dyn Stage) -> Result<(), String> {
    let mut player = Player { stage, peers: BTreeMap::new(), conversation: String::new() };
    for (line, command) in &script.commands {
        player
            .step(command)
            .map_err(|error| format!("{}:{line}: {error}\n{}", script.name, player.conversation))?;
    }
    player
        .conclude()
        .map_err(|error| format!("{}: at the end: {error}\n{}", script.name, player.conversation))
}

impl Player<'_> {
    fn step(&mut self, command: &Command) -> Result<(), String> {
        if let Command::Send(name, bytes) = command {
            self.peer(name).outbox.extend(bytes);
            return Ok(());
        }
        self.flush();
        match command {
            Command::Source(key, source) => self.stage.source(key, source),
            Command::Hold(hold) => self.stage.hold(*hold),
            Command::Connect(name) => {
                let number = self.stage.connect();
                self.peers.insert(name.clone(), Peer { number, ..Peer::default() });
            }
            Command::Send(..) => unreachable!("taken above"),
            Command::Finish(name) => {
                let number = self.peer(name).number;
                self.stage.finish(number);
            }
            Command::Advance(ms) => self.stage.advance(*ms),
            Command::Drain => self.stage.drain(),
            Command::Reply { client, status, without_body } => {
                return self.reply(client, *status, *without_body);
            }
            Command::Ends(name) => return self.ends(name),
            Command::Silent(name) => return self.silent(name),
            Command::Counter { name, label, value } => {
                let came = self.stage.counter(name, label, *value);
                return same(name, value, &came);
            }
            Command::Exits => return same("exit", &true, &self.stage.has_exited()),
            Command::Header(name, field, expected) => {
                let came = self.last(name).field(field);
                return match (expected, came) {
                    (None, Some(_)) => Ok(()),
                    (Some(expected), Some(came)) if expected == came => Ok(()),
                    (_, came) => Err(format!("expected {field}: {expected:?}, came {came:?}")),
                };
            }
            Command::NoHeader(name, field) => {
                return same(field, &None, &self.last(name).field(field));
            }
            Command::Body(name, expected) => {
                let came = &self.last(name).body;
                let (expected, came) = (reply::show(expected), reply::show(came));
                return same("body", &expected, &came);
            }
            Command::SameHead(name) => {
                let replies = &self.peer(name).replies;
                let [.., before, last] = &replies[..] else { unreachable!("the parser counted") };
                return same("head", &before.lasting(), &last.lasting());
            }
        }
        Ok(())
    }

    /// Sends what the lines so far have written.
    fn flush(&mut self) {
        for (name, peer) in &mut self.peers {
            let bytes = std::mem::take(&mut peer.outbox);
            if !bytes.is_empty() {
                note(&mut self.conversation, name, '>', &bytes);
                self.stage.write(peer.number, &bytes);
            }
        }
    }

    fn peer(&mut self, name: &str) -> &mut Peer {
        self.peers.get_mut(name).expect("the parser knows all clients")
    }

    fn last(&mut self, name: &str) -> &Reply {
        self.peer(name).replies.last().expect("the parser saw a reply before")
    }

    /// Reads on; answers what came instead of bytes, if anything did.
    fn receive(&mut self, name: &str) -> Option<Received> {
        let peer = self.peers.get_mut(name).expect("the parser knows all clients");
        let received = self.stage.read(peer.number);
        if let Received::Bytes(bytes) = &received {
            note(&mut self.conversation, name, '<', bytes);
            peer.inbox.extend(bytes);
            return None;
        }
        peer.over = received != Received::Nothing;
        Some(received)
    }

    fn reply(&mut self, name: &str, status: u16, without_body: bool) -> Result<(), String> {
        loop {
            let peer = self.peer(name);
            if let Some((head, size)) = reply::parse(&peer.inbox)? {
                let came = head.status;
                let body = if head.is_chunked && !without_body {
                    chunks(&peer.inbox[size..])?
                } else {
                    let body_size = head.content_length.filter(|_| !without_body).unwrap_or(0);
                    let body = peer.inbox.get(size..size + body_size);
                    body.map(|body| (body.to_vec(), body_size))
                };
                if let Some((body, body_size)) = body {
                    let rest = peer.inbox.split_off(size + body_size);
                    let whole = std::mem::replace(&mut peer.inbox, rest);
                    peer.replies.push(Reply::new(&whole[..size], &body));
                    return same("status", &status, &came);
                }
            }
            if let Some(other) = self.receive(name) {
                return Err(format!("expected a reply {status}, came {other:?}"));
            }
        }
    }

    fn ends(&mut self, name: &str) -> Result<(), String> {
        loop {
            match self.receive(name) {
                None => {}
                Some(Received::End) => break,
                Some(other) => return Err(format!("expected an end, came {other:?}")),
            }
        }
        self.nothing_left(name)
    }

    fn silent(&mut self, name: &str) -> Result<(), String> {
        let other = self.receive(name);
        same("silence", &Some(Received::Nothing), &other)?;
        self.nothing_left(name)
    }

    fn nothing_left(&mut self, name: &str) -> Result<(), String> {
        let left = reply::show(&self.peer(name).inbox);
        same("bytes left", &String::new(), &left)
    }

    /// Whoever is still connected ends his direction, and must read nothing more than an end.
    fn conclude(&mut self) -> Result<(), String> {
        self.flush();
        let names: Vec<String> = self.peers.keys().cloned().collect();
        for name in names {
            if !self.peer(&name).over {
                let number = self.peer(&name).number;
                self.stage.finish(number);
                self.ends(&name).map_err(|error| format!("client {name}: {error}"))?;
            }
        }
        Ok(())
    }
}

impl Reply {
    fn new(head: &[u8], body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let fields = text.lines().skip(1).filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { fields, body: body.to_vec() }
    }

    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The fields that do not change with time.
    fn lasting(&self) -> Vec<&(String, String)> {
        let varies = |name: &str| VARYING.contains(&name.to_ascii_lowercase().as_str());
        self.fields.iter().filter(|(name, _)| !varies(name)).collect()
    }
}

/// The data of a body in chunks, and its size with them; `None` while it is not whole.
fn chunks(text: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = text[at..].windows(2).position(|end| end == b"\r\n") else {
            return Ok(None);
        };
        let digits = String::from_utf8_lossy(&text[at..at + line]).into_owned();
        let size = usize::from_str_radix(&digits, 16);
        let size = size.map_err(|_| format!("no size of a chunk: {digits}"))?;
        let (start, end) = (at + line + 2, at + line + 2 + size);
        at = end + 2;
        match text.get(end..at) {
            None => return Ok(None),
            Some(b"\r\n") => data.extend_from_slice(&text[start..end]),
            Some(other) => return Err(format!("a chunk that ends with {}", reply::show(other))),
        }
        if size == 0 {
            return Ok(Some((data, at)));
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, came: &T) -> Result<(), String> {
    if expected == came {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, came {came:?}"))
}

fn note(conversation: &mut String, name: &str, direction: char, bytes: &[u8]) {
    writeln!(conversation, "  {name} {direction} {}", reply::show(bytes))
        .expect("a string takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;
    use std::collections::VecDeque;

    /// Gives what it was told to, whatever it is sent.
    #[derive(Default)]
    struct Canned {
        received: VecDeque<Received>,
        counter: u64,
        exits: bool,
    }

    impl Stage for Canned {
        fn connect(&mut self) -> usize {
            0
        }
        fn write(&mut self, _client: usize, _bytes: &[u8]) {}
        fn read(&mut self, _client: usize) -> Received {
            self.received.pop_front().unwrap_or(Received::End)
        }
        fn finish(&mut self, _client: usize) {}
        fn source(&mut self, _key: &str, _source: &Source) {}
        fn hold(&mut self, _hold: bool) {}
        fn advance(&mut self, _ms: u64) {}
        fn drain(&mut self) {}
        fn has_exited(&mut self) -> bool {
            self.exits
        }
        fn counter(&mut self, _name: &str, _label: &str, _expected: u64) -> u64 {
            self.counter
        }
    }

    const DATE: &str = "Date: Mon, 23 Nov 2026 08:00:00 GMT\r\n";

    fn reply(status: &str, fields: &str, body: &str) -> Received {
        let size = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{DATE}{fields}Content-Length: {size}\r\n\r\n");
        Received::Bytes(format!("{head}{body}").into_bytes())
    }

    fn run(lines: &str, received: &[Received]) -> Result<(), String> {
        let text = format!("# t\nclient a\n{lines}");
        let script = Script::parse("t.wire", &text).unwrap_or_else(|error| panic!("{error}"));
        let mut stage = Canned { counter: 7, exits: false, ..Canned::default() };
        stage.received.extend(received.iter().cloned());
        play(&script, &mut stage)
    }

    #[test]
    fn what_was_expected_passes() {
        let ok = || reply("200 OK", "X: y\r\n", "12");
        let lines = "a < 200\na header X: y\na header x\na no header Z\na body 12\n\
                     counter pelton_requests_total 7\na < 200\na same head\na ends\n";
        assert_eq!(run(lines, &[ok(), ok()]), Ok(()));
        let silent = "a < 200\na silent\n";
        let silent = format!("only simulator: time\n{silent}");
        assert_eq!(run(&silent, &[ok(), Received::Nothing]), Ok(()));
    }

    #[test]
    fn every_kind_of_expectation_fails_when_it_should() {
        let ok = || reply("200 OK", "X: y\r\n", "12");
        let rows: &[(&str, &[Received])] = &[
            ("a < 404\n", &[ok()]),
            ("a < 200\n", &[Received::Nothing]),
            ("a < 200\n", &[Received::Reset]),
            ("a < 200\n", &[]),
            ("a < 200 without body\n", &[ok()]),
            ("a < 200\n", &[ok(), ok()]),
            ("a < 200\n", &[ok(), Received::Reset]),
            ("a < 200\na header X: z\n", &[ok()]),
            ("a < 200\na header Z\n", &[ok()]),
            ("a < 200\na no header X\n", &[ok()]),
            ("a < 200\na body 13\n", &[ok()]),
            ("a < 200\na < 200\na same head\n", &[ok(), reply("200 OK", "X: z\r\n", "12")]),
            ("a ends\n", &[Received::Reset]),
            ("a ends\n", &[Received::Nothing]),
            ("a ends\n", &[ok()]),
            ("only simulator: time\na silent\n", &[]),
            ("only simulator: time\na silent\n", &[ok(), Received::Nothing]),
            ("a ends\ncounter pelton_requests_total 8\n", &[]),
            ("a ends\ndrain\nexits\n", &[]),
        ];
        for (lines, received) in rows {
            let error = run(lines, received).expect_err(lines);
            assert!(error.starts_with("t.wire:"), "{error}");
        }
    }
}
