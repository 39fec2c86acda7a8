//! The docs name what the tables in the code declare: metrics, and reasons to close.

use crate::source::Finding;
use pelton::error::CloseReason;
use pelton::metrics::{
    Class, Row, SAMPLE_TABLE, SERVER_TABLE, SNAPSHOT_TABLE, TABLE, TENANT_TABLE,
};

const PAGE: &str = "docs/metrics.md";

/// The page's line for one row of the table.
fn metric_line(row: &Row) -> String {
    let (suffix, class) = match row.class {
        Class::Counter => ("_total", "counter"),
        Class::Gauge => ("", "gauge"),
    };
    let label = if row.label.is_empty() { String::new() } else { format!("{{{}}}", row.label) };
    format!("| `{}{suffix}{label}` | {class} | {} |", row.name, row.sentence)
}

/// The page's line for one reason.
fn reason_line(reason: CloseReason) -> String {
    let error = if reason.is_error() { "yes" } else { "no" };
    format!("| `{}` | {error} | {} |", reason.name(), reason.sentence())
}

/// Which of the expected lines the page lacks.
fn missing(page: &str, expected: impl Iterator<Item = String>) -> Vec<Finding> {
    expected
        .filter(|line| !page.lines().any(|present| present == line))
        .map(|line| Finding {
            path: PAGE.to_owned(),
            line: 0,
            what: format!("lacks the line\n{line}"),
        })
        .collect()
}

/// The rows of all tables of metrics.
fn rows() -> impl Iterator<Item = &'static Row> {
    let tables = [TABLE, SAMPLE_TABLE, SNAPSHOT_TABLE, SERVER_TABLE, TENANT_TABLE];
    tables.into_iter().flatten()
}

/// Every row of the tables of metrics is on the page, word for word.
pub(crate) fn metrics(page: &str) -> Vec<Finding> {
    missing(page, rows().map(metric_line))
}

/// Every reason to close is on the page, word for word, and has its counter.
pub(crate) fn close_reasons(page: &str) -> Vec<Finding> {
    let mut findings = missing(page, CloseReason::ALL.iter().map(|&reason| reason_line(reason)));
    for reason in CloseReason::ALL {
        let label = format!("reason=\"{}\"", reason.name());
        let counted =
            |row: &Row| row.name == "pelton_connections_closed" && row.label == label.as_str();
        if !TABLE.iter().any(counted) {
            findings.push(Finding {
                path: "server/src/metrics.rs".to_owned(),
                line: 0,
                what: format!("no counter for {label}"),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_page_lacks_every_line() {
        assert_eq!(metrics("").len(), rows().count());
        assert_eq!(close_reasons("").len(), CloseReason::ALL.len());
    }

    #[test]
    fn a_whole_page_lacks_nothing() {
        let lines: Vec<String> = rows().map(metric_line).collect();
        assert_eq!(metrics(&lines.join("\n")).len(), 0);
    }

    #[test]
    fn a_line_gives_name_label_class_and_meaning() {
        let row = Row {
            field: "requests_hit",
            name: "pelton_requests",
            label: r#"outcome="hit""#,
            class: Class::Counter,
            sentence: "Lookups answered from memory.",
        };
        let line = "| `pelton_requests_total{outcome=\"hit\"}` | counter | \
                    Lookups answered from memory. |";
        assert_eq!(metric_line(&row), line);
    }
}
