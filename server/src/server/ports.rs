//! Where the shards listen: what all of them share, and what each has for itself.
//!
//! ```text
//! server.listen        every shard                      shard i alone
//! 0.0.0.0:8080         0.0.0.0:8080 (SO_REUSEPORT)      0.0.0.0:(shard_ports + i)
//! unix:PATH            -                                PATH.i
//! ```
//!
//! PATH itself has one listener, on shard 0, which hands connections to shards that have fewer.

#![expect(clippy::disallowed_methods, reason = "the start waits for what a dead process holds")]

use crate::config::{Address, Config};
use crate::error::StartError;
use crate::sys::unix::{self, SocketFile};
use crate::sys::{socket, steer};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often, and how many times, an address is tried again that is in use: for two seconds.
const TRY_EVERY: Duration = Duration::from_millis(20);
const TRIES: u32 = 100;

/// Where the shards listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Every shard listens on each of them.
    pub shared: Vec<SocketAddr>,
    /// Shard 0 listens on each of them, shard `i` on the port that is `i` higher.
    pub own: Vec<SocketAddr>,
    /// Shard 0 listens on each of them for all, and shard `i` on the path with `.i` behind it.
    pub paths: Vec<PathBuf>,
    shards_count: u16,
    /// Connections to `shared` go to the shard on the CPU that they come in on.
    by_cpu: bool,
}

/// What one shard listens on.
#[derive(Default)]
pub(super) struct Sockets {
    /// Any shard may have the connections.
    pub(super) shared: Vec<OwnedFd>,
    /// They are for this shard.
    pub(super) own: Vec<OwnedFd>,
}

/// Ports that are listened on.
pub(super) struct Listening {
    /// With the ports that were taken where any was wanted.
    pub(super) ports: Ports,
    /// What each shard listens on.
    pub(super) sockets: Vec<Sockets>,
    pub(super) files: Vec<SocketFile>,
}

impl Ports {
    /// Where so many shards listen by `config`.
    ///
    /// # Errors
    /// The ports of the shards cannot be had together, or with the others of `config`.
    pub fn new(config: &Config, shards_count: u16) -> Result<Self, StartError> {
        let mut ports = Self {
            shared: Vec::new(),
            own: Vec::new(),
            paths: Vec::new(),
            shards_count,
            by_cpu: config.server.steer == "cpu",
        };
        for address in &config.server.listen {
            match address {
                Address::Tcp(address) => ports.shared.push(*address),
                Address::Unix(path) => ports.paths.push(path.clone()),
            }
        }
        if let Some(first) = u16::try_from(config.server.shard_ports).ok().filter(|port| *port > 0)
        {
            ports.check(first, config.admin.listen)?;
            ports.own = distinct(&ports.shared, first);
        }
        Ok(ports)
    }

    /// Whether all shards can have a port from `first` on.
    fn check(&self, first: u16, admin: Option<SocketAddr>) -> Result<(), StartError> {
        let count = self.shards_count;
        let Some(last) = first.checked_add(count - 1) else {
            return Err(StartError::failed(
                format!(
                    "server.shard_ports = {first} gives no port to each of {count} shards: the \
                     last would be {}, and ports end at 65535.",
                    u32::from(first) + u32::from(count) - 1
                ),
                format!("Set it to {} or less, or lower server.shards.", u16::MAX - (count - 1)),
            ));
        };
        let listen = self.shared.iter().map(|address| ("server.listen", address));
        let all = listen.chain(admin.iter().map(|address| ("admin.listen", address)));
        for (parameter, address) in all {
            if (first..=last).contains(&address.port()) {
                return Err(StartError::failed(
                    format!(
                        "server.shard_ports = {first} gives {count} shards the ports {first} to \
                         {last}, and {parameter} has {address}, which is one of them."
                    ),
                    "Choose a range that is free: --set server.shard_ports=PORT.",
                ));
            }
        }
        if self.shared.is_empty() {
            return Err(StartError::failed(
                format!(
                    "server.shard_ports = {first} has no address: server.listen names Unix \
                     sockets alone."
                ),
                "Add an address to server.listen, or leave shard_ports away: each shard has a \
                 Unix socket of its own without it.",
            ));
        }
        Ok(())
    }

    /// Listens on all of them, for shards on these cores.
    ///
    /// # Errors
    /// One of them cannot be listened on, or is taken.
    pub(super) fn listen(mut self, cores: &[u16]) -> Result<Listening, StartError> {
        let mut sockets: Vec<Sockets> =
            (0..self.shards_count).map(|_| Sockets::default()).collect();
        let mut files = Vec::new();
        for address in &mut self.shared {
            let wanted = *address;
            let cannot = |error| cannot_listen(wanted, "server.listen", &error);
            patiently(|| socket::check_free(wanted)).map_err(cannot)?;
            let group = socket::listen_together(wanted, sockets.len()).map_err(cannot)?;
            *address = group[0].local_addr().map_err(cannot)?;
            if self.by_cpu {
                steer::by_cpu(&group, cores).map_err(|error| cannot_steer(wanted, &error))?;
            }
            for (shard, listener) in sockets.iter_mut().zip(group) {
                // What is steered stays where it comes to.
                let listeners = if self.by_cpu { &mut shard.own } else { &mut shard.shared };
                listeners.push(listener.into());
            }
        }
        for &first in &self.own {
            for (index, shard) in (0..).zip(&mut sockets) {
                let address = with_port(first, first.port() + index);
                let cannot = |error| cannot_listen(address, "server.shard_ports", &error);
                let listener = patiently(|| socket::listen_alone(address)).map_err(cannot)?;
                shard.own.push(listener.into());
            }
        }
        for path in &self.paths {
            sockets[0].shared.push(listen_on_path(path, &mut files)?);
            for (index, shard) in (0..).zip(&mut sockets) {
                shard.own.push(listen_on_path(&own_path(path, index), &mut files)?);
            }
        }
        Ok(Listening { ports: self, sockets, files })
    }

    /// What shards have for themselves: `127.0.0.1:8101-8104`; none if nothing.
    #[must_use]
    pub fn own_text(&self) -> Option<String> {
        let last = self.shards_count - 1;
        let ports = self.own.iter().map(|first| format!("{first}-{}", first.port() + last));
        let paths = self.paths.iter().map(|path| format!("unix:{}.0-{last}", path.display()));
        let all: Vec<String> = ports.chain(paths).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }
}

/// The IPs of `shared`, each once, with the port `first`. One that a wildcard covers is left out:
/// its ports are taken.
fn distinct(shared: &[SocketAddr], first: u16) -> Vec<SocketAddr> {
    let is_covered = |address: &SocketAddr| {
        let same = |other: &SocketAddr| other.is_ipv4() == address.is_ipv4();
        let is_wildcard = |other: &SocketAddr| other.ip().is_unspecified();
        !is_wildcard(address) && shared.iter().any(|other| same(other) && is_wildcard(other))
    };
    let mut own = Vec::new();
    for address in shared.iter().filter(|address| !is_covered(address)) {
        let address = with_port(*address, first);
        if !own.contains(&address) {
            own.push(address);
        }
    }
    own
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

fn own_path(path: &Path, index: u16) -> PathBuf {
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{index}"));
    own.into()
}

fn listen_on_path(path: &Path, files: &mut Vec<SocketFile>) -> Result<OwnedFd, StartError> {
    let (listener, file) = patiently(|| unix::listen(path)).map_err(|error| {
        StartError::failed(
            format!("Cannot listen on unix:{} (server.listen): {}.", path.display(), why(&error)),
            "Name a path that nothing else uses, in a folder that exists and that this process \
             may write.",
        )
    })?;
    files.push(file);
    Ok(listener.into())
}

/// Tries again for a while what is in use: a process that was killed is gone before the kernel has
/// taken its rings apart, and until then they hold its sockets.
fn patiently<T>(mut listen: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(TRY_EVERY),
            done => return done,
        }
    }
    listen()
}

fn why(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        "another process listens there".to_owned()
    } else {
        error.to_string()
    }
}

fn cannot_listen(address: SocketAddr, parameter: &str, error: &io::Error) -> StartError {
    let other = if parameter == "server.listen" { "[\"127.0.0.1:0\"]" } else { "PORT" };
    StartError::failed(
        format!("Cannot listen on {address} ({parameter}): {}.", why(error)),
        format!(
            "Stop what holds it (ss -ltnp 'sport = :{}'), or choose another: --set \
             {parameter}={other}.",
            address.port()
        ),
    )
}

fn cannot_steer(address: SocketAddr, error: &io::Error) -> StartError {
    StartError::host(
        format!("Connections to {address} cannot be steered by CPU (server.steer): {error}."),
        "Raise the sysctl net.core.optmem_max if memory is what it lacks, or set server.steer to \
         hash.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(sets: &[&str], shards_count: u16) -> Result<Ports, StartError> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).into()).collect();
        Ports::new(&Config::parse("test", "", &sets).unwrap(), shards_count)
    }

    #[test]
    fn without_shard_ports_shards_have_but_their_paths() {
        let listen = r#"server.listen=["0.0.0.0:80", "unix:/run/p"]"#;
        let ports = ports(&[listen], 4).unwrap();
        assert_eq!(ports.shared, ["0.0.0.0:80".parse::<SocketAddr>().unwrap()]);
        assert!(ports.own.is_empty());
        assert_eq!(ports.own_text().as_deref(), Some("unix:/run/p.0-3"));
        assert_eq!(own_path(&ports.paths[0], 3), Path::new("/run/p.3"));
    }

    #[test]
    fn every_ip_has_the_shards_ports_once() {
        let own = |listen: &str| {
            let listen = format!("server.listen={listen}");
            ports(&[&listen, "server.shard_ports=9000"], 2).unwrap().own_text().unwrap()
        };
        assert_eq!(own(r#"["127.0.0.1:80", "127.0.0.1:81"]"#), "127.0.0.1:9000-9001");
        assert_eq!(own(r#"["127.0.0.1:80", "[::1]:80"]"#), "127.0.0.1:9000-9001, [::1]:9000-9001");
        assert_eq!(own(r#"["127.0.0.1:80", "0.0.0.0:81"]"#), "0.0.0.0:9000-9001");
        assert_eq!(own(r#"["127.0.0.1:80", "[::]:81"]"#), "127.0.0.1:9000-9001, [::]:9000-9001");
    }

    #[test]
    fn ports_beyond_the_last_or_of_others_are_refused_with_what_to_do() {
        let refused = |sets: &[&str], shards_count| ports(sets, shards_count).unwrap_err();
        assert!(ports(&["server.shard_ports=65532"], 4).is_ok());
        let beyond = refused(&["server.shard_ports=65533"], 4);
        assert!(beyond.what.contains("65536") && beyond.remedy.contains("65532"), "{beyond}");
        let beyond = refused(&["server.shard_ports=65535"], 1024);
        assert!(beyond.what.contains("66558") && beyond.remedy.contains("64512"), "{beyond}");
        let ours = refused(&["server.shard_ports=8077"], 4);
        assert!(ours.what.contains("server.listen has 0.0.0.0:8080"), "{ours}");
        assert!(ports(&["server.shard_ports=8076"], 4).is_ok());
        let admin = refused(&["server.shard_ports=9090"], 1);
        assert!(admin.what.contains("admin.listen has 127.0.0.1:9090"), "{admin}");
        let nowhere = refused(&["server.shard_ports=9000", "server.listen=unix:/run/p"], 1);
        assert!(nowhere.what.contains("has no address"), "{nowhere}");
    }

    #[test]
    fn what_is_steered_is_for_the_shard_that_it_comes_to_and_a_path_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let listen = format!(r#"server.listen=["127.0.0.1:0", "unix:{}"]"#, path.display());
        let counts = |steer: &str| -> Vec<(usize, usize)> {
            let listening = ports(&[&listen, steer], 2).unwrap().listen(&[1, 0]).unwrap();
            let count = |shard: &Sockets| (shard.shared.len(), shard.own.len());
            listening.sockets.iter().map(count).collect()
        };
        assert_eq!(counts("server.steer=hash"), [(2, 1), (1, 1)]);
        assert_eq!(counts("server.steer=cpu"), [(1, 2), (0, 2)]);
    }
}
