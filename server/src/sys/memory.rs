//! Memory that lives as long as the process: mapped once, never unmapped.
//!
//! A page fault in a shard's turn costs milliseconds, so arenas are populated ahead of use by a
//! helper thread, piece by piece; a shard touches only pieces reported as populated.

use std::io;
use std::ptr;

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
    /// Bytes populated so far.
    done: usize,
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
    Ok(Mapping { bytes, populate: Populate { address: address.addr(), size, done: 0 } })
}

impl Populate {
    /// Populates up to `size_max` more bytes. Blocks for the time the kernel needs to clear the
    /// pages. Returns the bytes populated so far, or `None` if there was nothing left to do.
    ///
    /// # Errors
    /// `ENOMEM` where the host or the cgroup has no memory left, `EINVAL` before Linux 5.14.
    pub fn step(&mut self, size_max: usize) -> io::Result<Option<usize>> {
        let size = size_max.min(self.size - self.done);
        if size == 0 {
            return Ok(None);
        }
        let address = ptr::without_provenance_mut(self.address + self.done);
        // SAFETY:
        // - The range lies in a mapping that is never unmapped.
        // - MADV_POPULATE_WRITE faults pages in as if by a write, and leaves contents alone.
        let failed = unsafe { libc::madvise(address, size, libc::MADV_POPULATE_WRITE) } != 0;
        if failed {
            return Err(io::Error::last_os_error());
        }
        self.done += size;
        Ok(Some(self.done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_zeroed_writable_and_populated_step_by_step() {
        let mut mapping = map(1 << 20).unwrap();
        let mut step = || mapping.populate.step(400 << 10).unwrap();
        assert_eq!([step(), step()], [Some(400 << 10), Some(800 << 10)]);
        assert_eq!([step(), step()], [Some(1 << 20), None]);
        assert!(mapping.bytes.iter().all(|byte| *byte == 0));
        mapping.bytes[(1 << 20) - 1] = 7;
    }
}
