//! Listening sockets: one a shard and address, all of one SO_REUSEPORT group, or one alone.
//!
//! Options are set once, on the listener: an accepted socket inherits TCP_NODELAY and SO_KEEPALIVE
//! from it, so that no call is spent on a connection.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// How many connections may wait to be accepted; `net.core.somaxconn` caps it.
pub const BACKLOG: u16 = 4096;

/// Non-blocking sockets, so many, that listen on `address` together: a group whose order, in the
/// kernel too, is that of the result. Port 0 takes a free port, the same for all.
///
/// # Errors
/// As [`listen`].
pub fn listen_together(mut address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut group = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = listen(address)?;
        address = listener.local_addr()?;
        // A socket takes its place in the group where it begins to listen, behind all others.
        group.push(listener);
    }
    Ok(group)
}

/// A non-blocking socket that listens on `address` beside others of this process.
///
/// # Errors
/// As bind(2) and listen(2) have them: `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`, `EMFILE`.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_with(address, &[libc::SO_REUSEADDR, libc::SO_REUSEPORT])
}

/// A non-blocking socket that alone listens on `address`.
///
/// # Errors
/// As [`listen`].
pub fn listen_alone(address: SocketAddr) -> io::Result<TcpListener> {
    listen_with(address, &[libc::SO_REUSEADDR])
}

fn listen_with(address: SocketAddr, sharing: &[i32]) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY:
    // - socket(2) takes three integers and touches no memory of ours.
    let fd = unsafe { libc::socket(family, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY:
    // - `fd` is open: the call above has just returned it.
    // - Nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    for option in sharing {
        set_option(fd, libc::SOL_SOCKET, *option)?;
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    if address.is_ipv6() {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    bind(fd, address)?;
    // SAFETY:
    // - listen(2) takes two integers and touches no memory of ours.
    check(unsafe { libc::listen(fd, BACKLOG.into()) })?;
    Ok(TcpListener::from(socket))
}

/// Fails with `EADDRINUSE` if another process listens on `address` already. SO_REUSEPORT lets a
/// second server of the same user bind silently, and half of its clients would land on the first.
///
/// # Errors
/// As [`listen`].
pub fn check_free(address: SocketAddr) -> io::Result<()> {
    listen_alone(address).map(drop)
}

/// Ends both directions, or only ours. A socket whose peer is gone is ended already.
pub(crate) fn shutdown(fd: RawFd, how: i32) {
    // SAFETY:
    // - shutdown(2) takes two integers and touches no memory of ours.
    let _ended_already = unsafe { libc::shutdown(fd, how) };
}

/// The address of a connection's peer; none over a Unix socket, or if the peer is gone.
pub(crate) fn peer(fd: RawFd) -> Option<IpAddr> {
    let mut raw = [0_u8; size_of::<libc::sockaddr_in6>()];
    let mut size = socklen(raw.len());
    // SAFETY:
    // - `raw` is valid for writes of `size` bytes for the length of the call, and bytes have any
    //   alignment that the kernel copies to.
    // - `size` is valid for reads and writes.
    check(unsafe { libc::getpeername(fd, raw.as_mut_ptr().cast(), &raw mut size) }).ok()?;
    // The family, two bytes of port, and for IPv6 four bytes of flow come before the address.
    #[expect(clippy::host_endian_bytes, reason = "the kernel writes a number of the host")]
    let family = u16::from_ne_bytes([raw[0], raw[1]]);
    match i32::from(family) {
        libc::AF_INET => raw[4..].first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        libc::AF_INET6 => raw[8..].first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

fn set_option(fd: RawFd, level: i32, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = socklen(size_of_val(&on));
    // SAFETY:
    // - `on` is valid for reads of `size` bytes for the length of the call.
    check(unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), size) })
}

fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY:
            // - `raw` is a whole sockaddr_in, valid for reads for the length of the call.
            check(unsafe { libc::bind(fd, (&raw const raw).cast(), socklen(size_of_val(&raw))) })
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY:
            // - `raw` is a whole sockaddr_in6, valid for reads for the length of the call.
            check(unsafe { libc::bind(fd, (&raw const raw).cast(), socklen(size_of_val(&raw))) })
        }
    }
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn family(family: i32) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("an address family fits its field")
}

fn socklen(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).expect("an address is a few bytes")
}

const _: () = assert!(size_of::<libc::sockaddr_in>() == 16, "no padding of ours is sent");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_share_one_port_and_a_third_party_sees_it_taken() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let group = listen_together(address.parse().unwrap(), 2).unwrap();
            let bound = group[0].local_addr().unwrap();
            assert_eq!(group[1].local_addr().unwrap(), bound);
            assert_eq!(check_free(bound).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
        assert!(check_free("127.0.0.1:0".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_peer_has_its_address_and_one_over_a_unix_socket_none() {
        use std::os::fd::AsRawFd as _;
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = listen(address.parse().unwrap()).unwrap();
            let bound = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(bound).unwrap();
            assert_eq!(peer(client.as_raw_fd()), Some(bound.ip()));
            assert_eq!(peer(listener.as_raw_fd()), None);
        }
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer(end.as_raw_fd()), None);
    }

    #[test]
    fn a_socket_alone_shares_its_port_with_nobody() {
        let alone = listen_alone("127.0.0.1:0".parse().unwrap()).unwrap();
        let bound = alone.local_addr().unwrap();
        for listen in [listen, listen_alone] {
            assert_eq!(listen(bound).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
