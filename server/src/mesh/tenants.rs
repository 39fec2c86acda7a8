//! Tenants as all shards share them: who has which key, what each may do, and what is left of the
//! rate of each.
//!
//! A rate is kept by GCRA, the generic cell rate algorithm (ITU-T I.371), in one word a tenant: the
//! time at which all that was taken would be paid back at the tenant's rate. One may take as long
//! as that is less than a burst ahead. Shards take *slices* of several requests at a time, so that
//! a tenant who asks a million times a second does not have all cores fight for that word; what
//! they have not used soon they give back.

use crate::api_key::KeyDigest;
use crate::config::Tenant;
use shard_cache::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Parts of a nanosecond in which a rate is kept: the time of a request is exact to 0.06% at the
/// highest rate, and 64 bits last 36 years.
const TICKS_PER_NS: u64 = 16;

/// Index of a tenant, or [`NO_TENANT`].
pub type TenantIndex = u16;

/// No tenant: of a connection that has not asked yet.
pub const NO_TENANT: TenantIndex = u16::MAX;

/// Whose misses come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// First.
    Critical,
    /// Then.
    Standard,
    /// Last.
    Sheddable,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// GET or HEAD.
    Get = 1,
    /// A batch.
    Batch = 2,
    /// PUT.
    Put = 4,
    /// DELETE.
    Delete = 8,
}

/// What one tenant may do.
#[derive(Debug)]
pub struct Rule {
    /// What it is called.
    pub name: String,
    /// How much its misses matter.
    pub class: Class,
    /// How its keys begin; all of them with nothing.
    pub prefix: Box<[u8]>,
    /// Its share of a shard's connections, tenths of a percent.
    pub connections_permille: u16,
    /// The group of its entries, which have a guarantee; 0 if they have none.
    pub cache_group: u8,
    /// What it may do: bits of [`Action`].
    pub actions: u8,
    /// Its rate, if it has one.
    pub rate: Option<Rate>,
    quota: Quota,
}

/// How often a tenant may ask.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The time of one request, in parts of a nanosecond.
    ticks: u64,
    /// Requests at once.
    pub burst: u32,
}

/// Alone on its cache line: shards take from it at the same time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Quota {
    /// When all that was taken is paid back, in parts of a nanosecond.
    paid_at: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    rules: Box<[Rule]>,
    /// In the order of their bits.
    digests: Box<[(KeyDigest, TenantIndex)]>,
    anonymous: Option<TenantIndex>,
    cache_permilles: Vec<u16>,
}

/// All tenants, shared by the shards. There are none where everybody may do everything.
#[derive(Clone, Debug)]
pub struct Tenants(Arc<Shared>);

impl Tenants {
    /// The tenants of a configuration.
    #[must_use]
    pub fn new(tenants: &[Tenant]) -> Self {
        let index = |at: usize| TenantIndex::try_from(at).expect("tenants are bounded");
        let digests = tenants.iter().enumerate();
        let mut digests: Box<[_]> = digests
            .flat_map(|(at, tenant)| tenant.keys.iter().map(move |digest| (*digest, index(at))))
            .collect();
        digests.sort_unstable_by_key(|(digest, _)| digest.bits());
        let mut cache_permilles = vec![0];
        let rules = tenants.iter().map(|tenant| {
            let permille = tenant.cache.permille();
            if permille == 0 {
                return Rule::new(tenant, 0);
            }
            cache_permilles.push(permille);
            let group = cache_permilles.len() - 1;
            Rule::new(tenant, u8::try_from(group).expect("shares of the cache are bounded"))
        });
        Self(Arc::new(Shared {
            rules: rules.collect(),
            cache_permilles,
            digests,
            anonymous: tenants.iter().position(Tenant::is_anonymous).map(index),
        }))
    }

    /// What each may do, by its index.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    /// What one of them may do.
    #[must_use]
    pub fn rule(&self, tenant: TenantIndex) -> &Rule {
        &self.0.rules[usize::from(tenant)]
    }

    /// How many keys they have.
    #[must_use]
    pub fn keys_count(&self) -> usize {
        self.0.digests.len()
    }

    /// What is guaranteed of the cache to each group of entries, tenths of a percent: nothing to
    /// group 0.
    #[must_use]
    pub fn cache_permilles(&self) -> &[u16] {
        &self.0.cache_permilles
    }

    /// Who shows no key, if that is allowed.
    #[must_use]
    pub fn anonymous(&self) -> Option<TenantIndex> {
        self.0.anonymous
    }

    /// Whose key has this digest.
    #[must_use]
    pub fn of(&self, digest: &KeyDigest) -> Option<TenantIndex> {
        let digests = &self.0.digests;
        let from = digests.partition_point(|(known, _)| known.bits() < digest.bits());
        let same = digests[from..].iter().take_while(|(known, _)| known.bits() == digest.bits());
        same.filter(|(known, _)| known == digest).map(|(_, tenant)| *tenant).next()
    }
}

impl Rule {
    fn new(tenant: &Tenant, cache_group: u8) -> Self {
        let action = |method: &&str| match *method {
            "GET" => Action::Get,
            "POST" => Action::Batch,
            "PUT" => Action::Put,
            "DELETE" => Action::Delete,
            other => unreachable!("{other} is no method of the table"),
        };
        Self {
            name: tenant.name.clone(),
            class: match tenant.class {
                "critical" => Class::Critical,
                "sheddable" => Class::Sheddable,
                _ => Class::Standard,
            },
            prefix: tenant.prefix.as_deref().unwrap_or_default().as_bytes().into(),
            connections_permille: tenant.connections.permille(),
            cache_group,
            actions: tenant.methods.iter().map(action).fold(0, |all, one| all | one as u8),
            rate: tenant.rate.map(|per_second| Rate::new(per_second, tenant.burst)),
            quota: Quota::default(),
        }
    }

    /// Takes as many of `wanted` requests as the rate allows.
    ///
    /// # Panics
    /// If it has no rate.
    #[must_use]
    pub fn take(&self, wanted: u32, now: Instant) -> Slice {
        let rate = self.rate.as_ref().expect("only what has a rate is taken");
        let now = now.ns() * TICKS_PER_NS;
        let paid_at = &self.quota.paid_at;
        let mut seen = paid_at.load(Ordering::Relaxed);
        loop {
            let granted = rate.left(seen, now).min(wanted);
            if granted == 0 {
                return Slice::NothingUntil(rate.next(seen));
            }
            let next = seen.max(now) + rate.ticks * u64::from(granted);
            match paid_at.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Slice::Requests(granted),
                Err(other) => seen = other,
            }
        }
    }

    /// Gives back what was taken and not used. Where all else is paid back by now it is not worth
    /// anything: a burst is what one may have at most.
    pub fn give_back(&self, unused: u32) {
        let Some(rate) = &self.rate else { return };
        // What is given back was added to it before.
        self.quota.paid_at.fetch_sub(rate.ticks * u64::from(unused), Ordering::Relaxed);
    }
}

/// What a shard was given of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// So many requests.
    Requests(u32),
    /// None before this time.
    NothingUntil(Instant),
}

impl Rate {
    /// So many requests a second, and so many at once: a tenth of them where nothing is said.
    fn new(per_second: u32, burst: Option<u32>) -> Self {
        Self {
            ticks: 1_000_000_000 * TICKS_PER_NS / u64::from(per_second),
            burst: burst.unwrap_or(per_second / 10).max(1),
        }
    }

    fn left(&self, paid_at: u64, now: u64) -> u32 {
        let burst = self.ticks * u64::from(self.burst);
        let left = burst.saturating_sub(paid_at.saturating_sub(now)) / self.ticks;
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// When there is one again.
    const fn next(&self, paid_at: u64) -> Instant {
        let ahead = self.ticks * (self.burst as u64 - 1);
        Instant::from_ns(paid_at.saturating_sub(ahead).div_ceil(TICKS_PER_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::new_key;
    use crate::config::Config;

    fn tenants(text: &str) -> Tenants {
        Tenants::new(&Config::parse("test", text, &[]).expect("valid").tenants)
    }

    /// How many requests are left of the burst.
    fn left(rule: &Rule, now: Instant) -> u32 {
        let paid_at = rule.quota.paid_at.load(Ordering::Relaxed);
        rule.rate.map_or(u32::MAX, |rate| rate.left(paid_at, now.ns() * TICKS_PER_NS))
    }

    fn at_ms(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    #[test]
    fn a_key_is_found_by_its_digest() {
        let keys: Vec<_> = (0..200).map(|_| new_key()).collect();
        let digest = |at: usize| KeyDigest::of(&keys[at]);
        let text: String = (0..100)
            .map(|at| {
                let (one, other) = (digest(2 * at), digest(2 * at + 1));
                format!("[[tenant]]\nname = \"t{at}\"\nkeys = [\"{one}\", \"{other}\"]\n")
            })
            .collect();
        let tenants = tenants(&text);
        for (at, key) in keys.iter().enumerate() {
            let tenant = tenants.of(&KeyDigest::of(key)).expect("known");
            assert_eq!(tenants.rule(tenant).name, format!("t{}", at / 2));
        }
        assert_eq!(tenants.of(&KeyDigest::of(&new_key())), None);
        assert_eq!((tenants.keys_count(), tenants.anonymous()), (200, None));
    }

    #[test]
    fn a_rule_says_what_may_be_done() {
        let tenants = tenants("[[tenant]]\nmethods = [\"GET\", \"DELETE\"]\nclass = \"sheddable\"");
        let rule = tenants.rule(tenants.anonymous().expect("there is one"));
        assert_eq!(rule.actions, Action::Get as u8 | Action::Delete as u8);
        assert_eq!((rule.class, left(rule, at_ms(5))), (Class::Sheddable, u32::MAX));
    }

    #[test]
    fn a_burst_is_had_at_once_and_then_the_rate() {
        let tenants = tenants("[[tenant]]\nrate = 1000\nburst = 5");
        let rule = tenants.rule(0);
        let start = at_ms(1_000_000);
        assert_eq!(rule.take(3, start), Slice::Requests(3));
        assert_eq!((left(rule, start), rule.take(3, start)), (2, Slice::Requests(2)));
        assert_eq!(rule.take(1, start), Slice::NothingUntil(at_ms(1_000_001)));
        assert_eq!(rule.take(1, at_ms(1_000_001)), Slice::Requests(1));
        rule.give_back(1);
        assert_eq!(rule.take(9, at_ms(1_000_003)), Slice::Requests(3));
        assert_eq!(rule.take(9, at_ms(2_000_000)), Slice::Requests(5), "a pause is not saved up");
    }

    #[test]
    fn what_is_given_back_late_is_not_worth_more_than_a_burst() {
        let tenants = tenants("[[tenant]]\nrate = 1000\nburst = 4");
        let rule = tenants.rule(0);
        assert_eq!(rule.take(4, at_ms(1000)), Slice::Requests(4));
        rule.give_back(4);
        assert_eq!(rule.take(9, at_ms(5000)), Slice::Requests(4));
        assert_eq!(rule.take(9, at_ms(5000)), Slice::NothingUntil(at_ms(5001)));
    }

    #[test]
    fn the_highest_rate_is_kept_to_a_thousandth() {
        let tenants = tenants("[[tenant]]\nrate = 10000000\nburst = 1000");
        let rule = tenants.rule(0);
        let mut taken = 0_u64;
        for us in 0..1_000_000 {
            if let Slice::Requests(count) = rule.take(100, Instant::from_ns(us * 1000)) {
                taken += u64::from(count);
            }
        }
        assert!((10_000_000..10_010_000).contains(&taken), "{taken}");
    }
}
