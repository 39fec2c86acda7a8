//! A run as JSON, for programs. Times are microseconds where the name says `_us`.

use super::{Run, doubts, spectrum::Moments};
use crate::load::Tally;
use crate::procfs;
use crate::traffic::Kind;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

const QUANTILES: [(&str, f64); 7] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99_9", 0.999),
    ("p99_99", 0.9999),
    ("p99_999", 0.99999),
];

/// The whole run.
pub(crate) fn json(run: &Run<'_>) -> Value {
    let total = run.outcome.total();
    let elapsed_s = run.outcome.elapsed.as_secs_f64();
    let streams = run.plan.streams.iter().zip(&run.outcome.tallies).map(|(stream, tally)| {
        json!({
            "name": stream.name,
            "offered_per_s": stream.rate,
            "connections": stream.connections,
            "pipeline": stream.pipeline,
            "result": result(tally, elapsed_s),
        })
    });
    let slos = run
        .slos
        .iter()
        .map(|slo| json!({ "verdict": slo.verdict(&total), "met": slo.is_met(&total) }));
    json!({
        "url": run.url,
        "machine": procfs::machine(),
        "threads": run.plan.threads,
        "duration_s": run.duration.as_secs_f64(),
        "warm_up_s": run.plan.warm_up.as_secs_f64(),
        "elapsed_s": elapsed_s,
        "result": result(&total, elapsed_s),
        "streams": streams.collect::<Vec<_>>(),
        "generator": {
            "busy_share": run.outcome.busy(),
            "lateness_us": distribution(&total.lateness),
        },
        "thresholds": slos.collect::<Vec<_>>(),
        "invalid": doubts(run.plan, run.outcome),
    })
}

fn result(tally: &Tally, elapsed_s: f64) -> Value {
    let errors = &tally.errors;
    let kinds = Kind::ALL.map(|kind| {
        let by_kind = tally.kinds[kind as usize];
        let counts = json!({ "answered": by_kind.answered, "as_expected": by_kind.as_expected });
        (kind.name().to_owned(), counts)
    });
    json!({
        "answered": tally.answered,
        "requests_per_s": tally.answered as f64 / elapsed_s,
        "bytes_read": tally.bytes_read,
        "connects": tally.connects,
        "status_above_399": tally.refused,
        "kinds": Value::Object(kinds.into_iter().collect()),
        "latency_us": distribution(&tally.latency),
        "uncorrected_latency_us": distribution(&tally.uncorrected),
        "served_latency_us": distribution(&tally.served),
        "shed_latency_us": distribution(&tally.shed),
        "served_in_time": tally.in_time,
        "served_by_connection": {
            "min": tally.per_connection.iter().min(),
            "max": tally.per_connection.iter().max(),
        },
        "errors": {
            "status": errors.status,
            "body": errors.body,
            "connect": errors.connect,
            "read": errors.read,
            "write": errors.write,
            "timeout": errors.timeout,
            "unanswered": errors.unanswered,
            "unsent": errors.unsent,
            "first": errors.first,
        },
    })
}

fn distribution(histogram: &Histogram<u64>) -> Value {
    let moments = Moments::of(histogram);
    let mut fields = serde_json::Map::new();
    fields.insert("count".to_owned(), histogram.len().into());
    fields.insert("mean".to_owned(), moments.mean.into());
    fields.insert("deviation".to_owned(), moments.deviation.into());
    for (name, quantile) in QUANTILES {
        fields.insert(name.to_owned(), histogram.value_at_quantile(quantile).into());
    }
    fields.insert("max".to_owned(), moments.max.into());
    Value::Object(fields)
}
