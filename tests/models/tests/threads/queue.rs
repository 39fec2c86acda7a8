//! The queue: every value arrives once, in order, and what nobody took is dropped once.

#[cfg(test)]
mod tests {
    use pelton_models::sys::spsc::queue;
    use std::sync::Arc;

    /// A value that is counted while it lives.
    struct Counted(u32, #[expect(dead_code, reason = "its count is looked at")] Arc<()>);

    /// Both ends try a number of times, whatever the other does; then both ends go.
    fn passes(capacity: usize, pushes: u32, pops: u32) {
        loom::model(move || {
            let alive = Arc::new(());
            let (mut producer, mut consumer) = queue(capacity);
            let counted = Arc::clone(&alive);
            let pusher = loom::thread::spawn(move || {
                let mut pushed = 0;
                for _ in 0..pushes {
                    if !producer.is_full() {
                        producer.push(Counted(pushed, Arc::clone(&counted)));
                        pushed += 1;
                    }
                }
                assert!(pushed as usize >= capacity.min(pushes as usize), "there was room for it");
                pushed
            });
            let mut popped = 0;
            for _ in 0..pops {
                if let Some(Counted(number, _)) = consumer.pop() {
                    assert_eq!(number, popped, "in order, each once");
                    popped += 1;
                }
            }
            let left = pusher.join().unwrap() - popped;
            assert_eq!(Arc::strong_count(&alive), 1 + left as usize);
            drop(consumer);
            assert_eq!(Arc::strong_count(&alive), 1, "what was left is dropped once");
        });
    }

    #[test]
    fn a_queue_of_one_passes_every_value_once_and_drops_what_is_left() {
        passes(1, 4, 3);
    }

    #[test]
    fn a_queue_of_two_passes_every_value_once_and_drops_what_is_left() {
        passes(2, 4, 3);
    }

    #[test]
    fn room_is_never_more_than_there_is() {
        loom::model(|| {
            let (mut producer, mut consumer) = queue(2);
            let pusher = loom::thread::spawn(move || {
                for value in 0..3 {
                    if producer.room() > 0 {
                        producer.push(Box::new(value));
                    }
                }
            });
            let mut popped = 0;
            for _ in 0..2 {
                if let Some(value) = consumer.pop() {
                    assert_eq!(*value, popped);
                    popped += 1;
                }
            }
            pusher.join().unwrap();
        });
    }

    /// The end that goes last drops what is left, whichever it is.
    #[test]
    fn both_ends_may_go_at_once() {
        loom::model(|| {
            let alive = Arc::new(());
            let (mut producer, consumer) = queue(1);
            producer.push(Arc::clone(&alive));
            let dropper = loom::thread::spawn(move || drop(consumer));
            drop(producer);
            dropper.join().unwrap();
            assert_eq!(Arc::strong_count(&alive), 1);
        });
    }
}
