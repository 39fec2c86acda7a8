//! Memory that lives as long as the process: mapped once, never unmapped.
//!
//! A page fault in a shard's turn costs milliseconds, so arenas are populated ahead of use by a
//! helper thread, piece by piece; a shard touches only pieces reported as populated.

use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Anonymous memory for the rest of the process's life.
#[derive(Debug)]
pub struct Mapping {
    /// Zeroed bytes, aligned to a page.
    pub bytes: &'static mut [u8],
    /// What populates them.
    pub populate: Populate,
}

/// The right to populate a mapping from another thread, without access to its contents.
#[derive(Debug)]
pub struct Populate {
    address: usize,
    size: usize,
}

/// Maps `size` bytes, none of them populated, and asks for huge pages where the host grants them.
///
/// # Errors
/// `ENOMEM`, as mmap(2) has it.
pub fn map(size: usize) -> io::Result<Mapping> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY:
    // - A null hint lets the kernel choose an address that is not in use.
    let address = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY:
    // - The range was mapped by the call above; the advice changes no contents.
    // - A refusal is harmless: the pages are small ones then.
    let _refused = unsafe { libc::madvise(address, size, libc::MADV_HUGEPAGE) };
    // SAFETY:
    // - The mapping is `size` bytes long, readable, writable and zeroed by the kernel.
    // - It is never unmapped, so `'static` holds, and this is its only reference.
    let bytes = unsafe { std::slice::from_raw_parts_mut(address.cast::<u8>(), size) };
    Ok(Mapping { bytes, populate: Populate { address: address.addr(), size } })
}

impl Populate {
    /// Populates the first `uncounted_size` bytes, then the rest in pieces of `piece_size` bytes,
    /// and counts these in `ready`. Blocks for the time the kernel needs to clear the pages.
    ///
    /// # Errors
    /// `ENOMEM` where the host or the cgroup has no memory left, `EINVAL` before Linux 5.14.
    pub fn run(
        self,
        uncounted_size: usize,
        piece_size: usize,
        ready: &Arc<AtomicU32>,
    ) -> io::Result<()> {
        for offset in (0..self.size).step_by(piece_size) {
            let size = piece_size.min(self.size - offset);
            let address = ptr::without_provenance_mut(self.address + offset);
            // SAFETY:
            // - The range lies in a mapping that is never unmapped.
            // - MADV_POPULATE_WRITE faults pages in as if by a write, and leaves contents alone.
            let failed = unsafe { libc::madvise(address, size, libc::MADV_POPULATE_WRITE) } != 0;
            if failed {
                return Err(io::Error::last_os_error());
            }
            if offset >= uncounted_size {
                ready.fetch_add(1, Ordering::Release);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_zeroed_writable_and_counts_its_populated_pieces() {
        let mapping = map(1 << 20).unwrap();
        let ready = Arc::new(AtomicU32::new(0));
        mapping.populate.run(512 << 10, 256 << 10, &ready).unwrap();
        assert_eq!(ready.load(Ordering::Acquire), 2);
        assert!(mapping.bytes.iter().all(|byte| *byte == 0));
        mapping.bytes[(1 << 20) - 1] = 7;
    }
}
