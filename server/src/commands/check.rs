//! `pelton check`: what of this host the server would stumble over, before it does.

use crate::config::Config;
use crate::error::Exit;
use crate::host::{self, Facts, Finding, Granted, Severity, steering};
use crate::server::Ports;
use crate::token::Token;
use std::io::{self, Write};

/// Writes a table of findings and how to fix what is wrong. Ends with [`Exit::Findings`] if
/// something is fatal.
pub(super) fn run(config: &Config, out: &mut dyn Write) -> Exit {
    let facts = Facts::gather(host::PROBE);
    let mut findings = facts.findings();
    findings.push(bounds(&facts, config));
    findings.push(token(config));
    if let Ok(granted) = host::grant_on(&facts, config) {
        findings.push(ports(&granted, config));
        findings.extend(steering::findings(config, &granted.cores));
    }
    // A closed pipe is no reason to fail: the exit code still says it.
    let _unread = print(&findings, out);
    let is_fatal = |finding: &Finding| finding.severity == Severity::Fatal && finding.fix.is_some();
    if findings.iter().any(is_fatal) { Exit::Findings } else { Exit::Fine }
}

/// Whether cores, memory and descriptors suffice for this configuration.
fn bounds(facts: &Facts, config: &Config) -> Finding {
    let granted = host::grant_on(facts, config);
    let (current, fix) = match &granted {
        Ok(granted) => (
            format!(
                "{} shards, {} connections each, {} MiB",
                granted.cores.len(),
                granted.limits.connections_max,
                granted.bill.total() >> 20
            ),
            None,
        ),
        Err(error) => ("not enough".to_owned(), Some(error.to_string())),
    };
    Finding {
        condition: "configuration",
        required: "cores, memory and open files for it".into(),
        current,
        severity: Severity::Fatal,
        fix,
    }
}

/// Whether there is a token for those who need one.
fn token(config: &Config) -> Finding {
    let (current, fix) = match Token::of(config) {
        Ok(Some(_)) => ("there is one", None),
        Ok(None) => ("off: nobody may purge or write", None),
        Err(error) => ("not to be had", Some(error.to_string())),
    };
    Finding {
        condition: "token",
        required: "one, where http.writes is true".into(),
        current: current.into(),
        severity: Severity::Fatal,
        fix,
    }
}

/// Where each shard listens for itself. Whether the ports are free shows at the start: here the
/// server that is to be replaced may hold them.
fn ports(granted: &Granted, config: &Config) -> Finding {
    let (current, fix) = match Ports::new(config, granted.limits.shards) {
        Ok(ports) => (ports.own_text().unwrap_or_else(|| "none".to_owned()), None),
        Err(error) => ("not to be had".to_owned(), Some(error.to_string())),
    };
    Finding {
        condition: "shards' ports",
        required: "a range that nothing else has".into(),
        current,
        severity: Severity::Fatal,
        fix,
    }
}

fn print(findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<15} {:<36} {:<42} {:<9} PASSED",
        "CONDITION", "REQUIRED", "CURRENT", "SEVERITY"
    )?;
    for Finding { condition, required, current, severity, fix } in findings {
        let severity = match severity {
            Severity::Fatal => "fatal",
            Severity::Warning => "warning",
        };
        let passed = if fix.is_none() { "yes" } else { "no" };
        writeln!(out, "{condition:<15} {required:<36} {current:<42} {severity:<9} {passed}")?;
    }
    for Finding { condition, fix, .. } in findings {
        if let Some(fix) = fix {
            writeln!(out, "FIX {condition}: {fix}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_every_condition_and_every_fix() {
        let finding = |condition, fix: Option<&str>| Finding {
            condition,
            required: "this".into(),
            current: "that".into(),
            severity: Severity::Fatal,
            fix: fix.map(str::to_owned),
        };
        let mut out = Vec::new();
        print(&[finding("first", None), finding("second", Some("do so"))], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("FIX second: do so"), "{text}");
    }

    #[test]
    fn a_configuration_beyond_the_machine_is_fatal() {
        let config = Config::parse("test", "", &["cache.memory=900TiB".into()]).unwrap();
        let mut out = Vec::new();
        assert_eq!(run(&config, &mut out), Exit::Findings);
    }

    #[test]
    fn writes_without_a_token_are_fatal() {
        let sets = ["http.writes=true".into(), "cache.memory=64MiB".into()];
        let config = Config::parse("test", "", &sets).unwrap();
        let mut out = Vec::new();
        assert_eq!(run(&config, &mut out), Exit::Findings);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("FIX token: ") && text.contains("admin.token_file"), "{text}");
    }

    #[test]
    fn the_shards_ports_are_shown_and_those_that_cannot_be_had_are_fatal() {
        let check = |port: &str| {
            let sets = [format!("server.shard_ports={port}"), "cache.memory=64MiB".into()];
            let config = Config::parse("test", "", &sets).unwrap();
            let mut out = Vec::new();
            let exit = run(&config, &mut out);
            (exit, String::from_utf8(out).unwrap())
        };
        let (exit, text) = check("9000");
        assert!(exit == Exit::Fine && text.contains(" 0.0.0.0:9000-900"), "{text}");
        let (exit, text) = check("8080");
        assert!(exit == Exit::Findings && text.contains("FIX shards' ports: "), "{text}");
    }

    #[test]
    fn steering_that_the_host_cannot_do_is_fatal() {
        let listen = r#"server.listen=["127.0.0.1:80"]"#;
        let sets = [listen.into(), "server.steer=cpu".into(), "cache.memory=64MiB".into()];
        let config = Config::parse("test", "", &sets).unwrap();
        let mut out = Vec::new();
        assert_eq!(run(&config, &mut out), Exit::Findings);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("FIX server.steer: "), "{text}");
    }
}
