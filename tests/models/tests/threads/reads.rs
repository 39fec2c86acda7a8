//! No two shards wait for each other: both read from the other, in queues that hold no more than
//! the head of `mesh` says they must, and both come to rest.

#[cfg(test)]
mod tests {
    use crate::model_interrupted;
    use loom::thread;
    use pelton_models::mesh::{Message, Parcel, Peers, Sleep, peers};
    use pelton_models::sys::eventfd::EventFd;
    use pelton_models::sys::sync::Arc;

    /// Reads of each shard, one after the other in its one parcel.
    const READS: u32 = 1;

    /// As much of a shard as its queues see.
    struct Shard {
        other: u16,
        peers: Peers,
        sleep: Sleep,
        /// What each of the two waits for.
        bells: Arc<[EventFd; 2]>,
        home: Option<Box<Parcel>>,
        read: u32,
        answered: u32,
    }

    impl Shard {
        /// Turns until it has read what it wants and has answered what the other wants.
        fn run(mut self) -> Self {
            loop {
                self.wait();
                if self.read == READS && self.answered == READS {
                    return self;
                }
                self.take_mail();
                self.ask();
            }
        }

        /// As `Shard::wait`: who must be woken is woken as the ring is entered, after the last look
        /// at the mail and before the wait.
        fn wait(&mut self) {
            let mut wakes_other = false;
            self.peers.wake_sleepers(|_| wakes_other = true);
            let is_busy = self.home.is_some() && self.read < READS;
            let is_done = self.read == READS && self.answered == READS;
            let mut has_mail = true;
            if !is_busy && !is_done {
                self.sleep.prepare();
                has_mail = self.peers.has_mail();
            }
            if wakes_other {
                self.bells[usize::from(self.other)].signal();
            }
            if !has_mail {
                self.bells[usize::from(1 - self.other)].wait();
            }
            self.sleep.end();
        }

        fn take_mail(&mut self) {
            while let Some(message) = self.peers.receive(self.other) {
                match message {
                    Message::Read(parcel) => {
                        self.answered += 1;
                        self.peers.send(self.other, Message::Reply(parcel));
                    }
                    Message::Reply(parcel) => {
                        self.read += 1;
                        self.home = Some(parcel);
                    }
                    Message::Piece(_)
                    | Message::Write(_)
                    | Message::Written(_)
                    | Message::Invalidate { .. }
                    | Message::Followed(_)
                    | Message::Hit(_)
                    | Message::Connection(_) => panic!("nobody sends it"),
                }
            }
        }

        fn ask(&mut self) {
            if self.read < READS
                && let Some(parcel) = self.home.take()
            {
                self.peers.send(self.other, Message::Read(parcel));
            }
        }
    }

    /// Two shards with a parcel each, and queues of `messages_max`.
    fn both_come_to_rest(messages_max: usize) {
        model_interrupted(3, move || {
            let sleeps = [Sleep::new(), Sleep::new()];
            let bells = Arc::new([EventFd::default(), EventFd::default()]);
            let mut shards =
                peers(&sleeps, messages_max, 2).into_iter().zip(sleeps).zip([1, 0]).map(
                    |((peers, sleep), other)| Shard {
                        other,
                        peers,
                        sleep,
                        bells: Arc::clone(&bells),
                        home: Some(Box::new(Parcel(u32::from(other)))),
                        read: 0,
                        answered: 0,
                    },
                );
            let (low, high) = (shards.next().unwrap(), shards.next().unwrap());
            let high = thread::spawn(move || high.run());
            let low = low.run();
            let high = high.join().unwrap();
            for (shard, number) in [(low, 1), (high, 0)] {
                assert_eq!(shard.home.unwrap().0, number, "its own parcel came home");
            }
        });
    }

    #[test]
    fn two_shards_that_read_from_each_other_come_to_rest() {
        both_come_to_rest(2);
    }

    #[test]
    #[should_panic(expected = "room is kept before a value is made")]
    fn a_queue_without_room_for_the_answers_is_found() {
        both_come_to_rest(1);
    }
}
