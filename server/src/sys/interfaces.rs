//! The addresses of this host's network interfaces.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// An address that an interface has which is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// The interface is the loopback.
    pub is_loopback: bool,
}

/// All addresses of interfaces that are up.
///
/// # Errors
/// As getifaddrs(3) has them.
pub fn addresses() -> io::Result<Vec<Held>> {
    let mut first = ptr::null_mut();
    // SAFETY:
    // - `first` is valid for the write of one pointer.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut held = Vec::new();
    let mut next = first;
    // SAFETY:
    // - `next` is null or a node of the list, which is not freed before the loop has ended.
    // - Nobody else knows of the list, so nobody writes to it.
    while let Some(node) = unsafe { next.as_ref() } {
        held.extend(read(node));
        next = node.ifa_next;
    }
    // SAFETY:
    // - The list was made by getifaddrs, and nothing that was taken from it points into it.
    unsafe { libc::freeifaddrs(first) };
    Ok(held)
}

/// What `node`, one of a list of getifaddrs, says, if it is an IP address of an interface that is
/// up.
fn read(node: &libc::ifaddrs) -> Option<Held> {
    let has = |flag: i32| node.ifa_flags & flag.cast_unsigned() != 0;
    // SAFETY:
    // - `ifa_addr` is null or an address that begins with its family.
    let family = unsafe { node.ifa_addr.as_ref() }?.sa_family;
    let ip = match i32::from(family) {
        libc::AF_INET => {
            // SAFETY:
            // - An address of this family is a whole sockaddr_in, aligned as one.
            let raw = unsafe { node.ifa_addr.cast::<libc::sockaddr_in>().as_ref() }?;
            Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)).into()
        }
        libc::AF_INET6 => {
            // SAFETY:
            // - An address of this family is a whole sockaddr_in6, aligned as one.
            let raw = unsafe { node.ifa_addr.cast::<libc::sockaddr_in6>().as_ref() }?;
            Ipv6Addr::from(raw.sin6_addr.s6_addr).into()
        }
        _ => return None,
    };
    // SAFETY:
    // - Every node has a name, which ends with a zero.
    let name = unsafe { CStr::from_ptr(node.ifa_name) }.to_string_lossy();
    // An address may have a label instead: the name, a colon, and something.
    let interface = name.split(':').next().unwrap_or_default().to_owned();
    has(libc::IFF_UP).then(|| Held { interface, ip, is_loopback: has(libc::IFF_LOOPBACK) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_up_and_known_for_what_it_is() {
        let addresses = addresses().unwrap();
        let localhost = |held: &&Held| held.ip == IpAddr::from(Ipv4Addr::LOCALHOST);
        let held = addresses.iter().find(localhost).expect("loopback is up");
        assert!(held.is_loopback && held.interface == "lo", "{held:?}");
        let of = |held: &Held| (held.interface == "lo", held.is_loopback);
        assert!(addresses.iter().map(of).all(|(named, flagged)| named == flagged));
    }
}
