//! How short the control group of this process, or the host, is of memory and of CPU time. Nothing
//! here is looked at where the kernel does not tell it.
//!
//! Everything is read below a given root folder, so that tests bring their own.

use super::cgroup;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the host says how long tasks have waited for a CPU (PSI, kernel documentation
/// `accounting/psi`).
const CPU_PRESSURE: &str = "proc/pressure/cpu";

/// What was read at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// What is used of the least memory that is allowed, percent; page cache, which the kernel
    /// takes back, is not counted.
    pub memory_percent: Option<u64>,
    /// How often the group was held back since it has used up its CPU time.
    pub throttled: Option<u64>,
    /// How much of the last ten seconds some task waited for a CPU, percent.
    pub cpu_percent: Option<u64>,
}

/// Where to read, found once.
#[derive(Debug)]
pub struct Gauges {
    folders: Vec<PathBuf>,
    cpu_pressure: PathBuf,
}

impl Gauges {
    /// Those of this process, as seen below `root` (`/` outside of tests).
    #[must_use]
    pub fn find(root: &Path) -> Self {
        Self { folders: cgroup::folders_v2(root), cpu_pressure: root.join(CPU_PRESSURE) }
    }

    /// Reads them.
    #[must_use]
    pub fn read(&self) -> Pressure {
        let cpu = fs::read_to_string(&self.cpu_pressure).unwrap_or_default();
        Pressure {
            memory_percent: self.folders.iter().filter_map(|folder| memory_percent(folder)).max(),
            throttled: self.folders.iter().filter_map(|folder| throttled(folder)).max(),
            cpu_percent: cpu_percent(&cpu),
        }
    }
}

fn memory_percent(folder: &Path) -> Option<u64> {
    let max = cgroup::number(&folder.join("memory.max"))?;
    let current = cgroup::number(&folder.join("memory.current"))?;
    let stat = fs::read_to_string(folder.join("memory.stat")).ok()?;
    let cached = ["active_file", "inactive_file"].map(|name| row(&stat, name).unwrap_or(0));
    let used = current.saturating_sub(cached.iter().sum());
    used.saturating_mul(100).checked_div(max)
}

fn throttled(folder: &Path) -> Option<u64> {
    row(&fs::read_to_string(folder.join("cpu.stat")).ok()?, "nr_throttled")
}

/// The number in the row of this name.
fn row(text: &str, name: &str) -> Option<u64> {
    let rows = text.lines().filter_map(|line| line.split_once(' '));
    rows.into_iter().find(|(found, _)| *found == name)?.1.trim().parse().ok()
}

/// `some avg10=12.34 avg60=...`: the whole part.
fn cpu_percent(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    line.split(['.', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let file = root.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    }

    #[test]
    fn the_group_that_is_shortest_counts_and_page_cache_does_not() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("proc/self/cgroup", "0::/a/b\n"),
                ("proc/pressure/cpu", "some avg10=12.34 avg60=1.00 avg300=0.00 total=5\n"),
                ("sys/fs/cgroup/a/b/memory.max", "1000\n"),
                ("sys/fs/cgroup/a/b/memory.current", "990\n"),
                ("sys/fs/cgroup/a/b/memory.stat", "anon 90\nactive_file 600\ninactive_file 300\n"),
                ("sys/fs/cgroup/a/b/cpu.stat", "usage_usec 7\nnr_throttled 3\n"),
                ("sys/fs/cgroup/a/memory.max", "2000\n"),
                ("sys/fs/cgroup/a/memory.current", "1920\n"),
                ("sys/fs/cgroup/a/memory.stat", "anon 1920\n"),
                ("sys/fs/cgroup/a/cpu.stat", "nr_throttled 4\n"),
            ],
        );
        let expected =
            Pressure { memory_percent: Some(96), throttled: Some(4), cpu_percent: Some(12) };
        assert_eq!(Gauges::find(root.path()).read(), expected);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Gauges::find(root.path()).read(), Pressure::default());
        write(
            root.path(),
            &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")],
        );
        assert_eq!(Gauges::find(root.path()).read(), Pressure::default());
    }
}
