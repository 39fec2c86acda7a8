//! The tree that the rules read: every Rust file, and the names at the top.
//!
//! A plain walk of the folders, so that it works in an unpacked archive as well as in a clone.

use crate::code;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "pelton-data"];

/// One Rust file.
pub(crate) struct Source {
    /// Path from the top of the repository, with slashes.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Its text with comments, strings and characters blanked, byte for byte in place.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: code::blank(text) }
    }

    /// The code before the file's tests.
    pub(crate) fn code_before_tests(&self) -> &str {
        &self.code[..self.code.find("#[cfg(test)]\nmod tests").unwrap_or(self.code.len())]
    }

    /// A finding at a byte of the text.
    pub(crate) fn finding(&self, at: usize, what: impl Into<String>) -> Finding {
        let line = self.text[..at].matches('\n').count() + 1;
        Finding { path: self.path.clone(), line, what: what.into() }
    }
}

/// A place that breaks a rule.
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// All that the rules read.
pub(crate) struct Tree {
    pub(crate) sources: Vec<Source>,
    /// Names of files and folders at the top.
    pub(crate) top_level: Vec<String>,
}

impl Tree {
    /// Reads the repository that this package lies in.
    pub(crate) fn read() -> Self {
        let mut sources = Vec::new();
        walk(&top(), &mut sources);
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        let mut top_level = names(&top());
        top_level.sort();
        Self { sources, top_level }
    }

    /// The text of one page of the repository.
    pub(crate) fn page(path: &str) -> String {
        fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

fn top() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies one below the top").to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder of the repository can be read");
    entries
        .map(|entry| entry.expect("a folder of the repository can be read").file_name())
        .map(|name| name.into_string().expect("names are ASCII"))
        .collect()
}

fn walk(folder: &Path, sources: &mut Vec<Source>) {
    for name in names(folder) {
        let path = folder.join(&name);
        if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
            walk(&path, sources);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("a source can be read");
            let from_top = path.strip_prefix(top()).expect("the walk began at the top");
            sources.push(Source::new(from_top.to_str().expect("names are ASCII"), &text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_its_line() {
        let source = Source::new("a.rs", "one\ntwo\nthree\n");
        assert_eq!(source.finding(4, "here").to_string(), "a.rs:2: here");
    }

    #[test]
    fn code_before_tests_ends_where_the_tests_begin() {
        let source = Source::new("a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn g() {} }\n");
        assert_eq!(source.code_before_tests(), "fn f() {}\n");
    }
}
