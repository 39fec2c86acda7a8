//! Samples of changed keys, with time that the test lets go by.

use super::*;
use crate::mesh::{EntryFacts, State, ValueFacts};
use crate::metrics::SampleCounters;

/// The tag of what the origin has, and of something older.
const THERE: Etag = Etag::from_bits(1);
const OLDER: Etag = Etag::from_bits(2);

impl Shards {
    /// The shards drop and explain keys for so long; `say` is given each explanation.
    async fn play(&mut self, time: Duration, mut say: impl FnMut(&mut Explanation)) {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            for shard in [0, 1] {
                while let Some(delivery) = self.links[shard].next_delivery() {
                    let answer = match delivery {
                        Delivery::Forget(key) => Order::Forgotten(key),
                        Delivery::Explain(mut explanation) => {
                            say(&mut explanation);
                            Order::Explained(explanation)
                        }
                        Delivery::Landing(_) | Delivery::Written(_) | Delivery::Purge(_) => {
                            panic!("nobody has asked")
                        }
                    };
                    self.send(shard, answer);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A fresh value with this tag is served.
fn serve(explanation: &mut Explanation, etag: Etag) {
    let value = Some(ValueFacts { size: 1, content_type: ContentType::JSON, etag });
    explanation.state = State::Fresh;
    explanation.entry = Some(EntryFacts { age_ms: 0, left: None, value });
}

/// What is counted of samples while `test` runs.
fn sampled(test: impl AsyncFnOnce(&mut Shards)) -> SampleCounters {
    let board = SampleBoard::default();
    run_with(Some(Arc::clone(&board)), async |shards| {
        tokio::time::pause();
        test(shards).await;
    });
    *board.lock().expect("nobody has panicked")
}

/// What is counted of one key that has changed, of which the shards say this.
fn sample(key: &str, say: impl FnMut(&mut Explanation)) -> SampleCounters {
    sampled(async |shards| {
        shards.origin.teller.key(Key::new(key.as_bytes()).expect("short"));
        shards.play(Duration::from_secs(62), say).await;
    })
}

#[test]
fn what_is_older_is_looked_at_three_times_and_counted_by_how_long_it_is() {
    let none = SampleCounters::default();
    let older_for = |seconds: u64| {
        let mut started = None;
        sample("key", |explanation| {
            let now = tokio::time::Instant::now();
            let first = *started.get_or_insert(now);
            let is_older = now < first + Duration::from_secs(seconds);
            serve(explanation, if is_older { OLDER } else { THERE });
        })
    };
    let inconsistent = SampleCounters { inconsistent: 1, ..none };
    assert_eq!(older_for(0), SampleCounters { consistent: 1, ..none });
    assert_eq!(older_for(2), inconsistent);
    assert_eq!(older_for(30), SampleCounters { inconsistent_5s: 1, ..inconsistent });
    let ever = SampleCounters { inconsistent_5s: 1, inconsistent_60s: 1, ..inconsistent };
    assert_eq!(older_for(100), ever);
}

#[test]
fn a_look_finds_out_what_is_served_and_what_is_there() {
    let none = SampleCounters::default();
    let consistent = SampleCounters { consistent: 1, ..none };
    let unserved = SampleCounters { unserved: 1, ..none };
    let is_inconsistent = |counters: SampleCounters| counters.inconsistent_60s == 1;
    // The origin does not have keys with an a, and one with a u cannot be reached.
    assert!(is_inconsistent(sample("a", |explanation| serve(explanation, OLDER))));
    assert_eq!(sample("a", |explanation| explanation.state = State::Absent), consistent);
    assert!(is_inconsistent(sample("key", |explanation| explanation.state = State::Absent)));
    for key in ["u", "h"] {
        let unknown = SampleCounters { unknown: 1, ..none };
        assert_eq!(sample(key, |explanation| serve(explanation, OLDER)), unknown);
    }
    assert_eq!(sample("key", |_| {}), unserved);
    let stale = |explanation: &mut Explanation| {
        serve(explanation, OLDER);
        explanation.state = State::Stale;
    };
    assert_eq!(sample("key", stale), unserved);
    let changing = |explanation: &mut Explanation| {
        serve(explanation, OLDER);
        explanation.changes_count = 1;
    };
    assert_eq!(sample("key", changing), unserved);
    // What has changed while the origin was asked was heard of.
    let mut looks = 0;
    let changes = |explanation: &mut Explanation| {
        looks += 1;
        serve(explanation, Etag::from_bits(looks + 1));
    };
    assert_eq!(sample("key", changes), consistent);
}

#[test]
fn a_key_a_second_is_looked_at_and_few_at_a_time() {
    let tell = |etag: Etag| {
        sampled(async |shards| {
            for _ in 0..100 {
                for _ in 0..10 {
                    shards.origin.teller.key(Key::new(b"key").expect("short"));
                }
                let say = |explanation: &mut Explanation| serve(explanation, etag);
                shards.play(Duration::from_millis(100), say).await;
            }
            shards.play(Duration::from_secs(2), |explanation| serve(explanation, etag)).await;
        })
    };
    assert_eq!(tell(THERE), SampleCounters { consistent: 10, ..SampleCounters::default() });
    let older = tell(OLDER);
    assert_eq!((older.inconsistent, older.inconsistent_5s), (4, 4), "each takes a minute");
}
