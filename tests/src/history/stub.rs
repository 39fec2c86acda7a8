//! A small server of two shards for the crowd, which does one thing at a time, or errs on purpose.

#![expect(clippy::disallowed_methods, reason = "a thread serves a connection")]

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// How it errs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A shard that was not told of a change gives what it has, once.
    StaleCopies,
    /// One change in ten, where it is a write, is acknowledged and forgotten.
    LostWrites,
    /// A delete is acknowledged, and the value is there for one more read.
    LateDeletes,
}

/// A server until all who were to connect have left.
pub(super) struct Stub {
    /// Of its shards.
    pub(super) addresses: Vec<SocketAddr>,
}

#[derive(Default)]
struct Store {
    values: BTreeMap<String, Vec<u8>>,
    /// By shard and key, what it gives although it has changed.
    stale: BTreeMap<(usize, String), Vec<u8>>,
    changes: usize,
}

impl Stub {
    /// Starts it for so many connections.
    pub(super) fn start(fault: Option<Fault>, connections: usize) -> Self {
        let store = Arc::new(Mutex::new(Store::default()));
        let shard = |shard: usize| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let store = Arc::clone(&store);
            thread::spawn(move || {
                for stream in listener.incoming().take(connections / 2) {
                    let (stream, store) = (stream.unwrap(), Arc::clone(&store));
                    thread::spawn(move || serve(stream, &store, shard, fault));
                }
            });
            address
        };
        Self { addresses: (0..2).map(shard).collect() }
    }
}

/// Serves a connection until its end.
fn serve(stream: TcpStream, store: &Mutex<Store>, shard: usize, fault: Option<Fault>) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = read(&mut stream) {
        let reply = store.lock().unwrap().answer(shard, fault, request);
        if stream.get_mut().write_all(&reply).is_err() {
            break;
        }
    }
}

struct Request {
    method: String,
    key: String,
    if_none_match: Option<String>,
    body: Vec<u8>,
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (Some(method), Some(key)) = (words.next(), words.next()) else { return Ok(None) };
    let mut fields = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        fields.insert(name.to_owned(), value.to_owned());
    }
    let mut body = Vec::new();
    if let Some(size) = fields.get("Content-Length") {
        body.resize(size.parse().unwrap(), 0);
        stream.read_exact(&mut body)?;
    }
    while fields.contains_key("Transfer-Encoding") {
        let mut size = String::new();
        stream.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk)?;
        body.extend(&chunk[..size]);
        if size == 0 {
            break;
        }
    }
    let if_none_match = fields.remove("If-None-Match");
    Ok(Some(Request { method: method.to_owned(), key: key.to_owned(), if_none_match, body }))
}

impl Store {
    fn answer(&mut self, shard: usize, fault: Option<Fault>, request: Request) -> Vec<u8> {
        let Request { method, key, if_none_match, body } = request;
        if method == "GET" {
            let stale = self.stale.remove(&(shard, key.clone()));
            let Some(value) = stale.as_ref().or_else(|| self.values.get(&key)) else {
                return reply("404 Not Found", None, b"{}");
            };
            let tag = format!("\"{:x}\"", xxhash_rust::xxh3::xxh3_64(value));
            return if if_none_match.as_ref() == Some(&tag) {
                reply("304 Not Modified", Some(&tag), b"")
            } else {
                reply("200 OK", Some(&tag), value)
            };
        }
        self.changes += 1;
        let before = if method == "PUT" {
            if fault == Some(Fault::LostWrites) && self.changes.is_multiple_of(10) {
                return reply("204 No Content", None, b"");
            }
            self.values.insert(key.clone(), body)
        } else {
            let before = self.values.remove(&key);
            if before.is_none() {
                return reply("404 Not Found", None, b"{}");
            }
            before
        };
        let is_late = fault == Some(Fault::StaleCopies)
            || fault == Some(Fault::LateDeletes) && method == "DELETE";
        if let Some(before) = before.filter(|_| is_late) {
            self.stale.insert((1 - shard, key), before);
        }
        reply("204 No Content", None, b"")
    }
}

fn reply(status: &str, tag: Option<&str>, body: &[u8]) -> Vec<u8> {
    let tag = tag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
    let size = if status.starts_with("204") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    [format!("HTTP/1.1 {status}\r\n{tag}{size}\r\n").as_bytes(), body].concat()
}
