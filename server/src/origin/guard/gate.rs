//! Who may send now, and who waits, and not for long.
//!
//! After "controlled delay" (CoDel): a queue that empties now and then only smooths a burst, and
//! who is in it may wait a tenth of a second. In one that has not been empty for as long everybody
//! would wait too long to be of use. It *stands*, until there is room and nobody waits: who has
//! waited for more than 5 ms is refused, and of the others the last comes first, so that those who
//! are served are served soon.
//!
//! Invariant: nobody waits while there is room; each who entered leaves once.
#![expect(clippy::disallowed_types, reason = "one thread: its requests share a gate")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The longest wait in a queue that was empty within the same time.
const INTERVAL: Duration = Duration::from_millis(100);

/// The longest wait in any other.
const TARGET: Duration = Duration::from_millis(5);

/// A gate.
#[derive(Debug)]
pub(super) struct Gate {
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: u32,
    in_flight: u32,
    waiting: VecDeque<Waiting>,
    queue_max: usize,
    /// When the queue was empty last, before it stood.
    emptied: Instant,
    is_standing: bool,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    enter: oneshot::Sender<()>,
}

/// Nobody was let in.
#[derive(Debug)]
pub(super) struct Refused;

impl Gate {
    /// A gate that lets in `limit`, while `queue_max` wait.
    pub(super) fn new(limit: u32, queue_max: u32) -> Self {
        let inner = Inner {
            limit,
            in_flight: 0,
            waiting: VecDeque::new(),
            queue_max: queue_max as usize,
            emptied: Instant::now(),
            is_standing: false,
        };
        Self { inner: RefCell::new(inner) }
    }

    /// How many are let in at a time, how many are inside, and how many wait.
    pub(super) fn levels(&self) -> [u32; 3] {
        let inner = self.inner.borrow();
        let waiting = u32::try_from(inner.waiting.len()).expect("the queue is bounded");
        [inner.limit, inner.in_flight, waiting]
    }

    /// Waits to be let in. Who was has to leave.
    pub(super) async fn enter(&self) -> Result<(), Refused> {
        let entered = {
            let mut inner = self.inner.borrow_mut();
            inner.look(Instant::now());
            if inner.waiting.is_empty() && inner.in_flight < inner.limit {
                inner.in_flight += 1;
                return Ok(());
            }
            // Those who have given up make room.
            if inner.waiting.len() >= inner.queue_max {
                inner.waiting.retain(|waiting| !waiting.enter.is_closed());
            }
            if inner.waiting.len() >= inner.queue_max && inner.is_standing {
                inner.waiting.pop_front();
            }
            if inner.waiting.len() >= inner.queue_max {
                return Err(Refused);
            }
            let (enter, entered) = oneshot::channel();
            inner.waiting.push_back(Waiting { since: Instant::now(), enter });
            entered
        };
        Admission { gate: self, entered: Some(entered) }.wait().await
    }

    /// Somebody leaves; `limit` may be inside from now on.
    pub(super) fn leave(&self, limit: u32) {
        let mut inner = self.inner.borrow_mut();
        inner.in_flight -= 1;
        inner.limit = limit;
        inner.let_in();
    }

    /// Whether some have always been waiting of late.
    pub(super) fn is_standing(&self) -> bool {
        self.inner.borrow().is_standing
    }

    /// Refuses all who wait.
    pub(super) fn refuse_all(&self) {
        self.inner.borrow_mut().waiting.clear();
    }
}

impl Inner {
    /// Whether the queue stands, from `now` on.
    fn look(&mut self, now: Instant) {
        let is_empty = self.waiting.is_empty();
        let has_room = is_empty && self.in_flight < self.limit;
        let is_old = !is_empty && now - self.emptied > INTERVAL;
        self.is_standing = (self.is_standing || is_old) && !has_room;
        if is_empty && !self.is_standing {
            self.emptied = now;
        }
    }

    fn let_in(&mut self) {
        let now = Instant::now();
        self.look(now);
        let patience = if self.is_standing { TARGET } else { INTERVAL };
        // Who is not let in is refused, since his sender is dropped.
        while self.waiting.front().is_some_and(|first| now - first.since > patience) {
            self.waiting.pop_front();
        }
        while self.in_flight < self.limit
            && let Some(Waiting { enter, .. }) = self.next()
        {
            self.in_flight += u32::from(enter.send(()).is_ok());
        }
        self.look(now);
    }

    fn next(&mut self) -> Option<Waiting> {
        if self.is_standing { self.waiting.pop_back() } else { self.waiting.pop_front() }
    }
}

/// Waits for its turn; gives it back if it is dropped when it has just come.
struct Admission<'a> {
    gate: &'a Gate,
    entered: Option<oneshot::Receiver<()>>,
}

impl Admission<'_> {
    async fn wait(mut self) -> Result<(), Refused> {
        let entered = self.entered.as_mut().expect("taken below");
        let answer = entered.await;
        self.entered = None;
        answer.map_err(|_| Refused)
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if let Some(mut entered) = self.entered.take()
            && entered.try_recv().is_ok()
        {
            let limit = self.gate.inner.borrow().limit;
            self.gate.leave(limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn paused(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(test);
    }

    #[test]
    fn as_many_as_may_be_inside_are_let_in_and_others_in_their_order() {
        paused(async {
            let gate = Gate::new(2, 2);
            gate.enter().await.expect("room");
            gate.enter().await.expect("room");
            let (mut third, mut fourth) = (pin!(gate.enter()), pin!(gate.enter()));
            assert!(poll(third.as_mut()).is_pending() && poll(fourth.as_mut()).is_pending());
            assert!(gate.enter().await.is_err(), "two wait");
            gate.leave(2);
            assert!(poll(fourth.as_mut()).is_pending());
            assert!(matches!(poll(third.as_mut()), Poll::Ready(Ok(()))));
            assert_eq!(gate.levels(), [2, 2, 1]);
        });
    }

    #[test]
    fn who_gives_up_when_his_turn_has_come_passes_it_on() {
        paused(async {
            let gate = Gate::new(1, 2);
            gate.enter().await.expect("room");
            let mut second = Box::pin(gate.enter());
            let mut third = pin!(gate.enter());
            assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
            gate.leave(1);
            drop(second);
            assert!(matches!(poll(third.as_mut()), Poll::Ready(Ok(()))));
            gate.leave(1);
            assert_eq!(gate.levels(), [1, 0, 0]);
        });
    }

    #[test]
    fn in_a_queue_that_was_never_empty_who_waits_long_is_refused() {
        paused(async {
            let gate = Gate::new(1, 10);
            gate.enter().await.expect("room");
            let mut old = pin!(gate.enter());
            assert!(poll(old.as_mut()).is_pending());
            tokio::time::advance(INTERVAL + Duration::from_millis(1)).await;
            let mut new = pin!(gate.enter());
            assert!(poll(new.as_mut()).is_pending());
            gate.leave(1);
            assert!(matches!(poll(old.as_mut()), Poll::Ready(Err(Refused))));
            assert!(matches!(poll(new.as_mut()), Poll::Ready(Ok(()))));
        });
    }

    #[test]
    fn in_a_queue_that_stands_the_last_comes_first_until_there_is_room() {
        paused(async {
            let gate = Gate::new(1, 10);
            gate.enter().await.expect("room");
            let mut old = pin!(gate.enter());
            assert!(poll(old.as_mut()).is_pending());
            tokio::time::advance(INTERVAL + Duration::from_millis(1)).await;
            let (mut first, mut last) = (pin!(gate.enter()), pin!(gate.enter()));
            assert!(poll(first.as_mut()).is_pending() && poll(last.as_mut()).is_pending());
            gate.leave(1);
            assert!(matches!(poll(last.as_mut()), Poll::Ready(Ok(()))));
            gate.leave(1);
            assert!(gate.is_standing() && matches!(poll(first.as_mut()), Poll::Ready(Ok(()))));
            gate.leave(1);
            assert!(!gate.is_standing());
        });
    }

    #[test]
    fn those_who_have_given_up_take_no_room() {
        paused(async {
            let gate = Gate::new(1, 1);
            gate.enter().await.expect("room");
            let mut gone = Box::pin(gate.enter());
            assert!(poll(gone.as_mut()).is_pending());
            drop(gone);
            let mut next = pin!(gate.enter());
            assert!(poll(next.as_mut()).is_pending(), "it waits");
        });
    }
}
