//! Snapshots of simulated shards, written to a real folder by the real storage plane, on a disk
//! that fails when it is told to.

#![expect(clippy::disallowed_types, reason = "store and test share a world, in one thread")]

use crate::wire::{Pieces, SimulatorStage, Source, Stage};
use pelton::mesh::{Control, StoragePort};
use pelton::shard::Settings;
use pelton::storage::{
    Arena, Clocks, Folder, Loaded, NotLoaded, NotSaved, Plain, Saved, SnapshotStore, Task, at_once,
};
use shard_cache::time::Instant;
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Where the simulated clock stands when a world begins: what it reads was stored before.
const BEFORE_MS: u64 = 1 << 32;

/// What a disk does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    None,
    /// So many operations work, and the next one fails.
    Once(u32),
    /// So many operations work, and all others fail: what a process leaves that is killed there.
    Dead(u32),
}

/// A world of shards with an origin.
#[derive(Debug)]
pub struct World {
    stage: Rc<RefCell<SimulatorStage>>,
    ports: Vec<StoragePort>,
    control: Control,
    page_size: usize,
    settings: Settings,
    /// The machine's clocks when the world began.
    began: Clocks,
}

/// A store whose disk fails, and that lets the world go on while it waits.
#[derive(Debug)]
struct Sick {
    plain: Plain,
    stage: Rc<RefCell<SimulatorStage>>,
    fault: Fault,
    operations: u32,
}

/// The value of key `number` in its `version`.
#[must_use]
pub fn value(number: usize, version: u32) -> Vec<u8> {
    format!(
        "{{\"n\":{number},\"version\":{version},\"pad\":\"{}\"}}",
        "x".repeat(number * 37 % 900)
    )
    .into_bytes()
}

impl World {
    /// A world of so many shards that begins when the machine's clocks say `began`. `config` is
    /// lines of `section.key=value`.
    ///
    /// # Panics
    /// If the configuration is wrong.
    #[must_use]
    pub fn new(shards: u16, seed: u64, config: &str, began: Clocks) -> Self {
        let sets: Vec<String> = config.lines().map(str::to_owned).collect();
        let pieces = Pieces(usize::MAX);
        let mut stage = SimulatorStage::of_config(("", &sets), seed, pieces, shards, |_| {});
        let (ports, control, page_size, settings) = stage.storage();
        stage.begin_at(Instant::from_ns(BEFORE_MS * 1_000_000));
        let stage = Rc::new(RefCell::new(stage));
        Self { stage, ports, control, page_size, settings, began }
    }

    /// Sets what the origin has for key `number`; none: that the origin fails.
    pub fn source(&self, number: usize, version: Option<u32>) {
        let source = version.map_or(Source::Failing, |version| Source::Has(value(number, version)));
        self.stage.borrow_mut().source(&format!("k{number}"), &source);
    }

    /// What a client is given for key `number`: the body of a 200, or none.
    ///
    /// # Panics
    /// If the reply is none.
    #[must_use]
    pub fn get(&self, number: usize) -> Option<Vec<u8>> {
        let stage = &mut *self.stage.borrow_mut();
        let client = stage.connect();
        let request = format!("GET /lookup/k{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        stage.write(client, request.as_bytes());
        stage.finish(client);
        let reply = stage.reply(client);
        (reply.status == 200).then_some(reply.body)
    }

    /// The value of a metric, all shards together.
    #[must_use]
    pub fn counter(&self, name: &str, label: &str) -> u64 {
        self.stage.borrow_mut().counter(name, label, 0)
    }

    /// Lets time go by.
    pub fn advance(&self, ms: u64) {
        self.stage.borrow_mut().advance(ms);
    }

    /// What the clocks say.
    #[must_use]
    pub fn clocks(&self) -> Clocks {
        clocks(&self.stage, self.began)
    }

    /// Writes a snapshot into `folder`; how many operations of the disk that took.
    ///
    /// # Panics
    /// If the folder cannot be used.
    pub fn save(&mut self, folder: &Path, fault: Fault) -> (Result<Saved, NotSaved>, u32) {
        self.task(folder, fault, |mut task| at_once(task.save()))
    }

    /// Reads the snapshot in `folder`.
    ///
    /// # Panics
    /// If the folder cannot be used.
    pub fn load(&mut self, folder: &Path) -> Result<Loaded, NotLoaded> {
        let arena = Arena { ready: Arc::new(AtomicU32::new(1)), count: 1 };
        let arenas = vec![arena; self.ports.len()];
        self.task(folder, Fault::None, |mut task| at_once(task.load(&arenas))).0
    }

    fn task<T>(
        &mut self,
        folder: &Path,
        fault: Fault,
        run: impl FnOnce(Task<'_, Sick>) -> T,
    ) -> (T, u32) {
        let folder = Folder::open(folder).expect("nobody else uses it");
        let stage = Rc::clone(&self.stage);
        let mut store = Sick { plain: Plain::new(folder), stage, fault, operations: 0 };
        let (stage, began) = (Rc::clone(&self.stage), self.began);
        let clocks = move || clocks(&stage, began);
        let done = run(Task {
            store: &mut store,
            ports: &mut self.ports,
            clocks: &clocks,
            page_size: self.page_size,
            hash_key: self.settings.hash_key,
            owner_hash: self.settings.owner_hash,
            rate: None,
            control: &self.control,
            audit: None,
            is_last: false,
        });
        (done, store.operations)
    }
}

/// The clocks of a world that began when they said `began`.
fn clocks(stage: &RefCell<SimulatorStage>, began: Clocks) -> Clocks {
    let process_ms = stage.borrow().now().ms();
    let ms = process_ms - BEFORE_MS;
    Clocks {
        process_ms,
        wall_ms: began.wall_ms + ms,
        boot_ms: began.boot_ms + ms,
        boot_id: began.boot_id,
    }
}

impl Sick {
    /// Counts an operation, and fails it if the time has come.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        let fails = match self.fault {
            Fault::None => false,
            Fault::Once(working) => self.operations == working + 1,
            Fault::Dead(working) => self.operations > working,
        };
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl SnapshotStore for Sick {
    async fn create(&mut self, name: &str) -> io::Result<()> {
        self.operate()?;
        self.plain.create(name).await
    }

    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.operate() {
            // A disk that is full, or a process that is killed, leaves a part.
            self.plain.append(&bytes[..bytes.len() / 2]).await?;
            return Err(error);
        }
        self.plain.append(bytes).await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.operate()?;
        self.plain.finish().await
    }

    async fn open(&mut self, name: &str) -> io::Result<u64> {
        self.plain.open(name).await
    }

    async fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.plain.read(offset, into).await
    }

    async fn close(&mut self) {
        self.plain.close().await;
    }

    async fn pause(&mut self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).expect("pauses are short");
        self.stage.borrow_mut().advance(ms);
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.operate() {
            self.plain.put(name, &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.plain.put(name, bytes)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.operate()?;
        self.plain.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.operate()?;
        self.plain.remove(name)
    }

    fn folder(&self) -> &Folder {
        self.plain.folder()
    }
}
