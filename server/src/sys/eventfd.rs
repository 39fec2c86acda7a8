//! An eventfd: how one thread wakes another that waits in the kernel.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A counter in the kernel. A write adds one, a read waits for a write and clears it.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// An eventfd that a ring watches: a ring answers `EAGAIN` at once for a non-blocking one.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE` or `ENOMEM`, as eventfd(2) has them.
    pub fn for_ring() -> io::Result<Self> {
        Self::new(libc::EFD_CLOEXEC)
    }

    /// An eventfd that an async runtime watches: non-blocking.
    ///
    /// # Errors
    /// As [`EventFd::for_ring`].
    pub fn for_runtime() -> io::Result<Self> {
        Self::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)
    }

    fn new(flags: i32) -> io::Result<Self> {
        // SAFETY:
        // - eventfd(2) takes two integers and touches no memory of ours.
        let fd = unsafe { libc::eventfd(0, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY:
        // - `fd` is open: the call above has just returned it.
        // - Nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Registers it with the async runtime that this is called in.
    ///
    /// # Errors
    /// `ENOMEM`, or the limit on watched files, as epoll_ctl(2) has them.
    pub fn watch(self) -> io::Result<AsyncFd<File>> {
        let file = File::from(self.0);
        // SAFETY:
        // - The file owns its descriptor, always names the same one, and lives inside the result.
        unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }
            .map_err(io::Error::from)
    }

    /// Adds one; wakes whoever waits.
    pub fn signal(&self) {
        signal(self.0.as_raw_fd());
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Adds one to the eventfd `fd`. A full counter is as good as a signal, so nothing can fail.
pub(crate) fn signal(fd: RawFd) {
    let one = 1_u64;
    // SAFETY:
    // - `one` is valid for reads of its 8 bytes for the length of the call.
    let written = unsafe { libc::write(fd, (&raw const one).cast(), size_of_val(&one)) };
    assert!(
        written == 8 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock,
        "an open eventfd takes a signal or is full of them"
    );
}
