//! A guard and a server that is scripted.

use super::*;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
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

/// What came of an open loop before four workers that take 2 ms each: how many were answered in the
/// last second of two, and the longest that one of them took.
async fn before_four_workers(guard: &Rc<Guard>, each_ms: u32) -> (u32, Duration) {
    let workers = Rc::new(Semaphore::new(4));
    let answered = Rc::new(Cell::new((0, Duration::ZERO)));
    for ms in 0..2_000 {
        for _ in 0..each_ms {
            let (guard, workers) = (Rc::clone(guard), Rc::clone(&workers));
            let answered = Rc::clone(&answered);
            spawn_local(async move {
                let since = Instant::now();
                let work = async || {
                    let _worker = workers.acquire().await.expect("never closed");
                    sleep(2 * MS).await;
                    Ok(())
                };
                if guard.read(work).await.is_ok() && ms >= 1_000 {
                    let (count, longest) = answered.get();
                    answered.set((count + 1, longest.max(since.elapsed())));
                }
            });
        }
        sleep(MS).await;
    }
    sleep(Duration::from_secs(1)).await;
    answered.get()
}

#[test]
fn a_server_that_is_asked_too_much_answers_as_many_as_it_can_and_each_soon() {
    for each_ms in [4, 10, 20] {
        paused(LocalSet::new().run_until(async move {
            let guard = Rc::new(Guard::new("it".to_owned(), 256, 1_024));
            let (calm, _) = before_four_workers(&guard, 1).await;
            assert_eq!(calm, 1_000);
            let (answered, longest) = before_four_workers(&guard, each_ms).await;
            assert!(answered >= 1_900, "{answered} of 2,000 at {each_ms} a ms");
            assert!(longest < 15 * MS, "{longest:?} at {each_ms} a ms");
            let (again, _) = before_four_workers(&guard, 1).await;
            assert_eq!(again, 1_000);
        }));
    }
}
