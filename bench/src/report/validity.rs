//! Whether a run measured the server, or the generator.

use crate::load::{Outcome, Plan};

/// A generator busier than this may itself be what limits the rate, or what adds latency.
pub(crate) const BUSY_MAX: f64 = 0.8;

/// Lateness of the generator that is nobody's business, microseconds.
const LATE_US_MIN: u64 = 100;
/// Lateness beyond this share of the latency spoils it.
const LATE_SHARE_MAX: f64 = 0.1;

/// Why a run says little about the server; empty for a good one.
pub(crate) fn doubts(plan: &Plan<'_>, outcome: &Outcome) -> Vec<String> {
    let total = outcome.total();
    let mut doubts = Vec::new();
    if total.answered == 0 {
        doubts.push("no request was answered".to_owned());
    }
    if outcome.busy() > BUSY_MAX && !plan.spin {
        doubts.push(format!(
            "a thread of the generator was {:.0}% busy: it may be what limits the rate, or what \
             adds latency; use more threads (-t), or more cores",
            outcome.busy() * 100.0
        ));
    }
    let late_us = total.lateness.value_at_quantile(0.99);
    let latency_us = total.latency.value_at_quantile(0.99) as f64;
    if late_us > LATE_US_MIN && late_us as f64 > latency_us * LATE_SHARE_MAX {
        doubts.push(format!(
            "one request in a hundred was started {late_us} us late or later by the generator, \
             which is more than a tenth of the latency at 99%"
        ));
    }
    doubts
}
