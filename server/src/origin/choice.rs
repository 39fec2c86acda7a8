//! Which origin a configuration asks for.

use super::{Embedded, Origin, Postgres, Redis, Room, Store, StoreOptions, Upstream};
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
    match config.origin.kind {
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
