//! `pelton hot`: asks a running server which keys are asked for most.

use super::ask;
use crate::admin::{HotKey, HotReport};
use crate::config::Config;
use crate::error::{Exit, StartError};
use std::io::{self, Write};
use std::net::SocketAddr;

/// What is asked for, and of whom.
#[derive(Debug)]
pub(super) struct Hot {
    /// The admin port, where it is not the configuration's.
    pub(super) admin: Option<SocketAddr>,
    /// How many keys.
    pub(super) top: u16,
    /// Print the answer as it came.
    pub(super) json: bool,
}

/// Writes a table, or the answer itself.
///
/// # Errors
/// Nothing answers, or it has no answer.
pub(super) fn run(
    config: &Config,
    arguments: &Hot,
    out: &mut dyn Write,
) -> Result<Exit, StartError> {
    let path = format!("/hot?top={}", arguments.top);
    let (report, body) = ask::report::<HotReport>(config, arguments.admin, &path)?;
    // A closed pipe is no reason to fail: whoever closed it has read enough.
    let _unread = if arguments.json { out.write_all(body.as_bytes()) } else { print(&report, out) };
    Ok(Exit::Fine)
}

fn print(report: &HotReport, out: &mut dyn Write) -> io::Result<()> {
    let HotReport { window_seconds, sampled_one_in, samples, keys } = report;
    writeln!(
        out,
        "{samples} lookups of the last {window_seconds:.1} s were counted, one in {sampled_one_in}"
    )?;
    let shown: Vec<String> = keys.iter().map(name).collect();
    let width = shown.iter().map(|key| key.chars().count()).max().unwrap_or(0).max(3);
    writeln!(out, "RANK  {:width$}  REQUESTS     ERROR     BYTES    REMOTE  OWNER", "KEY")?;
    for ((rank, key), name) in (1..).zip(keys).zip(&shown) {
        let [requests, error, bytes, remote] =
            [key.requests_share, key.requests_share_error, key.bytes_share, key.remote_share]
                .map(|share| format!("{:.2}%", share * 100.0));
        write!(out, "{rank:>4}  {name:width$}  {requests:>8}  {error:>8}  ")?;
        writeln!(out, "{bytes:>8}  {remote:>8}  {:>5}", key.owner_shard)?;
    }
    Ok(())
}

/// A key on a terminal: nothing in it can move the cursor.
fn name(key: &HotKey) -> String {
    let cut = if key.cut { "..." } else { "" };
    format!("{}{cut}", key.key.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_key_and_no_control_characters() {
        let key = |key: &str, cut| HotKey {
            key: key.to_owned(),
            encoding: "text".to_owned(),
            cut,
            requests_share: 0.25,
            requests_share_error: 0.001,
            bytes_share: 0.5,
            remote_share: 1.0,
            owner_shard: 3,
        };
        let report = HotReport {
            window_seconds: 12.34,
            sampled_one_in: 8,
            samples: 800,
            keys: vec![key("k1", false), key("a\u{1b}[2J", true)],
        };
        let mut out = Vec::new();
        print(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "800 lookups of the last 12.3 s were counted, one in 8",
                "RANK  KEY            REQUESTS     ERROR     BYTES    REMOTE  OWNER",
                "   1  k1               25.00%     0.10%    50.00%   100.00%      3",
                "   2  a\\u{1b}[2J...    25.00%     0.10%    50.00%   100.00%      3",
            ]
        );
    }
}
