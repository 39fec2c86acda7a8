//! Thresholds: `p99<1ms`, `mean<200us`, `max<50ms`, `errors<0.1%`.

use super::units::{parse_duration, time_us};
use crate::load::Tally;
use std::str::FromStr;

/// A threshold that a run has to stay below.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slo {
    text: String,
    measure: Measure,
    /// Microseconds, or percent of the requests.
    below: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    Quantile(f64),
    Mean,
    Max,
    /// Failed, refused for no reason, not answered or not sent.
    Errors,
}

impl Slo {
    /// What was measured.
    fn measured(&self, tally: &Tally) -> f64 {
        match self.measure {
            Measure::Quantile(quantile) => tally.latency.value_at_quantile(quantile) as f64,
            Measure::Mean => tally.latency.mean(),
            Measure::Max => tally.latency.max() as f64,
            Measure::Errors => {
                let errors = tally.errors.count() + tally.errors.unsent;
                let asked = tally.answered + tally.errors.unanswered + tally.errors.unsent;
                100.0 * errors as f64 / asked.max(1) as f64
            }
        }
    }

    /// Whether the run stayed below; one without a reply did not.
    pub(crate) fn is_met(&self, tally: &Tally) -> bool {
        !tally.latency.is_empty() && self.measured(tally) < self.below
    }

    /// In words.
    pub(super) fn verdict(&self, tally: &Tally) -> String {
        let measured = self.measured(tally);
        let measured = match self.measure {
            Measure::Errors => format!("{measured:.3}%"),
            Measure::Quantile(_) | Measure::Mean | Measure::Max => time_us(measured, 0),
        };
        let word = if self.is_met(tally) { "met" } else { "MISSED" };
        format!("{}: {word}, {measured}", self.text)
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no threshold; expected one such as p99<1ms, p99.9<5ms, mean<200us, \
                 max<50ms or errors<0.1%"
            )
        };
        let (name, below) = text.split_once('<').ok_or_else(wrong)?;
        let (name, below) = (name.trim(), below.trim());
        let measure = match name {
            "mean" => Measure::Mean,
            "max" => Measure::Max,
            "errors" => Measure::Errors,
            _ => {
                let percent = name.strip_prefix('p').and_then(|text| text.parse::<f64>().ok());
                let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
                Measure::Quantile(percent.ok_or_else(wrong)? / 100.0)
            }
        };
        let below = if measure == Measure::Errors {
            below.strip_suffix('%').and_then(|text| text.parse::<f64>().ok()).ok_or_else(wrong)?
        } else {
            parse_duration(below).map_err(|_| wrong())?.as_secs_f64() * 1e6
        };
        Ok(Self { text: text.to_owned(), measure, below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::new();
        (1..=100).for_each(|us| tally.latency.record(us * 10).unwrap());
        tally.answered = 99;
        tally.errors.unanswered = 1;
        tally
    }

    fn is_met(text: &str) -> bool {
        text.parse::<Slo>().unwrap().is_met(&tally())
    }

    #[test]
    fn thresholds_are_strict() {
        assert!(is_met("p50<501us") && !is_met("p50<500us"));
        assert!(is_met("p99 < 1ms") && !is_met("p99.9<1ms"));
        assert!(is_met("mean<506us") && !is_met("mean<505us"));
        assert!(is_met("max<1.001ms") && !is_met("max<1ms"));
        assert!(is_met("errors<1.1%") && !is_met("errors<1%"));
    }

    #[test]
    fn a_run_without_replies_meets_nothing() {
        let slo: Slo = "errors<100%".parse().unwrap();
        assert!(!slo.is_met(&Tally::new()));
    }

    #[test]
    fn what_is_no_threshold_is_refused() {
        for wrong in ["", "p99", "p99>1ms", "p101<1ms", "q<1ms", "p99<x", "errors<1"] {
            assert!(wrong.parse::<Slo>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_verdict_says_what_was_measured() {
        let slo: Slo = "p99<1ms".parse().unwrap();
        assert_eq!(slo.verdict(&tally()), "p99<1ms: met, 0.99ms");
    }
}
