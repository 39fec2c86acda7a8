//! Overload: a server is offered many times what it can do, and what it serves of that is counted.
//!
//! ```text
//! round   peak | 0.7 | 1 | 2, then 0.7 again | 5, then 0.7 again | 10, then 0.7 again
//! ```
//!
//! What a server can do, its peak, is what it serves a few connections in a closed loop. Where
//! misses are counted the rest is an open loop: nobody waits for a reply before he asks. No key is
//! asked for twice. Where hits are, more and more connections are a closed loop each: a generator
//! beside a server cannot offer many times of what it does. Beside all of them a connection of its
//! own asks for `/healthz`.

#![expect(clippy::print_stdout, reason = "prints what it measures as it goes")]

mod phase;
mod table;

use crate::pin;
use crate::procfs;
use crate::report::parse_duration;
use crate::server::Server;
use clap::Args;
use phase::{Driver, Load};
use std::io;
use std::process::ExitCode;
use std::time::Duration;
use table::Round;

/// Of what a server can do, what it is offered before and after all others.
const CALM: f64 = 0.7;
/// What twice as many connections have to bring, or the server is saturated.
const GAIN_MIN: f64 = 1.02;
/// Exit code where an aim is missed.
const THRESHOLD_MISSED: u8 = 7;

#[derive(Args)]
pub(crate) struct OverloadArgs {
    /// What the table is about.
    #[arg(long)]
    name: String,
    /// The command of the server; `{port}` stands for the port it has to listen on, `{origin}` for
    /// that of its origin.
    #[arg(long)]
    server: String,
    /// The command of its origin, where it has one; `{port}` likewise.
    #[arg(long)]
    origin: Option<String>,
    /// The first of two ports on 127.0.0.1.
    #[arg(long, default_value_t = 18_080)]
    port: u16,
    /// The CPU of the server.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The CPU of the load generator, and of the origin.
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Ask for this many keys again and again, by ever more connections in closed loops.
    #[arg(long, value_name = "KEYS")]
    hits: Option<u32>,
    /// Connections of the open loop.
    #[arg(long, default_value_t = 512)]
    connections: usize,
    /// Connections with which the search for those that saturate the server begins.
    #[arg(long, default_value_t = 4)]
    peak_connections: usize,
    /// What is offered, as multiples of what the server can do.
    #[arg(long, value_delimiter = ',', default_value = "1,2,5,10")]
    times: Vec<f64>,
    /// Rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long each load is measured, after as long a warm-up or a second.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    window: Duration,
    /// What is served later than that is not counted.
    #[arg(long, default_value = "100ms", value_parser = parse_duration)]
    deadline: Duration,
    /// Say whether what is aimed at was reached; exit code 7 where it was not.
    #[arg(long)]
    aims: bool,
}

/// Starts the server, measures, prints, ends the server.
pub(crate) fn run(args: &OverloadArgs) -> io::Result<ExitCode> {
    pin(args.load_cpu)?;
    let origin_port = args.port + 1;
    let mut origin = None;
    if let Some(command) = &args.origin {
        origin.insert(Server::start(command, origin_port, "origin")?).wait_until_up()?;
    }
    pin(args.server_cpu)?;
    let command = args.server.replace("{origin}", &origin_port.to_string());
    let server = Server::start(&command, args.port, "server");
    pin(args.load_cpu)?;
    let mut server = server?;
    server.wait_until_up()?;
    println!("{}", procfs::machine());
    let rounds = measure(args, &server)?;
    let is_missed = table::print(args, &rounds);
    Ok(if args.aims && is_missed { ExitCode::from(THRESHOLD_MISSED) } else { ExitCode::SUCCESS })
}

fn measure(args: &OverloadArgs, server: &Server) -> io::Result<Vec<Round>> {
    let mut driver = Driver::new(args, server)?;
    let (connections, peak) = saturate(args, &mut driver)?;
    println!("{}: {peak:.0} requests/s at the peak, {connections} connections", args.name);
    let load = |times| args.load(times, peak, connections);
    let closed = Load { rate: None, connections };
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let mut round = Round {
            peak: driver.drive(&closed)?.goodput,
            calm: driver.drive(&load(CALM))?,
            loads: Vec::new(),
            recovered: Vec::new(),
        };
        for &times in &args.times {
            round.loads.push(driver.drive(&load(times))?);
            let again = driver.drive(&load(CALM))?;
            round.recovered.push(again.in_time_share());
        }
        let shares = round.loads.iter().map(|load| load.goodput / round.peak * 100.0);
        let shares: Vec<String> = shares.map(|share| format!("{share:.1}%")).collect();
        println!("{number:>3}  {:.0}/s  {}", round.peak, shares.join("  "));
        rounds.push(round);
    }
    Ok(rounds)
}

/// Doubles the connections of a closed loop until that brings no more. Returns how many saturate
/// the server, and what it serves then a second.
fn saturate(args: &OverloadArgs, driver: &mut Driver<'_>) -> io::Result<(usize, f64)> {
    let mut drive = |connections| {
        let goodput = driver.drive(&Load { rate: None, connections })?.goodput;
        if goodput > 0.0 { Ok(goodput) } else { Err(io::Error::other("nothing is served in time")) }
    };
    let mut connections = args.peak_connections;
    let mut peak = drive(connections)?;
    while connections < args.connections {
        let more = drive(2 * connections)?;
        if more < peak * GAIN_MIN {
            break;
        }
        (connections, peak) = (2 * connections, more);
    }
    Ok((connections, peak))
}

impl OverloadArgs {
    /// So many times what it can do.
    fn load(&self, times: f64, peak: f64, connections: usize) -> Load {
        match self.hits {
            None => Load { rate: Some(peak * times), connections: self.connections },
            Some(_) if times < 1.0 => Load { rate: Some(peak * times), connections },
            Some(_) => Load { rate: None, connections: phase::whole(connections as f64 * times) },
        }
    }
}
