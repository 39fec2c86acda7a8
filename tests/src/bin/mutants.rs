//! Plants the faults of `tests/mutants.toml` one at a time and says which test finds each:
//! `make mutants`. `ONE=` takes those with this in their names, `ALL=1` names every test program
//! that finds a fault and not only the first.

#![expect(clippy::disallowed_methods, reason = "ONE= and ALL= enter by the environment")]
#![expect(clippy::disallowed_types, reason = "it says how long each takes")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it says what it came to")]

use pelton_tests::mutants::table::{self, Mutant};
use pelton_tests::mutants::trial::{self, Timed};
use pelton_tests::mutants::workshop::Workshop;
use pelton_tests::process::root;
use std::path::PathBuf;
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

/// What faults are looked for with.
struct Trials {
    workshop: Workshop,
    /// Where programs write.
    scratch: PathBuf,
    baseline: Vec<Timed>,
    all: bool,
}

/// Whether all were found but those that cannot be.
fn run() -> Result<bool, String> {
    let one = std::env::var("ONE").unwrap_or_default();
    let mut mutants = table::read()?;
    mutants.retain(|mutant| mutant.name.contains(&one));
    if mutants.is_empty() {
        return Err(format!("No fault has {one:?} in its name; tests/mutants.toml lists them."));
    }
    let trials = Trials::prepare()?;
    println!("{} programs pass without a fault; {} faults", trials.baseline.len(), mutants.len());
    println!("\n| Fault | Found by | Seconds |\n|---|---|---|");
    let mut missed = Vec::new();
    let mut broken = Vec::new();
    for mutant in &mutants {
        let begun = Instant::now();
        let finders = match trials.try_one(mutant) {
            Ok(finders) => finders,
            Err(error) => {
                println!("| {} | does not build | {} |", mutant.name, begun.elapsed().as_secs());
                broken.push(format!("{}:\n{error}", mutant.name));
                continue;
            }
        };
        let found = match (&finders[..], &mutant.survives) {
            ([], Some(reason)) => format!("no test: {reason}"),
            ([], None) => {
                missed.push(&mutant.name);
                "**nothing**".to_owned()
            }
            (finders, _) => finders.join(", "),
        };
        println!("| {} | {found} | {} |", mutant.name, begun.elapsed().as_secs());
    }
    println!("\nNot found: {}", missed.len());
    missed.iter().for_each(|name| println!("  {name}"));
    broken.iter().for_each(|error| eprintln!("{error}"));
    Ok(missed.is_empty() && broken.is_empty())
}

impl Trials {
    fn prepare() -> Result<Self, String> {
        let workshop = Workshop::open()?;
        let scratch = root().join("target/mutants/output");
        let baseline = trial::time_all(workshop.build()?, &scratch)?;
        let all = std::env::var("ALL").is_ok_and(|all| all == "1");
        Ok(Self { workshop, scratch, baseline, all })
    }

    fn try_one(&self, mutant: &Mutant) -> Result<Vec<String>, String> {
        let path = root().join(&mutant.file);
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("{}: {error}", mutant.file))?;
        self.workshop.write(&mutant.file, mutant.plant(&text)?.as_bytes())?;
        let finders = self.look_for(mutant);
        self.workshop.restore(&mutant.file)?;
        finders
    }

    /// First with the tests that are built soonest, then with all others.
    fn look_for(&self, mutant: &Mutant) -> Result<Vec<String>, String> {
        let own = self.workshop.build_own(&mutant.file)?;
        let mut finders = trial::find(&self.baseline, &own, self.all, &self.scratch)?;
        if finders.is_empty() || self.all {
            let mut others = self.workshop.build()?;
            others.retain(|other| own.iter().all(|own| own.name != other.name));
            finders.extend(trial::find(&self.baseline, &others, self.all, &self.scratch)?);
        }
        Ok(finders)
    }
}
