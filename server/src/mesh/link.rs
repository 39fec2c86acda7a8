//! The queues between one shard and the origin plane.
//!
//! A shard has `flights_max` flights. An order is outstanding only while its flight is, and each is
//! answered by one landing; a landing's memory goes back as one more message. So the queue to the
//! plane holds at most two messages a flight and the queue back one, beside a purge, the keys that
//! are to be dropped, the writes of all shards and some explanations in either: a push always finds
//! room.

use super::explain::{EXPLANATIONS_MAX, Explanation};
use super::origin::{Key, Landing, Order};
use super::purge::{FORGETS_MAX, PURGES_MAX, PurgeOrder};
use super::sleep::Sleep;
use super::upload::Upload;
use crate::sys::eventfd::EventFd;
use crate::sys::spsc::{self, Consumer, Producer};
use crate::sys::sync::Arc;

/// From the origin plane to a shard.
#[derive(Debug)]
pub enum Delivery {
    /// What became of a fetch.
    Landing(Landing),
    /// What became of a write.
    Written(Box<Upload>),
    /// Purge this, and send it back.
    Purge(Box<PurgeOrder>),
    /// A key of the shard's own has changed: drop it, and send it back.
    Forget(Box<Key>),
    /// Explain a key of the shard's own, and send it back.
    Explain(Box<Explanation>),
}

/// The shard's end.
#[derive(Debug)]
pub struct OriginLink {
    orders: Producer<Order>,
    deliveries: Consumer<Delivery>,
    plane: Sleep,
    pushed: bool,
}

/// The plane's end.
#[derive(Debug)]
pub struct OriginPort {
    orders: Consumer<Order>,
    deliveries: Producer<Delivery>,
    shard: Sleep,
    wake: Arc<EventFd>,
    pushed: bool,
}

/// The queues between a shard with `flights_max` flights and the plane; all shards together have
/// `uploads_count` uploads.
///
/// `shard` and `plane` are the flags of the two threads; `wake` is the eventfd the shard watches.
#[must_use]
pub fn origin_link(
    flights_max: usize,
    uploads_count: usize,
    shard: &Sleep,
    plane: &Sleep,
    wake: &Arc<EventFd>,
) -> (OriginLink, OriginPort) {
    let others_max = uploads_count + PURGES_MAX + FORGETS_MAX + EXPLANATIONS_MAX;
    let (orders_to, orders_from) = spsc::queue(2 * flights_max + others_max);
    let (to_shard, from_plane) = spsc::queue(flights_max + others_max);
    let link = OriginLink {
        orders: orders_to,
        deliveries: from_plane,
        plane: plane.clone(),
        pushed: false,
    };
    let port = OriginPort {
        orders: orders_from,
        deliveries: to_shard,
        shard: shard.clone(),
        wake: Arc::clone(wake),
        pushed: false,
    };
    (link, port)
}

impl OriginLink {
    /// Sends an order. Room is kept: see the head of this file.
    pub fn order(&mut self, order: Order) {
        self.orders.push(order);
        self.pushed = true;
    }

    /// The oldest delivery.
    pub fn next_delivery(&mut self) -> Option<Delivery> {
        self.deliveries.pop()
    }

    /// Whether a delivery waits.
    #[must_use]
    pub fn has_mail(&mut self) -> bool {
        !self.deliveries.is_empty()
    }

    /// Whether orders were sent since the last call and the plane sleeps: signal it.
    #[must_use]
    pub fn must_wake(&mut self) -> bool {
        std::mem::take(&mut self.pushed) && self.plane.must_wake()
    }
}

impl OriginPort {
    /// The oldest order.
    pub fn next_order(&mut self) -> Option<Order> {
        self.orders.pop()
    }

    /// Whether an order waits: asked once more after the plane has raised its flag.
    #[must_use]
    pub fn has_mail(&mut self) -> bool {
        !self.orders.is_empty()
    }

    /// Sends a landing, one for each fetch that was ordered, or what else there is. Room is kept:
    /// see the head of this file.
    pub fn deliver(&mut self, delivery: Delivery) {
        self.deliveries.push(delivery);
        self.pushed = true;
    }

    /// How many deliveries find room: all that there is once the shard has taken what was sent.
    #[must_use]
    pub fn room(&mut self) -> usize {
        self.deliveries.room()
    }

    /// Wakes the shard if something was delivered and it sleeps.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.pushed) && self.shard.must_wake() {
            self.wake.signal();
        }
    }
}
