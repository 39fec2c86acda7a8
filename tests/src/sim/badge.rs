//! Who clients say they are, what the server may answer for that, and how much who has a rate may
//! get of it.
//!
//! In every fourth seed the server knows tenants. A client shows the same key, or none, in all that
//! it asks; of its writes some bear the operator's token instead.

use super::request::Ask;
use crate::model::{Held, KeyNumber, Model};
use crate::prng::Prng;
use pelton::api_key::{ApiKey, KeyDigest};
use pelton::config::Config;
use pelton::mesh::Tenants;
use shard_cache::time::Instant;

/// Of who has no rate.
const KEY_UNLIMITED: &ApiKey = b"pk_web0web0web0web0web0web0web0web0web0web0web0w";
/// Of who has one.
const KEY_LIMITED: &ApiKey = b"pk_batchbatchbatchbatchbatchbatchbatchbatchbatch";
/// Nobody's; only its last letter is not that of a tenant's.
const KEY_NOBODYS: &ApiKey = b"pk_web0web0web0web0web0web0web0web0web0web0web0x";

/// Requests a second of who has a rate, and at once.
const RATE: u64 = 20;
const BURST: u64 = 5;

/// How long requests are counted before it begins anew: what was not used up long ago would hide
/// what is too much now.
const COUNTED_NS: u64 = 1_000_000_000;

/// The tenants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Badges {
    has_anonymous: bool,
    /// How the keys begin that who has no rate may ask for.
    prefix: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Unlimited,
    Limited,
    /// Shows a key that nobody has.
    Nobody,
    /// Shows no key.
    Stranger,
}

/// What a client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Badge {
    badges: Badges,
    who: Who,
    /// In which of the two lines.
    is_bearer: bool,
}

/// What may be said to a request because of who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Free,
    /// That it is beyond the rate.
    Limited,
    /// Always this.
    Refused(u16),
}

impl Badges {
    /// Those of a seed, if its server knows tenants. Bits of the hash key decide that, so that no
    /// other draw depends on it.
    #[must_use]
    pub fn of(hash_key: [u64; 2]) -> Option<Self> {
        let bits = hash_key[0] >> 32;
        bits.is_multiple_of(4).then_some(Self {
            has_anonymous: !(bits >> 2).is_multiple_of(4),
            prefix: if (bits >> 4).is_multiple_of(2) { "key-1" } else { "" },
        })
    }

    /// What the server knows of them.
    ///
    /// # Panics
    /// If that is no configuration.
    #[must_use]
    pub fn tenants(self) -> Tenants {
        let (web, batch) = (KeyDigest::of(KEY_UNLIMITED), KeyDigest::of(KEY_LIMITED));
        let prefix = if self.prefix.is_empty() { "off" } else { self.prefix };
        let all = r#"["GET", "POST", "PUT", "DELETE"]"#;
        let mut text = format!(
            "[[tenant]]\nname = \"web\"\nkeys = [\"{web}\"]\nclass = \"critical\"\n\
             prefix = \"{prefix}\"\nmethods = {all}\n\
             [[tenant]]\nname = \"batch\"\nkeys = [\"{batch}\"]\nclass = \"sheddable\"\n\
             rate = {RATE}\nburst = {BURST}\ncache = \"10%\"\nmethods = {all}\n"
        );
        if self.has_anonymous {
            text.push_str("[[tenant]]\nname = \"anonymous\"\n");
        }
        Tenants::new(&Config::parse("sim", &text, &[]).expect("it is valid").tenants)
    }

    /// What a client shows.
    #[must_use]
    pub fn draw(self, prng: &mut Prng) -> Badge {
        let who = prng.pick(&[
            Who::Unlimited,
            Who::Unlimited,
            Who::Limited,
            Who::Limited,
            Who::Nobody,
            Who::Stranger,
        ]);
        Badge { badges: self, who, is_bearer: prng.coin() }
    }
}

impl Badge {
    /// Writes the line that shows it, if there is one.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let key = match self.who {
            Who::Unlimited => KEY_UNLIMITED,
            Who::Limited => KEY_LIMITED,
            Who::Nobody => KEY_NOBODYS,
            Who::Stranger => return,
        };
        let name =
            if self.is_bearer { b"Authorization: Bearer ".as_slice() } else { b"X-API-Key: " };
        out.extend([name, key, b"\r\n"].concat());
    }

    /// What may be said to a request that shows it.
    #[must_use]
    pub(super) fn standing(self, ask: &Ask, model: &Model) -> Standing {
        let Badges { has_anonymous, prefix } = self.badges;
        match (self.who, ask) {
            (_, Ask::Health | Ask::Nowhere | Ask::Method { .. } | Ask::Broken) => Standing::Free,
            (Who::Nobody, _) => Standing::Refused(401),
            (Who::Stranger, _) if !has_anonymous => Standing::Refused(401),
            (Who::Stranger, Ask::Write { .. }) => Standing::Refused(403),
            (Who::Unlimited, &(Ask::Lookup { key, .. } | Ask::Write { key, .. }))
                if !model.key(key).starts_with(prefix.as_bytes()) =>
            {
                Standing::Refused(403)
            }
            (Who::Limited, _) => Standing::Limited,
            (Who::Unlimited | Who::Stranger, _) => Standing::Free,
        }
    }

    /// What may be said to a key of a batch that shows it.
    #[must_use]
    pub(super) fn standing_of_item(self, key: KeyNumber, model: &Model) -> Standing {
        self.standing(&Ask::Lookup { key, held: Held::Nothing }, model)
    }
}

impl Standing {
    /// The status and the body of what may be said.
    #[must_use]
    pub const fn refusal(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Free => None,
            Self::Limited => Some((429, r#"{"error":"rate_limited"}"#)),
            Self::Refused(401) => Some((401, r#"{"error":"unauthorized"}"#)),
            Self::Refused(status) => Some((status, r#"{"error":"forbidden"}"#)),
        }
    }
}

/// What who has a rate has got of it.
#[derive(Debug)]
pub struct Quota {
    shards_count: u64,
    /// What was asked before is not counted.
    from: Instant,
    admitted: u64,
}

impl Quota {
    /// Of a server with so many shards.
    #[must_use]
    pub fn new(shards_count: u16) -> Self {
        Self { shards_count: shards_count.into(), from: Instant::ZERO, admitted: 0 }
    }

    /// Counts requests that were admitted between then and now.
    ///
    /// # Errors
    /// If they are too many.
    pub fn admit(&mut self, count: u64, then: Instant, now: Instant) -> Result<(), String> {
        if now.ns_since(self.from) > COUNTED_NS {
            (self.from, self.admitted) = (now, 0);
        }
        if then < self.from {
            return Ok(());
        }
        self.admitted += count;
        let ns = now.ns_since(self.from);
        // A request that has begun, and what shards may hold: half a burst, or one each.
        let most = (RATE * ns).div_ceil(1_000_000_000) + BURST + BURST / 2 + self.shards_count;
        if self.admitted > most {
            return Err(format!("{} requests were admitted in {ns} ns", self.admitted));
        }
        Ok(())
    }
}
