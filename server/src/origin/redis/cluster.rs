//! A cluster: which server has which slot, as far as is known, and how that is kept up.
//!
//! Any server of a cluster can say who has what. It is asked at start, every now and then, and soon
//! after a request has failed or was sent on. Between, a server that no longer has a key says who
//! has it.
#![expect(clippy::disallowed_types, reason = "one thread: its tasks share the servers")]

use super::key::SLOTS_COUNT;
use super::server::{Failed, Server};
use super::topology::{Called, Maker};
use crate::error::StartError;
use crate::mesh::OriginServer;
use redis::{ConnectionAddr, ConnectionInfo, Value};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How often a cluster is asked who has what, without a reason.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How long after the last time it is asked again, with a reason.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// How long the answer may take.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// The servers of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    map: Rc<Map>,
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Map {
    maker: Maker,
    seeds: Vec<ConnectionInfo>,
    reads_replicas: bool,
    servers: RefCell<BTreeMap<String, Rc<Server>>>,
    slots: RefCell<Slots>,
    /// Which of the replicas of a slot is next.
    turn: Cell<usize>,
    doubt: Notify,
}

/// Who has which slot: the primary, then its replicas.
#[derive(Debug, Default)]
struct Slots {
    groups: Vec<Vec<String>>,
    /// Index of the group, by the slot; empty while nothing is known.
    group_of: Vec<Option<u16>>,
}

impl Cluster {
    /// The cluster to which the servers of `seeds` belong.
    pub(super) fn new(
        seeds: Vec<ConnectionInfo>,
        reads_replicas: bool,
        maker: Maker,
    ) -> Result<Self, StartError> {
        let servers = seeds.iter().map(|seed| {
            let server = maker.server(seed.clone(), reads_replicas)?;
            Ok((seed.addr().to_string(), Rc::new(server)))
        });
        let servers = RefCell::new(servers.collect::<Result<_, StartError>>()?);
        let (slots, turn, doubt) = (RefCell::default(), Cell::default(), Notify::new());
        let map = Rc::new(Map { maker, seeds, reads_replicas, servers, slots, turn, doubt });
        let keeper = tokio::task::spawn_local(keep(Rc::clone(&map)));
        Ok(Self { map, keeper })
    }

    /// The servers that were named.
    pub(super) fn seeds(&self) -> String {
        let names = self.map.seeds.iter().map(|seed| seed.addr().to_string());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Those that are known, and what their guards have seen.
    pub(super) fn servers(&self) -> Vec<OriginServer> {
        self.map.servers.borrow().values().map(|server| server.guard().report()).collect()
    }

    /// The server that takes changes of a slot.
    pub(super) fn writer(&self, slot: usize) -> Option<Rc<Server>> {
        self.map.server(slot, |group| group.first())
    }

    /// A server that answers for a slot.
    pub(super) fn reader(&self, slot: usize) -> Option<Rc<Server>> {
        if !self.map.reads_replicas {
            return self.writer(slot);
        }
        let turn = self.map.turn.get();
        self.map.turn.set(turn.wrapping_add(1));
        self.map.server(slot, |group| match group {
            [_, replicas @ ..] if !replicas.is_empty() => replicas.get(turn % replicas.len()),
            _ => group.first(),
        })
    }

    /// The server to which another one has pointed.
    pub(super) fn follow(
        &self,
        (address, called): (String, Called),
    ) -> Option<(Rc<Server>, Called)> {
        self.doubt();
        Some((self.map.named(&address)?, called))
    }

    /// Something is not as it was thought to be: asks anew who has what.
    pub(super) fn doubt(&self) {
        self.map.doubt.notify_one();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Map {
    fn server(
        &self,
        slot: usize,
        choose: impl FnOnce(&[String]) -> Option<&String>,
    ) -> Option<Rc<Server>> {
        let slots = self.slots.borrow();
        // Any server of the cluster knows who has a slot.
        let Some(group) = slots.group_of.get(slot).copied().flatten() else {
            return self.servers.borrow().values().next().cloned();
        };
        let name = choose(&slots.groups[usize::from(group)])?;
        self.servers.borrow().get(name).cloned()
    }

    /// The server at `address`, which is a new one if it was not known.
    fn named(&self, address: &str) -> Option<Rc<Server>> {
        if let Some(server) = self.servers.borrow().get(address) {
            return Some(Rc::clone(server));
        }
        let (host, port) = address.rsplit_once(':')?;
        let seed = self.seeds.first()?.clone();
        let (host, port) = (host.to_owned(), port.parse().ok()?);
        let place = if let ConnectionAddr::TcpTls { insecure, tls_params, .. } = seed.addr() {
            let (insecure, tls_params) = (*insecure, tls_params.clone());
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let server = self.maker.server(seed.set_addr(place), self.reads_replicas).ok()?;
        let server = Rc::new(server);
        self.servers.borrow_mut().insert(address.to_owned(), Rc::clone(&server));
        Some(server)
    }

    /// Asks who has what, one server after the other until one answers.
    async fn look(&self) {
        let servers: Vec<_> = {
            let servers = self.servers.borrow();
            servers.iter().map(|(name, server)| (name.clone(), Rc::clone(server))).collect()
        };
        for (name, server) in servers {
            let mut command = redis::pipe();
            command.cmd("CLUSTER").arg("SLOTS");
            let asked = timeout(LOOK_WITHIN, server.ask::<(Value,)>(&command)).await;
            match asked {
                Ok(Ok((value,))) => {
                    let own_host = name.rsplit_once(':').map_or("", |(host, _)| host);
                    if let Some(slots) = Slots::read(&value, own_host) {
                        return self.learn(slots);
                    }
                    tracing::warn!(server = %name, "a Redis server does not know its cluster");
                }
                Ok(Err(Failed::Trouble(_) | Failed::Moved(_) | Failed::Ask(_))) | Err(_) => {}
            }
        }
    }

    fn learn(&self, slots: Slots) {
        let wanted = |group: &Vec<String>| {
            let count = if self.reads_replicas { group.len() } else { 1 };
            group.iter().take(count).cloned().collect::<Vec<_>>()
        };
        let names: Vec<String> = slots.groups.iter().flat_map(wanted).collect();
        for name in &names {
            self.named(name);
        }
        // Those that were named stay: they can be asked when all others are gone.
        let is_seed =
            |name: &String| self.seeds.iter().any(|seed| seed.addr().to_string() == *name);
        self.servers.borrow_mut().retain(|name, _| names.contains(name) || is_seed(name));
        *self.slots.borrow_mut() = slots;
    }
}

impl Slots {
    /// What CLUSTER SLOTS has answered; a server that names no host means itself.
    fn read(value: &Value, own_host: &str) -> Option<Self> {
        let mut slots = Self { groups: Vec::new(), group_of: vec![None; SLOTS_COUNT] };
        let Value::Array(ranges) = value else { return None };
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), servers @ ..] = &parts[..] else {
                return None;
            };
            let names = servers.iter().filter_map(|server| address(server, own_host));
            let group: Vec<_> = names.collect();
            if group.is_empty() {
                continue;
            }
            let number = slots.groups.iter().position(|known| *known == group);
            let number = number.unwrap_or_else(|| {
                slots.groups.push(group);
                slots.groups.len() - 1
            });
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            slots.group_of.get_mut(first..=last)?.fill(Some(u16::try_from(number).ok()?));
        }
        (!slots.groups.is_empty()).then_some(slots)
    }
}

/// `HOST:PORT` of a server in an answer to CLUSTER SLOTS.
fn address(server: &Value, own_host: &str) -> Option<String> {
    let Value::Array(parts) = server else { return None };
    let [host, Value::Int(port), ..] = &parts[..] else { return None };
    let host =
        if let Value::BulkString(host) = host { std::str::from_utf8(host).ok()? } else { "" };
    let host = if host.is_empty() { own_host } else { host };
    Some(format!("{host}:{port}"))
}

/// Keeps up who has what.
async fn keep(map: Rc<Map>) {
    loop {
        map.look().await;
        sleep(LOOK_AFTER).await;
        // Whether there is a reason or not, it is time.
        drop(timeout(LOOK_EVERY, map.doubt.notified()).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port)])
    }

    #[test]
    fn who_has_which_slot_is_read_from_what_a_server_says() {
        let range = |first, last, servers: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], servers].concat())
        };
        let value = Value::Array(vec![
            range(0, 5460, vec![server("a", 1), server("b", 2)]),
            range(5461, 16_382, vec![server("", 3)]),
            range(16_383, 16_383, vec![server("a", 1), server("b", 2)]),
        ]);
        let slots = Slots::read(&value, "own").expect("it is one");
        assert_eq!(slots.groups, [vec!["a:1".to_owned(), "b:2".to_owned()], vec!["own:3".into()]]);
        let group = |slot: usize| slots.group_of[slot];
        assert_eq!([0, 5460, 5461, 16_383].map(group), [Some(0), Some(0), Some(1), Some(0)]);
        for bad in [
            Value::Int(1),
            Value::Array(vec![]),
            Value::Array(vec![range(0, 16_384, vec![server("a", 1)])]),
            Value::Array(vec![range(5, -1, vec![server("a", 1)])]),
        ] {
            assert!(Slots::read(&bad, "own").is_none(), "{bad:?}");
        }
    }
}
