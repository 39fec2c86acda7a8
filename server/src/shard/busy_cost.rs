//! Work that is made up, so that a few requests fill a core: for seeing how overload is controlled
//! with a generator that offers many times what a shard can do. Only in builds with the feature
//! `busy-cost`, which say so when they start. It shows nothing of what a hit or a miss costs.

#![expect(clippy::disallowed_methods, reason = "what is made up is no matter of the configuration")]
#![expect(clippy::disallowed_types, reason = "a spin has a clock of its own")]

use std::time::{Duration, Instant};

/// How long a shard spins for each hit that it serves and each fetch that it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct BusyCost {
    hit: Duration,
    miss: Duration,
}

impl BusyCost {
    /// What the environment says, in microseconds; nothing where it says nothing.
    pub(super) fn of_environment() -> Self {
        let read = |name| {
            let us = std::env::var(name).map_or(0, |text| text.parse().expect("microseconds"));
            Duration::from_micros(us)
        };
        Self { hit: read("PELTON_BUSY_HIT_US"), miss: read("PELTON_BUSY_MISS_US") }
    }

    pub(super) fn spend_on_hit(self) {
        spin(self.hit);
    }

    pub(super) fn spend_on_miss(self) {
        spin(self.miss);
    }
}

fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}
