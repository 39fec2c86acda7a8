//! How long an entry may be served: a pure table of four times.
//!
//! ```text
//! stored        fresh until          + while_revalidate      + if_error
//!   |---- Fresh ----|------ Stale ----------|---- Retained ------|---- dead
//! ```
//!
//! Both windows begin when freshness ends (RFC 5861); the longer one decides when an entry is dead.
//! A value may be kept for longer, unserved, to be renewed: that begins with them too (see
//! [`Cache::keep_for`](crate::Cache::keep_for)).

/// How long an entry is served beyond its freshness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaleWindows {
    /// Served while it is fetched anew, milliseconds.
    pub while_revalidate_ms: u32,
    /// Served if fetching it anew has failed, milliseconds.
    pub if_error_ms: u32,
}

/// What may be done with an entry that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it and fetch it anew.
    Stale,
    /// Fetch it anew, and serve it if that fails.
    Retained,
}

/// The freshness at `now_ms` of an entry that is fresh until `fresh_until_ms` (never ends if
/// `None`); `None` once it is dead. All times are milliseconds on one clock.
pub(crate) fn freshness(
    fresh_until_ms: Option<u64>,
    windows: StaleWindows,
    now_ms: u64,
) -> Option<Freshness> {
    let Some(end_ms) = fresh_until_ms else { return Some(Freshness::Fresh) };
    if now_ms < end_ms {
        Some(Freshness::Fresh)
    } else if now_ms - end_ms < u64::from(windows.while_revalidate_ms) {
        Some(Freshness::Stale)
    } else if now_ms - end_ms < u64::from(windows.if_error_ms) {
        Some(Freshness::Retained)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_small_cases_follow_the_drawing() {
        for end in 0..4 {
            for while_revalidate_ms in 0..4 {
                for if_error_ms in 0..4 {
                    for now in 0..12 {
                        let windows = StaleWindows { while_revalidate_ms, if_error_ms };
                        let expected = match now {
                            _ if now < end => Some(Freshness::Fresh),
                            _ if now < end + u64::from(while_revalidate_ms) => {
                                Some(Freshness::Stale)
                            }
                            _ if now < end + u64::from(if_error_ms) => Some(Freshness::Retained),
                            _ => None,
                        };
                        assert_eq!(freshness(Some(end), windows, now), expected);
                        assert_eq!(freshness(None, windows, now), Some(Freshness::Fresh));
                    }
                }
            }
        }
    }
}
