//! Who asks, and whether he may: what a shard knows of tenants.
//!
//! A request is known by its key. The digest of a key costs more than a hit, so a shard remembers
//! the keys that it has seen and found good, which are no more than there are digests. A key that
//! is nobody's is digested each time: it takes as long whether it resembles one or not.
//!
//! Of a rate the shard has a slice, from which a request takes one without a look at anything that
//! others write. A slice that was soon used up is followed by one of twice the size, one that was
//! not used up in time by one of half the size, and its rest is given back.

use crate::api_key::{ApiKey, KeyDigest};
use crate::http::{Refusal, Write};
use crate::limits::{KNOWN_KEY_SIZE_MAX, Limits, TENANT_SIZE_MAX};
use crate::mesh::{Action, Class, NO_TENANT, Rule, Slice, TenantIndex, Tenants as Shared, Upload};
use crate::metrics::{Board, TenantCounters};
use shard_cache::Cache;
use shard_cache::time::Instant;
use std::time::Duration;

/// How long a slice may be used: what a shard holds and does not need, others lack.
const SLICE_LIFE: Duration = Duration::from_millis(100);

/// A slice that is used up sooner is too small.
const SLICE_SHORT_NS: u64 = 10_000_000;

/// Tenants whose counters are published at a time.
const PUBLISHED_MAX: usize = 16;

/// What the shard has of one tenant.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// Requests that are left of the slice.
    left: u32,
    /// When it is over.
    until: Instant,
    /// Bits of what the tenant may do, and whether it may ask for some keys only.
    actions: u8,
    has_prefix: bool,
    /// How many the next slice is to have.
    size: u32,
    /// The largest slice.
    size_max: u32,
    /// Connections that it may have, and has.
    connections_max: u32,
    connections: u32,
    /// When the slice was taken.
    taken_at: Instant,
    /// There is nothing before this.
    nothing_until: Instant,
    /// Requests of all slices, less what was given back.
    taken: u64,
    limited: u64,
    forbidden: u64,
}

const _: () = assert!(size_of::<Account>() <= TENANT_SIZE_MAX as usize, "the bill says so");

/// A key that was found good.
#[derive(Clone, Copy, Debug)]
struct Known {
    key: ApiKey,
    tenant: TenantIndex,
}

const _: () = assert!(size_of::<Known>() * 4 <= KNOWN_KEY_SIZE_MAX as usize, "the bill says so");

/// All tenants of one shard.
#[derive(Debug)]
pub(super) struct Tenants {
    shared: Shared,
    is_on: bool,
    accounts: Box<[Account]>,
    /// Open addressing; at most half full, since it holds no more than there are digests.
    known: Box<[Known]>,
    /// The tenant whose counters are published next.
    publish_at: usize,
}

impl Tenants {
    /// The tenants of a shard with these bounds.
    pub(super) fn new(shared: Shared, limits: &Limits) -> Self {
        let account = |rule: &Rule| {
            let share =
                u64::from(limits.connections_max) * u64::from(rule.connections_permille) / 1000;
            let burst = rule.rate.map_or(u32::MAX, |rate| rate.burst);
            Account {
                left: 0,
                until: Instant::ZERO,
                actions: rule.actions,
                has_prefix: !rule.prefix.is_empty(),
                size: 1,
                size_max: (burst / (2 * u32::from(limits.shards))).max(1),
                connections_max: u32::try_from(share).unwrap_or(u32::MAX).max(1),
                connections: 0,
                taken_at: Instant::ZERO,
                nothing_until: Instant::ZERO,
                taken: 0,
                limited: 0,
                forbidden: 0,
            }
        };
        let nobody = Known { key: [0; _], tenant: NO_TENANT };
        let places = (shared.keys_count() * 2).next_power_of_two().max(2);
        Self {
            is_on: !shared.rules().is_empty(),
            accounts: shared.rules().iter().map(account).collect(),
            known: vec![nobody; places].into_boxed_slice(),
            shared,
            publish_at: 0,
        }
    }

    /// The class of a tenant.
    pub(super) fn class(&self, tenant: TenantIndex) -> Class {
        match self.shared.rules().get(usize::from(tenant)) {
            Some(rule) => rule.class,
            None => Class::Standard,
        }
    }

    /// The group of entries that what a tenant asks for belongs to.
    pub(super) fn group(&self, tenant: TenantIndex) -> u8 {
        self.shared.rules().get(usize::from(tenant)).map_or(0, |rule| rule.cache_group)
    }

    /// Who asks for this on a connection that is `bound` to whoever has asked on it before. One of
    /// his requests is used up. Where there are no tenants, everybody may do everything.
    #[inline]
    pub(super) fn admit(
        &mut self,
        bound: &mut TenantIndex,
        (credential, action): (Option<&ApiKey>, Action),
        now: Instant,
    ) -> Result<TenantIndex, Refusal> {
        if !self.is_on {
            return Ok(NO_TENANT);
        }
        let tenant = self.identify(credential)?;
        if *bound != tenant {
            self.bind(bound, tenant)?;
        }
        let account = &mut self.accounts[usize::from(tenant)];
        if account.actions & action as u8 == 0 {
            account.forbidden += 1;
            return Err(Refusal::Forbidden);
        }
        self.charge(tenant, now).map(|()| tenant)
    }

    /// Does the same for a lookup of `key`.
    #[inline]
    pub(super) fn admit_lookup(
        &mut self,
        bound: &mut TenantIndex,
        wants: (Option<&ApiKey>, Action),
        key: &[u8],
        now: Instant,
    ) -> Result<TenantIndex, Refusal> {
        if !self.is_on {
            return Ok(NO_TENANT);
        }
        let tenant = self.admit(bound, wants, now)?;
        self.check_key(tenant, key).map(|()| tenant)
    }

    /// Does the same for a write that `upload` is addressed to; who bears the operator's token may
    /// write in any case.
    pub(super) fn admit_write(
        &mut self,
        bound: &mut TenantIndex,
        write: &Write<'_>,
        upload: &Upload,
        now: Instant,
    ) -> Result<TenantIndex, Refusal> {
        if write.bears_token {
            return Ok(NO_TENANT);
        }
        let action = if write.put.is_some() { Action::Put } else { Action::Delete };
        let wants = (write.credential, action);
        self.admit_lookup(bound, wants, upload.key().as_bytes(), now)
    }

    /// Admits a key of a batch of this tenant.
    pub(super) fn admit_item(
        &mut self,
        tenant: TenantIndex,
        key: &[u8],
        now: Instant,
    ) -> Result<(), Refusal> {
        if !self.is_on {
            return Ok(());
        }
        self.charge(tenant, now)?;
        self.check_key(tenant, key)
    }

    /// Uses up one request of a tenant.
    #[inline]
    fn charge(&mut self, tenant: TenantIndex, now: Instant) -> Result<(), Refusal> {
        let account = &mut self.accounts[usize::from(tenant)];
        if account.left > 0 && now < account.until {
            account.left -= 1;
            return Ok(());
        }
        if self.take_slice(tenant, now) { Ok(()) } else { Err(Refusal::RateLimited) }
    }

    /// Whether a tenant may ask for this key.
    #[inline]
    fn check_key(&mut self, tenant: TenantIndex, key: &[u8]) -> Result<(), Refusal> {
        let account = &mut self.accounts[usize::from(tenant)];
        if !account.has_prefix || key.starts_with(&self.shared.rule(tenant).prefix) {
            return Ok(());
        }
        account.forbidden += 1;
        Err(Refusal::Forbidden)
    }

    /// The connection that was bound to a tenant is closed.
    pub(super) fn leave(&mut self, bound: TenantIndex) {
        if let Some(account) = self.accounts.get_mut(usize::from(bound)) {
            account.connections -= 1;
        }
    }

    /// Asserts that each tenant has as many connections as are bound to it.
    ///
    /// # Panics
    /// If one has not.
    pub(super) fn check(&self, bound_count: impl Fn(TenantIndex) -> usize) {
        for (tenant, account) in (0..).zip(&self.accounts) {
            assert_eq!(account.connections as usize, bound_count(tenant), "tenant {tenant}");
        }
    }

    /// Publishes the counters of some tenants, and of others the next time.
    pub(super) fn publish(&mut self, board: &Board, cache: &Cache<'_>) {
        let count = self.accounts.len();
        for _ in 0..count.min(PUBLISHED_MAX) {
            let account = &self.accounts[self.publish_at];
            let admitted = account.taken - u64::from(account.left);
            let Account { limited, forbidden, connections, .. } = *account;
            let counters = TenantCounters {
                admitted,
                limited,
                forbidden,
                connections: connections.into(),
                cache_bytes: match self.shared.rules()[self.publish_at].cache_group {
                    0 => 0,
                    group => cache.group_bytes(group),
                },
            };
            board.publish_tenant(self.publish_at, &counters);
            self.publish_at = (self.publish_at + 1) % count;
        }
    }

    fn identify(&mut self, credential: Option<&ApiKey>) -> Result<TenantIndex, Refusal> {
        let tenant = match credential {
            None => self.shared.anonymous(),
            Some(key) => {
                let known = &self.known[self.place(key)];
                if known.tenant != NO_TENANT && is_same(&known.key, key) {
                    return Ok(known.tenant);
                }
                self.digest(key)
            }
        };
        tenant.ok_or(Refusal::Unauthorized)
    }

    /// Where a key stands among those that are known, or would stand.
    #[inline]
    fn place(&self, key: &ApiKey) -> usize {
        // A key that was found good is random; one that was not takes no place.
        let word = u64::from_le_bytes(*key.last_chunk().expect("it has 48 bytes"));
        let mask = self.known.len() - 1;
        let mut at = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        loop {
            let place = usize::try_from(at).expect("32 bits") & mask;
            let known = &self.known[place];
            if known.tenant == NO_TENANT || is_same(&known.key, key) {
                return place;
            }
            at += 1;
        }
    }

    /// Finds out whose key this is, and remembers that.
    #[cold]
    fn digest(&mut self, key: &ApiKey) -> Option<TenantIndex> {
        let tenant = self.shared.of(&KeyDigest::of(key))?;
        let place = self.place(key);
        self.known[place] = Known { key: *key, tenant };
        Some(tenant)
    }

    /// The connection is another tenant's from now on, if that may have one more.
    #[cold]
    fn bind(&mut self, bound: &mut TenantIndex, tenant: TenantIndex) -> Result<(), Refusal> {
        let account = &mut self.accounts[usize::from(tenant)];
        if account.connections >= account.connections_max {
            return Err(Refusal::TooManyConnections);
        }
        account.connections += 1;
        self.leave(std::mem::replace(bound, tenant));
        Ok(())
    }

    /// The slice is used up or over: takes the next, and uses up one request of it.
    #[cold]
    fn take_slice(&mut self, tenant: TenantIndex, now: Instant) -> bool {
        let rule = self.shared.rule(tenant);
        let account = &mut self.accounts[usize::from(tenant)];
        if rule.rate.is_none() {
            account.taken += u64::from(u32::MAX - account.left);
            (account.left, account.until) = (u32::MAX - 1, super::slots::NEVER);
            return true;
        }
        if now < account.nothing_until {
            account.limited += 1;
            return false;
        }
        if account.left > 0 {
            rule.give_back(account.left);
            account.taken -= u64::from(std::mem::take(&mut account.left));
            account.size = (account.size / 2).max(1);
        } else if now.ns_since(account.taken_at) < SLICE_SHORT_NS {
            account.size = (account.size * 2).min(account.size_max);
        }
        match rule.take(account.size, now) {
            Slice::Requests(count) => {
                account.taken += u64::from(count);
                account.left = count - 1;
                (account.taken_at, account.until) = (now, now + SLICE_LIFE);
                true
            }
            Slice::NothingUntil(at) => {
                account.nothing_until = at;
                account.limited += 1;
                false
            }
        }
    }
}

/// Whether two keys are the same. How long that takes does not tell where they differ.
#[inline]
fn is_same(one: &ApiKey, other: &ApiKey) -> bool {
    let (one, _) = one.as_chunks::<8>();
    let (other, _) = other.as_chunks::<8>();
    let wrong = one.iter().zip(other).fold(0, |wrong, (one, other)| {
        wrong | (u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other))
    });
    wrong == 0
}

#[cfg(test)]
mod tests;
