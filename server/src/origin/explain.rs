//! Explanations on their way: from whoever asks to the owner of a key, and back with what the
//! origin knows.

use crate::mesh::{EXPLANATIONS_MAX, ExplainRequest, Explained, Explanation, OriginServer};
use std::collections::VecDeque;
use tokio::sync::{mpsc, oneshot};

/// Those that are asked for.
#[derive(Debug)]
pub(super) struct Explanations {
    requests: mpsc::Receiver<ExplainRequest>,
    /// Who waits for which shard, in the order in which it was asked: it answers in that order.
    waiting: VecDeque<(usize, oneshot::Sender<Explained>)>,
}

impl Explanations {
    /// None yet; whoever wants one sends a request.
    pub(super) const fn new(requests: mpsc::Receiver<ExplainRequest>) -> Self {
        Self { requests, waiting: VecDeque::new() }
    }

    /// Whether one more may be under way.
    pub(super) fn have_room(&self) -> bool {
        self.waiting.len() < EXPLANATIONS_MAX
    }

    /// Waits for the next request, which is only taken where there is room.
    pub(super) async fn next(&mut self) -> Option<ExplainRequest> {
        self.requests.recv().await
    }

    /// The next request, if there is one and room for it.
    pub(super) fn try_next(&mut self) -> Option<ExplainRequest> {
        self.have_room().then(|| self.requests.try_recv().ok()).flatten()
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
