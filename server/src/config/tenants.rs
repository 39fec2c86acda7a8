//! Tenants: what of the configuration there may be several, and what holds of them together.

use super::kind::Share;
use super::{Config, Tenant};

/// What a tenant is called that shows no key.
const ANONYMOUS: &str = "anonymous";

/// Tenants at most.
const TENANTS_MAX: usize = 1024;

/// Shares of the cache that tenants may have together, in tenths of a percent: beyond that little
/// would be left to lend.
const CACHE_SHARES_MAX: u32 = 500;

/// Tenants with a share of the cache: an entry names its tenant's in six bits.
const CACHE_SHARES_COUNT_MAX: usize = 63;

impl Tenant {
    /// Whether it is who shows no key.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// What is wrong with it, beside those before it.
    pub(super) fn fault(&self, before: &[Self]) -> Option<(String, &'static str)> {
        let Self { name, keys, .. } = self;
        let has_keys = !keys.is_empty();
        if before.len() >= TENANTS_MAX {
            let help = "have several applications share a key";
            return Some((format!("there are more than {TENANTS_MAX} tenants"), help));
        }
        if !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') || name.len() > 64 {
            let help = "name it in at most 64 letters, digits and signs, without spaces";
            return Some(("the name of a tenant is a label of metrics".into(), help));
        }
        if name.starts_with('_') {
            let help = "let it begin with another sign";
            return Some(("metrics have names with `_` for themselves".into(), help));
        }
        if before.iter().any(|other| other.name == *name) {
            return Some((format!("there are two tenants `{name}`"), "give each its own name"));
        }
        if self.is_anonymous() && has_keys {
            let help = "give the tenant a name, as name = \"web\"";
            return Some((format!("the tenant `{ANONYMOUS}` is who shows no key"), help));
        }
        if !self.is_anonymous() && !has_keys {
            let help = "make one with `pelton key new`, and put its digest into keys";
            return Some((format!("the tenant `{name}` has no key"), help));
        }
        let all = || before.iter().flat_map(|other| &other.keys);
        let is_twice = |at: usize| all().chain(&keys[..at]).any(|other| *other == keys[at]);
        if (0..keys.len()).any(is_twice) {
            let help = "a key says who shows it: make another with `pelton key new`";
            return Some((format!("a key of the tenant `{name}` comes twice"), help));
        }
        if self.rate.is_none() && self.burst.is_some() {
            let help = "set rate as well, or leave burst out";
            return Some((format!("the tenant `{name}` has a burst and no rate"), help));
        }
        let all = || before.iter().chain([self]).map(|tenant| tenant.cache);
        if all().map(Share::permille).map(u32::from).sum::<u32>() > CACHE_SHARES_MAX {
            let help = "lower the shares of tenants in the cache";
            return Some(("tenants have more than half of the cache together".into(), help));
        }
        if all().filter(|share| share.permille() > 0).count() > CACHE_SHARES_COUNT_MAX {
            let help = "leave cache out of the tenants that matter less";
            let most =
                format!("more than {CACHE_SHARES_COUNT_MAX} tenants have a share of the cache");
            return Some((most, help));
        }
        None
    }
}

impl Config {
    /// How many tenants there are, and how many keys they have.
    #[must_use]
    pub fn tenants_count(&self) -> (u32, u32) {
        let keys = self.tenants.iter().map(|tenant| tenant.keys.len()).sum();
        let number = |count: usize| u32::try_from(count).expect("tenants are bounded");
        (number(self.tenants.len()), number(keys))
    }

    /// Whether a tenant may write.
    #[must_use]
    pub fn has_writing_tenants(&self) -> bool {
        let writes = |tenant: &Tenant| {
            tenant.methods.iter().any(|method| matches!(*method, "PUT" | "DELETE"))
        };
        self.tenants.iter().any(writes)
    }
}
