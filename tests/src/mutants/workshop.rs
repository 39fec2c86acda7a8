//! A copy of the tree, with a folder of its own for what is built from it.

use crate::process::root;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The packages that faults are looked for with.
const PACKAGES: [&str; 3] = ["shard-cache", "pelton", "pelton-tests"];

/// The models of loom, which asks more of what others use too: together with them, all of it would
/// be built twice.
const MODELS: &str = "pelton-models";

/// Tests of the house and of the load generator, which a fault does not concern, and those of this
/// list itself.
const LEFT_OUT: [&str; 3] = ["tidy", "process_bench", "mutants_table"];

/// The copy.
#[derive(Debug)]
pub struct Workshop {
    tree: PathBuf,
    target: PathBuf,
}

/// A test program that was built in the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its package and its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Where it is to be run.
    pub folder: PathBuf,
}

impl Workshop {
    /// Copies what git knows of, as it stands in the working tree, and removes what it no longer
    /// knows. A file that has not changed since the last copy keeps its time, so that it is not
    /// built again.
    ///
    /// # Errors
    /// Git or the disk refuse.
    pub fn open() -> Result<Self, String> {
        let base = root().join("target/mutants");
        let workshop = Self { tree: base.join("tree"), target: base.join("target") };
        let known = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()
            .map_err(|error| format!("git cannot be run: {error}"))?;
        if !known.status.success() {
            return Err("git ls-files failed: faults are planted in a clone".to_owned());
        }
        let known = String::from_utf8_lossy(&known.stdout);
        let known: BTreeSet<&str> =
            known.lines().filter(|path| root().join(path).exists()).collect();
        workshop.sweep(&workshop.tree, &known)?;
        for path in known {
            workshop.restore(path)?;
        }
        Ok(workshop)
    }

    /// Removes the files of a folder of the copy that are not `known`.
    fn sweep(&self, folder: &Path, known: &BTreeSet<&str>) -> Result<(), String> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.strip_prefix(&self.tree).ok().and_then(Path::to_str);
            if path.is_dir() {
                self.sweep(&path, known)?;
            } else if name.is_none_or(|name| !known.contains(name)) {
                fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Puts a file of the copy back as it is in the working tree.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn restore(&self, path: &str) -> Result<(), String> {
        let cannot = |error| format!("{path}: {error}");
        self.write(path, &fs::read(root().join(path)).map_err(cannot)?)?;
        let mode = fs::metadata(root().join(path)).map(|metadata| metadata.permissions());
        mode.and_then(|mode| fs::set_permissions(self.tree.join(path), mode)).map_err(cannot)
    }

    /// Writes a file of the copy, if it is to change.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), String> {
        let to = self.tree.join(path);
        if fs::read(&to).is_ok_and(|before| before == bytes) {
            return Ok(());
        }
        let folder = to.parent().unwrap_or(&self.tree);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&to, bytes));
        written.map_err(|error| format!("{}: {error}", to.display()))
    }

    /// Builds the server and all tests.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn build(&self) -> Result<Vec<Program>, String> {
        self.cargo(&["build", "-p", "pelton"])?;
        let mut programs = self.tests(&PACKAGES.map(|package| ["-p", package]).concat())?;
        programs.extend(self.tests(&["-p", MODELS])?);
        Ok(programs)
    }

    /// Builds the unit tests of the package that a file lies in: the least that may find a fault.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn build_own(&self, path: &str) -> Result<Vec<Program>, String> {
        let folder = path.split('/').next().unwrap_or_default();
        let package = if folder == "server" { "pelton" } else { folder };
        self.tests(&["-p", package, "--lib"])
    }

    fn tests(&self, of: &[&str]) -> Result<Vec<Program>, String> {
        let how = ["test", "--no-run", "--message-format=json-render-diagnostics"];
        let messages = self.cargo(&[&how, of].concat())?;
        let programs = messages.lines().filter_map(|line| self.program(line));
        Ok(programs
            .filter(|program| !LEFT_OUT.iter().any(|out| program.name.ends_with(out)))
            .collect())
    }

    fn cargo(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("cargo")
            .args(arguments)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // So the server and the tests are built from one library.
            .env("CARGO_PROFILE_DEV_PANIC", "unwind")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cargo cannot be run: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The test program that a line of cargo's messages tells of.
    fn program(&self, line: &str) -> Option<Program> {
        let message: Value = serde_json::from_str(line).ok()?;
        let path = PathBuf::from(message["executable"].as_str()?);
        // A program of a package may bear the name of a test, and has no tests of its own.
        if message["profile"]["test"] != true || message["target"]["kind"][0] == "bin" {
            return None;
        }
        let manifest = Path::new(message["manifest_path"].as_str()?);
        let folder = manifest.parent().unwrap_or(&self.tree).to_owned();
        let package = folder.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{package} {}", message["target"]["name"].as_str()?);
        Some(Program { name, path, folder })
    }
}
