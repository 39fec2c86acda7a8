//! What the control group of this process allows: CPU time and memory, in version 1 and 2.
//!
//! Limits of all groups from ours up to the root hold together, so the least one counts. Everything
//! is read below a given root folder, so that tests bring their own.

use std::fs;
use std::path::{Path, PathBuf};

/// What is allowed; `None` where nothing is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowance {
    /// CPUs' worth of time, in thousandths.
    pub cpu_milli: Option<u64>,
    /// Bytes.
    pub memory_size: Option<u64>,
}

/// Where version 2 is mounted, alone or beside version 1.
const V2_MOUNTS: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
/// Where the CPU controller of version 1 is mounted.
const V1_CPU_MOUNTS: [&str; 2] = ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"];
const V1_MEMORY_MOUNT: &str = "sys/fs/cgroup/memory";

/// What the control group of this process allows, as read below `root` (`/` outside of tests).
#[must_use]
pub fn allowance(root: &Path) -> Allowance {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut allowance = Allowance::default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let has = |controller| controllers.split(',').any(|other| other == controller);
        if controllers.is_empty() {
            for folder in V2_MOUNTS.iter().flat_map(|mount| folders(root, mount, group)) {
                least(&mut allowance.cpu_milli, cpu_v2(&folder));
                least(&mut allowance.memory_size, number(&folder.join("memory.max")));
            }
        }
        if has("cpu") {
            for folder in V1_CPU_MOUNTS.iter().flat_map(|mount| folders(root, mount, group)) {
                least(&mut allowance.cpu_milli, cpu_v1(&folder));
            }
        }
        if has("memory") {
            for folder in folders(root, V1_MEMORY_MOUNT, group) {
                least(&mut allowance.memory_size, number(&folder.join("memory.limit_in_bytes")));
            }
        }
    }
    allowance
}

/// The folders of version 2 of the group of this process, and of those above it.
pub(super) fn folders_v2(root: &Path) -> Vec<PathBuf> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let all = own
        .into_iter()
        .flat_map(|group| V2_MOUNTS.iter().flat_map(move |mount| folders(root, mount, group)));
    all.collect()
}

/// The folder of `group` under `mount`, and those above it. In a container the group's path may
/// not be visible; the mount itself is the group then.
fn folders(root: &Path, mount: &str, group: &str) -> Vec<PathBuf> {
    let top = root.join(mount);
    let own = top.join(group.trim_start_matches('/'));
    own.ancestors().take_while(|folder| folder.starts_with(&top)).map(Path::to_path_buf).collect()
}

fn least(limit: &mut Option<u64>, other: Option<u64>) {
    if let Some(other) = other {
        *limit = Some(limit.map_or(other, |limit| limit.min(other)));
    }
}

/// `cpu.max` holds a quota and a period in microseconds, or `max` for no quota.
fn cpu_v2(folder: &Path) -> Option<u64> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    milli(quota.parse().ok()?, period.parse().ok()?)
}

/// A quota of -1 is none.
fn cpu_v1(folder: &Path) -> Option<u64> {
    let quota = number(&folder.join("cpu.cfs_quota_us"))?;
    milli(quota, number(&folder.join("cpu.cfs_period_us"))?)
}

const fn milli(quota_us: u64, period_us: u64) -> Option<u64> {
    quota_us.saturating_mul(1000).checked_div(period_us)
}

/// The number in a file; `max`, -1 and a missing file are none.
pub(super) fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    #[test]
    fn version_2_counts_the_least_from_the_group_up() {
        let root = root(&[
            ("proc/self/cgroup", "0::/service/pelton\n"),
            ("sys/fs/cgroup/service/pelton/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/service/cpu.max", "250000 100000\n"),
            ("sys/fs/cgroup/service/pelton/memory.max", "1000\n"),
            ("sys/fs/cgroup/service/memory.max", "max\n"),
        ]);
        let allowed = Allowance { cpu_milli: Some(2500), memory_size: Some(1000) };
        assert_eq!(allowance(root.path()), allowed);
    }

    #[test]
    fn version_1_reads_quota_and_period() {
        let root = root(&[
            ("proc/self/cgroup", "8:memory:/a\n1:cpu,cpuacct:/a\n0::/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n"),
        ]);
        let allowed = Allowance { cpu_milli: Some(1500), memory_size: Some(5000) };
        assert_eq!(allowance(root.path()), allowed);
    }

    #[test]
    fn without_limits_or_files_nothing_is_limited() {
        assert_eq!(allowance(root(&[]).path()), Allowance::default());
        let root = root(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "max 1\n")]);
        assert_eq!(allowance(root.path()), Allowance::default());
    }
}
