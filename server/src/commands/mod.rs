//! The command line: what can be asked for, and which code it ends with.

#![expect(clippy::print_stderr, reason = "errors go to standard error")]
#![expect(clippy::print_stdout, reason = "help goes to standard output")]

mod ask;
mod check;
mod explain;
mod hot;
mod import;
mod key;
mod serve;

use crate::admin::TOP_MAX;
use crate::config::{self, Config, ConfigError};
use crate::error::{Exit, StartError};
use crate::origin::StoreOptions;
use crate::origin::import::EntryLimits;
use clap::{Args, Parser, Subcommand};
use explain::Explain;
use hot::Hot;
use import::Import;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A server for hot keys: GET /lookup/{key} from memory, on every core.
#[derive(Debug, Parser)]
#[command(name = "pelton", version, after_help = "Without a command, it serves.")]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve {
        #[command(flatten)]
        source: Source,
    },
    /// Load lines of {"key":..,"value":..[,"content_type":..,"ttl":..]} into the embedded store.
    Import {
        /// The file, plain or gzip.
        file: PathBuf,
        /// Do nothing if the store holds keys already.
        #[arg(long)]
        if_empty: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Say whether this host can run the server, and what to do if not.
    Check {
        #[command(flatten)]
        source: Source,
    },
    /// Ask a running server which keys are asked for most.
    Hot {
        /// Its admin port, where that is not the configuration's.
        #[arg(long, value_name = "ADDRESS")]
        admin: Option<SocketAddr>,
        /// How many keys.
        #[arg(long, value_name = "N", default_value_t = 20,
            value_parser = clap::value_parser!(u16).range(1..=i64::from(TOP_MAX)))]
        top: u16,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
    /// Ask a running server why a key is served as it is, or why it is not.
    Explain {
        /// The key.
        key: OsString,
        /// The key is written as in a path, where %XX stands for a byte.
        #[arg(long)]
        percent: bool,
        /// Its admin port, where that is not the configuration's.
        #[arg(long, value_name = "ADDRESS")]
        admin: Option<SocketAddr>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: Source,
    },
    /// API keys of tenants.
    Key {
        #[command(subcommand)]
        what: Key,
    },
    /// List every setting with its default and what it does.
    Settings {
        /// As the page docs/configuration.md.
        #[arg(long)]
        markdown: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Make a key. It is kept nowhere: the client gets the key, the configuration its digest.
    New {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Where the configuration comes from.
#[derive(Args, Debug)]
struct Source {
    /// Configuration file (TOML); without one, the defaults.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting that wins over the file; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Source {
    fn load(&self) -> Result<Config, Failure> {
        Config::load(self.config.as_deref(), &self.set).map_err(Failure::Config)
    }
}

/// Why a command did not do what it was asked for.
enum Failure {
    Config(ConfigError),
    Start(StartError),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

/// Runs the command that `arguments` ask for.
#[must_use]
pub fn run(arguments: impl Iterator<Item = OsString>) -> Exit {
    let line = match Line::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            let is_help = !error.use_stderr();
            // If even that cannot be printed, the exit code has to do.
            let _unprinted = error.print();
            return if is_help { Exit::Fine } else { Exit::Usage };
        }
    };
    match dispatch(line) {
        Ok(exit) => exit,
        Err(Failure::Config(error)) => {
            eprint!("{}", error.render(io::stderr().is_terminal()));
            Exit::Usage
        }
        Err(Failure::Start(error)) => {
            eprintln!("error: {error}");
            error.exit
        }
    }
}

fn dispatch(line: Line) -> Result<Exit, Failure> {
    match line.command.unwrap_or(Command::Serve { source: line.source }) {
        Command::Serve { source } => {
            let config = source.load()?;
            log(&config);
            Ok(serve::run(&config)?)
        }
        Command::Import { file, if_empty, source } => {
            let config = source.load()?;
            log(&config);
            let arguments = Import {
                file,
                if_empty,
                store: StoreOptions::of(&config),
                limits: entries(&config),
            };
            Ok(import::run(&arguments, &mut io::stderr())?)
        }
        Command::Check { source } => Ok(check::run(&source.load()?, &mut io::stdout())),
        Command::Hot { admin, top, json, source } => {
            let arguments = Hot { admin, top, json };
            Ok(hot::run(&source.load()?, &arguments, &mut io::stdout())?)
        }
        Command::Explain { key, percent, admin, json, source } => {
            let arguments = Explain { key, is_percent: percent, admin, json };
            Ok(explain::run(&source.load()?, &arguments, &mut io::stdout())?)
        }
        Command::Key { what: Key::New { json } } => Ok(key::new(json, &mut io::stdout())),
        Command::Settings { markdown } => {
            print!("{}", if markdown { config::markdown() } else { config::listing() });
            Ok(Exit::Fine)
        }
    }
}

/// What imported entries are held to.
fn entries(config: &Config) -> EntryLimits {
    EntryLimits {
        key_size_max: config.http.key_size_max as usize,
        value_size_max: usize::try_from(config.cache.value_size_max).expect("below 4 GiB"),
    }
}

/// Sends the log to standard error. A second call in one process changes nothing.
fn log(config: &Config) {
    let level: tracing::Level =
        config.log.level.parse().expect("the table of parameters lists levels");
    let _set_already =
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).try_init();
}
