//! `pelton-bench`: the fixed-reply server, the load generator, and the method that compares two
//! servers.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints its result")]

mod compare;
mod floor;
mod load;
mod procfs;
mod records;
mod replay;
mod replies;
mod report;
mod requests;
#[allow(unsafe_code, reason = "shares memory with the kernel")]
mod ring;
mod statistics;

use crate::records::Records;
use crate::requests::{Requests, Target};
use clap::{Args, Parser, Subcommand};
use std::io;
use std::net::SocketAddr;
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
    /// Send requests at a fixed rate, or in a closed loop, and report rate and latency.
    Load(LoadArgs),
    /// Compare the CPU time a request of two servers at one rate.
    Compare(CompareArgs),
    /// Answer hits in a shard without a kernel, for counting instructions.
    Replay(ReplayArgs),
}

#[derive(Args)]
struct FloorArgs {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Body size in bytes; the head has the fields and the size of Pelton's.
    #[arg(long, default_value_t = 150, conflicts_with = "reply_file")]
    reply_size: usize,
    /// A file with the exact bytes of the reply, head and body.
    #[arg(long)]
    reply_file: Option<PathBuf>,
    /// The CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Args)]
struct ReplayArgs {
    /// The records to ask for, `{"key":..,"value":..}` a line.
    #[arg(long)]
    keys: PathBuf,
    /// Requests after every key was asked for once.
    #[arg(long)]
    requests: u64,
    /// Connections that have a request each turn.
    #[arg(long, default_value_t = 64)]
    connections: u32,
}

#[derive(Args)]
struct LoadArgs {
    /// Where the server listens.
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// Seconds to run.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    #[command(flatten)]
    traffic: Traffic,
    /// Requests a second, all connections together; without it, a closed loop.
    #[arg(long)]
    rate: Option<f64>,
    /// The CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
}

/// What is asked for, and over how many connections.
#[derive(Args)]
struct Traffic {
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Requests sent at once on a connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pipeline: u32,
    /// Keys to draw from uniformly: one a line, or records with a key and a value (.jsonl);
    /// either may be compressed (.gz).
    #[arg(long)]
    keys: Option<PathBuf>,
    /// Compare whole bodies with the values of the records.
    #[arg(long, requires = "keys")]
    verify: bool,
    /// What draws the keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The path to ask for where there are no keys.
    #[arg(long, default_value = "/healthz")]
    path: String,
}

impl Traffic {
    fn records(&self) -> io::Result<Option<Records>> {
        let records = self.keys.as_deref().map(Records::read).transpose()?;
        if self.verify && records.as_ref().is_some_and(|records| records.bodies.is_empty()) {
            return Err(io::Error::other("--verify needs records with values, from a .jsonl file"));
        }
        Ok(records)
    }

    /// What replies are compared with; nothing where they are not.
    fn bodies<'a>(&self, records: &'a Records) -> &'a [Box<[u8]>] {
        if self.verify { &records.bodies } else { &[] }
    }
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
    /// Count only threads whose names begin so; without it, the whole process.
    #[arg(long, default_value = "")]
    thread: String,
    #[command(flatten)]
    traffic: Traffic,
    /// Requests a second, the same for all.
    #[arg(long)]
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
        Command::Load(args) => generate_load(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Replay(args) => replay_hits(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("pelton-bench: {error}");
        ExitCode::FAILURE
    })
}

fn replay_hits(args: &ReplayArgs) -> io::Result<ExitCode> {
    let records = Records::read(&args.keys)?;
    let hits = replay::run(&records, args.connections, args.requests)?;
    println!("{hits} hits");
    Ok(ExitCode::SUCCESS)
}

fn serve_floor(args: &FloorArgs) -> io::Result<()> {
    pin(args.cpu)?;
    let reply = match &args.reply_file {
        Some(path) => std::fs::read(path)?,
        None => floor::reply(args.reply_size),
    };
    floor::serve(args.listen, &reply)
}

fn generate_load(args: &LoadArgs) -> io::Result<ExitCode> {
    pin(args.cpu)?;
    let traffic = &args.traffic;
    let records = traffic.records()?;
    let target = match &records {
        Some(Records { keys, .. }) => Target::Random { keys, seed: traffic.seed },
        None => Target::Path(&traffic.path),
    };
    let pipeline = traffic.pipeline as usize;
    let requests = Requests::new(&target, &args.address.to_string(), pipeline);
    let plan = load::Plan {
        address: args.address,
        connections: traffic.connections as usize,
        pipeline,
        rate: args.rate,
        until: load::Until::Elapsed(Duration::from_secs_f64(args.duration)),
        requests: &requests,
        first_request: 0,
        bodies: records.as_ref().map_or(&[], |records| traffic.bodies(records)),
    };
    let outcome = load::run(&mut ring::Ring::new()?, &plan)?;
    print!("{}", report::of_load(&outcome, args.rate));
    Ok(if outcome.errors.count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Keeps the calling thread, and what it starts, on one CPU.
fn pin(cpu: Option<usize>) -> io::Result<()> {
    let Some(id) = cpu else { return Ok(()) };
    if core_affinity::set_for_current(core_affinity::CoreId { id }) {
        Ok(())
    } else {
        Err(io::Error::other(format!("CPU {id} is not one we may run on")))
    }
}
