//! What came of a run: for a person, for a program, and as an exit code.

mod json;
mod slo;
mod spectrum;
mod units;
mod validity;
mod wrk2;

pub(crate) use json::json;
pub(crate) use slo::Slo;
pub(crate) use units::{parse_count, parse_duration, parse_metric};
pub(crate) use validity::{BUSY_MAX, doubts};

use crate::load::{Errors, Outcome, Plan, Tally};
use crate::traffic::{Kind, Mix};
use std::fmt::Write;

/// What a report is about.
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) url: &'a str,
    pub(crate) duration: std::time::Duration,
    pub(crate) mix: Mix,
    pub(crate) outcome: &'a Outcome,
    pub(crate) slos: &'a [Slo],
    /// The distribution is wanted (-L), and the one without correction as well (-U).
    pub(crate) latency: bool,
    pub(crate) uncorrected: bool,
}

/// The report for a person: wrk2's lines, then ours.
pub(crate) fn text(run: &Run<'_>) -> String {
    let total = run.outcome.total();
    let mut text = wrk2::text(&wrk2::Summary::of(run, &total));
    text.push('\n');
    let mut line = |label: &str, value: &str| {
        writeln!(text, "{label:<14} {value}").expect("a string grows");
    };
    for stream in offers(run) {
        line("offered", &stream);
    }
    line("errors", &errors(&total.errors));
    if let Some(first) = &total.errors.first {
        line("first error", first);
    }
    for kind in Kind::ALL.into_iter().filter(|&kind| run.mix.share(kind) > 0.0) {
        let by_kind = total.kinds[kind as usize];
        let label = format!("kind {}", kind.name());
        line(
            &label,
            &format!("{} answered, {} as expected", by_kind.answered, by_kind.as_expected),
        );
    }
    if run.plan.streams.len() > 1 {
        for (stream, tally) in run.plan.streams.iter().zip(&run.outcome.tallies) {
            line(&format!("tenant {}", stream.name), &tenant(run, tally));
        }
    }
    let late = |quantile| total.lateness.value_at_quantile(quantile);
    line(
        "generator",
        &format!(
            "{:.0}% busy, late by {} us (50%), {} us (99%), {} us (max)",
            run.outcome.busy() * 100.0,
            late(0.5),
            late(0.99),
            total.lateness.max()
        ),
    );
    for slo in run.slos {
        line("threshold", &slo.verdict(&total));
    }
    for doubt in doubts(run.plan, run.outcome) {
        line("INVALID", &doubt);
    }
    text
}

fn offers(run: &Run<'_>) -> Vec<String> {
    run.plan
        .streams
        .iter()
        .map(|stream| match stream.rate {
            Some(rate) => format!(
                "{:.2} requests/s, {} a batch, over {} connections",
                rate, stream.pipeline, stream.connections
            ),
            None => format!(
                "closed loop, {} a batch, over {} connections: latencies leave out who would have \
                 waited",
                stream.pipeline, stream.connections
            ),
        })
        .collect()
}

fn errors(errors: &Errors) -> String {
    format!(
        "status {}, body {}, connect {}, read {}, write {}, timeout {}, unanswered {}, unsent {}",
        errors.status,
        errors.body,
        errors.connect,
        errors.read,
        errors.write,
        errors.timeout,
        errors.unanswered,
        errors.unsent
    )
}

fn tenant(run: &Run<'_>, tally: &Tally) -> String {
    let at = |quantile| units::time_us(tally.latency.value_at_quantile(quantile) as f64, 0);
    format!(
        "{:.2} requests/s, 50% {}, 99% {}, 99.9% {}, refused {}, errors {}",
        tally.answered as f64 / run.outcome.elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        tally.refused,
        tally.errors.count()
    )
}

/// The percentile spectrum as a `.hgrm` file, which HdrHistogram's plotters read.
pub(crate) fn hgrm(tally: &Tally) -> String {
    spectrum::text(&tally.latency, spectrum::Moments::of(&tally.latency))
}
