//! Whether connections can be steered by CPU (`server.steer = "cpu"`), and if not, what to do.
//!
//! A connection belongs to the shard on whose CPU its packets are processed. That is so where, on
//! every interface by which they arrive, each receive queue has one CPU (its interrupt is pinned to
//! it, or RPS passes everything on to it), each of these has a shard, and each shard's CPU has a
//! queue. Elsewhere some shards would get nothing, or connections be dealt out anew by whatever
//! moves the interrupts; so it is refused. Shards are always pinned: one that cannot be ends the
//! start.

use super::{Finding, Severity};
use crate::config::{Address, Config};
use crate::sys::interfaces::{self, Held};
use crate::sys::queues::{self, Irq, Queue};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// What was found for shards on these cores; nothing where nobody wants to steer.
#[must_use]
pub fn findings(config: &Config, cores: &[u16]) -> Vec<Finding> {
    if config.server.steer != "cpu" {
        return Vec::new();
    }
    let listen: Vec<SocketAddr> = config.server.listen.iter().filter_map(tcp).collect();
    let misfits = match interfaces::addresses() {
        Ok(held) => misfits(&listen, &held, cores, Path::new("/")),
        Err(error) => vec![misfit(
            format!("the interfaces of this host cannot be listed: {error}"),
            "Set server.steer to hash.".into(),
        )],
    };
    if misfits.is_empty() { vec![finding("all are".into(), None)] } else { misfits }
}

fn finding(current: String, fix: Option<String>) -> Finding {
    Finding {
        condition: "server.steer",
        required: "queue, IRQ and shard on one CPU".into(),
        current,
        severity: Severity::Fatal,
        fix,
    }
}

/// One thing that does not line up, and what to do about it.
fn misfit(current: String, fix: String) -> Finding {
    finding(current, Some(fix))
}

fn tcp(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    }
}

/// Everything that does not line up for connections to the addresses of `listen`.
fn misfits(listen: &[SocketAddr], held: &[Held], cores: &[u16], root: &Path) -> Vec<Finding> {
    if listen.is_empty() {
        return vec![misfit(
            "server.listen names Unix sockets alone, which have no queues".into(),
            "Add an address to server.listen, or set server.steer to hash.".into(),
        )];
    }
    let mut misfits = Vec::new();
    let mut receivers = Vec::new();
    for address in listen {
        match arriving(*address, held) {
            Ok(names) => {
                receivers.extend(names.iter().flat_map(|name| queues::receivers(root, name)));
            }
            Err(misfit) => misfits.push(misfit),
        }
    }
    receivers.sort_unstable();
    receivers.dedup();
    for interface in receivers {
        misfits.extend(judge(&interface, &queues::queues(root, &interface), cores));
    }
    misfits
}

/// The interfaces by which connections to `address` arrive: those that have its IP. A wildcard, or
/// an IP that is kept on the loopback for a balancer, is reached by any of its family.
fn arriving(address: SocketAddr, held: &[Held]) -> Result<Vec<&str>, Finding> {
    let ip = address.ip();
    if ip.is_loopback() {
        return Err(misfit(
            format!("{address} is of the loopback: a connection comes in on its client's CPU"),
            "Listen on addresses of other interfaces alone, or set server.steer to hash.".into(),
        ));
    }
    let having = |wanted: &dyn Fn(IpAddr) -> bool| -> Vec<&str> {
        let held = held.iter().filter(|held| !held.is_loopback && wanted(held.ip));
        held.map(|held| held.interface.as_str()).collect()
    };
    let mut names = having(&|other| other == ip);
    if names.is_empty() {
        names = having(&|other| other.is_ipv4() == ip.is_ipv4());
    }
    if names.is_empty() {
        return Err(misfit(
            format!("nothing arrives at {address}: no interface of its family is up"),
            "Set one up, or set server.steer to hash.".into(),
        ));
    }
    Ok(names)
}

/// What does not line up on one interface.
fn judge(interface: &str, queues: &[Queue], cores: &[u16]) -> Vec<Finding> {
    if queues.len() < cores.len() {
        let (has, wants) = (queues.len(), cores.len());
        return vec![misfit(
            format!("{interface} has fewer receive queues ({has}) than there are shards ({wants})"),
            format!(
                "Give it more, if its device has them (ethtool -L {interface} combined {wants}), \
                 or lower server.shards; or set server.steer to hash."
            ),
        )];
    }
    let mut used = Vec::new();
    let mut misfits = Vec::new();
    for (queue, &spare) in queues.iter().zip(cores.iter().cycle()) {
        match cpu(interface, queue, cores, spare) {
            Ok(cpu) => used.push(cpu),
            Err(misfit) => misfits.push(misfit),
        }
    }
    if !misfits.is_empty() {
        // Putting these right may be all that it takes.
        return misfits;
    }
    let is_shared = |cpu: &u16| used.iter().filter(|other| *other == cpu).count() > 1;
    let shared = queues.iter().zip(&used).filter(|(_, cpu)| is_shared(cpu));
    let shared: Vec<String> = shared.map(|(queue, _)| format!("rx-{}", queue.index)).collect();
    let shared = shared.join(", ");
    let idle = cores.iter().enumerate().filter(|(_, core)| !used.contains(core));
    let idle = idle.map(|(shard, core)| {
        misfit(
            format!("{interface} has no receive queue on CPU {core}, where shard {shard} is"),
            format!(
                "Of the queues that share a CPU ({shared}), move one to CPU {core}: by the \
                 smp_affinity_list of its interrupt, or by its rps_cpus where that is set."
            ),
        )
    });
    idle.collect()
}

/// The one CPU that processes what arrives in `queue`, a shard's; `spare` is one that would do.
fn cpu(interface: &str, queue: &Queue, cores: &[u16], spare: u16) -> Result<u16, Finding> {
    let folder = format!("/sys/class/net/{interface}/queues/rx-{}", queue.index);
    let wrong = |what: String, fix: String| {
        Err(misfit(format!("{interface}, queue rx-{}: {what}", queue.index), fix))
    };
    if queue.follows {
        return wrong(
            "its packets are passed on to where they are read (RFS)".into(),
            format!("Turn that off: echo 0 > {folder}/rps_flow_cnt"),
        );
    }
    if let [first, others @ ..] = queue.passed_to.as_slice() {
        let what = match others {
            [] if cores.contains(first) => return Ok(*first),
            [] => format!("RPS passes all on to CPU {first}, where no shard is"),
            _ => format!("RPS spreads it over CPUs {:?}", queue.passed_to),
        };
        return wrong(
            what,
            format!(
                "Turn RPS off (echo 0 > {folder}/rps_cpus), or keep only the CPU of one shard in \
                 this mask."
            ),
        );
    }
    let [Irq { number, name, cpus }] = queue.irqs.as_slice() else {
        return wrong(
            format!("{} interrupts of its device bear its index", queue.irqs.len()),
            format!(
                "Where packets are passed on to one CPU, the interrupt's own does not matter: \
                 write the mask of one shard's CPU into {folder}/rps_cpus; or set server.steer to \
                 hash."
            ),
        );
    };
    let pin = format!("echo {spare} > /proc/irq/{number}/smp_affinity_list");
    match cpus.parse() {
        Ok(cpu) if cores.contains(&cpu) => Ok(cpu),
        Ok(cpu) => wrong(
            format!("IRQ {number} ({name}) is pinned to CPU {cpu}, where no shard is"),
            format!("Pin it to the CPU of a shard ({pin}), or name CPU {cpu} in server.cpus."),
        ),
        Err(_) => wrong(
            format!("IRQ {number} ({name}) may come up on CPUs {cpus}"),
            format!("Pin it to the CPU of one shard ({pin}), and keep irqbalance off it."),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The interrupt's number is 40 more than the queue's index.
    fn queue(index: u32, cpus: &str) -> Queue {
        let irq = Irq { number: 40 + index, name: format!("eth0-TxRx-{index}"), cpus: cpus.into() };
        Queue { index, passed_to: Vec::new(), follows: false, irqs: vec![irq] }
    }

    /// What is said of the queues, one of which is at fault.
    fn said(queues: &[Queue], cores: &[u16]) -> String {
        let all = judge("eth0", queues, cores);
        assert_eq!(all.len(), 1, "{all:?}");
        format!("{}. {}", all[0].current, all[0].fix.as_deref().unwrap())
    }

    /// Whether the parts are all in the text.
    fn has(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in {text}");
        }
    }

    #[test]
    fn each_queue_on_a_shard_s_cpu_and_each_shard_with_a_queue_lines_up() {
        assert_eq!(judge("eth0", &[queue(0, "4"), queue(1, "9")], &[4, 9]), []);
        let four = [queue(0, "4"), queue(1, "9"), queue(2, "9"), queue(3, "4")];
        assert_eq!(judge("eth0", &four, &[4, 9]), []);
        let passed = |index, cpu| Queue { passed_to: vec![cpu], ..queue(index, "0-15") };
        assert_eq!(judge("eth0", &[passed(0, 9), passed(1, 4)], &[4, 9]), [], "RPS decides");
        let bare = Queue { irqs: Vec::new(), ..passed(0, 4) };
        assert_eq!(judge("veth0", &[bare], &[4]), [], "whatever its interrupt");
    }

    #[test]
    fn an_interrupt_that_is_not_pinned_or_to_no_shard_is_named_with_the_command() {
        let good = queue(1, "9");
        let free = said(&[queue(0, "0-15"), good.clone()], &[4, 9]);
        let command = "echo 4 > /proc/irq/40/smp_affinity_list";
        has(&free, &["eth0, queue rx-0", "IRQ 40 (eth0-TxRx-0)", "CPUs 0-15", command]);
        let elsewhere = said(&[queue(0, "5"), good.clone()], &[4, 9]);
        has(&elsewhere, &["rx-0", "IRQ 40", "CPU 5, where no shard is", command, "server.cpus"]);
        let unread = said(&[queue(0, ""), good.clone()], &[4, 9]);
        has(&unread, &["IRQ 40", command]);
        let unknown = Queue { irqs: Vec::new(), ..queue(0, "4") };
        has(&said(&[unknown, good.clone()], &[4, 9]), &["rx-0: 0 interrupts", "rx-0/rps_cpus"]);
        let twice = Queue { irqs: [queue(0, "4").irqs, queue(0, "4").irqs].concat(), ..good };
        has(&said(&[queue(0, "4"), twice], &[4, 9]), &["rx-1: 2 interrupts"]);
    }

    #[test]
    fn packets_that_are_passed_on_to_several_cpus_or_to_no_shard_are_named() {
        let good = queue(1, "9");
        let of = |queue: Queue| said(&[queue, good.clone()], &[4, 9]);
        let file = "/sys/class/net/eth0/queues/rx-0/rps_cpus";
        let spread = of(Queue { passed_to: vec![4, 9], ..queue(0, "4") });
        has(&spread, &["rx-0: RPS spreads it over CPUs [4, 9]", file]);
        let elsewhere = of(Queue { passed_to: vec![5], ..queue(0, "4") });
        has(&elsewhere, &["rx-0: RPS passes all on to CPU 5, where no shard is", file]);
        let follows = of(Queue { follows: true, ..queue(0, "4") });
        has(&follows, &["rx-0", "RFS", "echo 0 >", "rx-0/rps_flow_cnt"]);
    }

    #[test]
    fn a_shard_without_a_queue_is_named() {
        let few = said(&[queue(0, "4")], &[4, 9]);
        has(
            &few,
            &["eth0 has fewer receive queues (1)", "shards (2)", "ethtool -L eth0 combined 2"],
        );
        let none = said(&[], &[4]);
        has(&none, &["eth0 has fewer receive queues (0)"]);
        let uneven = said(&[queue(0, "4"), queue(1, "7"), queue(2, "4")], &[4, 7, 9]);
        has(&uneven, &["eth0 has no receive queue on CPU 9, where shard 2 is", "(rx-0, rx-2)"]);
    }

    fn held(interface: &str, ip: &str) -> Held {
        let is_loopback = interface == "lo";
        Held { interface: interface.into(), ip: ip.parse().unwrap(), is_loopback }
    }

    #[test]
    fn an_address_is_reached_by_its_interface_and_others_by_all_of_their_family() {
        let all = [
            held("lo", "127.0.0.1"),
            held("lo", "192.0.2.9"),
            held("eth0", "192.0.2.1"),
            held("eth1", "198.51.100.1"),
            held("eth1", "2001:db8::1"),
        ];
        let arriving = |ip: &str| arriving(SocketAddr::new(ip.parse().unwrap(), 80), &all).unwrap();
        assert_eq!(arriving("192.0.2.1"), ["eth0"]);
        assert_eq!(arriving("0.0.0.0"), ["eth0", "eth1"]);
        assert_eq!(arriving("::"), ["eth1"]);
        assert_eq!(arriving("192.0.2.9"), ["eth0", "eth1"], "it is kept for a balancer");
    }

    #[test]
    fn a_whole_host_is_read_below_its_root() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: String, text: &str| {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("sys/class/net/bond0/lower_eth0/ifindex".into(), "2\n");
        for number in 0..2 {
            put(format!("sys/class/net/eth0/queues/rx-{number}/rps_cpus"), "0000\n");
            put(format!("sys/class/net/eth0/device/msi_irqs/5{number}"), "msix\n");
            put(format!("proc/irq/5{number}/eth0-TxRx-{number}/x"), "");
            put(format!("proc/irq/5{number}/smp_affinity_list"), &format!("{number}\n"));
        }
        let all = [held("lo", "127.0.0.1"), held("bond0", "192.0.2.1")];
        let said = |listen: &[&str]| {
            let listen: Vec<_> = listen.iter().map(|text| text.parse().unwrap()).collect();
            misfits(&listen, &all, &[1, 0], root.path())
        };
        assert_eq!(said(&["0.0.0.0:80", "192.0.2.1:81"]), []);
        put("proc/irq/51/smp_affinity_list".into(), "0-1\n");
        let twice = said(&["0.0.0.0:80", "192.0.2.1:81"]);
        assert_eq!(twice.len(), 1, "an interface is looked at once: {twice:?}");
        has(&twice[0].current, &["eth0, queue rx-1: IRQ 51 (eth0-TxRx-1)", "CPUs 0-1"]);
        put("proc/irq/51/smp_affinity_list".into(), "1\n");
        has(&said(&["127.0.0.1:80"])[0].current, &["127.0.0.1:80", "loopback"]);
        has(&said(&["[::1]:80"])[0].current, &["[::1]:80", "loopback"]);
        has(&said(&["[::]:80"])[0].current, &["[::]:80", "no interface"]);
        has(&said(&[])[0].current, &["Unix sockets alone"]);
    }
}
