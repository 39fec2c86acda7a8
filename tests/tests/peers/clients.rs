//! Clients that others wrote: every body is compared with the data set, byte for byte, and the
//! server has counted what the client says it did.

use crate::program;
use crate::proxy::{Kind, Proxy};
use crate::records::Records;
use pelton_tests::process::root;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs it; its output, if it has succeeded.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{text}\n{errors}");
    text
}

fn script(name: &str) -> PathBuf {
    root().join("tests/tests/peers").join(name)
}

/// `script` does the same for every client that has a language: all records over one connection,
/// HEAD and 304 for some, and pipelining where the client can. It prints how many requests it made.
fn speak(command: &mut Command, address: SocketAddr, records: &Records) -> u64 {
    let file = records.file();
    command.arg(address.ip().to_string()).arg(address.port().to_string()).arg(file);
    run(command).trim().parse().unwrap()
}

#[test]
#[ignore = "needs Python: make test-peers"]
fn python_http_client() {
    let records = Records::serve(&[]);
    let mut python = program("python3");
    let made = speak(python.arg(script("client.py")), records.server.data, &records);
    assert!(made > 2 * records.records.len() as u64);
    records.wait_for(made);
}

fn python_through(kind: Kind) {
    let records = Records::serve(&[]);
    let proxy = Proxy::start(kind, records.server.data);
    let made = speak(program("python3").arg(script("client.py")), proxy.address, &records);
    records.wait_for(made);
    let connections = records.server.metric("pelton_connections_accepted_total", "");
    assert!(connections < made / 10, "{connections} connections for {made} requests");
}

#[test]
#[ignore = "needs NGINX: make test-peers"]
fn python_http_client_through_nginx() {
    python_through(Kind::Nginx);
}

#[test]
#[ignore = "needs HAProxy: make test-peers"]
fn python_http_client_through_haproxy() {
    python_through(Kind::Haproxy);
}

#[test]
#[ignore = "needs Node and npm: make test-peers"]
fn node_undici() {
    let records = Records::serve(&[]);
    // The packages that the lock file names, in a folder of their own.
    for name in ["client.mjs", "package.json", "package-lock.json"] {
        fs::copy(script(name), records.fixture.path(name)).unwrap();
    }
    let folder = records.fixture.path("");
    run(program("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder));
    let made = speak(
        program("node").arg("client.mjs").current_dir(&folder),
        records.server.data,
        &records,
    );
    assert!(made > 2 * records.records.len() as u64);
    records.wait_for(made);
}

#[test]
#[ignore = "needs curl: make test-peers"]
fn curl() {
    let records = Records::serve(&[]);
    let base = format!("http://{}/lookup", records.server.data);
    let mut config = String::new();
    for (index, (key, _)) in records.records.iter().enumerate() {
        let file = records.fixture.path(&format!("reply-{index}"));
        writeln!(config, "url = \"{base}/{key}\"\noutput = \"{}\"", file.display()).unwrap();
    }
    let file = records.fixture.path("curl.conf");
    fs::write(&file, config).unwrap();
    run(program("curl").args(["-sS", "--fail", "--path-as-is", "--config"]).arg(&file));
    for (index, (key, value)) in records.records.iter().enumerate() {
        let body = fs::read_to_string(records.fixture.path(&format!("reply-{index}"))).unwrap();
        assert_eq!(&body, value, "{key}");
    }
    assert_eq!(records.server.metric("pelton_connections_accepted_total", ""), 1);

    let url = format!("{base}/{}", records.records[0].0);
    let head = run(program("curl").args(["-sS", "--head", &url]));
    let size = records.records[0].1.len();
    assert!(head.contains(&format!("Content-Length: {size}\r\n")), "{head}");
    let etag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().trim();
    let held = format!("If-None-Match: {etag}");
    let code = ["-sS", "--write-out", "%{http_code} %{size_download}", "--header", &held, &url];
    assert_eq!(run(program("curl").args(code)), "304 0");
}

#[test]
#[ignore = "needs wrk: make test-peers"]
fn wrk_keep_alive_and_pipelined() {
    let records = Records::serve(&[]);
    let url = format!("http://{}/lookup/{}", records.server.data, records.records[0].0);
    for connections in ["1", "64", "1000"] {
        for pipelined in [false, true] {
            let mut wrk = program("wrk");
            wrk.args(["-t1", "-c", connections, "-d", "2s"]);
            if pipelined {
                wrk.arg("-s").arg(script("pipeline.lua"));
            }
            let before = records.requests();
            let text = run(wrk.arg(&url));
            assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
            let line = text.lines().find(|line| line.contains(" requests in ")).unwrap();
            let made: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
            // What was under way at the end was answered and not counted.
            assert!(made > 0, "{text}");
            records.wait_for_at_least(before + made);
        }
    }
    assert_eq!(records.server.metric("pelton_requests_total", r#"outcome="refused""#), 0);
}

#[test]
#[ignore = "needs h2load: make test-peers"]
fn h2load_over_http_1() {
    let records = Records::serve(&[]);
    let mut urls = String::new();
    for (key, _) in &records.records {
        writeln!(urls, "http://{}/lookup/{key}", records.server.data).unwrap();
    }
    let file = records.fixture.path("urls");
    fs::write(&file, urls).unwrap();
    let before = records.requests();
    let mut h2load = program("h2load");
    let text = run(h2load.args(["--h1", "-n", "20000", "-c", "50", "-i"]).arg(&file));
    assert!(text.contains("20000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
    records.wait_for(before + 20_000);
}
