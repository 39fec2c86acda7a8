//! Programs that we did not write, before our server and at it: `make test-peers` installs and runs
//! them. A program that is missing fails its tests; nothing is skipped.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "peers run on threads of their own")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]

mod certificate;
mod chain;
mod clients;
mod connections;
mod postgres;
mod proxy;
mod races;
mod reading;
mod recorder;
mod records;
mod redis;
mod redis_history;
mod redis_server;
mod shards;
mod slow;
mod upstream;

use std::process::Command;

/// A program from Debian, or a clear word on what is missing.
pub(crate) fn program(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path.split(':').map(|folder| format!("{folder}/{name}"));
    let found = found.into_iter().find(|file| std::path::Path::new(file).exists());
    Command::new(found.unwrap_or_else(|| panic!("{name} is missing: run `make test-peers`")))
}
