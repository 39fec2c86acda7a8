//! Redis servers that a test starts, alone or as a cluster, and ends.

use crate::program;
use pelton_tests::process::{free_ports, until};
use std::fs::File;
use std::process::{Child, Output, Stdio};
use tempfile::TempDir;

/// A server that runs; dropped, it ends.
pub(crate) struct RedisServer {
    child: Child,
    folder: TempDir,
    settings: Vec<String>,
    pub(crate) port: u16,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk, with further settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_at(free_ports(1), settings)
    }

    fn start_at(port: u16, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings: Vec<String> = settings.iter().map(|&text| text.to_owned()).collect();
        let child = run(port, &folder, &settings);
        let server = Self { child, folder, settings, port };
        server.wait_until_it_answers();
        server
    }

    /// What `redis-cli` prints for a command.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = self.run_cli(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn run_cli(&self, arguments: &[&str]) -> Output {
        let mut command = program("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was, with nothing in it.
    pub(crate) fn restart(&mut self) {
        self.child = run(self.port, &self.folder, &self.settings);
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        // One that wants a password or a certificate says so, and that is an answer.
        until("Redis answers", || {
            let output = self.run_cli(&["PING"]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            !said.is_empty() && !said.contains("refused")
        });
    }

    /// Three primaries with a replica each.
    pub(crate) fn cluster() -> Vec<Self> {
        let first = free_ports(12);
        let start = |port: u16| {
            let bus = format!("cluster-port {}", port + 6);
            let quick = ["cluster-node-timeout 1000", "repl-diskless-sync-delay 0"];
            Self::start_at(port, &[&["cluster-enabled yes", &bus], &quick[..]].concat())
        };
        let servers: Vec<_> = (first..first + 6).map(start).collect();
        let places: Vec<_> =
            servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(places.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        servers[0].cli(&create);
        for server in &servers {
            until("the cluster is whole", || {
                let has_all = server.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
                let role = server.cli(&["ROLE"]);
                has_all && (role.starts_with("master") || role.contains("connected"))
            });
        }
        servers
    }

    /// Whether it is a primary of its cluster.
    pub(crate) fn is_primary(&self) -> bool {
        self.cli(&["ROLE"]).starts_with("master")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(port: u16, folder: &TempDir, settings: &[String]) -> Child {
    let mut command = program("redis-server");
    let port = port.to_string();
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    for setting in settings {
        let (name, value) = setting.split_once(' ').unwrap();
        command.arg(format!("--{name}")).args(value.split(' '));
    }
    let log = File::create(folder.path().join("log")).unwrap();
    command.current_dir(folder).stdin(Stdio::null()).stdout(log).spawn().unwrap()
}
