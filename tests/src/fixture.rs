//! Stores with known content, for tests that run a real server.

use crate::process;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Output;
use tempfile::TempDir;

/// A folder of its own with a store in it.
#[derive(Debug)]
pub struct Fixture {
    folder: TempDir,
}

impl Fixture {
    /// A folder whose store does not exist yet.
    ///
    /// # Panics
    /// If the folder cannot be made.
    #[must_use]
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// A store with `count` keys `k0`, `k1`, ..., each with [`value`].
    ///
    /// # Panics
    /// If it cannot be imported.
    #[must_use]
    pub fn numbered(count: usize) -> Self {
        Self::of(count, value)
    }

    /// A store with `count` keys `k0`, `k1`, ..., each with the JSON that `value` says.
    ///
    /// # Panics
    /// If it cannot be imported.
    #[must_use]
    pub fn of(count: usize, value: impl Fn(usize) -> String) -> Self {
        let fixture = Self::empty();
        let mut lines = String::new();
        for number in 0..count {
            let value = value(number);
            writeln!(lines, r#"{{"key":"k{number}","value":{value}}}"#).expect("a string grows");
        }
        let output = fixture.import(&lines);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fixture
    }

    /// Where the store is.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store.redb")
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The setting for who bears `token`, which it writes to a file.
    ///
    /// # Panics
    /// If the file cannot be written.
    #[must_use]
    pub fn token_file(&self, token: &str) -> String {
        let path = self.path("token");
        std::fs::write(&path, token).expect("the folder is writable");
        format!("admin.token_file={}", path.display())
    }

    /// Imports `lines` with `pelton import`.
    ///
    /// # Panics
    /// If the file cannot be written.
    #[must_use]
    pub fn import(&self, lines: &str) -> Output {
        let file = self.path("import.jsonl");
        std::fs::write(&file, lines).expect("the folder is writable");
        self.import_file(file.to_str().expect("a temporary path is text"))
    }

    /// Imports a file with `pelton import`.
    #[must_use]
    pub fn import_file(&self, file: &str) -> Output {
        let set = format!("origin.path={}", self.store().display());
        process::run(&["import", file, "--set", &set])
    }
}

/// The value of the key with this number: JSON of 20 to some 200 bytes, and one of 40 KB in each
/// hundred, so that bodies are copied, attached and carried over in every way.
#[must_use]
pub fn value(number: usize) -> String {
    let padding = if number % 100 == 99 { 40_000 } else { number % 173 };
    format!(r#"{{"number":{number},"padding":"{}"}}"#, "x".repeat(padding))
}
