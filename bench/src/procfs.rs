//! What the kernel says about CPU time: of threads, of processes, of the whole machine.

use std::fs;
use std::io;

/// What a process's threads have used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Time on a CPU, from `schedstat`: exact, unlike the sampled user and system times.
    pub(crate) cpu_ns: u64,
    /// Times a thread gave up its CPU to wait.
    pub(crate) waits: u64,
}

impl Usage {
    /// What was used since `earlier`.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self { cpu_ns: self.cpu_ns - earlier.cpu_ns, waits: self.waits - earlier.waits }
    }

    /// Of the threads of a process whose names begin with `name`; an empty name means all.
    pub(crate) fn of_process(pid: u32, name: &str) -> io::Result<Self> {
        let mut sum = Self::default();
        let mut matched = false;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            if fs::read_to_string(task.join("comm"))?.starts_with(name) {
                matched = true;
                sum.cpu_ns += first_number(&fs::read_to_string(task.join("schedstat"))?);
                sum.waits += waits(&fs::read_to_string(task.join("status"))?);
            }
        }
        if !matched {
            return Err(io::Error::other(format!("process {pid} has no thread named {name}")));
        }
        Ok(sum)
    }

    /// Of the calling thread, which yields once: time is booked when a thread is switched.
    pub(crate) fn of_this_thread() -> io::Result<Self> {
        std::thread::yield_now();
        let read = |file| fs::read_to_string(format!("/proc/thread-self/{file}"));
        Ok(Self { cpu_ns: first_number(&read("schedstat")?), waits: waits(&read("status")?) })
    }
}

fn first_number(text: &str) -> u64 {
    let first = text.split_whitespace().next().and_then(|number| number.parse().ok());
    first.expect("the kernel writes numbers")
}

fn waits(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    first_number(line.expect("the kernel counts context switches"))
}

/// Time that the CPUs of a virtual machine wanted to run and were not let, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steal {
    stolen: u64,
    total: u64,
}

impl Steal {
    pub(crate) fn now() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/stat")?))
    }

    /// Fields of the first line, proc_stat(5): user nice system idle iowait irq softirq steal.
    fn parse(stat: &str) -> Self {
        let first = stat.lines().next().unwrap_or("");
        let ticks: Vec<u64> = first.split_whitespace().skip(1).take(8).map(first_number).collect();
        Self { stolen: ticks.get(7).copied().unwrap_or(0), total: ticks.iter().sum() }
    }

    /// The stolen share of all time since `earlier`, in percent.
    pub(crate) fn percent_since(self, earlier: Self) -> f64 {
        let total = (self.total - earlier.total).max(1);
        100.0 * (self.stolen - earlier.stolen) as f64 / total as f64
    }
}

/// The machine in a line: kernel, processor, number of processors.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| line.split_once(": "))
        .map(|(_, model)| model)
        .collect();
    let model = models.first().unwrap_or(&"unknown processor");
    format!("Linux {}, {} x {model}", kernel.trim(), models.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number() {
        let earlier = Steal::parse("cpu  100 0 50 800 0 0 0 50 0 0\ncpu0 1 2\n");
        let later = Steal::parse("cpu  150 0 50 830 0 0 0 70 9 9\ncpu0 1 2\n");
        assert!((later.percent_since(earlier) - 20.0).abs() < 1e-9);
    }

    #[test]
    fn this_thread_has_used_time() {
        let before = Usage::of_this_thread().unwrap();
        let after = Usage::of_process(std::process::id(), "").unwrap();
        assert!(before.cpu_ns > 0);
        assert!(after.cpu_ns >= before.cpu_ns);
    }

    #[test]
    fn a_thread_that_is_not_there_is_an_error() {
        assert!(Usage::of_process(std::process::id(), "no such thread").is_err());
    }

    #[test]
    fn waits_are_the_voluntary_ones() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(waits(status), 12);
    }
}
