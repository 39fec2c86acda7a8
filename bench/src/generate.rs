//! `pelton-bench load`: flags of wrk2 and some more, to a plan, to a report.

use crate::address::Address;
use crate::args::Traffic;
use crate::load::{self, Plan, Stream, Until};
use crate::report::{self, Run, Slo, parse_count, parse_duration, parse_metric};
use crate::traffic::{Keys, Mix, Recipe, Records, Requests};
use clap::Args;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// The warm-up where none is asked for, if the run is twice as long: wrk2 calibrates as long.
const WARM_UP: Duration = Duration::from_secs(10);

/// Exit codes, as in the rest of the program: invalid, unreachable, threshold missed.
const INVALID: u8 = 3;
const UNREACHABLE: u8 = 6;
const MISSED: u8 = 7;

#[derive(Args)]
pub(crate) struct LoadArgs {
    /// Threads.
    #[arg(short, long, value_name = "N", default_value = "2", value_parser = parse_count)]
    threads: u32,
    /// Connections, over all threads.
    #[arg(short, long, value_name = "N", default_value = "10", value_parser = parse_count)]
    connections: u32,
    /// How long to send, such as 30s or 2m.
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// Requests a second, over all connections, such as 50k; without it, a closed loop.
    #[arg(short = 'R', long, value_name = "N", value_parser = parse_metric)]
    rate: Option<f64>,
    /// Print the distribution of latencies.
    #[arg(short = 'L', long)]
    latency: bool,
    /// Print the distribution counted from actual starts as well.
    #[arg(short = 'U', long = "u_latency", alias = "u-latency")]
    uncorrected: bool,
    /// A header field to send, "Name: value"; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = parse_header)]
    headers: Vec<String>,
    /// How long a request may take before it is counted as timed out.
    #[arg(short = 'T', long, value_name = "TIME", default_value = "2s",
          value_parser = parse_duration)]
    timeout: Duration,
    /// Count those that are served within this time [default: that of --timeout].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,
    /// Leave out the latencies of so long at the start [default: 10s, or half of a shorter run].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warmup: Option<Duration>,
    /// The method [default: GET, or POST with a body].
    #[arg(short = 'X', long, value_name = "NAME")]
    method: Option<String>,
    /// The body, or @FILE; each {key} in it stands for a key.
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// Kinds of requests and their weights: hit, miss (a cold key), absent (404), malformed;
    /// such as hit=90,miss=5,absent=4,malformed=1.
    #[arg(long, value_name = "MIX")]
    mix: Option<Mix>,
    /// Keys for misses, each asked for once: a file like that of --keys.
    #[arg(long, value_name = "FILE")]
    cold_keys: Option<PathBuf>,
    /// A client of its own: "NAME RATE CONNECTIONS [FIELD]"; may be given several times, in place
    /// of -R and -c.
    #[arg(long = "tenant", value_name = "TENANT", conflicts_with_all = ["rate", "connections"])]
    tenants: Vec<Tenant>,
    /// A threshold: p99<1ms, mean<200us, max<50ms, errors<0.1%; exit code 7 where one is missed.
    #[arg(long = "slo", value_name = "THRESHOLD")]
    slos: Vec<Slo>,
    /// Write the result as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the percentile spectrum for HdrHistogram's plotters.
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Connect to this Unix socket; the URL gives Host and path.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// The CPUs of the threads, one after the other.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Do not sleep shortly before a request is due: less late, at the cost of a whole CPU.
    #[arg(long)]
    spin: bool,
    #[command(flatten)]
    traffic: Traffic,
    /// http://HOST[:PORT][/PATH]; {key} in the path stands for a key.
    #[arg(default_value = "http://127.0.0.1:8080/")]
    url: Url,
}

fn parse_header(text: &str) -> Result<String, String> {
    let is_field = text.split_once(':').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
    });
    if is_field && !text.contains(['\r', '\n']) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no header field, such as \"X-API-Key: abc\""))
    }
}

/// One client of several.
#[derive(Clone, Debug)]
struct Tenant {
    name: String,
    rate: f64,
    connections: u32,
    headers: Vec<String>,
}

impl FromStr for Tenant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(4, ' ').collect();
        let [name, rate, connections, ref field @ ..] = parts[..] else {
            return Err(format!(
                "{text:?} is no tenant; expected NAME RATE CONNECTIONS [FIELD], such as \
                 \"gold 20k 32 X-API-Key: abc\""
            ));
        };
        Ok(Self {
            name: name.to_owned(),
            rate: parse_metric(rate)?,
            connections: parse_count(connections)?,
            headers: field.iter().map(|field| parse_header(field)).collect::<Result<_, _>>()?,
        })
    }
}

/// An address on the web, without TLS.
#[derive(Clone, Debug, PartialEq)]
struct Url {
    text: String,
    host: String,
    port: u16,
    /// Path and query.
    path: String,
}

impl Url {
    /// What the field Host says.
    fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no URL such as http://127.0.0.1:8080/lookup/a");
        if text.starts_with("https:") {
            return Err("TLS is not spoken here: measure the server behind the proxy".to_owned());
        }
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Ok(80), str::parse).map_err(|_| wrong())?;
        let is_clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_clean(host) || !is_clean(path) {
            return Err(wrong());
        }
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        Ok(Self { text: text.to_owned(), host: host.to_owned(), port, path })
    }
}

/// Carries out a run and reports it.
pub(crate) fn run(args: &LoadArgs) -> io::Result<ExitCode> {
    let address: &'static Address = Box::leak(Box::new(match &args.unix {
        Some(path) => Address::unix(path)?,
        None => Address::resolve(&args.url.host, args.url.port)?,
    }));
    if let Err(error) = address.probe(args.timeout) {
        eprintln!("pelton-bench: cannot connect to {address}: {error}");
        return Ok(ExitCode::from(UNREACHABLE));
    }
    let records = args.traffic.records()?;
    let clients = args.clients();
    let sequences = args.sequences(&clients, &records)?;
    let streams = args.streams(&clients, &sequences, &records);
    let connections = clients.iter().map(|client| client.connections).sum();
    if args.threads > connections {
        let error = format!("{connections} connections are too few for {} threads", args.threads);
        return Err(io::Error::other(error));
    }
    let plan = Plan {
        address,
        threads: args.threads as usize,
        cpus: args.cpus.clone(),
        streams,
        until: Until::Elapsed(args.duration),
        warm_up: args.warmup.unwrap_or_else(|| WARM_UP.min(args.duration / 2)),
        timeout: args.timeout,
        deadline: args.deadline.unwrap_or(args.timeout),
        spin: args.spin,
    };
    let outcome = load::run(&plan)?;
    let run = Run {
        plan: &plan,
        url: &args.url.text,
        duration: args.duration,
        mix: args.mix(),
        outcome: &outcome,
        slos: &args.slos,
        latency: args.latency,
        uncorrected: args.uncorrected,
    };
    print!("{}", report::text(&run));
    let total = outcome.total();
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{:#}\n", report::json(&run)))?;
    }
    if let Some(path) = &args.hgrm {
        std::fs::write(path, report::hgrm(&total))?;
    }
    Ok(if total.errors.body > 0 {
        ExitCode::FAILURE
    } else if args.slos.iter().any(|slo| !slo.is_met(&total)) {
        ExitCode::from(MISSED)
    } else if report::doubts(&plan, &outcome).is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INVALID)
    })
}

/// A tenant, or everybody; without a rate in a closed loop.
struct Client<'a> {
    name: &'a str,
    rate: Option<f64>,
    connections: u32,
    headers: Vec<String>,
}

impl LoadArgs {
    fn mix(&self) -> Mix {
        self.mix.unwrap_or(Mix::HITS)
    }

    /// The tenants, or everybody as one.
    fn clients(&self) -> Vec<Client<'_>> {
        if self.tenants.is_empty() {
            let headers = self.headers.clone();
            let (rate, connections) = (self.rate, self.connections);
            return vec![Client { name: "all", rate, connections, headers }];
        }
        self.tenants
            .iter()
            .map(|Tenant { name, rate, connections, headers }| Client {
                name,
                rate: Some(*rate),
                connections: *connections,
                headers: [&self.headers[..], headers].concat(),
            })
            .collect()
    }

    fn sequences(&self, clients: &[Client<'_>], records: &Records) -> io::Result<Vec<Requests>> {
        let cold = match &self.cold_keys {
            Some(path) => Records::read(path)?.keys,
            None => Vec::new(),
        };
        let body = match self.body.as_deref() {
            Some(text) => Some(match text.strip_prefix('@') {
                Some(path) => std::fs::read_to_string(path)?,
                None => text.to_owned(),
            }),
            None => None,
        };
        let usual = if body.is_some() { "POST" } else { "GET" };
        let method = self.method.as_deref().unwrap_or(usual);
        let authority = self.url.authority();
        (0..)
            .zip(clients)
            .map(|(seed, client)| {
                self.traffic.requests(Recipe {
                    method,
                    headers: &client.headers,
                    body: body.as_deref(),
                    keys: Keys { known: &records.keys, cold: &cold },
                    mix: self.mix(),
                    seed,
                    ..Recipe::get(self.traffic.path(&self.url.path), &authority)
                })
            })
            .collect()
    }

    fn streams<'a>(
        &self,
        clients: &'a [Client<'_>],
        sequences: &'a [Requests],
        records: &'a Records,
    ) -> Vec<Stream<'a>> {
        clients
            .iter()
            .zip(sequences)
            .map(|(client, requests)| Stream {
                name: client.name,
                connections: client.connections as usize,
                rate: client.rate,
                pipeline: self.traffic.pipeline as usize,
                requests,
                first_request: 0,
                verify: self.traffic.verify.map(|verify| (verify, records)),
                bodiless: self.method.as_deref() == Some("HEAD"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let read = |text: &str| {
            let url: Url = text.parse().unwrap();
            (url.authority(), url.path)
        };
        let pair = |authority: &str, path: &str| (authority.to_owned(), path.to_owned());
        assert_eq!(read("http://a"), pair("a", "/"));
        assert_eq!(read("http://a:81/x?y={key}"), pair("a:81", "/x?y={key}"));
        assert_eq!(read("http://[::1]:8080/b"), pair("[::1]:8080", "/b"));
        for wrong in ["a", "http://", "http://a:x", "http://a/b c", "https://a", "http://[::1/"] {
            assert!(wrong.parse::<Url>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn tenants_are_read() {
        let tenant: Tenant = "gold 20k 32 X-API-Key: a b".parse().unwrap();
        assert_eq!((tenant.rate, tenant.connections), (20_000.0, 32));
        assert_eq!(tenant.headers, ["X-API-Key: a b"]);
        assert!("gold 20k 32".parse::<Tenant>().unwrap().headers.is_empty());
        for wrong in ["", "gold", "gold 1 0", "gold x 1", "gold 1 1 nofield"] {
            assert!(wrong.parse::<Tenant>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn header_fields_are_one_line() {
        assert!(parse_header("A: b").is_ok() && parse_header("A:").is_ok());
        assert!(parse_header("A: b\r\nC: d").is_err() && parse_header(": b").is_err());
        assert!(parse_header("A b: c").is_err());
    }
}
