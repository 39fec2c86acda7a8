//! Which cores the shards run on.

use crate::error::StartError;
use core_affinity::CoreId;
use std::io;

/// From this many cores on, one is kept for the planes that are not shards.
const KEEP_ONE_FROM: usize = 4;

/// The cores that this process may run on, in order.
#[must_use]
pub fn allowed() -> Vec<u16> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    ids.into_iter().filter_map(|core| u16::try_from(core.id).ok()).collect()
}

/// The core of each shard: taken from `allowed`, or from those of `wanted` that are; as many as
/// `shards` says, or else as the quota of `cpu_milli` thousandths of a CPU pays for, less one from
/// four on.
///
/// # Errors
/// A wanted core is not allowed, there are more shards than cores, or no core at all.
pub fn choose(
    allowed: &[u16],
    wanted: Option<&[u16]>,
    shards: Option<u32>,
    cpu_milli: Option<u64>,
) -> Result<Vec<u16>, StartError> {
    if let Some(core) = wanted.and_then(|cores| cores.iter().find(|core| !allowed.contains(core))) {
        return Err(StartError::host(
            format!("server.cpus names core {core}, which this process may not run on."),
            format!("Allowed are {allowed:?} (see taskset -p, cpuset.cpus); name only these."),
        ));
    }
    let cores = wanted.unwrap_or(allowed);
    let count = match shards {
        Some(shards) => shards as usize,
        None => {
            let paid = cpu_milli.map_or(cores.len(), |milli| {
                usize::try_from(milli / 1000).unwrap_or(usize::MAX).max(1)
            });
            let count = cores.len().min(paid);
            if count >= KEEP_ONE_FROM { count - 1 } else { count }
        }
    };
    if count == 0 || count > cores.len() {
        return Err(StartError::host(
            format!("server.shards asks for {count} cores, and there are {}.", cores.len()),
            "Set server.shards to auto, or give the process more cores (taskset, cpuset.cpus).",
        ));
    }
    Ok(cores[..count].to_vec())
}

/// Lets the calling thread run only where nobody else would: any other thread that becomes ready
/// takes its core at once (`SCHED_IDLE`, sched(7)). It still gets a little of a core that is never
/// idle, so it does not starve.
///
/// # Errors
/// As `sched_setscheduler(2)` has them.
pub fn give_way() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY:
    // - 0 is the calling thread.
    // - The kernel only reads the parameters, which live until the call returns.
    let failed = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Pins the calling thread.
///
/// # Errors
/// The kernel does not let it run there.
pub fn pin(core: u16) -> Result<(), StartError> {
    if core_affinity::set_for_current(CoreId { id: core.into() }) {
        return Ok(());
    }
    Err(StartError::host(
        format!("Cannot pin a shard to core {core}."),
        "Another process has changed the cores of this one meanwhile; start it again.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_take_what_affinity_and_quota_allow_and_keep_one_core_from_four_on() {
        let choose = |count: u16, wanted, shards, milli| {
            choose(&(0..count).collect::<Vec<_>>(), wanted, shards, milli).map(|cores| cores.len())
        };
        assert_eq!(choose(1, None, None, None), Ok(1));
        assert_eq!(choose(3, None, None, None), Ok(3));
        assert_eq!(choose(4, None, None, None), Ok(3));
        assert_eq!(choose(64, None, None, Some(8500)), Ok(7));
        assert_eq!(choose(64, None, None, Some(500)), Ok(1));
        assert_eq!(choose(8, None, Some(8), Some(500)), Ok(8), "a number is an order");
        assert_eq!(choose(8, Some(&[6, 7]), None, None), Ok(2));
        assert!(choose(8, Some(&[8]), None, None).is_err());
        assert!(choose(8, None, Some(9), None).is_err());
        assert!(choose(0, None, None, None).is_err());
    }

    #[test]
    fn this_process_may_run_somewhere_and_be_pinned_there() {
        let cores = allowed();
        assert!(!cores.is_empty());
        let pinned = std::thread::scope(|scope| scope.spawn(|| pin(cores[0])).join().unwrap());
        assert_eq!(pinned, Ok(()));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "only a thread of its own gives way")]
    fn a_thread_that_gives_way_runs_at_idle_priority() {
        let stat = std::thread::spawn(|| {
            give_way().map(|()| std::fs::read_to_string("/proc/thread-self/stat"))
        });
        let stat = stat.join().expect("no panic").expect("allowed to all").expect("procfs");
        // The 41st field, counted behind the name, which may have blanks.
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("a name").split(' ').collect();
        assert_eq!(fields[38], libc::SCHED_IDLE.to_string());
    }
}
