//! Rules of plain text: heads, widths, lengths, ASCII, unfinished marks, the top of the tree.

use crate::code::first_word;
use crate::source::{Finding, Source};

const COLUMNS_MAX: usize = 100;
/// Longest file, in lines before its tests.
const LINES_MAX: usize = 700;

/// What the top of the repository may hold; what is not in it today comes later, or is built.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".git",
    ".gitignore",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "bench",
    "clippy.toml",
    "data",
    "deny.toml",
    "deploy",
    "docs",
    "pelton-data",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "server",
    "shard-cache",
    "sysctl",
    "target",
    "tests",
];

/// Every file begins by saying what it owns.
pub(crate) fn head(source: &Source) -> Vec<Finding> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.finding(0, "a file begins with //! and what it is for")]
}

/// The text's lines, each with the byte at which it begins.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let at = start;
        start += line.len();
        (at, line.trim_end_matches('\n'))
    })
}

/// No line is wider than the formatter makes it, but rows of tables: they keep a sentence whole.
pub(crate) fn columns(source: &Source) -> Vec<Finding> {
    lines(&source.text)
        .filter(|(_, line)| line.chars().count() > COLUMNS_MAX && !is_table_row(line))
        .map(|(at, _)| source.finding(at, "wider than 100 columns"))
        .collect()
}

/// A row of a table macro: a name and a comma or a colon first, a string last.
fn is_table_row(line: &str) -> bool {
    let row = line.trim_start();
    row[first_word(row).len()..].starts_with([',', ':']) && row.ends_with("\";")
}

/// Sources are ASCII, so that what one sees is what there is.
pub(crate) fn ascii(source: &Source) -> Vec<Finding> {
    lines(&source.text)
        .filter(|(_, line)| !line.is_ascii())
        .map(|(at, _)| source.finding(at, "not ASCII; write it as an escape"))
        .collect()
}

/// A file has one job, and so it is short.
pub(crate) fn length(source: &Source) -> Vec<Finding> {
    let count = source.code_before_tests().lines().count();
    if count <= LINES_MAX {
        return Vec::new();
    }
    vec![source.finding(0, format!("{count} lines before its tests, more than {LINES_MAX}"))]
}

/// What is not done is not there, and what is there is done.
pub(crate) fn unfinished(source: &Source) -> Vec<Finding> {
    // Cut in two, or this file would find itself.
    const MARKS: &[&str] = &[
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
        concat!("db", "g!("),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    MARKS
        .iter()
        .flat_map(|mark| source.text.match_indices(mark))
        .map(|(at, mark)| source.finding(at, format!("unfinished: {mark}")))
        .collect()
}

/// Nothing lies at the top that is not known to belong there.
pub(crate) fn top_level(names: &[String]) -> Vec<Finding> {
    names
        .iter()
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .map(|name| Finding {
            path: name.clone(),
            line: 0,
            what: "does not belong at the top of the repository".to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rule: fn(&Source) -> Vec<Finding>, text: &str) -> usize {
        rule(&Source::new("a.rs", text)).len()
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(findings(head, "use std::fmt;"), 1);
        assert_eq!(findings(head, ""), 1);
        assert_eq!(findings(head, "//! What it is for.\n"), 0);
    }

    #[test]
    fn a_wide_line_is_found() {
        assert_eq!(findings(columns, &"x".repeat(100)), 0);
        assert_eq!(findings(columns, &format!("short\n{}\n", "x".repeat(101))), 1);
        let row = format!("    Field, \"name\", false, \"{}\";", "word ".repeat(20));
        assert_eq!(findings(columns, &row), 0);
    }

    #[test]
    fn other_alphabets_are_found() {
        assert_eq!(findings(ascii, "// caf\u{e9}"), 1);
        assert_eq!(findings(ascii, "// cafe"), 0);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let long = "x\n".repeat(700);
        assert_eq!(findings(length, &format!("{long}x\n")), 1);
        assert_eq!(findings(length, &format!("{long}#[cfg(test)]\nmod tests {{\n}}\n")), 0);
    }

    #[test]
    fn unfinished_marks_are_found_in_comments_too() {
        assert_eq!(findings(unfinished, concat!("// FIX", "ME: later")), 1);
        assert_eq!(findings(unfinished, concat!("fn f() { to", "do!() }")), 1);
        assert_eq!(findings(unfinished, "// All is done."), 0);
    }

    #[test]
    fn a_stray_entry_at_the_top_is_found() {
        let names = ["Makefile", "notes.txt", "server"].map(ToOwned::to_owned);
        assert_eq!(top_level(&names).len(), 1);
    }
}
