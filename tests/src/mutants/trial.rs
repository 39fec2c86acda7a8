//! Runs test programs until one fails.

#![expect(clippy::disallowed_methods, reason = "a program that hangs is ended after a while")]
#![expect(clippy::disallowed_types, reason = "how long programs take decides their order")]

use super::workshop::Program;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take at least, and how many times what it takes without a fault.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_FACTOR: u32 = 5;

/// How often a program is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A program and how long it takes without a fault.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The program.
    pub program: Program,
    /// Without a fault.
    pub time: Duration,
}

/// Runs all programs without a fault; the quickest first.
///
/// # Errors
/// One fails: nothing can be learned from it.
pub fn time_all(programs: Vec<Program>, scratch: &Path) -> Result<Vec<Timed>, String> {
    let mut timed = Vec::new();
    for program in programs {
        let begun = Instant::now();
        if let Some(failure) = run(&program, PATIENCE * PATIENCE_FACTOR, scratch)? {
            return Err(format!("without a fault {} fails: {failure}", program.name));
        }
        timed.push(Timed { program, time: begun.elapsed() });
    }
    timed.sort_by_key(|timed| timed.time);
    Ok(timed)
}

/// What finds the fault that was built into some programs, in the order of the baseline: the first
/// of them that fails, or each if `all`.
///
/// # Errors
/// A program cannot be run.
pub fn find(
    baseline: &[Timed],
    built: &[Program],
    all: bool,
    scratch: &Path,
) -> Result<Vec<String>, String> {
    let mut finders = Vec::new();
    for Timed { program, time } in baseline {
        // A fault changes where cargo puts a program.
        let Some(built) = built.iter().find(|built| built.name == program.name) else { continue };
        let patience = PATIENCE.max(*time * PATIENCE_FACTOR);
        if let Some(failure) = run(built, patience, scratch)? {
            finders.push(format!("{}: {failure}", program.name));
            if !all {
                break;
            }
        }
    }
    Ok(finders)
}

/// Runs a program. Says how it failed, if it did.
fn run(program: &Program, patience: Duration, scratch: &Path) -> Result<Option<String>, String> {
    let cannot = |error: std::io::Error| format!("{} cannot be run: {error}", program.name);
    let output = File::create(scratch).map_err(cannot)?;
    let mut child = Command::new(&program.path)
        .current_dir(&program.folder)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(cannot)?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            break Some(status);
        }
        if begun.elapsed() > patience {
            break None;
        }
        std::thread::sleep(LOOK);
    };
    let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id is positive"));
    // What a test has started and left behind goes with it.
    let _gone = killpg(group, Signal::SIGKILL);
    let _reaped = child.wait();
    let text = fs::read(scratch).map_err(cannot)?;
    Ok(failure(status, &String::from_utf8_lossy(&text)))
}

fn failure(status: Option<ExitStatus>, output: &str) -> Option<String> {
    let Some(status) = status else { return Some("it does not end".to_owned()) };
    if status.success() {
        return None;
    }
    let failed = output.lines().find_map(|line| {
        line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
    });
    Some(failed.unwrap_or_else(|| status.to_string()))
}
