//! What this host grants, and whether a server can run on it: looked at before anything starts.
//!
//! Facts are gathered by [`Facts::gather`], judged by [`Facts::findings`], which is pure; so each
//! cause has a test without a host that has it. `pelton check` shows all findings; a start is
//! refused at the first fatal one. What steering needs is looked at in `steering`.

pub mod steering;

use crate::config::Config;
use crate::error::StartError;
use crate::limits::{Bill, Grant, Limits};
use crate::ring::kernel::{DisabledRing, Sizes};
use crate::sys::cgroup::{self, Allowance};
use crate::sys::{cpu, rlimit};
use std::fs;
use std::io;
use std::path::Path;

/// The oldest kernel whose io_uring has what a shard needs (DEFER_TASKRUN).
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Descriptors below which a server is not worth starting.
const DESCRIPTORS_MIN: u64 = 1024;

/// What the host is, as far as it matters.
#[derive(Clone, Debug)]
pub struct Facts {
    /// As `uname -r` has it.
    pub kernel: String,
    /// What came of making a ring as a shard makes it: the errno, if it failed.
    pub ring: Result<(), i32>,
    /// `kernel.io_uring_disabled`, if the kernel has it (from 6.6 on).
    pub io_uring_disabled: Option<u32>,
    /// A seccomp filter is in force.
    pub seccomp: bool,
    /// Open files allowed, after the limit was raised as far as it goes.
    pub descriptors_max: u64,
    /// Cores this process may run on.
    pub cores: Vec<u16>,
    /// What its control group allows.
    pub allowance: Allowance,
    /// Bytes that can be had without swapping.
    pub memory_available: u64,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The server does not start.
    Fatal,
    /// It starts, and is worse for it.
    Warning,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub condition: &'static str,
    /// What is wanted.
    pub required: String,
    /// What there is.
    pub current: String,
    /// How much it would matter.
    pub severity: Severity,
    /// What to do, if it is not as it should be.
    pub fix: Option<String>,
}

impl Facts {
    /// Looks at the host. Raises the limit on open files as far as it goes.
    #[must_use]
    pub fn gather(sizes: Sizes) -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let status = read("/proc/self/status");
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        let ring = DisabledRing::new(sizes)
            .map(drop)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            ring,
            io_uring_disabled: read("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            seccomp: seccomp.is_some_and(|mode| mode.trim() != "0"),
            descriptors_max: rlimit::raise_descriptors(),
            cores: cpu::allowed(),
            allowance: cgroup::allowance(Path::new("/")),
            memory_available: available(&read("/proc/meminfo")),
        }
    }

    /// The smaller of what is available and what the control group allows, bytes.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        let allowed = self.allowance.memory_size.unwrap_or(u64::MAX);
        self.memory_available.min(allowed)
    }

    /// Judges the facts, one finding a condition.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        vec![
            self.kernel_finding(),
            self.ring_finding(),
            self.descriptors_finding(),
            self.quota_finding(),
        ]
    }

    fn kernel_finding(&self) -> Finding {
        let (major, minor) = KERNEL_MIN;
        let is_old = version(&self.kernel).is_some_and(|version| version < KERNEL_MIN);
        Finding {
            condition: "kernel",
            required: format!("{major}.{minor} or newer"),
            current: self.kernel.clone(),
            severity: Severity::Fatal,
            fix: is_old.then(|| {
                format!(
                    "Boot a kernel from {major}.{minor} on: io_uring of older ones lacks what a \
                         shard needs."
                )
            }),
        }
    }

    fn ring_finding(&self) -> Finding {
        let finding = |current: String, fix: Option<String>| Finding {
            condition: "io_uring",
            required: "a ring can be made".into(),
            current,
            severity: Severity::Fatal,
            fix,
        };
        let Err(errno) = self.ring else { return finding("yes".into(), None) };
        let error = io::Error::from_raw_os_error(errno);
        let fix = match (errno, self.io_uring_disabled) {
            (libc::EPERM, Some(2)) => {
                "The sysctl kernel.io_uring_disabled is 2: nobody may use io_uring. Run \
                 `sysctl -w kernel.io_uring_disabled=0`, or 1 with kernel.io_uring_group set to \
                 the server's group."
            }
            (libc::EPERM, Some(1)) => {
                "The sysctl kernel.io_uring_disabled is 1: only one group may use io_uring. Run \
                 `sysctl -w kernel.io_uring_group=GID` with a group of the server."
            }
            (libc::EPERM | libc::EACCES, _) if self.seccomp => {
                "A seccomp profile forbids io_uring, as the default ones of Docker (from 25.0) and \
                 containerd (from 2.0) do. Run the container with a profile that allows \
                 io_uring_setup, io_uring_enter and io_uring_register."
            }
            (libc::EPERM | libc::EACCES, _) => {
                "A security module forbids io_uring: allow it for this process."
            }
            (libc::ENOSYS, _) if self.seccomp => {
                "A seccomp profile hides io_uring, as the default one of Podman does. Run the \
                 container with a profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register."
            }
            (libc::ENOSYS, _) => "The kernel was built without io_uring: boot one that has it.",
            (libc::EINVAL, _) => "The kernel is too old for the ring that a shard needs.",
            (libc::ENOMEM, _) => {
                "Too little memory may be locked for the ring: raise it (`ulimit -l unlimited`, \
                 LimitMEMLOCK=infinity, docker run --ulimit memlock=-1)."
            }
            (libc::EMFILE | libc::ENFILE, _) => "Raise the limit on open files (`ulimit -n`).",
            _ => "See io_uring_setup(2) for this error.",
        };
        finding(format!("no: {error}"), Some(fix.into()))
    }

    fn descriptors_finding(&self) -> Finding {
        let is_low = self.descriptors_max < DESCRIPTORS_MIN;
        Finding {
            condition: "open files",
            required: format!("{DESCRIPTORS_MIN} or more"),
            current: self.descriptors_max.to_string(),
            severity: Severity::Warning,
            fix: is_low.then(|| {
                "Each connection needs one: raise the hard limit (ulimit -Hn, LimitNOFILE=).".into()
            }),
        }
    }

    fn quota_finding(&self) -> Finding {
        let quota = self.allowance.cpu_milli;
        let cores = u64::try_from(self.cores.len()).expect("cores are few");
        Finding {
            condition: "cpu quota",
            required: "none".into(),
            current: quota.map_or_else(
                || "none".to_owned(),
                |milli| format!("{}.{:03} CPUs", milli / 1000, milli % 1000),
            ),
            severity: Severity::Warning,
            fix: quota.filter(|milli| *milli < cores * 1000).map(|_| {
                "A shard that has used up the quota stands still for up to 100 ms. Give whole \
                 cores instead (cpuset.cpus, AllowedCPUs=, a static CPU manager)."
                    .into()
            }),
        }
    }
}

/// What a server is granted: the cores of its shards, and the bounds that follow.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The core of each shard.
    pub cores: Vec<u16>,
    /// The bounds.
    pub limits: Limits,
    /// What the memory is for.
    pub bill: Bill,
}

/// What this host grants a server with this configuration.
///
/// # Errors
/// The host cannot run it; the error says which of the causes it is and what to do.
pub fn grant(config: &Config) -> Result<Granted, StartError> {
    let facts = Facts::gather(PROBE);
    refuse_by(facts.findings())?;
    let granted = grant_on(&facts, config)?;
    refuse_by(steering::findings(config, &granted.cores))?;
    Ok(granted)
}

/// Fails by the first finding that is fatal.
fn refuse_by(findings: Vec<Finding>) -> Result<(), StartError> {
    for Finding { condition, required, current, severity, fix } in findings {
        if let (Severity::Fatal, Some(fix)) = (severity, fix) {
            return Err(StartError::host(
                format!("This host cannot run the server: {condition}: {required}: {current}."),
                fix,
            ));
        }
    }
    Ok(())
}

/// What a host with these facts grants.
///
/// # Errors
/// As [`grant`], for cores, memory and descriptors.
pub fn grant_on(facts: &Facts, config: &Config) -> Result<Granted, StartError> {
    let server = &config.server;
    let cores = cpu::choose(
        &facts.cores,
        server.cpus.as_deref(),
        server.shards,
        facts.allowance.cpu_milli,
    )?;
    let grant = Grant {
        shards: u16::try_from(cores.len()).expect("cores are numbered in 16 bits"),
        descriptors_max: facts.descriptors_max,
        memory_size: facts.memory_size(),
    };
    let limits = Limits::new(config, &grant)?;
    Ok(Granted { cores, bill: limits.bill(config), limits })
}

/// A ring as small as they come: what it needs of the host is what a shard's ring needs.
pub const PROBE: Sizes = Sizes {
    completions_max: 16,
    submissions_max: 8,
    pushes_per_turn_max: 8,
    buffers_count: 8,
    buffer_size: 64,
};

/// Major and minor number of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// MemAvailable of `/proc/meminfo`, bytes.
fn available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            kernel: "6.18.44".into(),
            ring: Ok(()),
            io_uring_disabled: Some(0),
            seccomp: false,
            descriptors_max: 20_000,
            cores: vec![0, 1],
            allowance: Allowance::default(),
            memory_available: 8 << 30,
        }
    }

    fn fixes(facts: &Facts) -> Vec<String> {
        facts.findings().into_iter().filter_map(|finding| finding.fix).collect()
    }

    #[test]
    fn a_good_host_has_nothing_to_fix() {
        assert_eq!(fixes(&facts()), Vec::<String>::new());
    }

    #[test]
    fn each_way_to_forbid_a_ring_is_named() {
        let cases = [
            (libc::EPERM, Some(2), false, "kernel.io_uring_disabled is 2"),
            (libc::EPERM, Some(1), false, "kernel.io_uring_group"),
            (libc::EPERM, Some(0), true, "Docker"),
            (libc::EPERM, None, false, "security module"),
            (libc::ENOSYS, None, true, "Podman"),
            (libc::ENOSYS, None, false, "built without io_uring"),
            (libc::EINVAL, None, false, "too old"),
            (libc::ENOMEM, None, false, "ulimit -l"),
            (libc::EMFILE, None, false, "open files"),
        ];
        for (errno, io_uring_disabled, seccomp, wanted) in cases {
            let facts = Facts { ring: Err(errno), io_uring_disabled, seccomp, ..facts() };
            let fixes = fixes(&facts);
            assert!(fixes.len() == 1 && fixes[0].contains(wanted), "{errno}: {fixes:?}");
        }
    }

    #[test]
    fn an_old_kernel_few_descriptors_and_a_quota_are_found() {
        let old = Facts { kernel: "5.15.0-91-generic".into(), ..facts() };
        assert!(fixes(&old)[0].contains("6.1"));
        let few = Facts { descriptors_max: 256, ..facts() };
        assert!(fixes(&few)[0].contains("LimitNOFILE"));
        let allowance = Allowance { cpu_milli: Some(1500), memory_size: None };
        assert!(fixes(&Facts { allowance, ..facts() })[0].contains("quota"));
    }

    #[test]
    fn the_memory_of_the_control_group_counts() {
        let allowance = Allowance { cpu_milli: None, memory_size: Some(1 << 30) };
        assert_eq!(Facts { allowance, ..facts() }.memory_size(), 1 << 30);
        assert_eq!(facts().memory_size(), 8 << 30);
        assert_eq!(available("MemTotal: 1 kB\nMemAvailable:   2048 kB\n"), 2 << 20);
    }

    #[test]
    fn releases_have_two_numbers() {
        assert_eq!(version("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("unknown"), None);
    }
}
