//! What completes, against what the contract allows at that moment.

#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else a completion says is wrong")]

use super::{ACCEPT, ACCEPT_CANCEL, Run, WAKE, WATCH, peer_bytes};
use crate::choices::Choice;
use crate::stage::{BUFFER_SIZE, BUFFERS_COUNT, Stage};
use pelton::ring::{Completion, Completions, Event, Fault, Kind, Memory, Ring};
use shard_cache::time::Instant;
use std::collections::BTreeMap;

impl<S: Stage> Run<'_, S> {
    /// A turn of ring 0, and of ring 1 where that has been woken. Says when it woke.
    pub(super) fn turn(&mut self, deadline: Instant) -> Instant {
        let mut batch = Completions::with_capacity(self.prng.pick(&[1, 8, 64]));
        let memory = Memory { output: &self.output, arena: &self.arena };
        let clock = self.stage.turn(0, memory, deadline, &mut batch);
        self.turns += 1;
        self.log.push(format!("turn {} completes {}", self.turns, batch.len()));
        let mut receives = BTreeMap::new();
        for completion in batch.drain() {
            if matches!(completion.event, Event::Received { .. }) {
                *receives.entry(completion.token.slot()).or_insert(0) += 1;
            }
            self.see(completion);
        }
        if receives.values().any(|count| *count > 1) {
            self.choices.add(Choice::ReceivesInOneTurn);
        }
        if self.wakes[1] > 0 {
            let mut batch = Completions::with_capacity(8);
            let memory = Memory { output: &self.output, arena: &self.arena };
            self.stage.turn(1, memory, Instant::ZERO, &mut batch);
            for woken in batch.drain() {
                assert_eq!((woken.token.kind(), woken.more), (Kind::Wake, false));
                assert_eq!(woken.event, Event::Woken);
                self.wakes[1] -= 1;
            }
        }
        clock.woke
    }

    fn see(&mut self, completion: Completion) {
        let Completion { token, event, more } = completion;
        self.log.push(format!("{} {:?} completes: {event:?}, {more}", token.slot(), token.kind()));
        if token == ACCEPT {
            self.see_accept(event, more);
        } else if token == ACCEPT_CANCEL {
            assert!(std::mem::take(&mut self.accept_cancel) && !more, "it completes once");
            assert_eq!(event, Event::Cancelled);
        } else if token == WATCH {
            assert!(std::mem::take(&mut self.watch) && !more, "a watch completes once");
            let signals = self.signals + self.signals_before;
            assert!(signals > 0, "nobody has written the eventfd");
            (self.signals, self.signals_before) = (0, signals - 1);
            assert_eq!(event, Event::Woken);
        } else if token == WAKE {
            assert_eq!((event, more), (Event::Woken, false));
            self.wakes[0] = self.wakes[0].checked_sub(1).expect("a wake-up is delivered once");
        } else {
            let index = token.slot() as usize;
            assert_eq!(token, Self::token(token.kind(), index), "a token comes back as it went");
            match token.kind() {
                Kind::Recv => self.see_recv(index, event, more),
                Kind::Send => self.see_send(index, event, more),
                Kind::Cancel => {
                    let connection = &mut self.connections[index];
                    assert!(std::mem::take(&mut connection.cancel) && !more, "it completes once");
                    assert_eq!(event, Event::Cancelled);
                    if connection.recv && connection.recv_cancelled {
                        self.choices.add(Choice::CancelBeforeTarget);
                    }
                }
                Kind::Close => {
                    assert_eq!((event, more), (Event::Closed, false));
                    let connection = &mut self.connections[index];
                    assert!(connection.closing && !connection.closed, "it closes once");
                    connection.closed = true;
                }
                Kind::Accept | Kind::Watch | Kind::Wake => panic!("{token:?} {event:?}"),
            }
        }
    }

    fn see_accept(&mut self, event: Event, more: bool) {
        assert!(self.accept, "an accept completes while it is in flight");
        self.accept = more;
        match event {
            Event::Accepted(fd) => {
                let index = self.backlog.pop_front().expect("somebody has connected");
                for other in self.connections.iter().filter(|other| other.fd == Some(fd)) {
                    assert!(other.closing, "a descriptor is given out once");
                    if !other.closed {
                        self.choices.add(Choice::DescriptorReused);
                    }
                }
                self.connections[index].fd = Some(fd);
                if !more && !self.accept_cancelled {
                    self.choices.add(Choice::AcceptEnds);
                }
            }
            Event::Failed(Fault::Cancelled) => assert!(self.accept_cancelled && !more),
            event => panic!("an accept completed with {event:?}"),
        }
    }

    fn see_recv(&mut self, index: usize, event: Event, more: bool) {
        let connection = &mut self.connections[index];
        assert!(connection.recv, "a receive completes while it is in flight");
        connection.recv = more;
        let cancelled = connection.recv_cancelled;
        let shut = connection.is_shut_both();
        if let Event::Received { buffer, len } = event {
            let bytes = self.stage.ring(0).bytes(&buffer, len);
            let expected = peer_bytes(connection.peer, connection.received, len as usize);
            assert_eq!(bytes, expected, "what the peer has written, in order");
            connection.received += len as usize;
            assert!(connection.received <= connection.written);
            self.loans.push(buffer);
            assert!(self.loans.len() <= usize::from(BUFFERS_COUNT), "a buffer is lent once");
            if len < BUFFER_SIZE && connection.received < connection.written {
                self.choices.add(Choice::ReceiveShort);
            }
            match (more, cancelled) {
                (true, _) => {}
                (false, true) => self.choices.add(Choice::CancelledReceives),
                (false, false) => self.choices.add(Choice::ReceiveEnds),
            }
            return;
        }
        assert!(!more, "only bytes leave a receive armed");
        match event {
            Event::Failed(Fault::Cancelled) => {
                assert!(cancelled, "nobody cancelled it");
                if connection.cancel {
                    self.choices.add(Choice::CancelAfterTarget);
                }
                return;
            }
            Event::Ended if connection.left => self.choices.add(Choice::LeftEnds),
            Event::Ended if shut => self.choices.add(Choice::ShutEnds),
            Event::Ended => {
                assert!(connection.finished, "the peer has not ended");
                assert_eq!(connection.received, connection.written, "the end comes last");
            }
            Event::Failed(Fault::PeerGone) => {
                assert!(connection.left || connection.is_doomed(), "the peer is there");
                let left = connection.left;
                self.choices.add(if left { Choice::LeftFails } else { Choice::ShutFails });
            }
            Event::Failed(Fault::NoBuffers) => {
                let nothing = connection.received == connection.written
                    && !connection.finished
                    && !connection.left
                    && !shut;
                let choice = if nothing { Choice::NoBuffersAtOnce } else { Choice::NoBuffers };
                self.choices.add(choice);
            }
            event => panic!("a receive completed with {event:?}"),
        }
        if cancelled {
            self.choices.add(Choice::CancelledEnds);
        }
    }

    fn see_send(&mut self, index: usize, event: Event, more: bool) {
        let connection = &mut self.connections[index];
        let (spans, turns) =
            connection.send.take().expect("a send completes while it is in flight");
        assert!(!more, "a send completes once");
        let size = usize::try_from(spans.size()).expect("it is small");
        if self.turns > turns + 1 {
            self.choices.add(Choice::SendLate);
        }
        match event {
            Event::Sent { len } => {
                let len = len as usize;
                assert!((1..=size).contains(&len), "{len} of {size} bytes");
                connection.sent += len;
                connection.stream.truncate(connection.sent);
                if connection.left {
                    self.choices.add(Choice::SendToNobody);
                } else if len < size && connection.shut.is_none() {
                    self.choices.add(Choice::SendShort);
                }
            }
            Event::Failed(Fault::PeerGone) => {
                assert!(connection.left || connection.shut.is_some(), "the peer is there");
                connection.stream.truncate(connection.sent);
                self.choices.add(Choice::SendFails);
            }
            event => panic!("a send completed with {event:?}"),
        }
    }
}
