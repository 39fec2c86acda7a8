//! `pelton explain`: asks a running server why a key is served as it is.

use super::ask;
use crate::admin::{
    EntryReport, ExplainReport, FetchReport, FlightReport, OriginReport, bounded_key, parse_key,
    percent_key,
};
use crate::config::Config;
use crate::error::{Exit, StartError};
use crate::mesh::{Key, State, Taken, Why};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

/// What is asked for, and of whom.
#[derive(Debug)]
pub(super) struct Explain {
    /// The key.
    pub(super) key: OsString,
    /// It is written as in a path.
    pub(super) is_percent: bool,
    /// The admin port, where it is not the configuration's.
    pub(super) admin: Option<SocketAddr>,
    /// Print the answer as it came.
    pub(super) json: bool,
}

/// Writes a few lines, or the answer itself.
///
/// # Errors
/// There is no such key, nothing answers, or it has no answer.
pub(super) fn run(
    config: &Config,
    arguments: &Explain,
    out: &mut dyn Write,
) -> Result<Exit, StartError> {
    let path = format!("/explain?key={}", percent_key(key(arguments)?.as_bytes()));
    let (report, body) = ask::report::<ExplainReport>(config, arguments.admin, &path)?;
    let text = if arguments.json { body } else { text(&report) };
    // A closed pipe is no reason to fail: whoever closed it has read enough.
    let _unread = out.write_all(text.as_bytes());
    Ok(Exit::Fine)
}

/// The key that was given.
fn key(arguments: &Explain) -> Result<Key, StartError> {
    let given = arguments.key.as_bytes();
    let key = if arguments.is_percent { parse_key(given) } else { bounded_key("key", given) };
    key.map_err(|why| {
        StartError::usage(
            format!("That is no key: {why}."),
            "Give it as it is, or with --percent as in a path, where %XX stands for a byte.",
        )
    })
}

fn text(report: &ExplainReport) -> String {
    let mut text = String::new();
    // Nothing in a key can move the cursor.
    let key = report.key.escape_debug();
    let mut line = |name: &str, what: String| {
        writeln!(text, "{name:<11} {what}").expect("a string grows");
    };
    line("key", format!("{key}, owned by shard {}", report.owner_shard));
    line("state", state(report.state).to_owned());
    if let Some(entry) = &report.entry {
        line("entry", value(entry));
        line("freshness", freshness(entry));
    }
    line("fetch", flight(report.fetch.as_ref()));
    line("last fetch", fetch(report.last_fetch.as_ref()));
    line("changes", changes(report));
    line("copies", copies(&report.copies));
    line("origin", origin(&report.origin));
    text
}

const fn state(state: State) -> &'static str {
    match state {
        State::Missing => "missing: not in memory, so the next request fetches it",
        State::Fresh => "fresh: served from memory",
        State::Stale => "stale: served from memory while it is fetched anew",
        State::Retained => "retained: fetched anew, and served if that fails",
        State::Absent => "absent: the origin does not have it, and is not asked",
        State::Expired => "expired: the next request fetches it",
        State::Purged => "purged: the next request fetches it",
    }
}

fn value(entry: &EntryReport) -> String {
    let EntryReport { age_seconds, size, content_type, etag, .. } = entry;
    match (size, content_type, etag) {
        (Some(size), Some(content_type), Some(etag)) => {
            format!("{size} bytes of {content_type}, {etag}, {age_seconds:.3} s old")
        }
        _ => format!("an absence, {age_seconds:.3} s old"),
    }
}

fn freshness(entry: &EntryReport) -> String {
    let mut text = match entry.fresh_seconds {
        None => return "for ever".to_owned(),
        Some(left @ 0.0..) => format!("{left:.3} s left"),
        Some(over) => format!("over since {:.3} s", -over),
    };
    for (left, what) in [
        (entry.stale_while_revalidate_seconds, "as stale"),
        (entry.stale_if_error_seconds, "where the origin fails"),
    ] {
        if let Some(left) = left.filter(|left| *left > 0.0) {
            write!(text, "; {what}: {left:.3} s").expect("a string grows");
        }
    }
    text
}

fn flight(fetch: Option<&FlightReport>) -> String {
    let Some(FlightReport { age_seconds, waiters, void }) = fetch else {
        return "none under way".to_owned();
    };
    let void = if *void { "; the key has changed since, so it is not kept" } else { "" };
    format!("under way since {age_seconds:.3} s, {waiters} wait for it{void}")
}

fn fetch(fetch: Option<&FetchReport>) -> String {
    let Some(fetch) = fetch else { return "none remembered".to_owned() };
    let FetchReport { age_seconds, answer, took_seconds, kept, fresh_seconds, .. } = fetch;
    let reason = reason(fetch.reason);
    let mut text = format!("{age_seconds:.3} s ago, since {reason}: {answer}");
    if answer == "pending" {
        return text;
    }
    let kept = match (kept, fresh_seconds) {
        (false, _) => "not kept".to_owned(),
        (true, None) => "kept, fresh for ever".to_owned(),
        (true, Some(fresh)) => format!("kept, fresh for {fresh:.3} s"),
    };
    let taken = match fetch.taken {
        None => "",
        Some(Taken::Purged) => "; purged since",
        Some(Taken::Changed) => "; changed at the origin since",
        Some(Taken::Written) => "; written since",
    };
    write!(text, " after {took_seconds:.6} s, {kept}{taken}").expect("a string grows");
    text
}

const fn reason(why: Why) -> &'static str {
    match why {
        Why::New => "no earlier fetch of it was remembered",
        Why::Early => "it is asked for often, and was soon to be stale",
        Why::Stale => "it was stale",
        Why::Expired => "it had expired",
        Why::Purged => "it was purged",
        Why::Changed => "it had changed at the origin",
        Why::Written => "it was written",
        Why::NotKept => "the fetch before left nothing",
        Why::Gone => "it had given way to others, or was purged with them",
    }
}

fn changes(report: &ExplainReport) -> String {
    let many = if report.purge_of_many { "; a purge of many keys is under way" } else { "" };
    match report.changes {
        0 => format!("none under way{many}"),
        count => format!("{count} under way{many}"),
    }
}

fn copies(shards: &[u16]) -> String {
    let shards: Vec<String> = shards.iter().map(u16::to_string).collect();
    if shards.is_empty() { "none".to_owned() } else { format!("in shards {}", shards.join(", ")) }
}

fn origin(origin: &OriginReport) -> String {
    let OriginReport { name, server, breaker } = origin;
    match (server, breaker) {
        (Some(server), Some(breaker)) => format!("{name}; {server} is asked, breaker {breaker}"),
        _ => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> ExplainReport {
        let entry = EntryReport {
            age_seconds: 61.5,
            fresh_seconds: Some(-1.5),
            stale_while_revalidate_seconds: Some(28.5),
            stale_if_error_seconds: Some(3598.5),
            size: Some(7),
            content_type: Some("text/plain".to_owned()),
            etag: Some("\"00c0ffee00c0ffee\"".to_owned()),
        };
        let fetch = FetchReport {
            age_seconds: 61.502,
            reason: Why::Gone,
            answer: "found".to_owned(),
            took_seconds: 0.002,
            kept: true,
            fresh_seconds: Some(60.0),
            taken: None,
        };
        ExplainReport {
            key: "a\u{1b}[2J".to_owned(),
            encoding: "text".to_owned(),
            owner_shard: 3,
            state: State::Stale,
            entry: Some(entry),
            fetch: Some(FlightReport { age_seconds: 0.25, waiters: 2, void: true }),
            last_fetch: Some(fetch),
            changes: 1,
            purge_of_many: false,
            copies: vec![0, 2],
            origin: OriginReport {
                name: "HTTP server a:1".to_owned(),
                server: Some("a:1".to_owned()),
                breaker: Some("closed".to_owned()),
            },
        }
    }

    #[test]
    fn a_key_is_explained_in_a_few_lines_without_control_characters() {
        let expected = "\
key         a\\u{1b}[2J, owned by shard 3
state       stale: served from memory while it is fetched anew
entry       7 bytes of text/plain, \"00c0ffee00c0ffee\", 61.500 s old
freshness   over since 1.500 s; as stale: 28.500 s; where the origin fails: 3598.500 s
fetch       under way since 0.250 s, 2 wait for it; the key has changed since, so it is not kept
last fetch  61.502 s ago, since it had given way to others, or was purged with them: found after \
            0.002000 s, kept, fresh for 60.000 s
changes     1 under way
copies      in shards 0, 2
origin      HTTP server a:1; a:1 is asked, breaker closed
";
        assert_eq!(text(&report()), expected);
    }

    #[test]
    fn what_is_not_there_is_not_spoken_of() {
        let mut report = ExplainReport {
            state: State::Missing,
            entry: None,
            fetch: None,
            last_fetch: None,
            changes: 0,
            copies: Vec::new(),
            origin: OriginReport { name: "a store".to_owned(), server: None, breaker: None },
            ..report()
        };
        let lines = text(&report);
        let lines: Vec<&str> = lines.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "fetch       none under way",
                "last fetch  none remembered",
                "changes     none under way",
                "copies      none",
                "origin      a store",
            ]
        );
        report.purge_of_many = true;
        assert!(text(&report).contains("a purge of many keys is under way"));
    }

    #[test]
    fn a_key_is_given_as_it_is_or_as_in_a_path() {
        let given = |key: &str, is_percent| {
            let explain = Explain { key: key.into(), is_percent, admin: None, json: false };
            super::key(&explain).map(|key| key.as_bytes().to_vec())
        };
        assert_eq!(given("a%20", false).unwrap(), b"a%20");
        assert_eq!(given("a%20", true).unwrap(), b"a ");
        for (key, is_percent) in [("", false), ("", true), ("a%2", true)] {
            assert_eq!(given(key, is_percent).unwrap_err().exit, Exit::Usage, "{key}");
        }
        let long = given(&"x".repeat(513), false).unwrap_err();
        assert!(long.what.contains("513 bytes"), "{long}");
    }
}
