//! Tenants of several shards beside one limiter for all, and what one shard does with keys.

use super::*;
use crate::api_key::{NOBODYS_KEY, new_key};
use crate::config::Config;
use crate::limits::Grant;
use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use proptest::prelude::*;
use shard_cache::hash::KeyHasher;
use shard_cache::{Layout, StaleWindows};
use std::num::NonZeroU32;

/// The shards of a server with these tenants and 100 places for connections each.
fn shards(count: u16, text: &str) -> Vec<Tenants> {
    let sets = ["server.connections_max=100".into()];
    let config = Config::parse("test", text, &sets).expect("valid");
    let grant = Grant { shards: count, descriptors_max: 20_000, memory_size: 8 << 30 };
    let limits = Limits::new(&config, &grant).expect("enough");
    let shared = Shared::new(&config.tenants);
    (0..count).map(|_| Tenants::new(shared.clone(), &limits)).collect()
}

fn publish(tenants: &mut Tenants, board: &Board) {
    let layout = Layout::new(4 << 20, 1 << 16).expect("enough");
    let memory = vec![0; layout.memory_bytes() + 64].leak();
    let skip = memory.as_ptr().align_offset(64);
    let memory = &mut memory[skip..][..layout.memory_bytes()];
    tenants.publish(
        board,
        &Cache::new(layout, memory, KeyHasher::new([1, 2]), &[StaleWindows::default()]),
    );
}

fn at_us(us: u64) -> Instant {
    Instant::from_ns(1_000_000_000 + us * 1000)
}

fn get(
    tenants: &mut Tenants,
    bound: &mut TenantIndex,
    key: Option<&ApiKey>,
) -> Result<TenantIndex, Refusal> {
    tenants.admit(bound, (key, Action::Get), at_us(0))
}

#[test]
fn a_key_says_who_asks() {
    let (one, other) = (new_key(), new_key());
    let (a, b) = (KeyDigest::of(&one), KeyDigest::of(&other));
    let text = format!(
        "[[tenant]]\nname = \"web\"\nkeys = [\"{a}\"]\n\
         [[tenant]]\nname = \"batch\"\nkeys = [\"{b}\"]\nmethods = [\"POST\"]\nprefix = \"img:\"\n"
    );
    let mut tenants = shards(1, &text).remove(0);
    let mut bound = NO_TENANT;
    for _ in 0..2 {
        assert_eq!(get(&mut tenants, &mut bound, Some(&one)), Ok(0));
        assert_eq!(get(&mut tenants, &mut bound, Some(&other)), Err(Refusal::Forbidden));
        assert_eq!(get(&mut tenants, &mut bound, None), Err(Refusal::Unauthorized));
        assert_eq!(get(&mut tenants, &mut bound, Some(NOBODYS_KEY)), Err(Refusal::Unauthorized));
        assert_eq!(get(&mut tenants, &mut bound, Some(&new_key())), Err(Refusal::Unauthorized));
    }
    let wants = (Some(&other), Action::Batch);
    assert_eq!(tenants.admit(&mut bound, wants, at_us(0)), Ok(1));
    assert_eq!(tenants.admit_item(1, b"img:1", at_us(0)), Ok(()));
    assert_eq!(tenants.admit_item(1, b"im", at_us(0)), Err(Refusal::Forbidden));
    assert_eq!(tenants.admit_item(0, b"im", at_us(0)), Ok(()));
}

#[test]
fn nobody_has_to_show_anything_without_tenants() {
    let mut tenants = shards(1, "").remove(0);
    let mut bound = NO_TENANT;
    assert_eq!(get(&mut tenants, &mut bound, Some(&new_key())), Ok(NO_TENANT));
    assert_eq!((get(&mut tenants, &mut bound, None), bound), (Ok(NO_TENANT), NO_TENANT));
}

#[test]
fn every_key_is_remembered_and_none_that_is_wrong() {
    let keys: Vec<ApiKey> = (0..300).map(|_| new_key()).collect();
    let text: String = keys
        .iter()
        .enumerate()
        .map(|(at, key)| {
            format!("[[tenant]]\nname = \"{at}\"\nkeys = [\"{}\"]\n", KeyDigest::of(key))
        })
        .collect();
    let mut tenants = shards(1, &text).remove(0);
    let mut bound = NO_TENANT;
    for _ in 0..3 {
        for (at, key) in keys.iter().enumerate() {
            let tenant = get(&mut tenants, &mut bound, Some(key)).expect("known");
            assert_eq!(usize::from(tenant), at);
            let mut wrong = *key;
            wrong[20] ^= 1;
            assert_eq!(
                get(&mut tenants, &mut bound, Some(&wrong)),
                Err(Refusal::Unauthorized),
                "all but one bit of a key"
            );
        }
        let known = tenants.known.iter().filter(|known| known.tenant != NO_TENANT);
        assert_eq!(known.count(), keys.len());
    }
}

#[test]
fn a_tenant_has_its_share_of_connections() {
    let key = new_key();
    let digest = KeyDigest::of(&key);
    let text = format!(
        "[[tenant]]\nname = \"web\"\nkeys = [\"{digest}\"]\nconnections = \"2%\"\n[[tenant]]\n"
    );
    let mut tenants = shards(1, &text).remove(0);
    let mut bound = [NO_TENANT; 3];
    assert_eq!(get(&mut tenants, &mut bound[0], Some(&key)), Ok(0));
    assert_eq!(get(&mut tenants, &mut bound[1], Some(&key)), Ok(0));
    assert_eq!(get(&mut tenants, &mut bound[1], Some(&key)), Ok(0));
    let third = get(&mut tenants, &mut bound[2], Some(&key));
    assert_eq!((third, bound[2]), (Err(Refusal::TooManyConnections), NO_TENANT));
    assert_eq!(get(&mut tenants, &mut bound[1], None), Ok(1), "it is somebody else's now");
    assert_eq!(get(&mut tenants, &mut bound[2], Some(&key)), Ok(0));
    assert!(get(&mut tenants, &mut bound[1], Some(&key)).is_err());
    tenants.leave(bound[0]);
    assert_eq!(get(&mut tenants, &mut bound[1], Some(&key)), Ok(0));
    assert_eq!(tenants.accounts.iter().map(|one| one.connections).collect::<Vec<_>>(), [2, 0]);
}

#[test]
fn what_is_admitted_is_published() {
    let mut tenants = shards(1, "[[tenant]]\nrate = 10\nburst = 8").remove(0);
    let board = Board::with_tenants(1);
    let mut bound = NO_TENANT;
    let admitted = (0..20).filter(|_| get(&mut tenants, &mut bound, None).is_ok()).count();
    publish(&mut tenants, &board);
    assert_eq!((admitted, board.read_tenant(0)), (8, [8, 12, 0, 1, 0]));
}

#[test]
fn what_is_left_of_a_slice_that_is_over_others_may_have() {
    let mut all = shards(2, "[[tenant]]\nrate = 1000\nburst = 100");
    let mut bounds = [NO_TENANT; 2];
    let mut ask = |all: &mut [Tenants], shard: usize, us: u64| {
        let wants = (None, Action::Get);
        all[shard].admit(&mut bounds[shard], wants, at_us(us)).is_ok()
    };
    // Slices of 1, 2, 4, 8 and 16, of which 15 are left.
    assert!((0..16).all(|_| ask(&mut all, 0, 0)));
    let mut had = [16, 0];
    // The other one has all that there is, until the slice of the first is over.
    for us in (0..=101_000).step_by(1000) {
        while ask(&mut all, 1, us) {
            had[1] += 1;
        }
    }
    assert_eq!(had[1], 100 - 31 + 101);
    // The first gives 15 back, and takes half as many as before.
    assert!(ask(&mut all, 0, 101_000));
    had[0] += 1;
    let before = had[1];
    while ask(&mut all, 1, 102_000) {
        had[1] += 1;
    }
    assert_eq!(had[1] - before, 15 - 8 + 1);
    let board = Board::with_tenants(1);
    for (tenants, had) in all.iter_mut().zip(had) {
        publish(tenants, &board);
        assert_eq!(board.read_tenant(0)[0], had, "what is given back is not admitted");
    }
}

#[test]
fn a_tenant_without_a_rate_has_no_bound() {
    let mut tenants = shards(1, "[[tenant]]").remove(0);
    let board = Board::with_tenants(1);
    let mut bound = NO_TENANT;
    for at in 0..10 {
        assert!(get(&mut tenants, &mut bound, None).is_ok());
        if at == 3 {
            // Nearly used up.
            let account = &mut tenants.accounts[0];
            account.taken -= u64::from(account.left) - 2;
            account.left = 2;
        }
    }
    publish(&mut tenants, &board);
    assert_eq!(board.read_tenant(0), [10, 0, 0, 1, 0]);
}

/// Requests of one tenant: when, in microseconds after the one before, and on which shard.
type Arrivals = Vec<(u64, usize)>;

/// How many are admitted of these: by the shards, and by one limiter for all of them.
fn admitted(rate: u32, burst: u32, shards_count: u16, arrivals: &Arrivals) -> (u64, u64) {
    let text = format!("[[tenant]]\nrate = {rate}\nburst = {burst}\n");
    let mut shards = shards(shards_count, &text);
    let mut bound = vec![NO_TENANT; shards.len()];
    let [rate, burst] = [rate, burst].map(|number| NonZeroU32::new(number).expect("a number"));
    let clock = FakeRelativeClock::default();
    let oracle =
        RateLimiter::direct_with_clock(Quota::per_second(rate).allow_burst(burst), clock.clone());
    let (mut ours, mut theirs, mut now_us) = (0, 0, 0);
    for &(after_us, shard) in arrivals {
        now_us += after_us;
        clock.advance(Duration::from_micros(after_us));
        theirs += u64::from(oracle.check().is_ok());
        let wants = (None, Action::Get);
        let verdict = shards[shard].admit(&mut bound[shard], wants, at_us(now_us));
        ours += u64::from(verdict.is_ok());
    }
    (ours, theirs)
}

/// A shard of eight, nine of ten times the first.
fn mostly_the_first(at: u64) -> usize {
    let draw = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    if draw % 10 < 9 { 0 } else { 1 + (draw / 10 % 7) as usize }
}

#[test]
fn ten_times_the_rate_on_uneven_shards_is_admitted_within_two_percent() {
    for rate in [100, 1_000, 10_000, 100_000] {
        let every_us = 1_000_000 / (10 * u64::from(rate));
        // A pause each third second: the burst is used up anew.
        let pause =
            |at: u64| if at.is_multiple_of(30 * u64::from(rate)) { 500_000 } else { every_us };
        let arrivals = (1..100 * u64::from(rate)).map(|at| (pause(at), mostly_the_first(at)));
        let (ours, theirs) = admitted(rate, rate / 10, 8, &arrivals.collect());
        let off = ours.abs_diff(theirs) * 1000 / theirs;
        assert!(off <= 20, "{rate} a second: {ours} admitted, {theirs} by the oracle");
    }
}

#[test]
fn who_stays_below_the_rate_is_never_refused() {
    for (rate, burst) in [(10, 16), (1_000, 100), (50_000, 5_000)] {
        let every_us = 1_000_000_u64.div_ceil(u64::from(rate)) * 10 / 9;
        let arrivals = (0..20_000).map(|at| (every_us, mostly_the_first(at))).collect();
        assert_eq!(admitted(rate, burst, 8, &arrivals).0, 20_000, "{rate} a second");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes when and where: never more than the rate, a burst, and what the shards may
    /// hold of it, and never much less than one limiter for all would admit.
    #[test]
    fn no_pattern_of_requests_gets_more_than_its_rate(
        rate in 1_u32..20_000,
        tenths in 1_u32..20,
        pattern in prop::collection::vec((0_u64..3_000, 0_usize..4), 200..3_000),
    ) {
        let burst = (rate * tenths / 10).max(1);
        let (ours, theirs) = admitted(rate, burst, 4, &pattern);
        let slack = u64::from(burst / 2) + 4;
        prop_assert!(ours <= theirs + slack, "{ours} of {theirs}, burst {burst}");
        prop_assert!(ours + slack >= theirs, "{ours} of {theirs}, burst {burst}");
    }
}
