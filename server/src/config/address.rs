//! Where the data port listens: an address of the network, or a path of a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What stands before a path.
const UNIX: &str = "unix:";

/// Bytes of a path: those of `sockaddr_un` less its end and less `.1023`, which names a shard.
const PATH_SIZE_MAX: usize = 107 - ".1023".len();

/// One place to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return match path.len() {
                0 => Err(format!("\"{text}\" has no path")),
                1..=PATH_SIZE_MAX => Ok(Self::Unix(path.into())),
                _ => Err(format!("the path is longer than {PATH_SIZE_MAX} bytes")),
            };
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("\"{text}\" is not an address with a port, nor unix: and a path"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_the_network_or_a_path_and_is_written_as_it_was_read() {
        for text in ["127.0.0.1:80", "[::1]:80", "unix:/run/pelton/pelton.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let longest = "x".repeat(PATH_SIZE_MAX);
        assert!(format!("unix:{longest}").parse::<Address>().is_ok());
        for bad in ["", "localhost:80", "/run/pelton.sock", "unix:", &format!("unix:{longest}x")] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
