//! The table of parameters for readers: `--help` and the reference in `docs/configuration.md`.

use super::{PARAMETERS, TENANT_PARAMETERS};
use std::fmt::Write as _;

/// What opens the reference.
const PREFACE: &str = "\
# Configuration

Pelton reads one TOML file, named by `-c`, and then each `--set section.key=value` in order. Every
key has a default: an empty file, or none, works. Sizes, durations and shares carry their unit in
quotes (\"256MiB\", \"250ms\", \"5%\"). A key that is not listed here is an error.

`pelton check` tests a configuration and the host without serving. `GET /config` on the admin port
shows the values in effect.

This page is written by `pelton settings --markdown`.
";

/// Every parameter as `section.key = default`, with its sentence: for `--help`.
#[must_use]
pub fn listing() -> String {
    let mut out = String::from("Configuration (section.key = default):\n");
    for row in PARAMETERS.iter().chain(TENANT_PARAMETERS) {
        let (section, key) = (row.section, row.key);
        writeln!(out, "  {section}.{key} = {}\n      {}", row.default, row.sentence)
            .expect("a string takes every character");
    }
    out
}

/// The reference as Markdown, one table a section.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(PREFACE);
    let mut section = "";
    for row in PARAMETERS.iter().chain(TENANT_PARAMETERS) {
        if row.section != section {
            section = row.section;
            // Of tenants there may be several.
            let (open, close) = if section == "tenant" { ("[[", "]]") } else { ("[", "]") };
            write!(
                out,
                "\n## {open}{section}{close}\n\n\
                 | key | default | expected | what it does |\n|---|---|---|---|\n"
            )
            .expect("a string takes every character");
        }
        let (key, default, sentence) = (row.key, row.default, row.sentence);
        let expected = row.kind.expected();
        writeln!(out, "| `{key}` | `{default}` | {expected} | {sentence} |")
            .expect("a string takes every character");
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_in_docs_is_the_table() {
        let page = include_str!("../../../docs/configuration.md");
        assert!(
            page == super::markdown(),
            "run: pelton settings --markdown > docs/configuration.md"
        );
    }
}
