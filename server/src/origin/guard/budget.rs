//! How often requests may be sent again: a tenth of those that are sent at all, so that a server in
//! trouble is not sent twice as much.

/// What a request earns, and what sending one again costs, in tenths.
const EARNED: u32 = 1;
const COST: u32 = 10;

/// The most that is saved: ten in a row may be sent again.
const SAVED_MAX: u32 = 10 * COST;

/// A budget.
#[derive(Debug)]
pub(super) struct Budget {
    saved: u32,
}

impl Budget {
    /// A full budget.
    pub(super) const fn new() -> Self {
        Self { saved: SAVED_MAX }
    }

    /// A request is sent.
    pub(super) fn earn(&mut self) {
        self.saved = (self.saved + EARNED).min(SAVED_MAX);
    }

    /// Whether one may be sent again; pays for it.
    pub(super) const fn spend(&mut self) -> bool {
        let may = self.saved >= COST;
        if may {
            self.saved -= COST;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_long_run_one_of_ten_is_sent_again() {
        let mut budget = Budget::new();
        let mut again = 0;
        for _ in 0..1_000 {
            budget.earn();
            again += u32::from(budget.spend());
        }
        assert_eq!(again, 109);
    }
}
