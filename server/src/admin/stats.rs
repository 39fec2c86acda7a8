//! `/stats`: every counter, of each shard and in all, as JSON for scripts.

use super::Admin;
use crate::histograms::{Distribution, Outcome};
use crate::mesh::OriginServer;
use crate::metrics::{
    Counters, Row, SAMPLE_TABLE, SERVER_TABLE, SNAPSHOT_TABLE, TABLE, TENANT_TABLE,
};
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The quantiles that are shown.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

pub(super) async fn stats(State(admin): State<Arc<Admin>>) -> Response {
    let shards: Vec<Counters> = admin.boards.iter().map(|board| board.read()).collect();
    let bill: Map<String, Value> = admin
        .facts
        .bill
        .lines
        .iter()
        .map(|line| (line.what.to_owned(), json!(line.size * u64::from(line.count))))
        .collect();
    let latency: Map<String, Value> = admin.with_histograms(|histograms| {
        Outcome::ALL
            .iter()
            .map(|outcome| (outcome.name().to_owned(), quantiles(histograms.latency(*outcome))))
            .collect()
    });
    let lag = admin.with_histograms(|histograms| quantiles(histograms.loop_lag()));
    let servers: Vec<Value> = admin.servers().await.iter().map(server).collect();
    super::json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": admin.epoch.uptime().as_secs(),
        "origin": admin.facts.origin,
        "origin_servers": servers,
        "memory_bytes": bill,
        "latency_ns": latency,
        "loop_lag_ns": lag,
        "origin_samples": fields(SAMPLE_TABLE, &admin.samples().values()),
        "snapshots": fields(SNAPSHOT_TABLE, &admin.snapshots().values()),
        "tenants": tenants(&admin),
        "total": counters(&sum(&shards)),
        "shards": shards.iter().map(counters).collect::<Vec<_>>(),
    }))
}

/// What all shards together have counted of a tenant.
pub(super) fn of_tenant(admin: &Admin, tenant: usize) -> [u64; TENANT_TABLE.len()] {
    let shards = admin.boards.iter().map(|board| board.read_tenant(tenant));
    shards.fold([0; _], |total, shard| std::array::from_fn(|row| total[row] + shard[row]))
}

fn tenants(admin: &Admin) -> Map<String, Value> {
    let named = admin.facts.tenants.iter().enumerate();
    named
        .map(|(tenant, name)| {
            let fields = fields(TENANT_TABLE, &of_tenant(admin, tenant));
            (name.clone(), Value::Object(fields))
        })
        .collect()
}

/// The counters of all shards together.
pub(super) fn sum(shards: &[Counters]) -> Counters {
    let mut total = [0; TABLE.len()];
    for shard in shards {
        for (total, value) in total.iter_mut().zip(shard.values()) {
            *total += value;
        }
    }
    Counters::from_values(&total)
}

fn counters(counters: &Counters) -> Map<String, Value> {
    fields(TABLE, &counters.values())
}

fn server(server: &OriginServer) -> Value {
    let mut map = fields(SERVER_TABLE, &server.counters.values());
    map.insert("server".into(), json!(server.name));
    Value::Object(map)
}

fn fields(table: &[Row], values: &[u64]) -> Map<String, Value> {
    let fields = table.iter().zip(values);
    fields.map(|(row, value)| (row.field.to_owned(), json!(value))).collect()
}

fn quantiles(distribution: &Distribution) -> Value {
    let quantile = |(name, quantile): (&str, f64)| {
        (name.to_owned(), json!(distribution.quantile_ns(quantile)))
    };
    let mut map: Map<String, Value> = QUANTILES.into_iter().map(quantile).collect();
    map.insert("count".into(), json!(distribution.count()));
    Value::Object(map)
}
