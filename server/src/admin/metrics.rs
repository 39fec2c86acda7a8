//! `/metrics`: the table of counters and the histograms, as OpenMetrics text.
//!
//! A scrape takes a [`Snapshot`] of what the shards have published and encodes it. Rows of one name
//! become one family. Shards are summed; the few series that are told apart by shard are those in
//! which shards differ for a reason.

use super::{Admin, stats};
use crate::histograms::{Distribution, EDGES_NS, Histograms, Outcome};
use crate::mesh::OriginServer;
use crate::metrics::{
    Class, Counters, Row, SAMPLE_TABLE, SERVER_TABLE, SNAPSHOT_TABLE, SampleCounters,
    SnapshotCounters, TABLE, TENANT_TABLE,
};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Tenants that have series of their own: those that stand first in the configuration. The others
/// have one together, so that a scrape stays small; `/stats` shows all.
const TENANTS_SHOWN_MAX: usize = 32;

/// What the others are called; no tenant is.
const OTHERS: &str = "_others";

/// What a family of several rows is explained by.
const BY_LABEL: &str = "By label; see docs/metrics.md.";

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let snapshot = Snapshot {
        shards: admin.boards.iter().map(|board| board.read()).collect(),
        servers: admin.servers().await,
        snapshots: admin.snapshots(),
        samples: admin.samples(),
        tenants: tenants(&admin),
        histograms: admin.with_histograms(Histograms::clone),
        uptime_s: admin.epoch.uptime().as_secs(),
        staleness_max: admin.facts.staleness_max,
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut body = String::new();
    text::encode(&mut body, &registry).expect("a string grows");
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

/// The tenants that are shown, and what was counted of each.
fn tenants(admin: &Admin) -> Vec<(String, [u64; TENANT_TABLE.len()])> {
    let mut shown: Vec<(String, [u64; _])> = Vec::new();
    for (tenant, name) in admin.facts.tenants.iter().enumerate() {
        let values = stats::of_tenant(admin, tenant);
        match shown.get_mut(TENANTS_SHOWN_MAX) {
            Some((_, others)) => others.iter_mut().zip(values).for_each(|(sum, one)| *sum += one),
            None if tenant == TENANTS_SHOWN_MAX => shown.push((OTHERS.to_owned(), values)),
            None => shown.push((name.clone(), values)),
        }
    }
    shown
}

/// What the shards had published at the time of a scrape.
#[derive(Debug)]
struct Snapshot {
    shards: Vec<Counters>,
    servers: Vec<OriginServer>,
    snapshots: SnapshotCounters,
    samples: SampleCounters,
    tenants: Vec<(String, [u64; TENANT_TABLE.len()])>,
    histograms: Histograms,
    uptime_s: u64,
    staleness_max: Option<Duration>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode_table(&mut encoder, TABLE, &[(None, &stats::sum(&self.shards).values())])?;
        let servers: Vec<_> =
            self.servers.iter().map(|server| (&*server.name, server.counters.values())).collect();
        let servers: Vec<Series<'_>> =
            servers.iter().map(|(name, values)| (Some(("server", *name)), &values[..])).collect();
        encode_table(&mut encoder, SERVER_TABLE, &servers)?;
        let tenants: Vec<Series<'_>> = self
            .tenants
            .iter()
            .map(|(name, values)| (Some(("tenant", &**name)), &values[..]))
            .collect();
        encode_table(&mut encoder, TENANT_TABLE, &tenants)?;
        encode_table(&mut encoder, SAMPLE_TABLE, &[(None, &self.samples.values())])?;
        encode_table(&mut encoder, SNAPSHOT_TABLE, &[(None, &self.snapshots.values())])?;
        self.encode_shards(&mut encoder)?;
        self.encode_histograms(&mut encoder)?;
        let help = "Seconds since the process began.";
        let name = "pelton_uptime_seconds";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value(&mut metric, Class::Gauge, self.uptime_s)?;
        if let Some(bound) = self.staleness_max {
            let help = "How long a value is called fresh at most after the origin has another one.";
            let name = "pelton_origin_staleness_bound_seconds";
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            let seconds = u64::try_from(bound.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
            value(&mut metric, Class::Gauge, seconds)?;
        }
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let help = "Always 1; the version is a label.";
        let name = "pelton_build_info";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value(&mut family.encode_family(&version)?, Class::Gauge, 1)
    }
}

impl Snapshot {
    /// Busy share and requests of each shard: an imbalance shows here.
    fn encode_shards(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Share of its time that a shard did not wait.";
        let name = "pelton_shard_busy_ratio";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (shard, counters) in self.shards.iter().enumerate() {
            let total_ns = (counters.busy_ns + counters.waited_ns).max(1);
            let ratio = seconds(counters.busy_ns) / seconds(total_ns);
            family.encode_family(&[("shard", shard.to_string())])?.encode_gauge(&ratio)?;
        }
        let help = "Requests answered by a shard.";
        let name = "pelton_shard_requests";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (shard, counters) in self.shards.iter().enumerate() {
            let rows = TABLE.iter().zip(counters.values());
            let requests = rows.filter(|(row, _)| row.name == "pelton_requests");
            let requests: u64 = requests.map(|(_, count)| count).sum();
            let labels = [("shard", shard.to_string())];
            value(&mut family.encode_family(&labels)?, Class::Counter, requests)?;
        }
        Ok(())
    }

    fn encode_histograms(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From the turn that received a request to its reply's send.";
        let name = "pelton_request_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for outcome in Outcome::ALL {
            let labels = [("outcome", outcome.name())];
            histogram(family.encode_family(&labels)?, self.histograms.latency(outcome))?;
        }
        let help = "Length of a turn without its wait.";
        let name = "pelton_shard_loop_lag_seconds";
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        histogram(metric, self.histograms.loop_lag())
    }
}

/// The values of a table, and a label of all of them.
type Series<'a> = (Option<(&'a str, &'a str)>, &'a [u64]);

/// Every row of a table for each of `series`, families in the order of their first row.
fn encode_table(
    encoder: &mut DescriptorEncoder<'_>,
    table: &[Row],
    series: &[Series<'_>],
) -> fmt::Result {
    for (index, first) in table.iter().enumerate() {
        if series.is_empty() || table[..index].iter().any(|before| before.name == first.name) {
            continue;
        }
        let help = if first.label.is_empty() { first.sentence } else { BY_LABEL };
        let mut family = encoder.encode_descriptor(first.name, help, None, metric_type(first))?;
        for (of_all, values) in series {
            let rows = table.iter().zip(*values).filter(|(row, _)| row.name == first.name);
            for (row, total) in rows {
                let own = row.label.split_once('=');
                let own = own.map(|(label, text)| (label, text.trim_matches('"')));
                let labels: Vec<_> = of_all.iter().copied().chain(own).collect();
                if labels.is_empty() {
                    value(&mut family, row.class, *total)?;
                } else {
                    value(&mut family.encode_family(&labels)?, row.class, *total)?;
                }
            }
        }
    }
    Ok(())
}

const fn metric_type(row: &Row) -> MetricType {
    match row.class {
        Class::Counter => MetricType::Counter,
        Class::Gauge => MetricType::Gauge,
    }
}

fn value(metric: &mut MetricEncoder<'_>, class: Class, value: u64) -> fmt::Result {
    match class {
        Class::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        Class::Gauge => metric.encode_gauge(&value),
    }
}

fn histogram(mut metric: MetricEncoder<'_>, distribution: &Distribution) -> fmt::Result {
    let edges = EDGES_NS.iter().map(|ns| seconds(*ns)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = edges.zip(distribution.buckets()).collect();
    let sum = seconds(distribution.sum_ns());
    metric.encode_histogram::<NoLabelSet>(sum, distribution.count(), &buckets, None)
}

/// Nanoseconds as seconds: exact below 104 days, where a float has all the digits.
#[expect(clippy::cast_precision_loss, reason = "a measured time")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
