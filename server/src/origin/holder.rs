//! Who has a file open: asked when the store is locked, to name the process in the error.
//!
//! A guess for an operator, not a proof: processes of other users stay hidden, and a holder may be
//! gone by the time it is named.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that has the file open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its process id.
    pub(super) pid: u32,
    /// Its command line, at most [`COMMAND_SIZE_MAX`] bytes.
    pub(super) command: String,
}

/// How much of a command line is shown, bytes.
const COMMAND_SIZE_MAX: usize = 120;

/// The first process but this one found to have `path` open, by device and inode.
pub(super) fn holder(path: &Path) -> Option<Holder> {
    let file = fs::metadata(path).ok()?;
    let own = std::process::id();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        (pid != own && has_open(pid, file.dev(), file.ino()))
            .then(|| Holder { pid, command: command(pid) })
    })
}

/// Whether the process has a descriptor of that file.
fn has_open(pid: u32, device: u64, inode: u64) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::metadata(descriptor.path()).ok())
        .any(|open| open.dev() == device && open.ino() == inode)
}

/// The command line of a process, its arguments parted by spaces.
fn command(pid: u32) -> String {
    let mut bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.truncate(COMMAND_SIZE_MAX);
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    /// Asks until the answer is right: a test that starts a process at the same time lends it all
    /// files for an instant.
    #[expect(clippy::disallowed_methods, reason = "a test waits for processes")]
    fn becomes(path: &Path, is_right: impl Fn(Option<&Holder>) -> bool) -> bool {
        (0..1_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            is_right(holder(path).as_ref())
        })
    }

    #[test]
    fn another_process_that_has_the_file_open_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(becomes(file.path(), |found| found.is_none()), "only this process has it open");
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(file.reopen().expect("opened again"))
            .spawn()
            .expect("sleep starts");
        let expected = Holder { pid: child.id(), command: "sleep 1000".to_owned() };
        let is_named = becomes(file.path(), |found| found == Some(&expected));
        child.kill().expect("the child is ours");
        child.wait().expect("the child is reaped");
        assert!(is_named, "{expected:?}");
        assert!(becomes(file.path(), |found| found.is_none()), "who ended holds nothing");
    }
}
