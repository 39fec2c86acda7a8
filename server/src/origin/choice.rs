//! Which origin a configuration asks for.

use super::{Embedded, Origin, Postgres, Redis, Room, Store, StoreOptions, Tier, Upstream};
use crate::config::Config;
use crate::error::StartError;
use crate::limits::Limits;

/// Opens the origin of a configuration, on the thread of the origin plane.
///
/// # Errors
/// It cannot be opened as it is configured. A server that does not answer is no such reason: it is
/// tried until it does.
pub fn open(config: &Config, limits: &Limits) -> Result<Box<dyn Origin>, StartError> {
    let room = Room::new(limits.fetched_size_max);
    if config.origin.kind == "tier" {
        return tier(config, limits, &room);
    }
    one(config.origin.kind, config, limits, room)
}

/// An origin of this kind.
fn one(
    kind: &str,
    config: &Config,
    limits: &Limits,
    room: Room,
) -> Result<Box<dyn Origin>, StartError> {
    match kind {
        "embedded" => embedded(config, limits, room),
        "http" if config.http.writes => Err(StartError::failed(
            "http.writes is true, but an origin of the kind \"http\" cannot be written.",
            "Set http.writes to false, or origin.kind to one that can be written.",
        )),
        "http" => Ok(Box::new(Upstream::new(config, room)?)),
        "redis" => redis(config, room),
        "postgres" => postgres(config, &room),
        other => unreachable!("the table of parameters lists kinds: {other}"),
    }
}

fn embedded(config: &Config, limits: &Limits, room: Room) -> Result<Box<dyn Origin>, StartError> {
    let store = Store::open(&StoreOptions::of(config))?;
    let reads_max = limits.flights_max as usize * usize::from(limits.shards);
    let writes_max = limits.writes_count_max();
    let value_size_max = usize::try_from(config.cache.value_size_max).expect("below 4 GiB");
    Ok(Box::new(Embedded::start(store, reads_max, writes_max, value_size_max, room)?))
}

fn redis(config: &Config, room: Room) -> Result<Box<dyn Origin>, StartError> {
    no_snapshot_of_writes(config, "Redis")?;
    Ok(Box::new(Redis::new(config, room)?))
}

fn postgres(config: &Config, room: &Room) -> Result<Box<dyn Origin>, StartError> {
    let off =
        [("postgres.put", &config.postgres.put), ("postgres.delete", &config.postgres.delete)];
    for (setting, sql) in off {
        if config.http.writes && sql.is_none() {
            return Err(StartError::failed(
                format!("http.writes is true, but {setting} is off: there is no SQL to write by."),
                format!("Set {setting} to a statement, or http.writes to false."),
            ));
        }
    }
    no_snapshot_of_writes(config, "PostgreSQL")?;
    Ok(Box::new(Postgres::new(config, room)?))
}

fn tier(config: &Config, limits: &Limits, room: &Room) -> Result<Box<dyn Origin>, StartError> {
    let names = config.tier.of.as_slice();
    let (last, above) = names.split_last().expect("there are two at least");
    let wrong = |what: String| {
        Err(StartError::failed(
            format!("tier.of {what}."),
            "Name embedded, http, redis or postgres, each once; http can be the last alone.",
        ))
    };
    for (index, name) in names.iter().enumerate() {
        if !["embedded", "http", "redis", "postgres"].contains(&name.as_str()) {
            return wrong(format!("names what is no kind of origin: {name}"));
        }
        if names[..index].contains(name) {
            return wrong(format!("names {name} twice"));
        }
    }
    if above.iter().any(|name| name == "http") {
        return wrong(format!("has http before {last}, and nothing can be put into it"));
    }
    let sql = &config.postgres;
    let cannot_be_filled = sql.put.is_none() || sql.delete.is_none();
    if above.iter().any(|name| name == "postgres") && cannot_be_filled {
        return wrong(format!("has postgres before {last}, which needs postgres.put and delete"));
    }
    no_snapshot_of_writes(config, "the last origin of the tier")?;
    let origins = names.iter().map(|name| one(name, config, limits, room.clone()));
    let origins = origins.collect::<Result<_, _>>()?;
    Ok(Box::new(Tier::new(origins, config.origin.timeout, config.cache.ttl)))
}

/// What was written is not followed by what was there before it, also where the process was killed.
fn no_snapshot_of_writes(config: &Config, name: &str) -> Result<(), StartError> {
    if config.http.writes && config.snapshot.path.is_some() {
        return Err(StartError::failed(
            format!(
                "A snapshot could bring back what was there before a write: nothing asks {name} \
                 whether a value is still the one."
            ),
            "Set snapshot.path to off, or http.writes to false.",
        ));
    }
    Ok(())
}
