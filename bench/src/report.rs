//! What came of a run, in words and numbers for a person.

use crate::load::Outcome;
use std::fmt::Write;

/// Shares of the replies that were at least as fast as the latency printed.
const QUANTILES: &[f64] = &[0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// A generator busier than this may itself be what limits the rate, or what adds latency.
pub(crate) const BUSY_MAX: f64 = 0.8;

/// The report of one run of the load generator.
pub(crate) fn of_load(outcome: &Outcome, rate: Option<f64>) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        writeln!(text, "{label:<22} {value}").expect("writing to a string does not fail");
    };
    if let Some(rate) = rate {
        line("offered", format!("{rate:.0} requests/s"));
    }
    line("achieved", format!("{:.0} requests/s", outcome.rate()));
    line("answered", outcome.answered.to_string());
    let errors = &outcome.errors;
    line(
        "errors",
        format!(
            "{} (status {}, body {}, connection {}, unanswered {})",
            errors.count(),
            errors.status,
            errors.body,
            errors.connection,
            errors.unanswered
        ),
    );
    if let Some(first) = &errors.first {
        line("first error", first.clone());
    }
    let from = if rate.is_some() { "intended start" } else { "send" };
    for &quantile in QUANTILES {
        let us = outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
        line(&format!("latency {}%", quantile * 100.0), format!("{us:.1} us from {from}"));
    }
    line("generator busy", format!("{:.0}%", outcome.busy * 100.0));
    line("generator late by", format!("{} us at most", outcome.lateness_max.as_micros()));
    if outcome.busy > BUSY_MAX {
        line("note", "the generator was busy: it may be what limits these figures".to_owned());
    }
    text
}
