//! Plants the faults of `tests/mutants.toml` one at a time and says which test finds each:
//! `make mutants`, or `make mutants ONE=` with a part of a name.

#![expect(clippy::disallowed_methods, reason = "ONE= enters by the environment")]
#![expect(clippy::disallowed_types, reason = "it says how long each takes")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it says what it came to")]

use pelton_tests::mutants::table::{self, Mutant};
use pelton_tests::mutants::trial::{self, Timed};
use pelton_tests::mutants::workshop::Workshop;
use pelton_tests::process::root;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all were found but those that cannot be.
fn run() -> Result<bool, String> {
    let one = std::env::var("ONE").unwrap_or_default();
    let mut mutants = table::read()?;
    mutants.retain(|mutant| mutant.name.contains(&one));
    if mutants.is_empty() {
        return Err(format!("No fault has {one:?} in its name; tests/mutants.toml lists them."));
    }
    let workshop = Workshop::open()?;
    let scratch = root().join("target/mutants/output");
    let programs = trial::time_all(workshop.build()?, &scratch)?;
    println!("{} programs pass without a fault; {} faults", programs.len(), mutants.len());
    let mut found = 0;
    let mut excused = 0;
    for mutant in &mutants {
        let begun = Instant::now();
        let finder = try_one(&workshop, mutant, &programs, &scratch)?;
        let seconds = begun.elapsed().as_secs();
        match (&finder, &mutant.survives) {
            (Some(finder), _) => {
                found += 1;
                println!("found     {} | {finder} | {seconds} s", mutant.name);
            }
            (None, Some(reason)) => {
                excused += 1;
                println!("survives  {} | {reason} | {seconds} s", mutant.name);
            }
            (None, None) => println!("SURVIVES  {} | no test finds it | {seconds} s", mutant.name),
        }
    }
    println!("{found} of {} found, {excused} cannot be", mutants.len());
    Ok(found + excused == mutants.len())
}

fn try_one(
    workshop: &Workshop,
    mutant: &Mutant,
    programs: &[Timed],
    scratch: &std::path::Path,
) -> Result<Option<String>, String> {
    let path = root().join(&mutant.file);
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", mutant.file))?;
    workshop.write(&mutant.file, mutant.plant(&text)?.as_bytes())?;
    let built = workshop.build();
    let finder = built
        .map_err(|error| format!("{} does not compile:\n{error}", mutant.name))
        .and_then(|built| trial::find(programs, &built, scratch));
    workshop.restore(&mutant.file)?;
    finder
}
