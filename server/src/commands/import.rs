//! `pelton import FILE.jsonl[.gz]`: loads lines into the embedded store and says what became of
//! them.
//!
//! Owns what the user sees: progress, the first bad lines, the summary, the exit code. Ends with
//! 0 when every line was good, 3 (findings) when some were skipped, 1 when nothing was stored.

use crate::error::{Exit, StartError};
use crate::origin::import::{self, BadLine, EntryLimits, ImportFailure, Report};
use crate::origin::{Store, StoreOptions};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// How many bad lines are shown one by one.
const BAD_LINES_SHOWN_MAX: u64 = 20;

/// Without a terminal, a line of progress is written each time this much was read, bytes.
const PROGRESS_STEP_SIZE: u64 = 256 << 20;

/// What to import, and where to.
#[derive(Clone, Debug)]
pub(super) struct Import {
    /// The file, plain or gzip.
    pub(super) file: PathBuf,
    /// Do nothing when the store already holds keys.
    pub(super) if_empty: bool,
    /// The store.
    pub(super) store: StoreOptions,
    /// What keys and values are held to: `http.key_size_max`, `cache.value_size_max`.
    pub(super) limits: EntryLimits,
}

/// Runs `pelton import`; what the user should read goes to `out`, standard error.
///
/// # Errors
/// Nothing was stored: the file cannot be read or is truncated, or the store cannot be opened
/// (another process may hold it) or written.
pub(super) fn run(arguments: &Import, out: &mut dyn Write) -> Result<Exit, StartError> {
    // The file first: a wrong path must not leave an empty store behind.
    let file = File::open(&arguments.file).map_err(|error| unreadable(&arguments.file, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&arguments.file, &error))?;
    let store = Store::open(&arguments.store)?;
    if arguments.if_empty {
        let count = store.count().map_err(|error| failed(arguments, &error.into()))?;
        if count > 0 {
            say(out, &format!("{} keys are there already: nothing imported.", count));
            return Ok(Exit::Fine);
        }
    }
    let progress = Progress::new(metadata.len());
    let mut shown = 0;
    let report = {
        let input = CountedRead { file, progress: &progress, size: 0 };
        import::import(&store, input, arguments.limits, &mut |number, reason, detail| {
            if shown < BAD_LINES_SHOWN_MAX {
                let text = bad_line(number, reason, detail);
                progress.suspend(|| say(out, &text));
            }
            shown += 1;
        })
    };
    progress.finish();
    let report = report.map_err(|error| failed(arguments, &error))?;
    summarise(&report, out);
    Ok(if report.bad_count() == 0 { Exit::Fine } else { Exit::Findings })
}

/// One bad line, for the user.
fn bad_line(number: u64, reason: BadLine, detail: &str) -> String {
    if detail.is_empty() {
        return format!("line {number}: {}", reason.sentence());
    }
    format!("line {number}: {}: {detail}", reason.sentence())
}

/// What became of all lines.
fn summarise(report: &Report, out: &mut dyn Write) {
    say(
        out,
        &format!(
            "Imported {} of {} lines ({} replaced a value).",
            report.good_count,
            report.line_count(),
            report.replaced_count
        ),
    );
    for (reason, count) in BadLine::ALL.iter().zip(report.bad_counts) {
        if count > 0 {
            say(out, &format!("  skipped {count}: {}", reason.sentence()));
        }
    }
}

/// Writes one line for the user. When nobody can read it any more, the import still goes on.
fn say(out: &mut dyn Write, text: &str) {
    writeln!(out, "{text}").ok();
}

/// The file cannot be opened.
fn unreadable(file: &Path, error: &io::Error) -> StartError {
    StartError::failed(
        format!("{} cannot be read: {error}.", file.display()),
        "Name a file of JSON lines, plain or gzip.",
    )
}

/// The import failed and left nothing.
fn failed(arguments: &Import, error: &ImportFailure) -> StartError {
    let (file, store) = (arguments.file.display(), arguments.store.path.display());
    let remedy = match error {
        ImportFailure::Truncated => "Fetch or compress the file again: it was cut off.",
        ImportFailure::Read(_) => "Check that the file is readable and whole (gzip -t).",
        ImportFailure::Store(_) => "Check the disk's room and rights, then import again.",
    };
    StartError::failed(
        format!("{file} was not imported: {error}. The store {store} is as it was."),
        remedy,
    )
}

/// How far the import is: a bar on a terminal, now and then a line elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    size: u64,
}

impl Progress {
    /// Progress through `size` bytes of file.
    fn new(size: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}")
                .expect("the template is a constant");
            ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr())
                .with_style(style)
        });
        Self { bar, size }
    }

    /// `size` bytes are read, `before` of them earlier.
    fn advance(&self, before: u64, size: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(size);
        } else if before / PROGRESS_STEP_SIZE < size / PROGRESS_STEP_SIZE {
            let (read, all) = (size >> 20, self.size >> 20);
            say(&mut io::stderr(), &format!("read {read} of {all} MiB"));
        }
    }

    /// Writes something while the bar is out of the way.
    fn suspend(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Removes the bar.
    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The file, telling how much of it was read.
struct CountedRead<'a> {
    file: File,
    progress: &'a Progress,
    size: u64,
}

impl Read for CountedRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let before = self.size;
        self.size += u64::try_from(count).expect("a read's length fits");
        self.progress.advance(before, self.size);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(folder: &Path, text: &str) -> Import {
        let file = folder.join("in.jsonl");
        std::fs::write(&file, text).expect("written");
        Import {
            file,
            if_empty: false,
            store: StoreOptions { path: folder.join("store.redb"), cache_bytes: 1 << 20 },
            limits: EntryLimits { key_size_max: 512, value_size_max: 1_000 },
        }
    }

    fn run_text(arguments: &Import) -> (Exit, String) {
        let mut out = Vec::new();
        let exit = run(arguments, &mut out).expect("imported");
        (exit, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn bad_lines_are_shown_first_counted_all_and_end_with_findings() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!("{}{{\"key\":\"k\",\"value\":1}}\n", "\n".repeat(25));
        let (exit, said) = run_text(&arguments(folder.path(), &text));
        assert_eq!(exit, Exit::Findings);
        assert_eq!(said.lines().filter(|line| line.ends_with(": empty line")).count(), 21);
        assert!(said.contains("line 20: empty line\nImported 1 of 26 lines"), "{said}");
        assert!(said.contains("skipped 25: empty line"), "{said}");
    }

    #[test]
    fn if_empty_leaves_a_store_with_keys_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = arguments(folder.path(), "{\"key\":\"k\",\"value\":1}\n");
        arguments.if_empty = true;
        assert!(run_text(&arguments).1.starts_with("Imported 1 of 1"));
        let (exit, said) = run_text(&arguments);
        assert_eq!(
            (exit, said.as_str()),
            (Exit::Fine, "1 keys are there already: nothing imported.\n")
        );
    }

    #[test]
    fn a_missing_file_makes_no_store() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = arguments(folder.path(), "");
        arguments.file = folder.path().join("absent.jsonl");
        let error = run(&arguments, &mut Vec::new()).expect_err("missing");
        assert!(error.what.contains("absent.jsonl cannot be read"), "{error}");
        assert!(!arguments.store.path.exists());
    }

    #[test]
    fn a_held_store_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = arguments(folder.path(), "");
        let _store = Store::open(&arguments.store).expect("opens");
        let error = run(&arguments, &mut Vec::new()).expect_err("held");
        assert!(error.what.contains("is held by"), "{error}");
        assert_eq!(error.exit, Exit::Failed);
    }
}
