//! Where a server listens, and sockets that reach it: TCP, or a Unix socket.

use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Connections that wait to be accepted; the kernel's own bound is `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The address of a server.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    name: SockAddr,
    text: String,
}

impl Address {
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self { name: address.into(), text: address.to_string() }
    }

    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        Ok(Self { name: SockAddr::unix(path)?, text: format!("unix:{}", path.display()) })
    }

    /// The first address that `host` has.
    pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Self> {
        let found = (host, port).to_socket_addrs()?.next();
        found.map(Self::tcp).ok_or_else(|| io::Error::other(format!("{host} has no address")))
    }

    /// A socket that listens on it. The file of a Unix socket that nobody listens on is replaced.
    pub(crate) fn listen(&self) -> io::Result<Socket> {
        let socket = Socket::new(self.name.domain(), Type::STREAM, None)?;
        if self.is_unix() {
            let path = self.name.as_pathname();
            if let Some(path) = path.filter(|_| self.probe(Duration::from_secs(1)).is_err()) {
                // It may not be there, which is as good.
                drop(std::fs::remove_file(path));
            }
        } else {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&self.name)?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    }

    pub(crate) fn is_unix(&self) -> bool {
        self.name.domain() == Domain::UNIX
    }

    /// What the kernel calls it.
    pub(crate) const fn name(&self) -> &SockAddr {
        &self.name
    }

    /// A socket that can be connected to it.
    pub(crate) fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(self.name.domain(), Type::STREAM, None)?;
        if !self.is_unix() {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(socket)
    }

    /// Whether somebody listens there.
    pub(crate) fn probe(&self, timeout: Duration) -> io::Result<()> {
        self.socket()?.connect_timeout(&self.name, timeout)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_prefix("unix:") {
            Some(path) => Self::unix(Path::new(path)).ok(),
            None => text.parse().ok().map(Self::tcp),
        };
        parsed.ok_or_else(|| {
            format!("{text:?} is no address; expected one such as 127.0.0.1:8081 or unix:/run/a")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn listeners_of_both_kinds_are_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Address::resolve("localhost", port).unwrap();
        assert!(Address::tcp(listener.local_addr().unwrap()).probe(SECOND).is_ok());
        assert!(address.to_string().ends_with(&format!(":{port}")));

        let folder = tempfile::tempdir().unwrap();
        let text = format!("unix:{}", folder.path().join("socket").display());
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        for _ in 0..2 {
            // The second time the file is there.
            let listener = address.listen().unwrap();
            assert!(address.probe(SECOND).is_ok());
            assert!(address.listen().is_err(), "somebody listens");
            drop(listener);
        }
    }

    #[test]
    fn nobody_listening_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::tcp(listener.local_addr().unwrap());
        drop(listener);
        assert!(address.probe(SECOND).is_err());
        assert!("localhost".parse::<Address>().is_err(), "a name is no address");
        assert!(Address::unix(Path::new("/no/such/socket")).unwrap().probe(SECOND).is_err());
    }
}
