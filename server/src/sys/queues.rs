//! The receive queues of network interfaces, and which CPUs process what arrives in them.
//!
//! ```text
//! sys/class/net/IF/lower_OTHER                IF is made of OTHER: a bond, a bridge, a VLAN
//! sys/class/net/IF/queues/rx-N/rps_cpus       the CPUs that packets are passed on to (RPS)
//! sys/class/net/IF/queues/rx-N/rps_flow_cnt   flows that are passed on to their readers (RFS)
//! sys/class/net/IF/device/msi_irqs/IRQ        an interrupt of the device
//! sys/class/net/IF/device/../msi_irqs/IRQ     or of what the device sits on, as with virtio
//! proc/irq/IRQ/smp_affinity_list              the CPUs on which it may come up
//! proc/irq/IRQ/NAME/                          what its driver calls it
//! ```
//!
//! Everything is read below a given root folder, so that tests bring their own.

use std::fs;
use std::path::{Path, PathBuf};

/// A receive queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Which of its interface's it is.
    pub index: u32,
    /// CPUs that packets are passed on to (RPS); none if they stay where they come in.
    pub passed_to: Vec<u16>,
    /// Packets may be passed on to where their connection is read (RFS).
    pub follows: bool,
    /// The interrupts that are its own by their name: one, where the driver's names are known.
    pub irqs: Vec<Irq>,
}

/// An interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Irq {
    /// Its number in the kernel.
    pub number: u32,
    /// What its driver calls it.
    pub name: String,
    /// The CPUs on which it may come up, as the kernel lists them: `0-3,8`.
    pub cpus: String,
}

/// What stands before a queue's index in the names of interrupts that receive: `eth0-TxRx-3`,
/// `eth0-Tx-Rx-3`, `eth0-rx-3`, `eth0-rxtx-3`; `virtio2-input.3`; `mlx5_comp3@pci:0000:01:00.0`.
const MARKS: [&str; 4] = ["rxtx", "rx", "input", "comp"];

/// The interfaces whose queues receive what arrives on `interface`: itself, or what it is made of.
#[must_use]
pub fn receivers(root: &Path, interface: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![interface.to_owned()];
    // It ends: the kernel allows no loops among them.
    while let Some(name) = open.pop() {
        let inside = names(&folder(root, &name));
        let lower = inside.iter().filter_map(|name| name.strip_prefix("lower_"));
        let count = open.len();
        open.extend(lower.map(ToOwned::to_owned));
        if open.len() == count {
            found.push(name);
        }
    }
    found
}

/// The receive queues of `interface`, in order.
#[must_use]
pub fn queues(root: &Path, interface: &str) -> Vec<Queue> {
    let folder = folder(root, interface).join("queues");
    let irqs = irqs(root, interface);
    let mut queues = Vec::new();
    for name in names(&folder) {
        let Some(index) = name.strip_prefix("rx-").and_then(|n| n.parse().ok()) else { continue };
        let is_own = |irq: &&Irq| queue_of(&irq.name) == Some(index);
        queues.push(Queue {
            index,
            passed_to: mask(&read(&folder.join(&name).join("rps_cpus"))),
            follows: !matches!(read(&folder.join(&name).join("rps_flow_cnt")).as_str(), "" | "0"),
            irqs: irqs.iter().filter(is_own).cloned().collect(),
        });
    }
    queues.sort_by_key(|queue| queue.index);
    queues
}

/// The interrupts of the interface's device. Those that bear the interface's name, where any do:
/// the device may have others, and other interfaces.
fn irqs(root: &Path, interface: &str) -> Vec<Irq> {
    let device = folder(root, interface).join("device");
    let of_device = ["msi_irqs", "../msi_irqs"].map(|place| names(&device.join(place)));
    let mut irqs = Vec::new();
    for number in of_device.into_iter().flatten().filter_map(|name| name.parse().ok()) {
        let folder = root.join(format!("proc/irq/{number}"));
        let cpus = read(&folder.join("smp_affinity_list"));
        let actions = names(&folder).into_iter().filter(|name| folder.join(name).is_dir());
        irqs.extend(actions.map(|name| Irq { number, name, cpus: cpus.clone() }));
    }
    if irqs.iter().any(|irq| irq.name.contains(interface)) {
        irqs.retain(|irq| irq.name.contains(interface));
    }
    irqs
}

/// The receive queue that an interrupt of this name is for.
fn queue_of(name: &str) -> Option<u32> {
    let name = name.to_ascii_lowercase();
    let (_, rest) = MARKS.iter().find_map(|mark| name.rsplit_once(mark))?;
    let digits = rest.trim_start_matches(['-', '.']);
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The CPUs of a mask in hexadecimal words of 32 bits, the highest first: `1,00000003` has 0, 1
/// and 32.
fn mask(text: &str) -> Vec<u16> {
    let words = text.rsplit(',').map(|word| u32::from_str_radix(word, 16).unwrap_or(0));
    let cpus = words.zip((0..).step_by(32)).flat_map(|(word, first)| {
        (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
    });
    cpus.collect()
}

fn folder(root: &Path, interface: &str) -> PathBuf {
    root.join("sys/class/net").join(interface)
}

/// The names in a folder, in order; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// What is in a file, without its end of line; nothing if it is not there.
fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A tree of files; names that end with a slash are folders.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = root.path().join(name);
            if name.ends_with('/') {
                fs::create_dir_all(file).unwrap();
            } else {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
        }
        root
    }

    #[test]
    fn queues_have_their_masks_and_the_interrupts_that_bear_their_index() {
        let root = root(&[
            ("sys/class/net/eth0/queues/tx-0/xps_cpus", "3\n"),
            ("sys/class/net/eth0/queues/rx-10/rps_cpus", "00000000,00000000\n"),
            ("sys/class/net/eth0/queues/rx-2/rps_cpus", "1,00000001\n"),
            ("sys/class/net/eth0/queues/rx-2/rps_flow_cnt", "4096\n"),
            ("sys/class/net/eth0/device/msi_irqs/40", "msix\n"),
            ("sys/class/net/eth0/device/msi_irqs/41", "msix\n"),
            ("sys/class/net/eth0/device/msi_irqs/42", "msix\n"),
            ("proc/irq/40/smp_affinity_list", "0-3,8\n"),
            ("proc/irq/40/ice-eth0-TxRx-2/", ""),
            ("proc/irq/41/smp_affinity_list", "5\n"),
            ("proc/irq/41/ice-eth0-TxRx-10/", ""),
            ("proc/irq/42/ice-0000:03:00.0:fdir-TxRx-10/", ""),
            ("proc/irq/43/ice-eth0-TxRx-2/", ""),
        ]);
        let irq = |number, name: &str, cpus: &str| {
            vec![Irq { number, name: name.into(), cpus: cpus.into() }]
        };
        let wanted = [
            Queue {
                index: 2,
                passed_to: vec![0, 32],
                follows: true,
                irqs: irq(40, "ice-eth0-TxRx-2", "0-3,8"),
            },
            Queue {
                index: 10,
                passed_to: vec![],
                follows: false,
                irqs: irq(41, "ice-eth0-TxRx-10", "5"),
            },
        ];
        assert_eq!(queues(root.path(), "eth0"), wanted);
        assert_eq!(queues(root.path(), "eth1"), []);
    }

    #[test]
    fn interrupts_of_virtio_are_those_of_what_its_device_sits_on() {
        let root = root(&[
            ("sys/devices/pci/msi_irqs/37", ""),
            ("sys/devices/pci/msi_irqs/38", ""),
            ("sys/devices/pci/virtio2/vendor", ""),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
            ("proc/irq/37/virtio2-config/", ""),
            ("proc/irq/38/virtio2-input.0/", ""),
            ("proc/irq/38/smp_affinity_list", "1\n"),
        ]);
        let device = root.path().join("sys/class/net/eth0/device");
        symlink("../../../devices/pci/virtio2", device).unwrap();
        let queues = queues(root.path(), "eth0");
        let irq = Irq { number: 38, name: "virtio2-input.0".into(), cpus: "1".into() };
        assert_eq!(queues[0].irqs, [irq]);
    }

    #[test]
    fn what_is_made_of_others_receives_by_them() {
        let root = root(&[
            ("sys/class/net/bond0.7/lower_bond0/", ""),
            ("sys/class/net/bond0/lower_eth0/", ""),
            ("sys/class/net/bond0/lower_eth1/", ""),
            ("sys/class/net/bond0/upper_bond0.7/", ""),
            ("sys/class/net/eth0/upper_bond0/", ""),
        ]);
        assert_eq!(receivers(root.path(), "bond0.7"), ["eth1", "eth0"]);
        assert_eq!(receivers(root.path(), "eth0"), ["eth0"]);
    }

    #[test]
    fn drivers_name_the_queue_of_an_interrupt_each_in_its_way() {
        for name in ["eth0-TxRx-3", "ens1f0np0-Tx-Rx-3", "eth0-rx-3", "eth0-rxtx-3"] {
            assert_eq!(queue_of(name), Some(3), "{name}");
        }
        assert_eq!(queue_of("virtio2-input.12"), Some(12));
        assert_eq!(queue_of("mlx5_comp7@pci:0000:01:00.0"), Some(7));
        for other in ["virtio2-output.0", "eth0-tx-0", "mlx5_async0@pci:0000:01:00.0", "virtio3-rx"]
        {
            assert_eq!(queue_of(other), None, "{other}");
        }
    }
}
