//! Plays every script of `tests/scripts` wherever it can be played.
//!
//! `WIRE=c04` plays the scripts whose names begin so.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::tests_outside_test_module, reason = "an integration test")]
#![expect(clippy::disallowed_methods, reason = "what is wanted enters by the environment")]

use pelton_tests::process::root;
use pelton_tests::wire::{Only, Pieces, ProcessStage, Script, SimulatorStage, play};

/// Simulated worlds for each script: seeds and pieces; seed 0 is a kernel on its best day.
const WORLDS: &[(u64, usize)] =
    &[(0, usize::MAX), (1, 1), (2, 7), (3, usize::MAX), (4, 1), (5, 100)];

/// Pieces that real connections are cut into.
const CUTS: &[usize] = &[usize::MAX, 1];

/// Scripts that play on one stage alone; a new one is counted here on purpose.
const ONLY_SIMULATOR: usize = 33;

fn scripts() -> Vec<Script> {
    let wanted = std::env::var("WIRE").unwrap_or_default();
    let folder = root().join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let named = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let texts = paths.iter().filter(|path| named(path).starts_with(&wanted));
    let read = |path| Script::parse(&named(path), &std::fs::read_to_string(path).unwrap());
    texts.map(|path| read(path).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// Whether only some scripts are wanted.
fn is_part() -> bool {
    std::env::var_os("WIRE").is_some_and(|name| !name.is_empty())
}

fn report(failures: &[String]) {
    assert!(failures.is_empty(), "{} failed\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_simulated_world_plays_every_script() {
    let mut failures = Vec::new();
    for script in scripts().iter().filter(|script| script.only != Some(Only::Process)) {
        for &(seed, pieces) in WORLDS {
            let mut stage = SimulatorStage::new(script, seed, Pieces(pieces));
            if let Err(error) = play(script, &mut stage) {
                failures.push(format!("seed {seed}, pieces of {pieces}: {error}"));
                break;
            }
        }
    }
    report(&failures);
}

#[test]
fn batches_need_room_for_one_reply_alone() {
    for script in scripts().iter().filter(|script| script.name.starts_with('g')) {
        let mut stage =
            SimulatorStage::of_config((&script.file, &script.config), 1, Pieces(7), 2, |limits| {
                limits.replies_per_connection_max = 1;
                limits.requests_per_connection_turn_max = 1;
            });
        play(script, &mut stage).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_real_binary_plays_every_script_that_it_can() {
    let scripts = scripts();
    let playable = scripts.iter().filter(|script| script.only != Some(Only::Simulator));
    let (own, shared): (Vec<&Script>, Vec<&Script>) =
        playable.partition(|script| script.wants_own_server());
    let mut failures = Vec::new();
    let mut try_play = |script: &Script, stage: &mut ProcessStage, pieces: usize| {
        stage.cut(Pieces(pieces));
        if let Err(error) = play(script, stage) {
            failures.push(format!("pieces of {pieces}: {error}"));
        }
    };
    if !shared.is_empty() {
        let mut stage = ProcessStage::start(&shared);
        for script in shared {
            for &pieces in CUTS {
                try_play(script, &mut stage, pieces);
            }
        }
    }
    for script in own {
        for &pieces in CUTS {
            try_play(script, &mut ProcessStage::start(&[script]), pieces);
        }
    }
    report(&failures);
}

#[test]
fn no_script_is_kept_from_a_stage_unnoticed() {
    if is_part() {
        return;
    }
    let scripts = scripts();
    let count = |only| scripts.iter().filter(|script| script.only == only).count();
    assert_eq!(count(Some(Only::Simulator)), ONLY_SIMULATOR);
    assert_eq!(count(Some(Only::Process)), 0);
}

/// The script with its last status or counter another one.
fn falsified(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().rposition(|line| line.contains(" < ") || line.contains("_total"))?;
    let line = match lines[last].split_once(" < ") {
        Some((client, _)) => format!("{client} < 299"),
        None => format!("{}9", lines[last]),
    };
    let mut lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
    lines[last] = line;
    Some(lines.join("\n"))
}

#[test]
fn every_script_can_fail() {
    for script in scripts() {
        let path = root().join("tests/scripts").join(&script.name);
        let text = std::fs::read_to_string(path).unwrap();
        let text = falsified(&text).expect("every script expects a status or a count");
        let script = Script::parse(&script.name, &text).unwrap_or_else(|error| panic!("{error}"));
        let mut stage = SimulatorStage::new(&script, 0, Pieces(usize::MAX));
        let error = play(&script, &mut stage).expect_err(&script.name);
        assert!(error.contains("299") || error.contains("_total"), "{error}");
    }
}

/// Names in backquotes at the end of a row of the page's table under `heading`.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let part = page.split(heading).nth(1).expect(heading);
    let part = part.split("\n## ").next().unwrap();
    part.lines().filter(|line| line.starts_with("| ")).skip(1).collect()
}

#[test]
fn the_page_lists_the_scripts_and_its_checklist_names_them() {
    let page = std::fs::read_to_string(root().join("docs/wire.md")).unwrap();
    let names: Vec<String> = scripts().iter().map(|s| s.name.replace(".wire", "")).collect();
    if !is_part() {
        let listed = rows(&page, "## The scripts");
        let row = |script: &Script| {
            format!("| `{}` | {} |", script.name.replace(".wire", ""), script.title)
        };
        let expected: Vec<String> = scripts().iter().map(row).collect();
        assert_eq!(listed, expected, "docs/wire.md, The scripts");
        let checklist = rows(&page, "## The checklist");
        assert!(checklist.len() > 20, "the checklist is there");
        for line in checklist {
            let shown = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            let mut shown = shown.split('`').skip(1).step_by(2).peekable();
            assert!(shown.peek().is_some(), "no script shows {line}");
            for name in shown {
                assert!(names.iter().any(|other| other == name), "no script {name}: {line}");
            }
        }
    }
}
