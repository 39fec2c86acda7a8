//! What a read of another shard's key costs on its way there and back, without a server around it.
//!
//! Two threads, each on a core of its own, do to each other what two busy shards do: a turn takes
//! the mail, answers what the other asks, copies out what the other answered, and sends a batch of
//! reads if enough of the last are answered. Nobody sleeps and there is no ring. The same copies
//! without a hop, by the same two threads at the same time, take turns with it; the difference is
//! the hop. CPU time is that of both threads, what they wait for each other included.

use crate::pin;
use crate::procfs::Usage;
use crate::report::parse_count;
use clap::Args;
use pelton::config::Config;
use pelton::http::{Beyond, Source, Term};
use pelton::limits::{Grant, Limits};
use pelton::mesh::{ContentType, Message, Parcel, Peers, ReplyRef, Sleep, Value, peers};
use shard_cache::hash::{Etag, KeyHash};
use std::hint::black_box;
use std::io;
use std::sync::Barrier;

/// Values that a side has: together they fit a core's own cache, so that the hop is what is seen.
const VALUES_COUNT: u8 = 64;

/// Bytes of a key.
const KEY_SIZE: usize = 16;

/// Where values are copied to, as replies are written to an output block.
const OUTPUT_SIZE: usize = 16 << 10;

#[derive(Args)]
pub(crate) struct MeshArgs {
    /// Reads that are sent in a turn; several, with commas between.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,4,16,64")]
    batches: Vec<u32>,
    /// Batches that may be under way at once.
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..))]
    flying: u32,
    /// Bytes of a value.
    #[arg(long, value_name = "N", default_value_t = 127)]
    value_size: u32,
    /// Reads of each side in a round.
    #[arg(long, default_value = "1M", value_parser = parse_count)]
    reads: u32,
    /// Rounds with a hop, and as many without.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// The CPUs of the two threads.
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_values_t = [0, 1])]
    cpus: Vec<usize>,
}

/// Times reads with and without a hop, and prints a table.
///
/// # Errors
/// There are not two CPUs to run on, or the kernel's account of CPU time cannot be read.
pub(crate) fn run(args: &MeshArgs) -> io::Result<()> {
    let [first, second] = args.cpus[..] else {
        return Err(io::Error::other("--cpus takes two, one for each thread"));
    };
    // Before one thread waits for another that could not start.
    pin(first)?;
    pin(second)?;
    println!(
        "| reads a turn | copies alone, CPU ns | with the hop | the hop | turns without mail |"
    );
    println!("|---|---|---|---|---|");
    for &batch in &args.batches {
        let limits = limits(batch * args.flying)?;
        let (mut without, mut with, mut hop, mut idle) = (vec![], vec![], vec![], vec![]);
        for _ in 0..args.pairs {
            let make = || sides(&limits, batch, args.value_size);
            let alone = round(make(), [first, second], |side| side.read_alone(args.reads))?;
            let mesh = round(make(), [first, second], |side| side.read_remote(args.reads))?;
            without.push(alone.cpu_ns);
            with.push(mesh.cpu_ns);
            hop.push(mesh.cpu_ns - alone.cpu_ns);
            idle.push(100.0 * mesh.idle_share);
        }
        let [without, with, hop] = [without, with, hop].map(|samples| show(samples, ""));
        println!("| {batch} | {without} | {with} | {hop} | {} |", show(idle, "%"));
    }
    Ok(())
}

/// The server's own, with so many parcels.
fn limits(parcels_count: u32) -> io::Result<Limits> {
    let grant = Grant { shards: 2, descriptors_max: 1 << 20, memory_size: 16 << 30 };
    let mut limits = Limits::new(&Config::default(), &grant).map_err(io::Error::other)?;
    if parcels_count == 0 || parcels_count > limits.parcels_count {
        let most = limits.parcels_count;
        return Err(io::Error::other(format!("a shard has {most} parcels for all its batches")));
    }
    limits.parcels_count = parcels_count;
    Ok(limits)
}

/// Median and range.
fn show(mut samples: Vec<f64>, unit: &str) -> String {
    samples.sort_by(f64::total_cmp);
    let (least, most) = (samples[0], samples[samples.len() - 1]);
    format!("{:.0}{unit} ({least:.0} to {most:.0})", samples[samples.len() / 2])
}

/// What a round came to, both threads together.
struct Round {
    /// A read.
    cpu_ns: f64,
    /// Turns that found no mail, of all.
    idle_share: f64,
}

/// Runs both sides at the same time.
fn round(
    sides: [Side; 2],
    cpus: [usize; 2],
    reads: impl Fn(&mut Side) + Sync,
) -> io::Result<Round> {
    let start = Barrier::new(sides.len());
    let run = |mut side: Side, cpu: usize| {
        pin(cpu).expect("it was tried before");
        start.wait();
        let before = Usage::of_this_thread()?;
        reads(&mut side);
        Ok((Usage::of_this_thread()?.since(before).cpu_ns, side))
    };
    let done: Vec<io::Result<(u64, Side)>> = std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = sides
            .into_iter()
            .zip(cpus)
            .map(|(side, cpu)| scope.spawn(move || run(side, cpu)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a side does not panic")).collect()
    });
    let (mut cpu_ns, mut reads, mut turns, mut turns_idle) = (0, 0, 0, 0);
    for side in done {
        let (used_ns, side) = side?;
        cpu_ns += used_ns;
        reads += side.read;
        turns += side.turns;
        turns_idle += side.turns_idle;
    }
    let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
    Ok(Round { cpu_ns: share(cpu_ns, u64::from(reads)), idle_share: share(turns_idle, turns) })
}

/// What a shard needs for reading from another.
struct Side {
    other: u16,
    peers: Peers,
    sleep: Sleep,
    values: Vec<Box<[u8]>>,
    #[expect(clippy::vec_box, reason = "parcels travel by their boxes")]
    home: Vec<Box<Parcel>>,
    batch: u32,
    output: Box<[u8]>,
    written: usize,
    /// Reads sent, answers given, answers taken.
    sent: u32,
    answered: u32,
    read: u32,
    turns: u64,
    turns_idle: u64,
}

/// The two sides, with the queues between them.
fn sides(limits: &Limits, batch: u32, value_size: u32) -> [Side; 2] {
    let sleeps = [Sleep::new(), Sleep::new()];
    let kept = limits.messages_kept() as usize;
    let ends = peers(&sleeps, limits.messages_per_peer_max as usize, kept);
    let mut others = [1, 0].into_iter();
    let mut sides = ends.into_iter().zip(sleeps).map(|(peers, sleep)| Side {
        other: others.next().expect("two shards"),
        peers,
        sleep,
        values: (0..VALUES_COUNT).map(|number| value(number, value_size)).collect(),
        home: (0..limits.parcels_count).map(|_| Parcel::with_size(limits.parcel_size)).collect(),
        batch,
        output: vec![0; OUTPUT_SIZE.max(value_size as usize)].into(),
        written: 0,
        sent: 0,
        answered: 0,
        read: 0,
        turns: 0,
        turns_idle: 0,
    });
    [(); 2].map(|()| sides.next().expect("two shards"))
}

/// The bytes that stand for a key; each tells its number.
fn value(number: u8, size: u32) -> Box<[u8]> {
    vec![number; size as usize].into()
}

impl Side {
    /// Reads from the other side, and answers as many reads of its own.
    fn read_remote(&mut self, reads: u32) {
        while self.read < reads || self.answered < reads {
            self.turn(reads);
        }
    }

    fn turn(&mut self, reads: u32) {
        self.sleep.end();
        let before = (self.read, self.answered);
        while let Some(message) = self.peers.receive(self.other) {
            match message {
                Message::Read(mut parcel) => {
                    self.answer(&mut parcel);
                    self.peers.send(self.other, Message::Reply(parcel));
                }
                Message::Reply(parcel) => self.take(parcel),
                Message::Piece(_)
                | Message::Write(_)
                | Message::Written(_)
                | Message::Invalidate { .. }
                | Message::Followed(_)
                | Message::Hit(_)
                | Message::Connection(_) => unreachable!("nobody sends it"),
            }
        }
        let batch = self.batch.min(reads - self.sent);
        if self.home.len() >= batch as usize {
            for _ in 0..batch {
                let parcel = self.ask();
                self.peers.send(self.other, Message::Read(parcel));
            }
        }
        self.peers.wake_sleepers(|_| unreachable!("nobody sleeps"));
        self.turns += 1;
        self.turns_idle += u64::from(before == (self.read, self.answered));
    }

    /// The same copies, but nothing is sent.
    fn read_alone(&mut self, reads: u32) {
        while self.read < reads {
            let mut parcel = self.ask();
            self.answer(&mut parcel);
            self.take(parcel);
        }
    }

    fn ask(&mut self) -> Box<Parcel> {
        let mut parcel = self.home.pop().expect("so many were counted");
        let index = self.sent % u32::from(VALUES_COUNT);
        let number = u8::try_from(index).expect("a remainder is less");
        let reply = ReplyRef { index, generation: 0 };
        parcel.address(reply, KeyHash::from_bits(u64::from(index)), &[number; KEY_SIZE]);
        self.sent += 1;
        parcel
    }

    fn answer(&mut self, parcel: &mut Parcel) {
        let bytes = &self.values[usize::from(black_box(parcel.key())[0])];
        let size = u32::try_from(bytes.len()).expect("a value has some bytes");
        let (etag, content_type) = (Etag::from_bits(7), ContentType::JSON);
        let (term, beyond) = (Term::Ever, Beyond::AS_CONFIGURED);
        let value = Value { etag, content_type, term, beyond, size };
        parcel.fill(value, Source::Hit, bytes, None);
        self.answered += 1;
    }

    fn take(&mut self, parcel: Box<Parcel>) {
        let piece = parcel.piece();
        if self.written + piece.len() > self.output.len() {
            self.written = 0;
        }
        let place = &mut self.output[self.written..][..piece.len()];
        place.copy_from_slice(piece);
        let number = black_box(place).last().copied().map(u32::from);
        assert_eq!(number, Some(parcel.reply.index), "it is what was asked for");
        self.written += piece.len();
        self.read += 1;
        self.home.push(parcel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_read_all_that_they_ask_for_and_answer_the_other() {
        for batch in [1, 4] {
            let [mut low, mut high] = sides(&limits(8).unwrap(), batch, 127);
            while low.read < 1_000 || high.read < 1_000 {
                low.turn(1_000);
                high.turn(1_000);
            }
            for side in [low, high] {
                assert_eq!((side.sent, side.answered, side.read), (1_000, 1_000, 1_000));
                assert_eq!(side.home.len(), 8);
            }
        }
    }

    #[test]
    fn without_a_hop_the_same_is_copied() {
        let [mut side, _] = sides(&limits(8).unwrap(), 4, 127);
        side.read_alone(1_000);
        assert_eq!((side.sent, side.answered, side.read), (1_000, 1_000, 1_000));
        assert_eq!(side.output[side.written - 127..side.written], [39; 127], "999 % 64");
    }

    #[test]
    fn more_parcels_than_a_shard_has_are_refused() {
        assert!(limits(0).is_err());
        assert!(limits(100_000).is_err());
    }
}
