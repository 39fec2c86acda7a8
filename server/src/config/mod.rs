//! The configuration: one table of parameters, and the checked values that everything else reads.
//!
//! [`PARAMETERS`] is the only list: reading, checking, defaults, `--help`, `/config` and the
//! reference come from it. A [`Config`] exists only after every value passed its check; it does
//! not know the host, what follows from both is in `limits`.

mod address;
mod kind;
mod problem;
mod reference;
mod source;
mod tenants;
mod unit;

pub use address::Address;
pub use kind::{Kind, Memory, Share};
pub use problem::ConfigError;
pub use reference::{listing, markdown};

pub(crate) use unit::size_text;

use crate::api_key::KeyDigest;
use kind::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Section of the file.
    pub section: &'static str,
    /// Key within the section.
    pub key: &'static str,
    /// What it can be.
    pub kind: Kind,
    /// The default, as TOML.
    pub default: &'static str,
    /// What it does, for an operator.
    pub sentence: &'static str,
}

/// Declares a section: what it holds, how it is made of values in the order of its rows, and how it
/// is shown.
macro_rules! section {
    ($(#[$doc:meta])+ $section:ident: $Section:ident {
        $($key:ident: $type:ty, $Kind:ident, $sentence:literal;)+
    }) => {
        $(#[$doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Section { $(#[doc = $sentence] pub $key: $type,)+ }

        impl $Section {
            fn from_values(values: &mut dyn Iterator<Item = Value>) -> Self {
                Self { $($key: match values.next() {
                    Some(Value::$Kind(value)) => value,
                    other => unreachable!("{}: {other:?}", stringify!($section.$key)),
                },)+ }
            }

            /// The values in effect, in units that a configuration file takes.
            fn to_json(&self) -> serde_json::Value {
                let mut keys = serde_json::Map::new();
                $(keys.insert(
                    stringify!($key).into(),
                    Value::$Kind(self.$key.clone()).to_json(),
                );)+
                keys.into()
            }
        }
    };
}

/// Declares the rows of sections in the order of their values.
macro_rules! rows {
    ($($section:ident {
        $($key:ident, $Kind:ident $(($($bound:expr),+))?, $default:literal, $sentence:literal;)+
    })+) => {
        &[$($(Parameter {
            section: stringify!($section),
            key: stringify!($key),
            kind: Kind::$Kind $(($($bound),+))?,
            default: $default,
            sentence: $sentence,
        },)+)+]
    };
}

/// Declares [`Config`], its sections and [`PARAMETERS`] from one list, and what of it there may be
/// several with [`TENANT_PARAMETERS`] from another.
macro_rules! parameters {
    ($($(#[$doc:meta])+ $section:ident: $Section:ident {
        $($key:ident: $type:ty, $Kind:ident $(($($bound:expr),+))?, $default:literal,
            $sentence:literal;)+
    })+
    each $(#[$each_doc:meta])+ $each:ident: $Each:ident {
        $($each_key:ident: $each_type:ty, $EachKind:ident $(($($each_bound:expr),+))?,
            $each_default:literal, $each_sentence:literal;)+
    }) => {
        /// The whole configuration, checked.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[$doc])+ pub $section: $Section,)+
            $(#[$each_doc])+ pub tenants: Vec<$Each>,
        }

        $(section! {
            $(#[$doc])+ $section: $Section { $($key: $type, $Kind, $sentence;)+ }
        })+
        section! {
            $(#[$each_doc])+ $each: $Each { $($each_key: $each_type, $EachKind, $each_sentence;)+ }
        }

        /// Every parameter, section by section.
        pub const PARAMETERS: &[Parameter] = rows! {
            $($section { $($key, $Kind $(($($bound),+))?, $default, $sentence;)+ })+
        };

        /// Every parameter of a tenant.
        pub const TENANT_PARAMETERS: &[Parameter] = rows! {
            $each { $($each_key, $EachKind $(($($each_bound),+))?, $each_default,
                $each_sentence;)+ }
        };

        impl Config {
            /// The configuration with `values` in the order of [`PARAMETERS`].
            fn from_values(values: Vec<Value>, tenants: Vec<$Each>) -> Self {
                let mut values = values.into_iter();
                Self { $($section: $Section::from_values(&mut values),)+ tenants }
            }

            /// The effective values, in units that a configuration file takes. Of API keys it has
            /// nothing but their number.
            #[must_use]
            pub fn to_json(&self) -> serde_json::Value {
                let mut sections = serde_json::Map::new();
                $(sections.insert(stringify!($section).into(), self.$section.to_json());)+
                let tenants = self.tenants.iter().map($Each::to_json).collect();
                sections.insert(stringify!($each).into(), tenants);
                sections.into()
            }
        }
    };
}

/// Longest time that can be set: an entry holds its times in 32 bits of milliseconds, 49 days,
/// and freshness and staleness together must stay well within.
const WEEK: u64 = 7 * 86_400_000;

/// Longest wait for a peer that can be set, in milliseconds.
const HOUR: u64 = 3_600_000;

parameters! {
    /// Sockets, threads, start and stop.
    server: Server {
        listen: Vec<Address>, Addresses, r#"["0.0.0.0:8080"]"#, "Addresses of the data port. Every shard listens on each of them. Of `unix:PATH`, shard 0 listens on PATH for all, and each shard, by its number, on PATH.0, PATH.1, ... for itself.";
        shard_ports: u32, Count(0, 65_535), "0", "First of the shards' own ports: each shard listens on one more than the one before it, at each IP address of `listen`. 0: they have none.";
        shards: Option<u32>, CountOrAuto(1, 1024), r#""auto""#, "Number of shards. `auto`: the CPUs allowed by affinity and cgroup quota, less one from 4 on.";
        cpus: Option<Vec<u16>>, Cpus, r#""auto""#, "CPUs to take shards' cores from. `auto`: all that the affinity mask allows.";
        owner_hash: &'static str, Word(&["keyed", "crc32"]), r#""keyed""#, "What decides which shard owns a key. `keyed`: a hash under a secret. `crc32`: the CRC-32 of the path, as a proxy computes it that sends each key to its shard; but clients can then aim at one shard.";
        connections_max: Option<u32>, CountOrAuto(1, 1_048_576), r#""auto""#, "Open connections a shard. `auto`: 65,536, or what the limit on open files allows.";
        connections_total_max: Option<u32>, CountOrAuto(1, 16_777_216), r#""auto""#, "Open connections, all shards together. `auto`: as many as each may have.";
        connections_new_max: Option<u32>, CountOrAuto(1, 1_048_576), r#""auto""#, "Open connections a shard that have not sent a whole request yet; further ones are answered 503 and closed. `auto`: 10,240, or an eighth of `connections_max` where that is more.";
        connections_per_address_max: u32, Count(0, 1_048_576), "0", "Open connections of one client address (of IPv6, one network of 64 bits), all shards together; further ones are answered 503 and closed. 0: no bound; behind a proxy all have its address.";
        steer: &'static str, Word(&["hash", "cpu"]), r#""hash""#, "Which shard gets a new connection to an IP address of `listen`. `hash`: the kernel draws one. `cpu`: the one on the CPU that its first packet came in on; refused with the reason where receive queues, their interrupts and the shards' CPUs do not line up.";
        balance: bool, Flag, "true", "Whether a shard hands a new connection to another one that has fewer, by more than an eighth, before anything is read of it. Those to a shard's own port or socket, and those that are steered by CPU, stay where they are.";
        drain_timeout: Duration, Duration(0, HOUR), r#""10s""#, "How long a stopping server waits for requests in flight.";
    }
    /// The protocol spoken on the data port.
    http: Http {
        header_timeout: Duration, Duration(1, HOUR), r#""10s""#, "Time for a request head, from its first byte to its last.";
        body_timeout: Duration, Duration(1, HOUR), r#""30s""#, "Time for a request body.";
        idle_timeout: Duration, Duration(1, HOUR), r#""75s""#, "How long a connection may stay open between requests.";
        write_timeout: Duration, Duration(1, HOUR), r#""10s""#, "How long a peer may take no byte of a reply.";
        head_size_max: u64, Size(1024, 16_384), r#""8KiB""#, "Largest request head; larger ones are answered 431, or 414 for the target alone.";
        key_size_max: u32, Count(1, 512), "512", "Longest key in bytes, percent-decoded; longer ones are answered 414.";
        body_size_max: u64, Size(0, 1 << 30), r#""1MiB""#, "Largest request body; larger ones are answered 413.";
        batch_keys_max: u32, Count(1, 1024), "128", "Most keys of a batch (`POST /lookup`); more are answered 413.";
        batch_bytes_max: u64, Size(1024, 1 << 30), r#""4MiB""#, "Most bytes of values in the reply to a batch; the items of further ones are 413.";
        requests_per_connection_max: u32, Count(0, 1_000_000_000), "0", "Requests of a connection; the reply to the last one says `Connection: close`. 0: no bound.";
        writes: bool, Flag, "false", "Whether PUT and DELETE on `/lookup/{key}` write through to the origin. They need the token of `admin.token_file`.";
        cache_control: bool, Flag, "true", "Whether replies carry `Cache-Control`.";
        cache_status: bool, Flag, "true", "Whether replies carry `Cache-Status` (RFC 9211).";
        shard_header: bool, Flag, "false", "Whether replies carry `Shard: i/n`: the number of the shard, from 0, that has the connection, and how many there are.";
    }
    /// What is kept in memory, and for how long.
    cache: Cache {
        memory: Memory, Memory, r#""auto""#, "Memory of the cache, all shards together. `auto`: 25% of the smaller of available memory and the cgroup's limit.";
        ttl: Duration, Duration(1, WEEK), r#""60s""#, "How long a value is fresh where its origin says nothing, from when the origin was asked.";
        stale_while_revalidate: Duration, Duration(0, WEEK), r#""30s""#, "How long a value is served after its freshness while it is fetched again.";
        stale_if_error: Duration, Duration(0, WEEK), r#""10m""#, "How long a value is served after its freshness while its origin fails.";
        ttl_jitter: Share, Share(0, 500), r#""5%""#, "By how much at most a value's lifetime is shortened, drawn for each anew: what was fetched together is not fetched together again. \"0%\": not at all.";
        negative_ttl: Duration, Duration(1, WEEK), r#""2s""#, "How long the absence of a key is remembered.";
        value_size_max: u64, Size(1, 16 << 20), r#""1MiB""#, "Largest value; larger ones are refused on import and answered 502.";
        replica_share: Share, Share(0, 500), r#""2%""#, "Share of the cache for copies of keys that other shards own and this one reads often. At least 3 MiB a shard, but where that is more than a tenth of its cache; \"0%\": none.";
        hash_key: Option<[u64; 2]>, HashKey, r#""random""#, "Secret of the hash that spreads keys over shards. Set it only to repeat a run.";
    }
    /// What a shard does without that has more to do than it can.
    overload: Overload {
        target: Duration, Duration(1, HOUR), r#""2ms""#, "How long what has arrived should wait at most before a shard sees it. Beyond twice that misses are refused (503), or served stale where cache.stale_if_error allows that.";
    }
    /// The source of truth that is asked on a miss.
    origin: Origin {
        kind: &'static str, Word(&["embedded", "http", "redis", "postgres", "tier"]), r#""embedded""#, "Kind of the origin. `embedded`: a store in one file. `http`: an HTTP server, of which `upstream` tells. `redis`: Redis, of which `redis` tells. `postgres`: PostgreSQL, of which `postgres` tells. `tier`: several of them, one in front of the other, which `tier` names.";
        path: PathBuf, Path, r#""pelton-data/store.redb""#, "File of the embedded store.";
        timeout: Duration, Duration(1, HOUR), r#""2s""#, "Time for one fetch; a later answer is none (504).";
        cache: u64, Size(1 << 20, 1 << 40), r#""64MiB""#, "Memory of the embedded store's page cache.";
        requests_max: u32, Count(1, 65_536), "256", "Most requests that one server of the origin is sent at a time. It is sent fewer while it answers slower than it did.";
        queue_max: u32, Count(0, 65_536), "1024", "Most requests that wait for such a server; what comes beyond is refused (503).";
        flight_waiters_max: u32, Count(1, 8192), "1024", "Most requests that wait for one fetch, which all who ask for its key share. What comes beyond is served stale, where cache.stale_if_error allows that, or refused (503).";
        samples: bool, Flag, "true", "Whether of the keys that the origin says have changed, where it does, one a second at most is looked at: is what is served what the origin has? `/metrics` says what that has shown.";
        tls_ca: Option<PathBuf>, PathOrOff, r#""off""#, "File of certificates (PEM) that vouch for the origin's servers. `off`: those of the system.";
    }
    /// An HTTP server as the origin.
    upstream: Upstream {
        url: String, Text, r#""http://127.0.0.1:3000/{key}""#, "URL of a key's value: `{key}` stands for the key, percent-encoded.";
        validators_max: u32, Count(0, 1 << 24), "65536", "Most values of which is remembered by what the server knows them again (`ETag`, `Last-Modified`): it is asked whether they have changed, and need not send them once more. 0: all are fetched whole.";
    }
    /// Redis as the origin.
    redis: Redis {
        urls: Vec<String>, Texts(1, 64), r#"["redis://127.0.0.1:6379"]"#, "The server, as `redis://USER@HOST:PORT/DATABASE`, or `rediss` for TLS. With `replicas`, those behind the first are its replicas. With `cluster`, some that belong to it.";
        cluster: bool, Flag, "false", "Whether the servers are a cluster.";
        replicas: bool, Flag, "false", "Whether values are read from replicas. What they answer may be older than what the primary has.";
        password_file: Option<PathBuf>, PathOrOff, r#""off""#, "File with the password, one line. `off`: there is none.";
        key: String, Text, r#""{key}""#, "What a key is called in Redis: `{key}` stands for the key.";
        content_type: String, Text, r#""application/octet-stream""#, "Content type of all values.";
        tracking: bool, Flag, "true", "Whether Redis tells which keys change (`CLIENT TRACKING`, from Redis 6 on), so that they are dropped at once. Where not, they are kept as long as `cache.ttl` and their own time to live say.";
    }
    /// PostgreSQL as the origin.
    postgres: Postgres {
        urls: Vec<String>, Texts(1, 64), r#"["postgres://pelton@127.0.0.1:5432/pelton"]"#, "URL of each partition, without a password: `postgres://USER@HOST:PORT/DATABASE?sslmode=require`. A key is in partition CRC-32(key) modulo their number, counted from 0.";
        password_file: Option<PathBuf>, PathOrOff, r#""off""#, "File with the password, in its first line. `off`: none is asked for.";
        query: String, Text, r#""SELECT value FROM items WHERE key = $1""#, "SQL that returns the value of the key `$1`; also `content_type text` and `ttl_ms bigint`, by these names.";
        put: Option<String>, TextOrOff, r#""off""#, "SQL that stores the value `$2`, and the content type `$3` where it takes one, for the key `$1`. `off`: nothing can be written.";
        delete: Option<String>, TextOrOff, r#""off""#, "SQL that removes the key `$1`. `off`: nothing can be written.";
        connections: u32, Count(1, 64), "4", "Most connections to each partition that are read from, and as many more where it is written.";
    }
    /// Origins one in front of the other.
    tier: Tier {
        of: Vec<String>, Texts(2, 4), r#"["redis", "postgres"]"#, "Kinds of origins in the order in which they are asked; the last has the truth.";
    }
    /// What of the cache is written to disk, so that a restart is warm.
    snapshot: Snapshot {
        path: Option<PathBuf>, PathOrOff, r#""off""#, "Folder of the snapshot of the cache, for this process alone. `off`: none is written or read.";
        interval: Duration, Duration(1000, WEEK), r#""5m""#, "Time from one snapshot to the next.";
        on_exit: bool, Flag, "true", "Whether a stopping server writes a last one.";
        exit_timeout: Duration, Duration(0, HOUR), r#""30s""#, "How long a stopping server may take for the last one, beyond server.drain_timeout.";
        rate: u64, Size(1 << 20, 1 << 40), r#""64MiB""#, "Bytes a second that are written or read. The last one is written as fast as it goes.";
    }
    /// The port for operators.
    admin: Admin {
        listen: Option<SocketAddr>, AddressOrOff, r#""127.0.0.1:9090""#, "Address of the admin port. It asks for no password to look: keep it private.";
        token_file: Option<PathBuf>, PathOrOff, r#""off""#, "File with the bearer token of who may purge and write: one line, at least 16 bytes. `off`: nobody may.";
    }
    /// What is written to standard error.
    log: Log {
        level: &'static str, Word(&["error", "warn", "info", "debug", "trace"]), r#""info""#, "Least severity that is written.";
    }
    each
    /// Who asks, by API key, and what they may have. Without any, everybody may ask for everything.
    tenant: Tenant {
        name: String, Text, r#""anonymous""#, "What the tenant is called in metrics and logs. `anonymous` has no keys: it is who shows none; without it, they are answered 401.";
        keys: Vec<KeyDigest>, KeyDigests(2), "[]", "Digests of the tenant's API keys, as `pelton key new` prints them; two, so that one can follow the other. A client sends its key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.";
        class: &'static str, Word(&["critical", "standard", "sheddable"]), r#""standard""#, "Whose misses are fetched first where there is not time for all.";
        rate: Option<u32>, CountOrOff(1, 10_000_000), r#""off""#, "Requests a second, all shards together; what comes beyond is answered 429. Each key of a batch is one.";
        burst: Option<u32>, CountOrAuto(1, 10_000_000), r#""auto""#, "Requests at once, after a pause. `auto`: a tenth of a second's.";
        connections: Share, Share(1, 1000), r#""100%""#, "Share of a shard's connections that the tenant may hold; what comes beyond is answered 503 and closed.";
        cache: Share, Share(0, 500), r#""0%""#, "Share of the cache that others cannot take from what the tenant has asked for. All tenants together have at most half.";
        methods: Vec<&'static str>, Words(&["GET", "POST", "PUT", "DELETE"]), r#"["GET", "POST"]"#, "What the tenant may do; others are answered 403. GET is also HEAD, POST is batches; PUT and DELETE need http.writes.";
        prefix: Option<String>, TextOrOff, r#""off""#, "How the keys begin that the tenant may ask for; others are answered 403. `off`: all.";
    }
}

impl Config {
    /// The configuration of `file` (none: the defaults) with `sets`, each `section.key=value`,
    /// put over it in order.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(file: Option<&Path>, sets: &[String]) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Self::parse("defaults", "", sets);
        };
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text, sets),
            Err(error) => Err(ConfigError::unreadable(&name, &error)),
        }
    }

    /// The configuration of a file called `name` that holds `text`, with `sets` put over it.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn parse(name: &str, text: &str, sets: &[String]) -> Result<Self, ConfigError> {
        let (values, tenants) = source::read(name, text, sets)?;
        Ok(Self::from_values(values, tenants))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::parse("defaults", "", &[]).expect("every default passes its own check")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = Config::parse("empty", "", &[]).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.server.listen, ["0.0.0.0:8080".parse::<Address>().unwrap()]);
        assert_eq!(config.cache.memory, Memory::Percent(25));
        assert_eq!(config.http.head_size_max, 8192);
        assert_eq!(config.origin.timeout, Duration::from_secs(2));
        assert_eq!(config.admin.listen, Some("127.0.0.1:9090".parse().unwrap()));
    }

    #[test]
    fn the_effective_configuration_reads_back() {
        let text = "[server]\ncpus = \"0-2\"\nshards = 2\n[cache]\nttl = \"90s\"\n";
        let config = Config::parse("file", text, &["admin.listen=off".into()]).unwrap();
        let json = config.to_json();
        assert_eq!(json["server"]["cpus"], "0,1,2");
        let sets: Vec<String> = PARAMETERS
            .iter()
            .map(|p| format!("{}.{}={}", p.section, p.key, json[p.section][p.key]))
            .collect();
        assert_eq!(Config::parse("none", "", &sets).unwrap(), config);
    }

    #[test]
    fn a_set_wins_over_the_file_and_the_last_one_over_all() {
        let sets = ["cache.ttl=5s".into(), "cache.ttl=\"7s\"".into()];
        let config = Config::parse("file", "[cache]\nttl = \"3s\"", &sets).unwrap();
        assert_eq!(config.cache.ttl, Duration::from_secs(7));
    }
}
