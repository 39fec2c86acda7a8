//! A real server of several shards: clients of all of them write and read the same keys while these
//! are purged, and what they see is what one register a key would say. `HISTORY=60` runs it for so
//! many seconds (`make history TIME=60`), `SEED=` lets chance begin elsewhere.
#![expect(clippy::disallowed_methods, reason = "how long to run enters by the environment")]
#![expect(clippy::print_stdout, reason = "it says what it came to")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::fixture::Fixture;
use pelton_tests::history::History;
use pelton_tests::history::crowd::{Crowd, Tally};
use pelton_tests::history::purger::purge_while;
use pelton_tests::prng::Prng;
use pelton_tests::process::{Process, free_ports};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const TOKEN: &str = "a-token-of-some-thirty-characters";

/// Shards, where there are cores for them.
const SHARDS_MAX: u16 = 4;

const KEYS: usize = 64;

/// Longest time, where none was asked for.
const TIME_MAX: Duration = Duration::from_secs(300);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}

/// One for each core, up to four; this needs two, as other tests do.
fn shards() -> u16 {
    let cores = std::thread::available_parallelism().map_or(2, |count| count.get());
    u16::try_from(cores).map_or(SHARDS_MAX, |cores| cores.clamp(2, SHARDS_MAX))
}

/// A server whose values are soon stale, so that they are fetched again while they are written.
fn start(shards: u16, first_port: u16) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let sets = [
        &*format!("server.shards={shards}"),
        &format!("server.shard_ports={first_port}"),
        &fixture.token_file(TOKEN),
        "http.writes=true",
        "cache.ttl=200ms",
        "cache.negative_ttl=50ms",
        "cache.stale_while_revalidate=1h",
    ];
    let server = Process::start(&fixture.store(), &sets);
    (fixture, server)
}

/// How many clients, and what they do at least where no time was asked for.
#[derive(Clone, Copy, Debug)]
struct Size {
    threads: usize,
    connections: usize,
    operations: usize,
}

fn crowd(shards: u16, first_port: u16, size: Size) -> Crowd {
    let time = number("HISTORY").map(Duration::from_secs);
    let address = |shard: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, first_port + shard));
    Crowd {
        addresses: (0..shards).map(address).collect(),
        threads: size.threads,
        connections: size.connections,
        keys: KEYS,
        writes_per_mille: 70,
        deletes_per_mille: 30,
        token: TOKEN.into(),
        seed: number("SEED").unwrap_or(0),
        operations_max: if time.is_some() { usize::MAX } else { size.operations },
        time_max: time.unwrap_or(TIME_MAX),
    }
}

fn expect_one_value(size: Size) {
    let shards = shards();
    let first_port = free_ports(shards);
    let (_fixture, server) = start(shards, first_port);
    let crowd = crowd(shards, first_port, size);
    let (history, tally, purges) =
        crowd.run(|is_wanted| purge_while(&server, TOKEN, KEYS, Prng::new(crowd.seed), is_wanted));
    let count: usize = history.keys().iter().map(Vec::len).sum();
    println!("{size:?}, seed {}, {count} operations: {tally:?}", crowd.seed);
    println!("{purges:?}, {} changes were read meanwhile", history.overlaps());
    if let Err((key, violation)) = history.check() {
        panic!("seed {}, key {key}: {violation}", crowd.seed);
    }
    expect_much(size.operations, &history, &tally);
    assert!(purges.done > 50, "{purges:?}");
    expect_counted(&server, shards, size.operations);
}

/// A history in which little happens shows little.
fn expect_much(operations: usize, history: &History, tally: &Tally) {
    let busy = history.keys().iter().filter(|operations| operations.len() > 50);
    for (what, count, least) in [
        ("values", tally.values, operations / 4),
        ("not modified", tally.not_modified, operations / 100),
        ("absences", tally.absences, operations / 100),
        ("writes", tally.writes, operations / 50),
        ("deletes", tally.deletes, operations / 200),
        ("changes that were read meanwhile", history.overlaps(), operations / 200),
        ("busy keys", busy.count(), KEYS * 3 / 4),
    ] {
        assert!(count >= least, "{count} {what} are less than {least}: {tally:?}");
    }
    let failed = tally.refused + tally.unknown;
    assert!(failed <= tally.values / 10, "{failed} operations failed: {tally:?}");
}

/// The server has come by all that could go wrong, in every shard.
fn expect_counted(server: &Process, shards: u16, operations: usize) {
    let answered = |outcome: &str| {
        let count = server.metric("pelton_requests_total", &format!("outcome=\"{outcome}\""));
        assert!(count > 0, "no request was answered as {outcome}");
        count
    };
    let [_, _, misses] = ["hit", "negative", "miss"].map(answered);
    let fetches = server.metric("pelton_origin_fetches_total", "");
    assert!(fetches > misses, "{fetches} fetches for {misses} misses: no stale value was served");
    let least = operations as u64 / 10;
    for what in ["hits", "invalidations", "epochs"] {
        let count = server.metric(&format!("pelton_replica_{what}_total"), "");
        assert!(count > least / 100, "{count} {what} of copies");
    }
    let remote = server.metric("pelton_remote_reads_total", "");
    assert!(remote > least, "{remote} reads by other shards than the owner");
    for shard in 0..shards {
        let requests = server.metric("pelton_shard_requests_total", &format!("shard=\"{shard}\""));
        assert!(requests > least, "{requests} requests to shard {shard}");
    }
}

#[test]
fn hundreds_of_clients_see_one_value_a_key_while_they_write_and_all_is_purged() {
    expect_one_value(Size { threads: 4, connections: 320, operations: 40_000 });
}

/// Replies come sooner than to hundreds, so their histories leave less open.
#[test]
fn a_few_quick_clients_see_one_value_a_key_while_they_write_and_all_is_purged() {
    expect_one_value(Size { threads: 2, connections: 8, operations: 20_000 });
}
