//! What must hold of the world as a whole: conservation at every turn, rest after the storm.

use super::World;
use super::client::Client;
use super::world::Place;
use pelton::metrics::{Counters, TABLE};

/// After each turn of a shard: nothing is lost and nothing is counted twice.
///
/// # Panics
/// If something is.
pub(super) fn check_turn(world: &World, index: usize) {
    let shard = &world.places[index].shard;
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
        && world.origin.busy_count() == 0
        && world.host.borrow().net.connections_held() == 0
}

fn is_idle(world: &World, place: &Place) -> bool {
    let census = place.shard.census();
    let limits = &world.options.limits;
    let parcels = (limits.parcels_count + limits.big_parcels_count) as usize;
    let held = [
        census.slots_used as usize,
        census.buffers_held as usize,
        census.carries_used,
        census.blocks_used,
        census.replies_used,
        census.flights_used,
        census.waiters_used,
        usize::try_from(census.pins).expect("pins are few"),
        parcels - census.parcels_at_home,
        place.shard.ring().busy_count(),
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
        counters.closed_draining,
    ];
    let reasons: u64 = reasons.iter().sum();
    assert!(
        world.cut_offs <= reasons,
        "{} clients were cut off, and {reasons} connections closed for a reason",
        world.cut_offs
    );
    assert_eq!(counters.closed_socket_error, 0, "the simulated kernel has no such errors");
}

/// At the end: nothing is left, in the shards or outside.
///
/// # Panics
/// If something is.
pub(super) fn check_end(world: &World) {
    let held = world.host.borrow().net.connections_held();
    assert_eq!(held, 0, "a stopped server holds no connection");
    for place in &world.places {
        let census = place.shard.census();
        assert_eq!(census.slots_used, 0, "{census:?}");
        assert_eq!(census.buffers_held, 0, "{census:?}");
        assert_eq!(census.blocks_used, 0, "{census:?}");
        assert_eq!(census.replies_used, 0, "{census:?}");
        assert_eq!(census.pins, 0, "{census:?}");
    }
}

/// The counters of all shards, added up.
pub(super) fn sum_counters(world: &World) -> Counters {
    let mut sum = Counters::default().values();
    for place in &world.places {
        for (sum, value) in sum.iter_mut().zip(place.shard.counters().values()) {
            *sum += value;
        }
    }
    Counters::from_values(&sum)
}

/// What is still under way and what was counted, for a failure's message.
pub(super) fn describe(world: &World) -> String {
    let mut lines: Vec<String> =
        world.places.iter().map(|place| format!("{:?}", place.shard.census())).collect();
    let net = world.host.borrow().net.connections_held();
    lines.push(format!("connections held: {net}, origin: {}", world.origin.busy_count()));
    lines.extend(world.clients.iter().map(Client::describe));
    for (row, value) in TABLE.iter().zip(sum_counters(world).values()) {
        if value > 0 {
            lines.push(format!("{} {value}", row.field));
        }
    }
    lines.join("\n")
}
