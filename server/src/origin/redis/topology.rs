//! Which servers there are, and which of them has a key.
#![expect(clippy::disallowed_types, reason = "one thread: its requests share the servers")]

use super::cluster::Cluster;
use super::key::{Names, slot};
use super::server::{Failed, Manner, Server};
use super::settings;
use crate::config::Config;
use crate::error::{FetchFailure, StartError};
use crate::mesh::OriginServer;
use crate::origin::guard::{Guard, Trouble};
use crate::origin::news::Teller;
use redis::{ConnectionInfo, Pipeline};
use std::rc::Rc;

/// How often a request follows to where a cluster says that the key is.
const REDIRECTS_MAX: usize = 3;

/// The servers.
#[derive(Debug)]
pub(super) enum Topology {
    /// One that has all keys, and its replicas, if values are read from them.
    Single { primary: Box<Server>, replicas: Vec<Server> },
    /// Many that share the keys.
    Cluster(Cluster),
}

/// How a server of a cluster is called: whether it is asked for a key that is on its way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    Plainly,
    Asking,
}

impl Called {
    /// Where a first command goes.
    pub(super) fn pipeline(self) -> Pipeline {
        let mut commands = redis::pipe();
        self.again(&mut commands);
        commands
    }

    /// Before each further command: what is said once is over with the next.
    pub(super) fn again(self, commands: &mut Pipeline) {
        if self == Self::Asking {
            commands.cmd("ASKING").ignore();
        }
    }
}

/// What a server said: an answer, or where to go.
enum Said<T> {
    Answer(T),
    Moved(String),
    Ask(String),
}

/// Makes servers that are spoken to alike.
#[derive(Debug)]
pub(super) struct Maker {
    config: Config,
    names: Names,
    teller: Option<Teller>,
}

impl Maker {
    /// A server.
    pub(super) fn server(
        &self,
        info: ConnectionInfo,
        is_readonly: bool,
    ) -> Result<Server, StartError> {
        let origin = &self.config.origin;
        let guard = Guard::new(info.addr().to_string(), origin.requests_max, origin.queue_max);
        let manner = Manner {
            timeout: origin.timeout,
            teller: self.teller.clone(),
            names: self.names.clone(),
            is_readonly,
        };
        Ok(Server::new(settings::client(info, &self.config)?, guard, manner))
    }
}

impl Topology {
    /// What a configuration says.
    pub(super) fn new(
        config: &Config,
        names: &Names,
        teller: Option<Teller>,
    ) -> Result<Self, StartError> {
        let maker = Maker { config: config.clone(), names: names.clone(), teller };
        let mut infos = settings::servers(config)?;
        if config.redis.cluster {
            return Cluster::new(infos, config.redis.replicas, maker).map(Self::Cluster);
        }
        if infos.len() > 1 && !config.redis.replicas {
            return Err(StartError::failed(
                "redis.urls has several servers, which are neither a cluster nor replicas.",
                "Set redis.cluster or redis.replicas to true, or name one server alone.",
            ));
        }
        let primary = Box::new(maker.server(infos.remove(0), false)?);
        let replicas = infos.into_iter().map(|info| maker.server(info, false));
        Ok(Self::Single { primary, replicas: replicas.collect::<Result<_, _>>()? })
    }

    /// In a few words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Single { primary, replicas } if replicas.is_empty() => {
                format!("Redis {}", primary.guard().name())
            }
            Self::Single { primary, replicas } => {
                format!("Redis {} and {} replicas", primary.guard().name(), replicas.len())
            }
            Self::Cluster(cluster) => format!("Redis Cluster, by {}", cluster.seeds()),
        }
    }

    /// Each server, and what its guard has seen.
    pub(super) fn servers(&self) -> Vec<OriginServer> {
        match self {
            Self::Single { primary, replicas } => {
                let all = std::iter::once(&**primary).chain(replicas);
                all.map(|server| server.guard().report()).collect()
            }
            Self::Cluster(cluster) => cluster.servers(),
        }
    }

    /// The server that takes changes of `name`, and what its guard has seen.
    pub(super) fn server_of(&self, name: &[u8]) -> Option<OriginServer> {
        match self {
            Self::Single { primary, .. } => Some(primary.guard().report()),
            Self::Cluster(cluster) => Some(cluster.writer(slot(name))?.guard().report()),
        }
    }

    /// Reads from a server that has `name`.
    pub(super) async fn read<T>(
        &self,
        name: &[u8],
        attempt: impl AsyncFn(&Server, Called) -> Result<T, Failed>,
    ) -> Result<T, FetchFailure> {
        let send = async |server: &Server, called: Called| {
            let read = server.guard().read(async || Said::of(attempt(server, called).await));
            read.await.map_err(Trouble::Useless)
        };
        let answer = match self {
            Self::Single { primary, replicas } => {
                if let Some(replica) = replicas.get(slot(name) % replicas.len().max(1))
                    && let Ok(Said::Answer(answer)) = send(replica, Called::Plainly).await
                {
                    return Ok(answer);
                }
                send(primary, Called::Plainly).await.and_then(answered)
            }
            Self::Cluster(cluster) => follow(cluster, cluster.reader(slot(name)), send).await,
        };
        answer.map_err(Trouble::failure)
    }

    /// Sends a change to the server that has `name` and takes changes, once.
    ///
    /// # Errors
    /// It was not sent, or what the server said of it.
    pub(super) async fn write<T>(
        &self,
        name: &[u8],
        attempt: impl AsyncFn(&Server, Called) -> Result<T, Failed>,
    ) -> Result<T, Trouble> {
        let send = async |server: &Server, called: Called| {
            let once = server.guard().once(async || Said::of(attempt(server, called).await));
            once.await.unwrap_or_else(|failure| Err(Trouble::Useless(failure)))
        };
        match self {
            Self::Single { primary, .. } => send(primary, Called::Plainly).await.and_then(answered),
            Self::Cluster(cluster) => follow(cluster, cluster.writer(slot(name)), send).await,
        }
    }
}

impl<T> Said<T> {
    fn of(answer: Result<T, Failed>) -> Result<Self, Trouble> {
        match answer {
            Ok(answer) => Ok(Self::Answer(answer)),
            Err(Failed::Moved(address)) => Ok(Self::Moved(address)),
            Err(Failed::Ask(address)) => Ok(Self::Ask(address)),
            Err(Failed::Trouble(trouble)) => Err(trouble),
        }
    }

    /// Where to go, and what to say there.
    fn place(self) -> (String, Called) {
        match self {
            Self::Moved(address) => (address, Called::Plainly),
            Self::Ask(address) => (address, Called::Asking),
            Self::Answer(_) => unreachable!("an answer is taken"),
        }
    }
}

/// The answer of a server that is no part of a cluster.
fn answered<T>(said: Said<T>) -> Result<T, Trouble> {
    match said {
        Said::Answer(answer) => Ok(answer),
        Said::Moved(_) | Said::Ask(_) => {
            tracing::warn!("a Redis server is part of a cluster: set redis.cluster to true");
            Err(Trouble::Useless(FetchFailure::Unavailable))
        }
    }
}

/// Sends to `first`, and on to where a server of the cluster points.
async fn follow<T>(
    cluster: &Cluster,
    first: Option<Rc<Server>>,
    send: impl AsyncFn(&Server, Called) -> Result<Said<T>, Trouble>,
) -> Result<T, Trouble> {
    let mut place = first.map(|server| (server, Called::Plainly));
    for _ in 0..REDIRECTS_MAX {
        let Some((server, called)) = place else { break };
        match send(&server, called).await {
            Ok(Said::Answer(answer)) => return Ok(answer),
            Ok(said) => place = cluster.follow(said.place()),
            Err(trouble) => {
                cluster.doubt();
                return Err(trouble);
            }
        }
    }
    cluster.doubt();
    Err(Trouble::Useless(FetchFailure::Unavailable))
}
