//! A guard and a server that is scripted.

use super::*;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);

fn paused(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(test);
}

fn guard() -> Guard {
    Guard::new("it".to_owned(), 100, 10)
}

#[test]
fn what_surely_never_arrived_is_sent_once_more_and_nothing_else_is() {
    paused(async {
        let guard = guard();
        let sent = Cell::new(0);
        let attempt = async |trouble: Option<Trouble>| {
            sent.set(sent.get() + 1);
            trouble.map_or_else(|| Ok(sent.get()), Err)
        };
        let first = Cell::new(Some(Trouble::Unsent));
        assert_eq!(guard.read(async || attempt(first.take()).await).await, Ok(2));
        for (trouble, failure) in [
            (Trouble::Failed, FetchFailure::Unavailable),
            (Trouble::Useless(FetchFailure::TooLarge), FetchFailure::TooLarge),
        ] {
            sent.set(0);
            assert_eq!(guard.read(async || attempt(Some(trouble)).await).await, Err(failure));
            assert_eq!(sent.get(), 1);
        }
        let counts = guard.counters();
        assert_eq!((counts.answered, counts.failed, counts.retried), (2, 2, 1));
    });
}

#[test]
fn a_server_that_does_not_answer_is_left_alone_and_tried_again() {
    paused(async {
        let guard = guard();
        let hang = async || {
            sleep(Duration::from_secs(60)).await;
            Ok(())
        };
        for _ in 0..10 {
            assert!(timeout(5 * MS, guard.read(hang)).await.is_err());
        }
        assert_eq!(guard.state(), BreakerState::Open);
        let well = async || Ok(7);
        assert_eq!(guard.read(well).await, Err(FetchFailure::Unavailable));
        assert_eq!((guard.counters().timed_out, guard.counters().broken), (10, 1));
        sleep(500 * MS).await;
        for _ in 0..26 {
            assert_eq!(guard.read(well).await, Ok(7));
        }
        assert_eq!(guard.state(), BreakerState::Closed);
        let counters = guard.counters();
        assert_eq!([counters.limit, counters.in_flight, counters.waiting], [10, 0, 0]);
        assert_eq!(counters.breaker, 0);
    });
}

#[test]
fn who_waits_when_it_opens_is_refused_at_once() {
    paused(async {
        let guard = Guard::new("it".to_owned(), 1, 10);
        let fail = async || {
            sleep(MS).await;
            Err::<(), _>(Trouble::Failed)
        };
        for _ in 0..9 {
            assert!(guard.once(fail).await.expect("sent").is_err());
        }
        let both = tokio::join!(guard.once(fail), guard.once(fail));
        assert_eq!(both, (Ok(Err(Trouble::Failed)), Err(FetchFailure::NoRoom)));
    });
}
