//! `pelton serve`: starts the server, says where it is, and stops it when told to.

#![expect(clippy::print_stderr, reason = "the greeting goes to standard error")]
#![expect(clippy::exit, reason = "a second signal and a drain that takes too long end the process")]
#![expect(clippy::disallowed_methods, reason = "one thread waits for the second signal")]

use crate::config::Config;
use crate::error::{Exit, StartError};
use crate::limits::{Limits, size_text_short};
use crate::origin;
use crate::server::{Facts, Server};
use crate::sys::signal::StopSignals;
use std::process;
use std::time::Duration;

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once.
///
/// # Errors
/// What keeps the server from starting.
pub(super) fn run(config: &Config) -> Result<Exit, StartError> {
    // Before any thread is started: threads inherit the mask.
    let signals = StopSignals::block().map_err(|error| {
        StartError::failed(format!("Cannot block signals: {error}."), "This is a bug; report it.")
    })?;
    let for_origin = config.clone();
    let make_origin = move |limits: &Limits| origin::open(&for_origin, limits);
    let mut server = Server::start(config, Box::new(make_origin))?;
    greet(server.facts());
    signals.wait();
    eprintln!("stopping: answering what is in flight; a second signal ends at once");
    server.drain();
    let saves = config.snapshot.path.is_some() && config.snapshot.on_exit;
    let for_snapshot = if saves { config.snapshot.exit_timeout } else { Duration::ZERO };
    let patience = config.server.drain_timeout + for_snapshot;
    std::thread::spawn(move || {
        if signals.wait_for(patience) {
            eprintln!("stopped by a second signal");
            process::exit(Exit::Failed as i32);
        }
        eprintln!("stopped: what was still in flight after server.drain_timeout is cut off");
        process::exit(Exit::Fine as i32);
    });
    server.join();
    eprintln!("stopped");
    Ok(Exit::Fine)
}

/// Says where the server is, what it uses, and what to try.
fn greet(facts: &Facts) {
    let cores: Vec<String> = facts.cores.iter().map(ToString::to_string).collect();
    eprintln!("pelton {} (process {})", env!("CARGO_PKG_VERSION"), process::id());
    for address in &facts.ports.shared {
        eprintln!("  data    http://{address}");
    }
    for path in &facts.ports.paths {
        eprintln!("  data    unix:{}", path.display());
    }
    if let Some(own) = facts.ports.own_text() {
        eprintln!("  each    {own}");
    }
    match facts.admin {
        Some(address) => eprintln!("  admin   http://{address}"),
        None => eprintln!("  admin   off"),
    }
    eprintln!("  shards  {} on cores {}", cores.len(), cores.join(", "));
    eprintln!("  memory  {} in all:", size_text_short(facts.bill.total()));
    for line in facts.bill.to_string().lines() {
        eprintln!("        {line}");
    }
    eprintln!("  origin  {}", facts.origin);
    let via = match (facts.ports.shared.first(), facts.ports.paths.first()) {
        (Some(address), _) => format!("http://localhost:{}", address.port()),
        (None, Some(path)) => format!("--unix-socket {} http://localhost", path.display()),
        (None, None) => unreachable!("server.listen is never empty"),
    };
    eprintln!("  try     curl -i {via}/lookup/2643743");
    eprintln!("          curl -i {via}/healthz");
    if let Some(address) = facts.admin {
        eprintln!("          curl http://{address}/metrics");
    }
    eprintln!("  ready");
}
