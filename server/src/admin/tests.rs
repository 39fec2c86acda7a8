//! The port asked by a plain client, over a real socket.

use super::*;
use crate::config::Config;
use crate::histograms::Outcome;
use crate::limits::{Grant, Limits};
use crate::mesh::{Giver, boxes};
use crate::metrics::{Counters, SAMPLE_TABLE, SERVER_TABLE, ServerCounters, TABLE, TenantCounters};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

struct Shard {
    board: Arc<Board>,
    histograms: Giver<Histograms>,
    _hot_keys: Giver<Window>,
}

fn shard() -> (Shard, Source) {
    let (histograms, mut taker) = boxes(1);
    taker.give_back(Box::new(Histograms::new()));
    let (hot_keys, hot_taker) = boxes(1);
    let source = Source { histograms: taker, hot_keys: hot_taker };
    (Shard { board: Arc::new(Board::with_tenants(2)), histograms, _hot_keys: hot_keys }, source)
}

/// Tells of two servers, of which the second was left alone seven times.
async fn tell_servers(mut asked: mpsc::Receiver<ServersRequest>) {
    while let Some(request) = asked.recv().await {
        let server = |name: &str, broken| OriginServer {
            name: name.to_owned(),
            counters: ServerCounters { broken, ..ServerCounters::default() },
        };
        request.send(vec![server("a:1", 0), server("b:2", 7)]).unwrap();
    }
}

/// Asks for `paths` one after the other; status and body of each.
fn ask(
    paths: &[&str],
    prepare: impl FnOnce(&mut [Shard], &Control, &Arc<AtomicBool>, Epoch),
) -> Vec<(u16, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut shards, sources): (Vec<_>, Vec<_>) = [shard(), shard()].into_iter().unzip();
    let (control, ready, epoch) =
        (Control::new(), Arc::new(AtomicBool::new(false)), Epoch::begin());
    prepare(&mut shards, &control, &ready, epoch);
    let text = "[[tenant]]\nrate = 5\n[[tenant]]\nname = \"b\"\nkeys = \"sha256:DIGITS\"";
    let text = text.replace("DIGITS", &"5".repeat(64));
    let config = Config::parse("test", &text, &[]).unwrap();
    let grant = Grant { shards: 2, descriptors_max: 20_000, memory_size: 8 << 30 };
    let limits = Limits::new(&config, &grant).unwrap();
    let staleness_max = Some(Duration::from_millis(2_001));
    let facts = Facts::new(&config, &limits, "a test".into(), staleness_max);
    let boards = shards.iter().map(|shard| Arc::clone(&shard.board)).collect();
    let (requests, _nobody) = mpsc::channel(1);
    let purger = Purger { requests, token: None };
    let (servers, asked) = mpsc::channel(1);
    let (explanations, _silent) = mpsc::channel(1);
    let (snapshots, samples) = (SnapshotBoard::default(), SampleBoard::default());
    samples.lock().unwrap().inconsistent_5s = 3;
    let published = Published { boards, snapshots, samples, sources, servers, explanations };
    let admin = Admin::new(published, control, epoch, ready, purger, facts);
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(tell_servers(asked));
        let serving = tokio::spawn(admin.serve(listener, stopped));
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let asked = move || paths.iter().map(|path| ask_one(address, path)).collect::<Vec<_>>();
        let answers = tokio::task::spawn_blocking(asked).await.unwrap();
        stop.send(true).unwrap();
        serving.await.unwrap().unwrap();
        answers
    })
}

fn ask_one(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn beat(shards: &[Shard], epoch: Epoch) {
    for shard in shards {
        shard.board.beat(1, epoch.now().ns());
    }
}

#[test]
fn a_server_is_ready_when_its_shards_turn_and_its_origin_answers_until_it_stops() {
    let statuses = |turning: bool, origin: bool, stopping: bool| {
        let answers = ask(&["GET /readyz", "GET /livez"], |shards, control, ready, epoch| {
            if turning {
                beat(shards, epoch);
            }
            ready.store(origin, Ordering::Release);
            if stopping {
                control.drain();
            }
        });
        (answers[0].0, answers[1].0)
    };
    assert_eq!(statuses(true, true, false), (200, 200));
    assert_eq!(statuses(false, true, false).0, 503);
    assert_eq!(statuses(true, false, false), (503, 200));
    assert_eq!(statuses(true, true, true), (503, 200));
}

#[test]
fn metrics_show_every_row_once_and_the_histograms_that_were_handed_over() {
    let answers = ask(&["GET /metrics", "GET /stats"], |shards, _, _, _| {
        for shard in shards {
            let counters =
                Counters { requests_hit: 20, busy_ns: 1, waited_ns: 3, ..Counters::default() };
            shard.board.publish(&counters);
            let counters = TenantCounters { limited: 4, ..TenantCounters::default() };
            shard.board.publish_tenant(1, &counters);
            let given = shard.histograms.give(|histograms| {
                histograms.record_latencies(Outcome::Hit, 30_000, 7);
            });
            assert!(given);
        }
    });
    let (status, text) = &answers[0];
    assert_eq!(*status, 200);
    let lines: BTreeSet<&str> = text.lines().collect();
    assert_eq!(lines.len(), text.lines().count(), "no line stands twice");
    for row in TABLE.iter().chain(SERVER_TABLE).chain(SAMPLE_TABLE) {
        assert!(text.contains(row.name), "{} is missing", row.name);
    }
    for wanted in [
        r#"pelton_requests_total{outcome="hit"} 40"#,
        r#"pelton_request_duration_seconds_bucket{le="0.00005",outcome="hit"} 14"#,
        r#"pelton_request_duration_seconds_bucket{le="0.000025",outcome="hit"} 0"#,
        r#"pelton_request_duration_seconds_bucket{le="+Inf",outcome="hit"} 14"#,
        r#"pelton_request_duration_seconds_count{outcome="hit"} 14"#,
        r#"pelton_shard_busy_ratio{shard="1"} 0.25"#,
        r#"pelton_shard_requests_total{shard="0"} 20"#,
        "pelton_connections_open 0",
        r#"pelton_tenant_requests_total{tenant="b",outcome="rate_limited"} 8"#,
        r#"pelton_tenant_requests_total{tenant="anonymous",outcome="rate_limited"} 0"#,
        r#"pelton_tenant_connections_open{tenant="b"} 0"#,
        r#"pelton_origin_server_requests_total{server="b:2",outcome="broken"} 7"#,
        r#"pelton_origin_server_limit{server="a:1"} 0"#,
        r#"pelton_origin_inconsistent_total{window="5s"} 3"#,
    ] {
        assert!(lines.contains(wanted), "{wanted} in\n{text}");
    }
    let stats: serde_json::Value = serde_json::from_str(&answers[1].1).unwrap();
    assert_eq!(stats["total"]["requests_hit"], 40);
    assert_eq!(stats["shards"][1]["requests_hit"], 20);
    assert_eq!(stats["latency_ns"]["hit"]["count"], 14);
    assert_eq!(stats["origin_servers"][1]["server"], "b:2");
    assert_eq!(stats["origin_servers"][1]["broken"], 7);
    assert_eq!(stats["tenants"]["b"]["limited"], 8);
}

#[test]
fn the_configuration_is_shown_and_what_is_not_there_is_not_found() {
    let answers = ask(&["GET /config", "GET /nothing", "POST /metrics"], |_, _, _, _| {});
    let config: serde_json::Value = serde_json::from_str(&answers[0].1).unwrap();
    assert_eq!(config["cache"]["negative_ttl"], "2s");
    assert_eq!(config["tenant"][1]["keys"], "1 set, not shown");
    assert!(!answers[0].1.contains("5555"), "not even a digest");
    assert_eq!((answers[1].0, answers[2].0), (404, 405));
}

#[test]
fn hot_keys_need_a_number_that_makes_sense_and_shards_that_answer() {
    let answers = ask(&["GET /hot?top=0", "GET /hot?n=1", "GET /hot"], |_, _, _, _| {});
    assert_eq!(answers[0], (400, "top is a number from 1 to 1000, and not \"0\"\n".to_owned()));
    assert_eq!(answers[1], (400, "there is no parameter \"n\", only \"top\"\n".to_owned()));
    assert_eq!(answers[2].0, 503);
    assert!(answers[2].1.ends_with("shard 1 has not answered within 1 s\n"), "{}", answers[2].1);
}

#[test]
fn an_explanation_needs_a_key_and_an_owner_that_answers() {
    let answers = ask(&["GET /explain?key=%f", "GET /explain?key=%FF"], |_, _, _, _| {});
    assert_eq!(answers[0].0, 400);
    assert!(answers[0].1.contains("two hex digits"), "{}", answers[0].1);
    assert_eq!(answers[1].0, 503);
    assert!(answers[1].1.contains("has not answered"), "{}", answers[1].1);
}
