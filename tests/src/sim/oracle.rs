//! What must hold of the world as a whole: conservation at every turn, rest after the storm.

use super::World;
use super::client::Client;
use super::cluster::Place;
use super::ring::SimRing;
use super::world::Cast;
use pelton::metrics::{Counters, TABLE};
use pelton::shard::Shard;

/// After each turn of a shard: nothing is lost and nothing is counted twice.
///
/// # Panics
/// If something is.
pub(super) fn check_turn(shard: &Shard<SimRing>) {
    shard.check();
    let census = shard.census();
    let ring = shard.ring();
    assert_eq!(
        census.buffers_held as usize,
        ring.loans_count(),
        "every receive buffer on loan is held by a connection"
    );
    assert_eq!(
        census.submissions_in_flight,
        ring.submissions_count() as u64,
        "the shard and its ring agree on what is in flight"
    );
    let (sent, pins) = (ring.arena_spans_count() as u64, census.pins);
    assert!(sent <= pins, "{sent} bodies are sent from the arena under {pins} pins");
    assert_eq!(shard.counters().completions_stale, 0, "no completion outlives its slot's life");
}

/// Whether nothing is under way anywhere.
pub(super) fn is_at_rest(world: &World) -> bool {
    world.places.iter().all(|place| is_idle(world, place))
        && world.cast.borrow().origin.busy_count() == 0
        && world.cast.borrow().keeper.iter().all(|keeper| keeper.acts_at().is_none())
        && world.host.borrow().net.connections_held() == 0
        // A shard that found no descriptor accepts the dead of the storm later on.
        && world.host.borrow().net.connections_waiting() == 0
}

fn is_idle(world: &World, place: &Place) -> bool {
    let shard = place.shard.borrow();
    let census = shard.census();
    let limits = &world.options.limits;
    let parcels = limits.all_parcels_count() as usize;
    let held = [
        census.slots_used as usize,
        usize::from(census.accepts_paused),
        census.buffers_held as usize,
        census.carries_used,
        census.blocks_used,
        census.replies_used,
        census.flights_used,
        census.waiters_used,
        usize::try_from(census.pins).expect("pins are few"),
        parcels - census.parcels_at_home,
        limits.uploads_count as usize - census.uploads_at_home,
        usize::from(shard.is_unsettled()),
        shard.ring().busy_count(),
    ];
    held.iter().all(|count| *count == 0)
}

/// At rest: every connection that was cut off was cut off for a reason that the server counted.
///
/// # Panics
/// If there are more.
pub(super) fn check_rest(world: &World) {
    let counters = sum_counters(world);
    let reasons = [
        counters.closed_idle_timeout,
        counters.closed_header_timeout,
        counters.closed_body_timeout,
        counters.closed_write_timeout,
        counters.closed_input_bound,
        counters.closed_output_bound,
        counters.closed_slots_full,
        counters.closed_new_bound,
        counters.closed_address_bound,
        counters.closed_requests_bound,
        counters.closed_draining,
    ];
    let Cast { cut_offs, cut_offs_refused, .. } = *world.cast.borrow();
    let refused = counters.closed_refused.min(cut_offs_refused);
    let reasons = reasons.iter().sum::<u64>() + refused;
    assert!(
        cut_offs <= reasons,
        "{cut_offs} clients were cut off, and {reasons} connections closed for a reason"
    );
    let undecided = world.cast.borrow().model.writes_undecided();
    assert_eq!(undecided, 0, "every write that was ordered was answered");
    assert_eq!(counters.closed_socket_error, 0, "the simulated kernel has no such errors");
    check_copies(world);
}

/// At rest: the owner of a key knows of each copy of its value, or has asked for it to be dropped
/// and has no answer yet.
fn check_copies(world: &World) {
    let model = &world.cast.borrow().model;
    for (number, owner) in (0..).zip(model.owners.iter().copied()) {
        let key = model.key(number);
        for (holder, place) in (0..).zip(&world.places) {
            let has_copy = holder != owner && place.shard.borrow_mut().has_copy(key);
            let is_known = || {
                let owner = world.places[usize::from(owner)].shard.borrow();
                owner.knows_copy(key, holder) || owner.is_unsettled()
            };
            assert!(
                !has_copy || is_known(),
                "{owner} knows nothing of {holder}'s copy of {number}"
            );
        }
    }
}

/// At the end: nothing is left, in the shards or outside.
///
/// # Panics
/// If something is.
pub(super) fn check_end(world: &World) {
    let host = world.host.borrow();
    assert_eq!(host.net.connections_held(), 0, "a stopped server holds no connection");
    let sends_short = sum_counters(world).sends_short;
    assert_eq!(sends_short, host.sends_short, "what is left of a send is what was not taken");
    for place in &world.places {
        let census = place.shard.borrow().census();
        assert_eq!(census.slots_used, 0, "{census:?}");
        assert_eq!(census.buffers_held, 0, "{census:?}");
        assert_eq!(census.blocks_used, 0, "{census:?}");
        assert_eq!(census.replies_used, 0, "{census:?}");
        assert_eq!(census.pins, 0, "{census:?}");
        let uploads_count = world.options.limits.uploads_count as usize;
        assert_eq!(census.uploads_at_home, uploads_count, "{census:?}");
    }
}

/// The counters of all shards, added up.
pub(super) fn sum_counters(world: &World) -> Counters {
    let mut sum = Counters::default().values();
    for place in &world.places {
        for (sum, value) in sum.iter_mut().zip(place.shard.borrow().counters().values()) {
            *sum += value;
        }
    }
    Counters::from_values(&sum)
}

/// What is still under way and what was counted, for a failure's message.
pub(super) fn describe(world: &World) -> String {
    let censuses = world.places.iter().map(|place| place.shard.borrow().census());
    let mut lines: Vec<String> = censuses.map(|census| format!("{census:?}")).collect();
    let cast = world.cast.borrow();
    let (held, busy) = (world.host.borrow().net.connections_held(), cast.origin.busy_count());
    lines.push(format!("connections held: {held}, origin: {busy}"));
    lines.extend(cast.clients.iter().map(Client::describe));
    let counted = TABLE.iter().zip(sum_counters(world).values()).filter(|(_, value)| *value > 0);
    lines.extend(counted.map(|(row, value)| format!("{} {value}", row.field)));
    lines.join("\n")
}
