//! What the process is short of, by what the kernel tells the watchdog at each of its looks.

use crate::mesh::Shortage;
use crate::sys::pressure::{Gauges, Pressure};

/// Short of memory from this share of what the group may use on, until it is less than the other.
const MEMORY_PERCENT: u64 = 95;
const MEMORY_AGAIN_PERCENT: u64 = 90;

/// Short of CPU time where some task of the host waited for so much of ten seconds. One core's
/// shard and what shares its core make for less.
const CPU_PERCENT: u64 = 80;

/// Looks for which a group that was held back once is short of CPU time: a second.
const THROTTLED_LOOKS: u32 = 10;

/// Looks, and remembers what it has seen.
#[derive(Debug)]
pub(super) struct ShortageWatch {
    gauges: Gauges,
    judge: Judge,
}

impl ShortageWatch {
    pub(super) fn new(gauges: Gauges) -> Self {
        Self { gauges, judge: Judge::default() }
    }

    pub(super) fn look(&mut self) -> Shortage {
        self.judge.judge(&self.gauges.read())
    }
}

#[derive(Debug, Default)]
struct Judge {
    is_short_of_memory: bool,
    throttled: Option<u64>,
    throttled_looks: u32,
}

impl Judge {
    fn judge(&mut self, now: &Pressure) -> Shortage {
        let least = if self.is_short_of_memory { MEMORY_AGAIN_PERCENT } else { MEMORY_PERCENT };
        self.is_short_of_memory = now.memory_percent.is_some_and(|percent| percent >= least);
        let before = std::mem::replace(&mut self.throttled, now.throttled);
        let is_held_back = before.is_some() && now.throttled > before;
        self.throttled_looks =
            if is_held_back { THROTTLED_LOOKS } else { self.throttled_looks.saturating_sub(1) };
        let is_waiting = now.cpu_percent.is_some_and(|percent| percent >= CPU_PERCENT);
        if self.is_short_of_memory {
            Shortage::Memory
        } else if self.throttled_looks > 0 || is_waiting {
            Shortage::Cpu
        } else {
            Shortage::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_from_95_percent_until_it_is_below_90() {
        let mut judge = Judge::default();
        let seen = [94, 95, 92, 90, 89, 92].map(|percent| {
            judge.judge(&Pressure { memory_percent: Some(percent), ..Pressure::default() })
        });
        use Shortage::{Memory, Nothing};
        assert_eq!(seen, [Nothing, Memory, Memory, Memory, Nothing, Nothing]);
    }

    #[test]
    fn a_group_that_is_held_back_is_short_of_time_for_a_second() {
        let mut judge = Judge::default();
        let mut look = |throttled| {
            judge.judge(&Pressure { throttled: Some(throttled), ..Pressure::default() })
        };
        assert_eq!(look(7), Shortage::Nothing, "it was before this process");
        assert_eq!(look(8), Shortage::Cpu);
        let later = [(); 10].map(|()| look(8));
        assert_eq!((later[8], later[9]), (Shortage::Cpu, Shortage::Nothing));
    }

    #[test]
    fn a_host_that_tells_nothing_is_short_of_nothing() {
        assert_eq!(Judge::default().judge(&Pressure::default()), Shortage::Nothing);
    }
}
