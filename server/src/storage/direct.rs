//! A store by direct I/O on a `glommio` executor: pages pass the kernel's page cache by, so that a
//! snapshot pushes nothing out of it.
//!
//! The executor panics where a block device does not describe itself, so the host is probed before
//! one is made. And it decides by the first file that it opens on a device whether the device can
//! be polled for completions, wrongly if that file is empty: the probe has it open one that is not.

use super::store::{Folder, SnapshotStore};
use crate::mesh::PAGE_ALIGN;
use glommio::io::{DmaFile, OpenOptions};
use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement};
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// Bytes of one read or write: some kernels hang on direct ones beyond the device's bound, which
/// is this or more everywhere.
const PIECE_SIZE: usize = 64 << 10;

/// Memory that the executor keeps for buffers: a few pieces.
const IO_MEMORY: usize = 2 << 20;

/// The file that is opened first.
const PROBE: &str = "probe";

/// What a device must say of itself, or the executor panics.
const QUEUE_FILES: [&str; 8] = [
    "rotational",
    "minimum_io_size",
    "optimal_io_size",
    "logical_block_size",
    "physical_block_size",
    "max_sectors_kb",
    "max_segment_size",
    "write_cache",
];

/// The executor of a host on which files of a folder can be read and written directly.
///
/// # Errors
/// Why they cannot.
pub(super) fn probe(folder: &Folder) -> io::Result<LocalExecutor> {
    describe_itself(&folder.path("lock"))?;
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY)
        .make()
        .map_err(io::Error::from)?;
    folder.put(PROBE, &[7; PAGE_ALIGN])?;
    let read = executor.run(async {
        let file = options().read(true).write(true).dma_open(folder.path(PROBE)).await?;
        let read = file.read_at_aligned(0, PAGE_ALIGN).await;
        let mut buffer = file.alloc_dma_buffer(PAGE_ALIGN);
        buffer.as_bytes_mut().fill(8);
        let written = file.write_at(buffer, 0).await;
        file.close().await?;
        written?;
        io::Result::Ok(read?[..] == [7; PAGE_ALIGN])
    });
    folder.remove(PROBE)?;
    match read? {
        true => Ok(executor),
        false => Err(io::Error::other("a direct read returns other bytes than were written")),
    }
}

/// Whether the device of a file has all that the executor asks for.
fn describe_itself(path: &Path) -> io::Result<()> {
    let device = fs::metadata(path)?.dev();
    // As glibc's major(3) has it.
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let device = format!("/sys/dev/block/{major}:0");
    match fs::canonicalize(&device) {
        // Memory, or a network: taken as a device without properties.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(device) => {
            fs::read_dir(device.join("slaves"))?;
            QUEUE_FILES.iter().try_for_each(|name| {
                fs::read_to_string(device.join("queue").join(name)).map(|_| ())
            })
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

/// A store by direct I/O. Its futures must run on the executor of [`probe`].
pub(super) struct Direct {
    folder: Folder,
    file: Option<DmaFile>,
    offset: u64,
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Direct {
    /// A store in this folder, which was probed.
    #[must_use]
    pub(super) const fn new(folder: Folder) -> Self {
        Self { folder, file: None, offset: 0 }
    }

    fn file(&self) -> &DmaFile {
        self.file.as_ref().expect("a file is open")
    }
}

impl SnapshotStore for Direct {
    async fn create(&mut self, name: &str) -> io::Result<()> {
        let path = self.folder.path(name);
        self.file = Some(options().write(true).create_new(true).dma_open(path).await?);
        self.offset = 0;
        Ok(())
    }

    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_SIZE) {
            let mut buffer = self.file().alloc_dma_buffer(piece.len());
            buffer.as_bytes_mut().copy_from_slice(piece);
            let written = self.file().write_at(buffer, self.offset).await?;
            if written != piece.len() {
                return Err(ErrorKind::WriteZero.into());
            }
            self.offset += piece.len() as u64;
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        let file = self.file.take().expect("a file is open");
        let synced = file.fdatasync().await;
        file.close().await?;
        Ok(synced?)
    }

    async fn open(&mut self, name: &str) -> io::Result<u64> {
        let file = options().read(true).dma_open(self.folder.path(name)).await?;
        let size = file.file_size().await;
        self.file = Some(file);
        Ok(size?)
    }

    async fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        for (at, piece) in (offset..).step_by(PIECE_SIZE).zip(into.chunks_mut(PIECE_SIZE)) {
            let read = self.file().read_at_aligned(at, piece.len()).await?;
            let read = read.get(..piece.len()).ok_or(ErrorKind::UnexpectedEof)?;
            piece.copy_from_slice(read);
        }
        Ok(())
    }

    async fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // It was read, or its writing has failed: nothing can be lost.
            let _closed: Result<(), GlommioError<()>> = file.close().await;
        }
    }

    async fn pause(&mut self, duration: Duration) {
        glommio::timer::sleep(duration).await;
    }

    fn folder(&self) -> &Folder {
        &self.folder
    }
}
