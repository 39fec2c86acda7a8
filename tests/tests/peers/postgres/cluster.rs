//! A PostgreSQL server of its own, in a folder of its own, and psql to look into it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use pelton_tests::process::free_ports;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How often something is looked at that is to come, and how long that takes each time.
const TRIES: u32 = 1_500;
const TRY: Duration = Duration::from_millis(20);

/// Its file of settings.
const CONF: &str = "postgresql.conf";

/// A server; dropped, it ends.
pub(super) struct Cluster {
    folder: TempDir,
    pub(super) port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Starts one with a table of items.
    pub(super) fn start() -> Self {
        let mut cluster = Self::stopped();
        cluster.run();
        cluster.sql(
            "CREATE TABLE items (key bytea PRIMARY KEY, value bytea, content_type text, ttl_ms \
             bigint)",
        );
        cluster
    }

    /// One that does not run yet.
    pub(super) fn stopped() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(user) = user() {
            chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let cluster = Self { folder, port: free_ports(1), server: None };
        let made = cluster
            .program("initdb")
            .args(["-A", "trust", "-U", "pelton", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(cluster.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Puts a file beside the data, for the server alone to read.
    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(user) = user() {
            chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        path
    }

    /// Sets something of the server, from its next start on.
    pub(super) fn set(&self, line: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.data().join(CONF)).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    /// Who may connect, and how, from its next start on.
    pub(super) fn admit(&self, lines: &str) {
        fs::write(self.data().join("pg_hba.conf"), lines).unwrap();
    }

    /// A program of PostgreSQL, run by a user whom its server does not refuse.
    fn program(&self, name: &str) -> Command {
        let mut command = program(name);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some(user) = user() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Starts it, also again, and waits until it answers.
    pub(super) fn run(&mut self) {
        self.run_for("pelton");
    }

    /// Starts it, and waits until it answers this user.
    pub(super) fn run_for(&mut self, user: &str) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let mut server = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
            .args(["-c", "shared_buffers=4MB", "-c", "max_connections=40"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        for _ in 0..TRIES {
            if self.client(user).args(["-c", "SELECT 1"]).output().unwrap().status.success() {
                self.server = Some(server);
                return;
            }
            if server.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(TRY);
        }
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap();
        panic!("the database does not start: {log}");
    }

    /// Ends it, and the connections to it.
    pub(super) fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // SIGINT is its fast shutdown.
        kill(Pid::from_raw(i32::try_from(server.id()).unwrap()), Signal::SIGINT).unwrap();
        server.wait().unwrap();
    }

    /// What a statement returns, one row a line, its columns parted by `|`.
    pub(super) fn sql(&self, statement: &str) -> String {
        self.psql(statement).unwrap()
    }

    /// Waits until a statement returns this.
    pub(super) fn wait_until(&self, statement: &str, returns: &str) {
        for _ in 0..TRIES {
            if self.sql(statement) == returns {
                return;
            }
            std::thread::sleep(TRY);
        }
        panic!("{statement} does not return {returns}");
    }

    fn psql(&self, statement: &str) -> Result<String, String> {
        let output = self.client("pelton").args(["-c", statement]).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn client(&self, user: &str) -> Command {
        let mut psql = program("psql");
        psql.args(["-h", "127.0.0.1", "-U", user, "-d", "postgres", "-X", "-A", "-t", "-q"]);
        psql.args(["-p", &self.port.to_string(), "-v", "ON_ERROR_STOP=1"]);
        psql
    }

    /// A transaction that has done `statement` and stays open until it is dropped.
    pub(super) fn transaction(&self, statement: &str) -> Transaction {
        let child = self.client("pelton").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let input = child.stdin.as_mut().unwrap();
        writeln!(input, "BEGIN; {statement}; SELECT 'it is done';").unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap() == "it is done"));
        Transaction { child }
    }

    /// The URL that Pelton is given.
    pub(super) fn url(&self) -> String {
        format!("postgres://pelton@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A transaction of psql; dropped, it is rolled back.
pub(super) struct Transaction {
    child: Child,
}

impl Transaction {
    /// Keeps what it has done.
    pub(super) fn commit(mut self) {
        self.child.stdin.take().unwrap().write_all(b"COMMIT;\n").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _reaped = self.child.wait();
    }
}

/// Who runs the server where we are root, whom it refuses.
fn user() -> Option<User> {
    let other =
        || ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).unwrap()).unwrap();
    Uid::effective().is_root().then(other)
}

/// A program from the path, or from where Debian keeps those of each version.
fn program(name: &str) -> Command {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort_by_key(|folder| {
        let version = folder.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        version.and_then(|version| version.parse::<u32>().ok())
    });
    match folders.iter().rev().map(|folder| folder.join(name)).find(|file| file.exists()) {
        Some(file) => Command::new(file),
        None => crate::program(name),
    }
}
