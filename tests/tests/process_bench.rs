//! The load generator against the server, as a user runs both.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

use pelton_tests::fixture::Fixture;
use pelton_tests::process::{self, Process};
use serde_json::Value;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let binary = process::binary().with_file_name("pelton-bench");
    Command::new(binary).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A server over made-up records that the generator wrote.
fn serve(count: u32) -> (Fixture, Process) {
    let fixture = Fixture::empty();
    let data = bench(&["data", "--count", &count.to_string(), "--value-size", "300"]);
    let imported = fixture.import(&text(&data));
    assert!(imported.status.success(), "{}", text(&imported));
    let server = Process::start(&fixture.store(), &[]);
    (fixture, server)
}

#[test]
fn a_mix_is_answered_as_expected_and_bodies_name_their_keys() {
    let (fixture, server) = serve(500);
    let url = format!("http://{}/", server.data);
    let json = fixture.path("result.json");
    let output = bench(&[
        "load",
        "-t1",
        "-c8",
        "-d1s",
        "-R2k",
        "-L",
        "--keys-count",
        "500",
        "--verify=pattern",
        "--distribution",
        "zipf:0.99",
        "--pipeline",
        "2",
        "--churn",
        "20",
        "--mix",
        "hit=8,absent=1,malformed=1",
        "--json",
        json.to_str().unwrap(),
        &url,
    ]);
    let printed = text(&output);
    assert!(printed.starts_with(&format!("Running 1s test @ {url}\n  1 threads")), "{printed}");
    assert!(printed.contains("\n  Detailed Percentile spectrum:\n"), "{printed}");
    let result: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let result = &result["result"];
    let due: u64 =
        ["unanswered", "unsent"].iter().map(|kind| result["errors"][kind].as_u64().unwrap()).sum();
    assert_eq!(result["answered"].as_u64().unwrap() + due, 2_000, "{printed}");
    assert_eq!((&result["errors"]["status"], &result["errors"]["body"]), (&0.into(), &0.into()));
    assert!(result["kinds"]["malformed"]["as_expected"].as_u64().unwrap() > 0, "{printed}");
    assert!(result["kinds"]["absent"]["as_expected"].as_u64().unwrap() > 0, "{printed}");
}

#[test]
fn wrong_bodies_fail_a_run() {
    let (fixture, server) = serve(10);
    let keys = fixture.path("keys.jsonl");
    std::fs::write(&keys, "{\"key\":\"key-00000003\",\"value\":\"another\"}\n").unwrap();
    let url = format!("http://{}/", server.data);
    let keys = keys.to_str().unwrap();
    let output =
        bench(&["load", "-t1", "-c1", "-d200ms", "-R50", "--keys", keys, "--verify", &url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("is not that of the records"), "{}", text(&output));
}

#[test]
fn exit_codes_tell_a_missed_threshold_an_unreachable_server_and_wrong_flags_apart() {
    let (_fixture, server) = serve(10);
    let url = format!("http://{}/healthz", server.data);
    let missed = bench(&["load", "-t1", "-c1", "-d200ms", "-R50", "--slo", "max<0us", &url]);
    assert_eq!(missed.status.code(), Some(7), "{}", text(&missed));
    assert!(text(&missed).contains("max<0us: MISSED"), "{}", text(&missed));
    let unreachable = bench(&["load", "-d1s", "http://127.0.0.1:1/"]);
    assert_eq!(unreachable.status.code(), Some(6), "{}", text(&unreachable));
    for wrong in [["--slo", "p99"], ["--mix", "hits=1"], ["-R", "fast"], ["--tenant", "gold"]] {
        let refused = bench(&["load", wrong[0], wrong[1], &url]);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
        assert!(text(&refused).contains("such as") || text(&refused).contains("expected"));
    }
}

#[test]
fn tenants_send_at_their_own_rates() {
    let (_fixture, server) = serve(10);
    let url = format!("http://{}/healthz", server.data);
    let output = bench(&[
        "load",
        "-t1",
        "-d500ms",
        "--tenant",
        "gold 200 2 X-API-Key: a",
        "--tenant",
        "tin 100 1",
        &url,
    ]);
    let printed = text(&output);
    assert!(printed.contains("\ntenant gold") && printed.contains("\ntenant tin"), "{printed}");
    assert!(printed.contains("\n  150 requests in"), "{printed}");
}

#[test]
fn a_unix_socket_is_loaded_like_any_other() {
    let fixture = Fixture::empty();
    let path = fixture.path("socket");
    let path = path.to_str().unwrap();
    let mut floor = Command::new(process::binary().with_file_name("pelton-bench"))
        .args(["floor", "--listen", &format!("unix:{path}"), "--close-after", "5"])
        .spawn()
        .unwrap();
    let arguments =
        ["load", "-t1", "-c2", "-d200ms", "-R500", "--churn", "5", "--unix", path, "http://floor/"];
    let output = (0..1_000)
        .map(|_| bench(&arguments))
        .find(|output| output.status.code() != Some(6))
        .unwrap();
    floor.kill().unwrap();
    floor.wait().unwrap();
    let printed = text(&output);
    assert!(printed.contains("\n  100 requests in"), "{printed}");
    assert!(printed.contains("read 0, write 0, timeout 0, unanswered 0, unsent 0"), "{printed}");
}
