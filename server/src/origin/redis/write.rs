//! Writes to Redis.
//!
//! A tag is a hash that Redis cannot compute, so what has a precondition is done in two steps: the
//! value is read and its tag compared here, and a script changes the key if it still has that
//! value. One that has got another meanwhile is looked at anew.

use super::Redis;
use super::server::Server;
use super::topology::Called;
use crate::error::FetchFailure;
use crate::mesh::{Change, Lifetime, Precondition, Stale, Stored, Written};
use crate::origin::Write;
use crate::origin::guard::Trouble;
use crate::origin::store::checked;
use shard_cache::hash::Etag;
use std::time::Duration;

/// How often a key is looked at anew that others change all the time.
const LOOKS_MAX: usize = 8;

/// Changes a key that has this value, or none: `KEYS[1]` the key, `ARGV[1]` how many values follow
/// that it has (0 or 1), then that value, then, unless the key is to go, the new one and its time
/// to live in milliseconds, or -1. Says whether it was done.
const CHANGE: &str = r"
local old = redis.call('GET', KEYS[1])
local has = tonumber(ARGV[1])
if has == 1 and old ~= ARGV[2] or has == 0 and old then return 0 end
local new, ttl = ARGV[2 + has], ARGV[3 + has]
if not new then redis.call('DEL', KEYS[1])
elseif ttl == '-1' then redis.call('SET', KEYS[1], new)
else redis.call('SET', KEYS[1], new, 'PX', ttl) end
return 1
";

impl Redis {
    /// Does a write.
    pub(super) async fn change(&self, write: Write) -> Written {
        let name = self.names.of(write.key.as_bytes());
        if write.precondition == Precondition::default() {
            return match write.change {
                Change::Put { lifetime, .. } => self.set(&name, &write.value, lifetime).await,
                Change::Delete => self.delete(&name).await,
            };
        }
        if let (Precondition::ABSENT, Change::Put { lifetime, .. }) =
            (write.precondition, write.change)
        {
            return self.add(&name, &write.value, lifetime).await;
        }
        for _ in 0..LOOKS_MAX {
            if let Some(written) = self.change_if(&name, &write).await {
                return written;
            }
        }
        Written::Failed(FetchFailure::NoRoom)
    }

    async fn set(&self, name: &[u8], value: &[u8], lifetime: Lifetime) -> Written {
        let set = async |server: &Server, called: Called| {
            let mut commands = called.pipeline();
            commands.cmd("EXISTS").arg(name);
            called.again(&mut commands);
            commands.cmd("SET").arg(name).arg(value);
            if let Some(ttl_ms) = ttl_ms(lifetime) {
                commands.arg("PX").arg(ttl_ms);
            }
            commands.ignore();
            let (is_there,): (bool,) = server.ask(&commands).await?;
            Ok(is_there)
        };
        let answer = self.topology.write(name, set).await;
        told(answer, |is_there| self.stored(value, lifetime, !is_there))
    }

    async fn add(&self, name: &[u8], value: &[u8], lifetime: Lifetime) -> Written {
        let add = async |server: &Server, called: Called| {
            let mut commands = called.pipeline();
            commands.cmd("SET").arg(name).arg(value).arg("NX");
            if let Some(ttl_ms) = ttl_ms(lifetime) {
                commands.arg("PX").arg(ttl_ms);
            }
            let (is_new,): (bool,) = server.ask(&commands).await?;
            Ok(is_new)
        };
        let answer = self.topology.write(name, add).await;
        told(answer, |is_new| match is_new {
            true => self.stored(value, lifetime, true),
            false => Written::PreconditionFailed,
        })
    }

    async fn delete(&self, name: &[u8]) -> Written {
        let delete = async |server: &Server, called: Called| {
            let mut commands = called.pipeline();
            commands.cmd("DEL").arg(name);
            let (was_there,): (bool,) = server.ask(&commands).await?;
            Ok(was_there)
        };
        let answer = self.topology.write(name, delete).await;
        told(answer, |was_there| if was_there { Written::Deleted } else { Written::Absent })
    }

    /// Does a write if its precondition holds; nothing if the key has changed meanwhile.
    async fn change_if(&self, name: &[u8], write: &Write) -> Option<Written> {
        let get = async |server: &Server, called: Called| {
            let mut commands = called.pipeline();
            commands.cmd("GET").arg(name);
            let (old,): (Option<Vec<u8>>,) = server.ask(&commands).await?;
            Ok(old)
        };
        let old = match self.topology.write(name, get).await {
            Ok(old) => old,
            // Nothing was changed, whatever became of this.
            Err(trouble) => return Some(Written::Failed(trouble.failure())),
        };
        let tag = |value: &Vec<u8>| Etag::of(self.content_type.as_str(), value);
        if !write.precondition.holds(old.as_ref().map(tag)) {
            return Some(Written::PreconditionFailed);
        }
        if old.is_none() && write.change == Change::Delete {
            return Some(Written::Absent);
        }
        let change = async |server: &Server, called: Called| {
            let mut commands = called.pipeline();
            commands.cmd("EVAL").arg(CHANGE).arg(1).arg(name).arg(usize::from(old.is_some()));
            if let Some(old) = &old {
                commands.arg(old);
            }
            if let Change::Put { lifetime, .. } = write.change {
                let ttl_ms =
                    ttl_ms(lifetime).map_or_else(|| "-1".to_owned(), |ttl| ttl.to_string());
                commands.arg(&write.value[..]).arg(ttl_ms);
            }
            let (is_done,): (bool,) = server.ask(&commands).await?;
            Ok(is_done)
        };
        let answer = self.topology.write(name, change).await;
        if answer == Ok(false) {
            return None;
        }
        Some(told(answer, |_| match write.change {
            Change::Put { lifetime, .. } => self.stored(&write.value, lifetime, old.is_none()),
            Change::Delete => Written::Deleted,
        }))
    }

    fn stored(&self, value: &[u8], lifetime: Lifetime, is_new: bool) -> Written {
        let content_type = self.content_type;
        let etag = Etag::of(content_type.as_str(), value);
        let content_type = checked(content_type, value);
        let (lifetime, stale) = match ttl_ms(lifetime) {
            Some(ttl_ms) => self.lifetime(i64::try_from(ttl_ms).unwrap_or(i64::MAX)),
            None => (Lifetime::Default, Stale::default()),
        };
        Written::Stored(Stored { content_type, etag, is_new, lifetime, stale })
    }
}

/// What is said of a change that was sent once.
fn told<T>(answer: Result<T, Trouble>, say: impl FnOnce(T) -> Written) -> Written {
    match answer {
        Ok(answer) => say(answer),
        // It may have been done before the connection was lost.
        Err(Trouble::Failed) => Written::Unknown,
        Err(trouble) => Written::Failed(trouble.failure()),
    }
}

/// The time to live that a key is given; a value that is fresh for no time lives for the least.
fn ttl_ms(lifetime: Lifetime) -> Option<u64> {
    let ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
    match lifetime {
        Lifetime::For(ttl) => Some(ms(ttl)),
        Lifetime::Default | Lifetime::Unlimited => None,
    }
}
