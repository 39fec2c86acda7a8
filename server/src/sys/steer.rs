//! Steering by CPU: a program in the kernel that picks the listener of a group for each connection.
//!
//! ```text
//! ld   cpu             the one on which the SYN is processed
//! jeq  cores[0], +0, +1
//! ret  0               the listener that was the first of its group to listen
//! jeq  cores[1], +0, +1
//! ret  1
//! ...
//! ret  NONE            no listener has this number: the kernel's hash decides
//! ```
//!
//! Invariant: the number that is returned is a place in the group, and the kernel fills the place
//! of a member that goes with its last one. So no member may be closed before all are.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

/// The place of no listener.
const NONE: u32 = u32::MAX;

/// Gives each new connection of a whole `group`, in its order, to the listener that stands where
/// the CPU of the connection's SYN stands in `cores`; from CPUs that are not there, by a hash.
///
/// # Errors
/// As `SO_ATTACH_REUSEPORT_CBPF` has them (socket(7)): `ENOMEM` if `net.core.optmem_max` is below
/// what the program takes.
pub fn by_cpu(group: &[TcpListener], cores: &[u16]) -> io::Result<()> {
    assert_eq!(group.len(), cores.len(), "each listener has a core");
    let address = group[0].local_addr()?;
    for listener in group {
        assert_eq!(listener.local_addr()?, address, "all are of one group");
    }
    let mut program = program(cores);
    let raw = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("cores are at most 1024"),
        filter: program.as_mut_ptr(),
    };
    let size = libc::socklen_t::try_from(size_of_val(&raw)).expect("it is a few bytes");
    // SAFETY:
    // - `raw` is a whole sock_fprog, valid for reads of `size` bytes for the length of the call.
    // - Its `filter` points to `len` instructions in `program`, which lives until the call returns;
    //   the kernel copies them.
    let failed = unsafe {
        libc::setsockopt(
            group[0].as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const raw).cast(),
            size,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From a CPU to its place in `cores`.
fn program(cores: &[u16]) -> Vec<libc::sock_filter> {
    let mut program = Vec::with_capacity(2 * cores.len() + 2);
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    program.push(instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, cpu));
    for (place, &core) in (0..).zip(cores) {
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, core.into()));
        program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, place));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, NONE));
    program
}

/// With what it skips if it compares and finds no match.
fn instruction(code: u32, skip: u8, operand: u32) -> libc::sock_filter {
    let code = u16::try_from(code).expect("codes are a byte wide");
    libc::sock_filter { code, jt: 0, jf: skip, k: operand }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{cpu, socket};
    use std::net::TcpStream;

    /// CPUs that nobody has: an affinity mask of ours ends before.
    const ELSEWHERE: [u16; 2] = [2000, 2001];

    fn steered(cores: &[u16]) -> Vec<TcpListener> {
        let group = socket::listen_together("127.0.0.1:0".parse().unwrap(), cores.len()).unwrap();
        by_cpu(&group, cores).unwrap();
        group
    }

    /// The listener that a connection from `cpu` comes to. Over loopback, the SYN is processed on
    /// the CPU of who sends it.
    fn landing(group: &[TcpListener], cpu: u16) -> usize {
        let address = group[0].local_addr().unwrap();
        let connect = || {
            cpu::pin(cpu).unwrap();
            TcpStream::connect(address).unwrap()
        };
        let _client = std::thread::scope(|scope| scope.spawn(connect).join().unwrap());
        loop {
            if let Some(place) = group.iter().position(|listener| listener.accept().is_ok()) {
                return place;
            }
        }
    }

    #[test]
    fn a_connection_comes_to_the_listener_of_its_cpu_whatever_the_order_of_cpus() {
        let mut cores = cpu::allowed();
        cores.push(ELSEWHERE[0]);
        cores.reverse();
        let group = steered(&cores);
        for (place, &core) in cores.iter().enumerate().skip(1) {
            for _ in 0..16 {
                assert_eq!(landing(&group, core), place, "from CPU {core} of {cores:?}");
            }
        }
    }

    #[test]
    fn connections_of_a_cpu_without_a_listener_are_spread_over_all() {
        let group = steered(&ELSEWHERE);
        let cpu = cpu::allowed()[0];
        let mut landed = [0; 2];
        (0..64).for_each(|_| landed[landing(&group, cpu)] += 1);
        assert!(landed.iter().all(|count| *count > 0), "{landed:?}");
    }

    #[test]
    fn the_program_for_the_most_shards_is_one_that_the_kernel_takes() {
        let cores: Vec<u16> = (0..1024).collect();
        assert!(program(&cores).len() <= 4096, "BPF_MAXINSNS");
    }

    #[test]
    #[should_panic(expected = "all are of one group")]
    fn listeners_of_two_groups_are_not_steered_together() {
        let listen = || socket::listen_together("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let both: Vec<TcpListener> = listen().into_iter().chain(listen()).collect();
        let _panics = by_cpu(&both, &[0, 1]);
    }
}
