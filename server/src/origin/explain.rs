//! Explanations on their way: from whoever asks to the owner of a key, and back with what the
//! origin knows.

use crate::mesh::{EXPLANATIONS_MAX, ExplainRequest, Explained, Explanation, OriginServer};
use std::collections::VecDeque;
use tokio::sync::{mpsc, oneshot};

/// Those that are asked for.
#[derive(Debug)]
pub(super) struct Explanations {
    /// By the admin port, which comes first.
    requests: mpsc::Receiver<ExplainRequest>,
    /// For samples.
    samples: mpsc::Receiver<ExplainRequest>,
    /// Who waits for which shard, in the order in which it was asked: it answers in that order.
    waiting: VecDeque<(usize, oneshot::Sender<Explained>)>,
}

impl Explanations {
    /// None yet; whoever wants one sends a request.
    pub(super) const fn new(
        requests: mpsc::Receiver<ExplainRequest>,
        samples: mpsc::Receiver<ExplainRequest>,
    ) -> Self {
        Self { requests, samples, waiting: VecDeque::new() }
    }

    /// Whether one more may be under way.
    pub(super) fn have_room(&self) -> bool {
        self.waiting.len() < EXPLANATIONS_MAX
    }

    /// Waits for the next request, which is only taken where there is room.
    pub(super) async fn next(&mut self) -> Option<ExplainRequest> {
        tokio::select! {
            biased;
            Some(request) = self.requests.recv() => Some(request),
            Some(request) = self.samples.recv() => Some(request),
            else => None,
        }
    }

    /// The next request, if there is one and room for it.
    pub(super) fn try_next(&mut self) -> Option<ExplainRequest> {
        if !self.have_room() {
            return None;
        }
        self.requests.try_recv().or_else(|_| self.samples.try_recv()).ok()
    }

    /// The shard `owner` was asked, and `answer` is to be told.
    pub(super) fn begin(&mut self, owner: usize, answer: oneshot::Sender<Explained>) {
        self.waiting.push_back((owner, answer));
    }

    /// The shard `owner` has answered.
    pub(super) fn end(
        &mut self,
        owner: usize,
        explanation: Box<Explanation>,
        server: Option<OriginServer>,
    ) {
        let place = self.waiting.iter().position(|(shard, _)| *shard == owner);
        let asked = place.and_then(|place| self.waiting.remove(place));
        let (_, answer) = asked.expect("an explanation comes back once");
        // Whoever asked may have given up.
        answer.send(Explained { explanation, server }).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Key;

    fn ask(to: &mpsc::Sender<ExplainRequest>, key: &[u8]) {
        let key = Key::new(key).expect("short");
        let explanation = Box::new(Explanation::of(key));
        to.try_send(ExplainRequest { explanation, answer: oneshot::channel().0 }).expect("room");
    }

    #[tokio::test]
    async fn whoever_asks_comes_before_samples() {
        let ((admin, requests), (sampler, samples)) = (mpsc::channel(2), mpsc::channel(2));
        let mut explanations = Explanations::new(requests, samples);
        for place in 0..2 {
            ask(&sampler, b"sample");
            ask(&admin, b"asked");
            let next = [explanations.next().await, explanations.try_next()];
            let keys = next.map(|request| request.expect("there is one").explanation.key);
            let in_order = [b"asked".as_slice(), b"sample"];
            assert_eq!(keys.each_ref().map(Key::as_bytes), in_order, "{place}");
        }
        drop((admin, sampler));
        assert!(explanations.next().await.is_none());
    }
}
