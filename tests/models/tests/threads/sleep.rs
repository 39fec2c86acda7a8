//! No wake-up is lost: who sleeps is woken by what is sent to it, whoever sends, and whenever.

#[cfg(test)]
mod tests {
    use crate::model_interrupted;
    use loom::thread;
    use pelton_models::mesh::{Delivery, Landing, Message, Order, Parcel, Peers, Sleep};
    use pelton_models::mesh::{origin_link, peers};
    use pelton_models::sys::eventfd::EventFd;
    use pelton_models::sys::sync::Arc;

    /// What a sleeper does first.
    #[derive(Clone, Copy)]
    enum First {
        /// As shards and the plane do.
        Flag,
        /// The fault that this is about.
        Look,
    }

    /// Waits if there is no mail: `Shard::wait_deadline`, and the wait behind it.
    fn wait(first: First, sleep: &Sleep, bell: &EventFd, mut has_mail: impl FnMut() -> bool) {
        let has_mail = match first {
            First::Flag => {
                sleep.prepare();
                has_mail()
            }
            First::Look => {
                let has_mail = has_mail();
                sleep.prepare();
                has_mail
            }
        };
        if !has_mail {
            bell.wait();
        }
        sleep.end();
    }

    /// Sends to shard 0 as a turn does, whose last act is to wake who sleeps.
    fn send(mut peers: Peers, bell: &EventFd, number: u32) {
        peers.send(0, Message::Read(Box::new(Parcel(number))));
        peers.wake_sleepers(|_| bell.signal());
    }

    /// `senders` shards send one message each, in queues of length one, to one that sleeps
    /// whenever there is none.
    fn all_arrives(first: First, senders: u32) {
        model_interrupted(3, move || {
            let sleeps: Vec<Sleep> = (0..=senders).map(|_| Sleep::new()).collect();
            let bell = Arc::new(EventFd::default());
            let mut others = peers(&sleeps, 1, 0).into_iter();
            let mut sleeper = others.next().unwrap();
            let threads: Vec<_> = (1..)
                .zip(others)
                .map(|(number, peers)| {
                    let bell = Arc::clone(&bell);
                    thread::spawn(move || send(peers, &bell, number))
                })
                .collect();
            let mut arrived = 0;
            while arrived < senders {
                wait(first, &sleeps[0], &bell, || sleeper.has_mail());
                for from in 1..=u16::try_from(senders).unwrap() {
                    if let Some(Message::Read(parcel)) = sleeper.receive(from) {
                        assert_eq!(parcel.0, u32::from(from));
                        arrived += 1;
                    }
                }
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn a_sleeper_is_woken_by_one_sender() {
        all_arrives(First::Flag, 1);
    }

    #[test]
    fn a_sleeper_is_woken_by_two_senders() {
        all_arrives(First::Flag, 2);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn who_looks_before_the_flag_is_up_is_never_woken() {
        all_arrives(First::Look, 1);
    }

    /// A shard and the origin plane, both of which sleep when there is nothing to do.
    #[test]
    fn a_shard_and_the_plane_wake_each_other() {
        loom::model(|| {
            let (shard, plane) = (Sleep::new(), Sleep::new());
            let [shard_bell, plane_bell] = [(); 2].map(|()| Arc::new(EventFd::default()));
            let (mut link, mut port) = origin_link(1, 0, &shard, &plane, &shard_bell);
            let bell = Arc::clone(&plane_bell);
            let origin = thread::spawn(move || {
                wait(First::Flag, &plane, &bell, || port.has_mail());
                while let Some(order) = port.next_order() {
                    port.deliver(Delivery::Landing(Landing(order.0)));
                }
                port.flush();
                port
            });
            link.order(Order(7));
            if link.must_wake() {
                plane_bell.signal();
            }
            let landed = loop {
                wait(First::Flag, &shard, &shard_bell, || link.has_mail());
                if let Some(Delivery::Landing(landing)) = link.next_delivery() {
                    break landing;
                }
            };
            assert_eq!(landed.0, 7);
            drop(origin.join().unwrap());
        });
    }
}
