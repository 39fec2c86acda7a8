//! `pelton-bench`: the fixed-reply server, the load generator, and the method that compares two
//! servers.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints its result")]

mod address;
mod args;
mod compare;
mod copies;
mod floor;
mod generate;
mod hitratio;
mod load;
mod mesh;
mod overload;
mod pool;
mod procfs;
mod replay;
mod report;
#[allow(unsafe_code, reason = "shares memory with the kernel")]
mod ring;
mod server;
mod speed;
mod statistics;
mod traffic;

use crate::address::Address;
use crate::args::Traffic;
use crate::copies::CopiesArgs;
use crate::generate::LoadArgs;
use crate::hitratio::HitratioArgs;
use crate::mesh::MeshArgs;
use crate::overload::OverloadArgs;
use crate::report::{parse_count, parse_duration, parse_metric};
use crate::speed::SpeedArgs;
use crate::traffic::Records;
use clap::{Args, Parser, Subcommand};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures servers by the CPU time of a request.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer every request with the same bytes, at the least cost that is known.
    Floor(FloorArgs),
    /// Send requests at a constant rate, or in a closed loop, and report rate and latency: flags
    /// and output of wrk2, and some more.
    Load(Box<LoadArgs>),
    /// Answer every request after a while, a few at a time: an origin that can be overloaded.
    Pool(PoolArgs),
    /// Offer a server many times what it can do, and report what it serves of it.
    Overload(OverloadArgs),
    /// Write made-up records, {"key":..,"value":..} a line, to standard output.
    Data(DataArgs),
    /// Compare the CPU time a request of two servers at one rate.
    Compare(CompareArgs),
    /// Answer hits in a shard without a kernel, for counting instructions.
    Replay(ReplayArgs),
    /// Replay traces through the cache and its peers, and report who hits how often.
    Hitratio(HitratioArgs),
    /// Time hits, misses and stores of the cache beside its peers.
    Speed(SpeedArgs),
    /// Time reads of another shard's keys beside the same copies without a hop.
    Mesh(MeshArgs),
    /// Count reads of other shards' keys, beside how many there must be with as many copies.
    Copies(CopiesArgs),
}

#[derive(Args)]
struct FloorArgs {
    /// Where to listen: ADDRESS:PORT or unix:PATH.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: Address,
    /// Body size in bytes; the head has the fields and the size of Pelton's.
    #[arg(long, default_value_t = 150, conflicts_with = "reply_file")]
    reply_size: usize,
    /// A file with the exact bytes of the reply, head and body.
    #[arg(long)]
    reply_file: Option<PathBuf>,
    /// Close a connection after so many replies.
    #[arg(long, value_name = "N")]
    close_after: Option<u32>,
    /// The CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Args)]
struct PoolArgs {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8082")]
    listen: Address,
    /// Requests that are worked on at a time; others wait in line.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// How long each takes.
    #[arg(long, default_value = "2ms", value_parser = parse_duration)]
    service: Duration,
}

#[derive(Args)]
struct DataArgs {
    /// Records to write.
    #[arg(long, value_parser = parse_count)]
    count: u32,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    value_size: usize,
    /// The version that the values name.
    #[arg(long, default_value_t = 1)]
    version: u64,
}

#[derive(Args)]
struct ReplayArgs {
    /// The records to ask for, `{"key":..,"value":..}` a line.
    #[arg(long)]
    keys: PathBuf,
    /// Requests after every key was asked for once.
    #[arg(long)]
    requests: u64,
    /// Shards, each of which is asked for its own keys.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// Connections to each shard that have a request each turn.
    #[arg(long, default_value_t = 64)]
    connections: u32,
}

#[derive(Args)]
struct CompareArgs {
    /// The command of the baseline; `{port}` stands for the port it has to listen on.
    #[arg(long)]
    baseline: String,
    /// The command of the candidate, likewise.
    #[arg(long)]
    candidate: String,
    /// The first of three ports on 127.0.0.1.
    #[arg(long, default_value_t = 18_080)]
    port: u16,
    /// The CPU that both servers run on.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The CPU of the load generator.
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Stop a server while another one has its window: for what servers do on their own account.
    #[arg(long)]
    pause: bool,
    /// Count only threads whose names begin so; without it, the whole process.
    #[arg(long, default_value = "")]
    thread: String,
    #[command(flatten)]
    traffic: Traffic,
    /// Connections to each server.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// The path to ask for where there are no keys.
    #[arg(long, default_value = "/healthz")]
    path: String,
    /// Requests a second, the same for all.
    #[arg(long, value_parser = parse_metric)]
    rate: f64,
    /// Windows of each server.
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Seconds of a window.
    #[arg(long, default_value_t = 2.0)]
    window: f64,
    /// Microseconds a request that the candidate may cost above the baseline.
    #[arg(long)]
    margin_us: f64,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Floor(args) => serve_floor(&args).map(|()| ExitCode::SUCCESS),
        Command::Load(args) => generate::run(&args),
        Command::Pool(args) => {
            pool::serve(&args.listen, args.workers, args.service).map(|()| ExitCode::SUCCESS)
        }
        Command::Overload(args) => overload::run(&args),
        Command::Data(args) => write_data(&args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => compare::run(&args),
        Command::Replay(args) => replay_hits(&args),
        Command::Hitratio(args) => hitratio::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Speed(args) => speed::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Mesh(args) => mesh::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Copies(args) => copies::run(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("pelton-bench: {error}");
        ExitCode::FAILURE
    })
}

fn replay_hits(args: &ReplayArgs) -> io::Result<ExitCode> {
    let records = Records::read(&args.keys)?;
    let hits = replay::hits::run(&records, args.shards, args.connections, args.requests)?;
    println!("{hits} hits");
    Ok(ExitCode::SUCCESS)
}

fn serve_floor(args: &FloorArgs) -> io::Result<()> {
    args.cpu.map_or(Ok(()), pin)?;
    let reply = match &args.reply_file {
        Some(path) => std::fs::read(path)?,
        None => floor::reply(args.reply_size),
    };
    floor::serve(&args.listen, &reply, args.close_after)
}

fn write_data(args: &DataArgs) -> io::Result<()> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    traffic::write_generated(&mut output, args.count, args.version, args.value_size)
}

/// Keeps the calling thread, and what it starts, on one CPU.
fn pin(cpu: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(io::Error::other(format!("CPU {cpu} is not one we may run on")))
    }
}
