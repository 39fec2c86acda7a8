//! A real server as a child process: the binary that ships, on ports of its own, ended by its id.

#![expect(clippy::disallowed_methods, reason = "a child's output is read on a thread of its own")]

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long anything may take before a test gives up. No test measures time.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The server's binary, built beside the tests.
///
/// # Panics
/// If it was not built: `make test` builds it first.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let directory = test.ancestors().find(|path| path.ends_with("deps")).expect("cargo's layout");
    let binary = directory.with_file_name("pelton");
    assert!(binary.exists(), "{} is not built: run `make test`", binary.display());
    binary
}

/// The repository's root.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the repository")
}

/// Runs the binary to its end.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn run(arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary can be run")
}

/// The first of so many ports in a row that nobody listens on just now.
///
/// # Panics
/// If loopback has no free port.
#[must_use]
pub fn free_ports(count: u16) -> u16 {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    loop {
        let holder = bind(0).expect("loopback has free ports");
        let first = holder.local_addr().expect("it is bound").port();
        let end = first.saturating_add(count);
        if end - first == count && (first + 1..end).all(|port| bind(port).is_ok()) {
            return first;
        }
    }
}

/// Waits until something holds.
///
/// # Panics
/// If it never does: with `what` was waited for.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    let looks_max = PATIENCE.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..looks_max {
        if holds() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("waited in vain: {what}");
}

/// A server that runs.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Address of the data port.
    pub data: SocketAddr,
    /// Address of the admin port.
    pub admin: SocketAddr,
    /// What it printed until it was ready.
    pub greeting: Vec<String>,
}

impl Process {
    /// Starts a server over the store at `store`, with further `section.key=value` settings.
    ///
    /// # Panics
    /// If it does not say that it listens.
    #[must_use]
    pub fn start(store: &Path, sets: &[&str]) -> Self {
        Self::start_by(Command::new(binary()), store, sets)
    }

    /// Starts it with a configuration file, over which the settings are put.
    ///
    /// # Panics
    /// If it does not say that it listens.
    #[must_use]
    pub fn start_with(file: &Path, store: &Path, sets: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.arg("serve").arg("-c").arg(file);
        Self::run(command, store, sets)
    }

    /// Starts it by `command`, which ends with the binary.
    ///
    /// # Panics
    /// If it does not say that it listens.
    #[must_use]
    pub fn start_by(mut command: Command, store: &Path, sets: &[&str]) -> Self {
        command.arg("serve");
        Self::run(command, store, sets)
    }

    fn run(mut command: Command, store: &Path, sets: &[&str]) -> Self {
        let path = format!("origin.path={}", store.display());
        let own = [
            r#"server.listen=["127.0.0.1:0"]"#,
            "admin.listen=127.0.0.1:0",
            "cache.memory=64MiB",
            "server.shards=2",
            &path,
        ];
        for set in own.iter().chain(sets) {
            command.args(["--set", set]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be run");
        let stderr = BufReader::new(child.stderr.take().expect("piped above"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut process = Self {
            child,
            lines,
            data: SocketAddr::from(([0, 0, 0, 0], 0)),
            admin: SocketAddr::from(([0, 0, 0, 0], 0)),
            greeting: Vec::new(),
        };
        while let Ok(line) = process.lines.recv_timeout(PATIENCE) {
            if let Some(address) = url(&line, "data ") {
                process.data = address;
            }
            if let Some(address) = url(&line, "admin ") {
                process.admin = address;
            }
            let is_last = line.trim_start().starts_with("ready");
            process.greeting.push(line);
            if is_last {
                return process;
            }
        }
        panic!("the server did not start:\n{}", process.greeting.join("\n"));
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id is positive")
    }

    /// A connection to the data port whose reads and writes do not wait for ever.
    ///
    /// # Panics
    /// If it cannot connect.
    #[must_use]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.data).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        stream
    }

    /// The body of a GET on the admin port, and its status.
    ///
    /// # Panics
    /// If the port does not answer.
    #[must_use]
    pub fn admin(&self, path: &str) -> (u16, String) {
        self.ask_admin(&format!("GET {path}"), "", "")
    }

    /// The answer of the admin port to a purge: its status and body.
    ///
    /// # Panics
    /// If the port does not answer.
    #[must_use]
    pub fn purge(&self, token: &str, body: &str) -> (u16, String) {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        self.ask_admin("POST /purge", if token.is_empty() { "" } else { &bearer }, body)
    }

    fn ask_admin(&self, line: &str, fields: &str, body: &str) -> (u16, String) {
        use std::io::Write;
        let mut stream = TcpStream::connect(self.admin).expect("the admin port listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n{fields}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("the admin port reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("the admin port answers");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a reply has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a reply has a status"), body.to_owned())
    }

    /// A counter or gauge of `/metrics`, summed over its series whose labels contain `label`.
    ///
    /// # Panics
    /// If there is none of that name.
    #[must_use]
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        let (status, text) = self.admin("/metrics");
        assert_eq!(status, 200);
        let series = text
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(label));
        let values: Vec<f64> = series
            .map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number"))
            .collect();
        assert!(!values.is_empty(), "no series {name} with {label} in\n{text}");
        format!("{:.0}", values.iter().sum::<f64>()).parse().expect("a count is a whole number")
    }

    /// Bytes that are resident now, and that were at most.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn resident(&self) -> [u64; 2] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("it runs");
        ["VmRSS:", "VmHWM:"].map(|name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
            kib << 10
        })
    }

    /// Bytes of the whole bill that it made at its start.
    ///
    /// # Panics
    /// If the admin port does not answer.
    #[must_use]
    pub fn bill(&self) -> u64 {
        let (_, stats) = self.admin("/stats");
        let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
        let lines = stats["memory_bytes"].as_object().expect("a table");
        lines.values().map(|line| line.as_u64().expect("bytes")).sum()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let _words = self.last_words();
        self.child.wait().expect("a child can be waited for")
    }

    /// The lines that it prints until it ends, which closes its standard error.
    ///
    /// # Panics
    /// If it does not end.
    pub fn last_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => words.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return words,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("the server does not end: {words:?}")
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is what most tests want.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The address behind `label` in a line of the greeting.
fn url(line: &str, label: &str) -> Option<SocketAddr> {
    let rest = line.trim_start().strip_prefix(label)?.trim_start();
    rest.strip_prefix("http://")?.split_whitespace().next()?.parse().ok()
}
