//! The scripts.

use crate::stage::{
    BUFFER_SIZE, BUFFERS_COUNT, CANCEL, CLOSE, End, Player, RECV, SEND, Stage, is_over, last_event,
    output, spans,
};
use pelton::ring::{
    Completions, Event, Fault, Fd, Kind, Memory, Op, Region, Ring, Shutdown, Span, Token,
};
use shard_cache::time::Instant;

const ACCEPT: Token = Token::new(Kind::Accept, 0, 0);

pub(crate) fn accepts_several_and_receives_what_they_send<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let listener = player.stage.listener();
    let peers: Vec<usize> = (0..3).map(|_| player.stage.connect()).collect();
    let mut fds: Vec<Fd> = Vec::new();
    while fds.len() < 3 {
        player.push(ACCEPT, Op::Accept { listener });
        let seen =
            player.turn_until(|_, seen| is_over(seen, ACCEPT) || fds.len() + seen.len() == 3);
        for done in &seen {
            let Event::Accepted(fd) = done.event else { panic!("{done:?}") };
            fds.push(fd);
        }
        if !is_over(&seen, ACCEPT) {
            break;
        }
    }
    assert_eq!(fds.len(), 3);
    for peer in peers {
        player.stage.write(peer, b"first ");
        player.stage.write(peer, b"second");
    }
    for (slot, fd) in (0..).zip(fds) {
        let recv = Token::new(Kind::Recv, slot, 0);
        let mut bytes = Vec::new();
        player.push(recv, Op::Recv { fd });
        while bytes.len() < 12 {
            let seen = player.turn_until(|_, seen| !seen.is_empty());
            let over = is_over(&seen, recv);
            bytes.extend(player.take_bytes(seen));
            if over {
                player.push(recv, Op::Recv { fd });
            }
        }
        assert_eq!(bytes, b"first second");
    }
}

pub(crate) fn one_accept_takes_one_of_several_and_leaves_the_others_waiting<S: Stage>(
    stage: &mut S,
) {
    let mut player = Player::new(stage);
    let listener = player.stage.listener();
    player.push(ACCEPT, Op::AcceptOne { listener });
    player.quiet();
    for _ in 0..3 {
        player.stage.connect();
    }
    for _ in 0..3 {
        let seen = player.finish(ACCEPT);
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(matches!(seen[0].event, Event::Accepted(_)), "{seen:?}");
        player.quiet();
        player.push(ACCEPT, Op::AcceptOne { listener });
    }
    player.quiet();
}

pub(crate) fn an_accept_of_one_waits_and_can_be_cancelled<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let listener = player.stage.listener();
    player.push(ACCEPT, Op::AcceptOne { listener });
    player.quiet();
    player.push(CANCEL, Op::Cancel { target: ACCEPT });
    let seen = player.turn_until(|_, seen| is_over(seen, CANCEL) && is_over(seen, ACCEPT));
    assert_eq!(*last_event(&seen, ACCEPT), Event::Failed(Fault::Cancelled), "{seen:?}");
    player.stage.connect();
    player.push(ACCEPT, Op::AcceptOne { listener });
    let seen = player.finish(ACCEPT);
    assert!(matches!(seen[0].event, Event::Accepted(_)), "{seen:?}");
}

pub(crate) fn a_small_batch_loses_no_completion<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    player.batch_max = 1;
    let (peer, fd) = player.connection();
    let sent: Vec<u8> = (0..200).collect();
    player.stage.write(peer, &sent);
    let tokens: Vec<Token> = (0..10).map(|slot| Token::new(Kind::Cancel, slot, 0)).collect();
    for token in &tokens {
        player.push(*token, Op::Cancel { target: Token::new(Kind::Recv, 99, 0) });
    }
    let seen = player.turn_until(|_, seen| tokens.iter().all(|token| is_over(seen, *token)));
    assert_eq!(seen.len(), tokens.len());
    assert_eq!(player.receive(fd, sent.len()).0, sent);
}

pub(crate) fn a_half_closed_peer_is_still_sent_to<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let (peer, fd) = player.connection();
    player.stage.write(peer, b"ask");
    let (bytes, armed) = player.receive(fd, 3);
    assert_eq!(bytes, b"ask");
    player.stage.finish(peer);
    if !armed {
        player.push(RECV, Op::Recv { fd });
    }
    let seen = player.finish(RECV);
    assert_eq!(*last_event(&seen, RECV), Event::Ended);
    player.output[..6].copy_from_slice(b"answer");
    assert_eq!(player.send(fd, spans(&[output(0, 6)])), Ok(()));
    player.push(CLOSE, Op::Close { fd });
    assert_eq!(*last_event(&player.finish(CLOSE), CLOSE), Event::Closed);
    let (bytes, _) = player.peer_reads(peer, 6);
    assert_eq!(bytes, b"answer");
    assert_eq!(player.peer_reads(peer, 1), (Vec::new(), End::Ended));
}

pub(crate) fn a_reset_ends_receives_and_sends<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let (peer, fd) = player.connection();
    player.push(RECV, Op::Recv { fd });
    assert_eq!(player.send(fd, spans(&[output(0, 100)])), Ok(()));
    // The peer leaves without reading: its kernel resets the connection.
    player.stage.close(peer);
    let seen = player.finish(RECV);
    assert_eq!(*last_event(&seen, RECV), Event::Failed(Fault::PeerGone));
    assert_eq!(player.send(fd, spans(&[output(0, 100)])), Err(Fault::PeerGone));
    player.push(CLOSE, Op::Close { fd });
    player.finish(CLOSE);
}

pub(crate) fn a_large_send_arrives_whole_and_in_order<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let (peer, fd) = player.connection();
    let size = S::LARGE_SIZE;
    player.output = (0_u32..size / 4).flat_map(u32::to_le_bytes).collect();
    let mut left = spans(&[output(0, size)]);
    let mut read = Vec::new();
    player.push(SEND, Op::Send { fd, spans: left });
    let mut short = 0;
    while read.len() < size as usize {
        player.stage.read(peer, &mut read);
        for done in player.turn(0) {
            let Event::Sent { len } = done.event else { panic!("{done:?}") };
            assert!(!done.more && len > 0);
            left.advance(len);
            if left.size() > 0 {
                short += 1;
                player.push(SEND, Op::Send { fd, spans: left });
            }
        }
    }
    assert!(read == player.output, "every byte arrived, in order");
    assert!(short > 0, "a send beyond the socket's buffers is short");
}

pub(crate) fn spans_of_both_regions_are_one_stream<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let (peer, fd) = player.connection();
    player.output[..10].copy_from_slice(b"head.head.");
    player.arena = b"..body..".to_vec();
    let body = Span { offset: 2, len: 4, region: Region::Arena };
    let list = spans(&[output(0, 5), body, output(5, 5), body]);
    assert_eq!(player.send(fd, list), Ok(()));
    assert_eq!(player.peer_reads(peer, 18).0, b"head.bodyhead.body");
}

pub(crate) fn a_cancelled_receive_loses_no_bytes<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let (peer, fd) = player.connection();
    player.push(RECV, Op::Recv { fd });
    player.turn(0);
    player.stage.write(peer, b"just before the cancellation");
    player.push(CANCEL, Op::Cancel { target: RECV });
    let seen = player.turn_until(|_, seen| is_over(seen, CANCEL) && is_over(seen, RECV));
    assert_eq!(*last_event(&seen, CANCEL), Event::Cancelled);
    let last = last_event(&seen, RECV);
    let fair = matches!(last, Event::Failed(Fault::Cancelled) | Event::Received { .. });
    assert!(fair, "{last:?}");
    let mut bytes = player.take_bytes(seen);
    let missing = 28 - bytes.len();
    bytes.extend(player.receive(fd, missing).0);
    assert_eq!(bytes, b"just before the cancellation");
}

pub(crate) fn a_cancellation_of_nothing_completes<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    player.push(CANCEL, Op::Cancel { target: RECV });
    let seen = player.finish(CANCEL);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].event, Event::Cancelled);
}

pub(crate) fn without_buffers_nothing_is_lost<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let (peer, fd) = player.connection();
    let size = (u32::from(BUFFERS_COUNT) + 2) * BUFFER_SIZE;
    let sent: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).expect("it is small")).collect();
    player.stage.write(peer, &sent);
    let mut held = Vec::new();
    loop {
        player.push(RECV, Op::Recv { fd });
        let seen = player.finish(RECV);
        let starved = *last_event(&seen, RECV) == Event::Failed(Fault::NoBuffers);
        held.extend(seen);
        if starved {
            break;
        }
    }
    // All buffers are on loan. As many bytes as they hold were received, and no byte was lost.
    let mut bytes = player.take_bytes(held);
    assert!(bytes.len() < sent.len(), "the rest waits in the socket");
    let missing = sent.len() - bytes.len();
    bytes.extend(player.receive(fd, missing).0);
    assert_eq!(bytes, sent);
}

pub(crate) fn closing_with_an_armed_receive_tells_the_peer_nothing<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let (peer, fd) = player.connection();
    player.push(RECV, Op::Recv { fd });
    player.quiet();
    player.push(CLOSE, Op::Close { fd });
    let seen = player.finish(CLOSE);
    assert!(!is_over(&seen, RECV), "the receive stays armed");
    player.quiet();
    let mut read = Vec::new();
    assert_eq!(player.stage.read(peer, &mut read), End::Open, "no end was sent");
    // It even receives on. Only when the receive ends is the socket closed.
    player.stage.write(peer, b"still there");
    player.stage.finish(peer);
    let seen = player.finish(RECV);
    let bytes = player.take_bytes(seen);
    assert!(b"still there".starts_with(&bytes));
    let (bytes, end) = player.peer_reads(peer, 1);
    assert!(bytes.is_empty());
    assert_ne!(end, End::Open);
}

pub(crate) fn shutting_both_ways_ends_an_armed_receive<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let (peer, fd) = player.connection();
    player.push(RECV, Op::Recv { fd });
    player.quiet();
    player.push(CLOSE, Op::Shutdown { fd, how: Shutdown::Both });
    let seen = player.finish(RECV);
    assert_eq!(*last_event(&seen, RECV), Event::Ended);
    assert_eq!(seen.len(), 1, "the shutdown itself does not complete: {seen:?}");
    assert_eq!(player.peer_reads(peer, 1), (Vec::new(), End::Ended));
}

pub(crate) fn shutting_a_listener_and_cancelling_its_accept_ends_it<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let listener = player.stage.listener();
    player.push(ACCEPT, Op::Accept { listener });
    player.quiet();
    player.push(CLOSE, Op::Shutdown { fd: listener, how: Shutdown::Both });
    player.push(CANCEL, Op::Cancel { target: ACCEPT });
    let seen = player.turn_until(|_, seen| is_over(seen, CANCEL) && is_over(seen, ACCEPT));
    // A Unix socket's accept outlives the shutdown; one of TCP may.
    let ended = [Fault::Other(libc::EINVAL), Fault::Cancelled].map(Event::Failed);
    assert!(ended.contains(last_event(&seen, ACCEPT)), "{seen:?}");
}

pub(crate) fn a_wake_up_is_seen_by_both<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    player.turn(1);
    let wake = Token::new(Kind::Wake, 1, 0);
    player.push(wake, Op::Wake { shard: 1 });
    let seen = player.finish(wake);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].event, Event::Woken);
    let mut woken = Vec::new();
    while woken.is_empty() {
        woken = player.turn(1);
    }
    assert_eq!(woken.len(), 1);
    assert_eq!(woken[0].token.kind(), Kind::Wake);
    assert_eq!((&woken[0].event, woken[0].more), (&Event::Woken, false));
}

pub(crate) fn a_watched_eventfd_completes_once_for_each_watch<S: Stage>(stage: &mut S) {
    let mut player = Player::new(stage);
    let eventfd = player.stage.eventfd();
    let watch = Token::new(Kind::Watch, 0, 0);
    player.push(watch, Op::Watch { eventfd });
    player.quiet();
    player.stage.signal();
    player.stage.signal();
    let seen = player.finish(watch);
    assert_eq!(*last_event(&seen, watch), Event::Woken);
    // Both signals were cleared by the one completion.
    player.push(watch, Op::Watch { eventfd });
    player.quiet();
    player.push(CLOSE, Op::Signal { eventfd });
    assert_eq!(*last_event(&player.finish(watch), watch), Event::Woken);
}

pub(crate) fn a_past_deadline_polls<S: Stage>(stage: &mut S) {
    let memory = Memory { output: &[], arena: &[] };
    let mut batch = Completions::with_capacity(4);
    let first = stage.turn(0, memory, Instant::ZERO, &mut batch);
    let second = stage.turn(0, memory, first.woke, &mut batch);
    assert!(batch.is_empty());
    assert!(second.entered >= first.woke);
    assert_eq!(stage.ring(0).buffers_count(), BUFFERS_COUNT);
}
