//! Listening Unix sockets, and the files by which they are found.
//!
//! A file outlives its listener: one that a dead process left behind is taken over, one that
//! somebody listens on is not, and our own is removed when its [`SocketFile`] is dropped.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

/// The file of a listening socket; dropped, it is removed.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: what has taken its place since is not ours.
    identity: (u64, u64),
}

/// A non-blocking socket that listens on `path`. Who may connect is decided by the umask.
///
/// # Errors
/// As bind(2) and listen(2) have them. `path` is in use: by a process, or by another file.
pub fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    let identity = identity(&fs::symlink_metadata(path)?);
    listener.set_nonblocking(true)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::other("a file that is no socket is in the way"));
    }
    // A datagram socket is refused by a stream socket in any case, and at once however busy its
    // process is; the reason says whether there is one.
    match UnixDatagram::unbound()?.connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.raw_os_error() != Some(libc::EPROTOTYPE) => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            // Left where it cannot be removed, it is stale, and the next start takes it over.
            let _stale = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_file_goes_with_its_listener_and_a_stale_one_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (listener, file) = listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).expect("the living one is left alone");
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists(), "stale");
        drop(listen(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        fs::write(&path, "precious").unwrap();
        assert!(listen(&path).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();

        let (_listener, file) = listen(&path).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        let (_other, _others) = listen(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
