//! The queues between shards: one for each ordered pair.

use super::parcel::Parcel;
use super::sleep::Sleep;
use super::upload::Upload;
use crate::ring::Fd;
use crate::sys::spsc::{self, Consumer, Producer};
use shard_cache::hash::KeyHash;

/// From one shard to another.
#[derive(Debug)]
pub enum Message {
    /// Read this key for me.
    Read(Box<Parcel>),
    /// Give me more of the value that you lent me, or take it back.
    Piece(Box<Parcel>),
    /// Here is what you asked for.
    Reply(Box<Parcel>),
    /// Write this key of yours.
    Write(Box<Upload>),
    /// Here is what became of your write.
    Written(Box<Upload>),
    /// Drop your copy of the value under this hash.
    Invalidate { number: u32, hash: KeyHash },
    /// All such requests up to this number are followed.
    Followed(u32),
    /// A copy of your value under this hash was served.
    Hit(KeyHash),
    /// A new connection, of which nothing was read: serve it.
    Connection(Fd),
}

/// One shard's ends of the queues to and from all others.
#[derive(Debug)]
pub struct Peers {
    links: Vec<Option<Link>>,
    /// Room in each queue for what cannot be refused.
    kept: usize,
}

#[derive(Debug)]
struct Link {
    to: Producer<Message>,
    from: Consumer<Message>,
    peer: Sleep,
    /// Something was pushed since the last look at whether the peer sleeps.
    pushed: bool,
}

/// The queues between `sleeps.len()` shards, each with room for `messages_max` messages.
///
/// A queue holds at most `kept` messages that cannot be refused: the sender's own reads and writes
/// and its answers to the other's, invalidations and answers to those. What can be refused, hits
/// and connections, goes as far as there is room beside them.
#[must_use]
pub fn peers(sleeps: &[Sleep], messages_max: usize, kept: usize) -> Vec<Peers> {
    let count = sleeps.len();
    let none = || (0..count).map(|_| None).collect();
    let mut all: Vec<Peers> = (0..count).map(|_| Peers { links: none(), kept }).collect();
    for low in 0..count {
        for high in low + 1..count {
            let (to_high, from_low) = spsc::queue(messages_max);
            let (to_low, from_high) = spsc::queue(messages_max);
            let link =
                |to, from, peer: &Sleep| Some(Link { to, from, peer: peer.clone(), pushed: false });
            all[low].links[high] = link(to_high, from_high, &sleeps[high]);
            all[high].links[low] = link(to_low, from_low, &sleeps[low]);
        }
    }
    all
}

impl Peers {
    /// How many shards there are, this one included.
    #[must_use]
    pub fn count(&self) -> u16 {
        u16::try_from(self.links.len()).expect("shards are counted in 16 bits")
    }

    /// Sends `message` to the shard `to`. Room is kept: see the head of `mesh`.
    ///
    /// # Panics
    /// If `to` is this shard itself.
    pub fn send(&mut self, to: u16, message: Message) {
        let link = self.links[usize::from(to)].as_mut().expect("no shard sends to itself");
        link.to.push(message);
        link.pushed = true;
    }

    /// Tells the shard `to` something that wakes nobody, unless there is no room for it.
    pub fn mention(&mut self, to: u16, message: Message) {
        if self.has_room_beside(to)
            && let Some(link) = &mut self.links[usize::from(to)]
        {
            link.to.push(message);
        }
    }

    /// Wakes the shard `to` if it sleeps: something changed that is no message.
    pub fn nudge(&mut self, to: u16) {
        if let Some(link) = &mut self.links[usize::from(to)] {
            link.pushed = true;
        }
    }

    /// Whether there is room to send what can be refused to the shard `to`.
    #[must_use]
    pub fn has_room_beside(&mut self, to: u16) -> bool {
        let kept = self.kept;
        self.links[usize::from(to)].as_mut().is_some_and(|link| link.to.room() > kept)
    }

    /// The oldest message of the shard `from`; none from this shard itself.
    pub fn receive(&mut self, from: u16) -> Option<Message> {
        self.links[usize::from(from)].as_mut()?.from.pop()
    }

    /// Whether any shard has sent something that was not received yet.
    #[must_use]
    pub fn has_mail(&mut self) -> bool {
        self.links.iter_mut().flatten().any(|link| !link.from.is_empty())
    }

    /// Calls `wake` once for each shard that was sent to since the last call and sleeps.
    pub fn wake_sleepers(&mut self, mut wake: impl FnMut(u16)) {
        for (shard, link) in (0..).zip(&mut self.links) {
            let Some(link) = link else { continue };
            if std::mem::take(&mut link.pushed) && link.peer.must_wake() {
                wake(shard);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_goes_out_and_comes_back_and_wakes_a_sleeper_once() {
        let sleeps = [Sleep::new(), Sleep::new(), Sleep::new()];
        let mut all = peers(&sleeps, 4, 2);
        sleeps[2].prepare();
        all[0].send(2, Message::Read(Parcel::with_size(16)));
        all[0].send(2, Message::Read(Parcel::with_size(16)));
        let mut woken = Vec::new();
        all[0].wake_sleepers(|shard| woken.push(shard));
        all[0].wake_sleepers(|shard| woken.push(shard));
        assert_eq!(woken, [2]);
        assert!(!all[1].has_mail());
        assert!(all[2].has_mail());
        let Some(Message::Read(parcel)) = all[2].receive(0) else { panic!("a read was sent") };
        all[2].send(0, Message::Reply(parcel));
        assert!(matches!(all[0].receive(2), Some(Message::Reply(_))));
        assert!(all[0].receive(0).is_none());
    }

    #[test]
    fn connections_are_handed_while_there_is_room_beside_the_parcels() {
        let mut all = peers(&[Sleep::new(), Sleep::new()], 4, 2);
        for fd in 7..9 {
            assert!(all[0].has_room_beside(1));
            all[0].send(1, Message::Connection(Fd(fd)));
        }
        assert!(!all[0].has_room_beside(1) && !all[0].has_room_beside(0));
        assert!(matches!(all[1].receive(0), Some(Message::Connection(Fd(7)))));
        assert!(all[0].has_room_beside(1));
    }

    #[test]
    fn what_is_mentioned_wakes_nobody_and_is_lost_where_there_is_no_room() {
        let sleeps = [Sleep::new(), Sleep::new()];
        let mut all = peers(&sleeps, 4, 3);
        sleeps[1].prepare();
        for bits in 0..2 {
            all[0].mention(1, Message::Hit(KeyHash::from_bits(bits)));
        }
        all[0].wake_sleepers(|_| panic!("it can wait"));
        assert!(matches!(all[1].receive(0), Some(Message::Hit(hash)) if hash.bits() == 0));
        assert!(all[1].receive(0).is_none());
        let mut woken = Vec::new();
        all[0].nudge(1);
        all[0].wake_sleepers(|shard| woken.push(shard));
        assert_eq!(woken, [1]);
    }
}
