//! Rare paths that a set of seeds must have walked.
//!
//! A green run that never met a fault proves nothing about it. So each rare thing that the
//! simulated world can do has a mark, and a mark that stays at zero over all seeds of a test fails
//! the test.

/// Declares [`Mark`] from a list of variants and what each means.
macro_rules! marks {
    ($($variant:ident, $sentence:literal;)+) => {
        /// A rare path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Mark { $(#[doc = $sentence] $variant,)+ }

        impl Mark {
            /// All marks.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The variant's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }

            /// What it means.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

marks! {
    AcceptAborted, "The peer of an accept was gone before it was accepted.";
    AcceptEndedByItself, "An accept shot ended without a failure.";
    AcceptAwaited, "A connection waited outside, since no shard had room.";
    AcceptNoDescriptors, "An accept found no free descriptor.";
    BatchBehindWrite, "An item showed a key that its connection had written before its batch.";
    BatchContinued, "A client was told to send the body of a batch.";
    BatchCut, "The server ended a connection in the middle of the items of a batch.";
    BatchFull, "A turn had more completions than its batch had room for.";
    BatchItemForbidden, "An item was refused because of how its key begins.";
    BatchItemRateLimited, "An item was refused because of its tenant's rate.";
    BatchItemTooLarge, "An item was refused because of the values before it.";
    BatchOfShards, "The items of a batch were those of more than one shard.";
    BatchRefused, "A batch was refused as a whole.";
    BatchTooManyKeys, "A batch was refused because of how many keys it had.";
    BatchValueInPieces, "The value of an item came in more than one chunk.";
    BatchWithoutChunks, "The items of a batch came until the connection ended.";
    BodySentUnasked, "A client that waited to be told to send its body sent it without that.";
    CancelAfterTarget, "A cancellation completed after its target had completed for the last time.";
    CancelBeforeTarget, "A cancellation completed while its target had still to complete.";
    CancelFoundNothing, "A cancellation came too late: its target had completed before.";
    CancelLost, "A cancelled operation completed as if it had not been cancelled.";
    CancelWon, "A cancelled operation completed as cancelled.";
    ClientsInABurst, "As many clients as there may be began at once.";
    CloseWithReceive, "A descriptor was closed with its receive armed: no end reached the peer.";
    ClosedWhenIdle, "The server closed a connection between two requests, and the client had more.";
    CompletionsHeldBack, "Completions were posted but shown only in a later turn.";
    CutOffWithinReply, "The server ended a connection in the middle of a reply.";
    DescriptorReusedAtOnce, "A connection took a descriptor whose close had not been seen yet.";
    ExplainedAbsent, "A key was explained of whose absence its owner knows.";
    ExplainedChanging, "A key was explained while it was changed.";
    ExplainedCopied, "A key was explained of which another shard had a copy.";
    ExplainedInFlight, "A key was explained while it was fetched.";
    ExplainedPurged, "A key was explained whose entry was purged along with others.";
    ExplainedStale, "A key was explained whose value was stale.";
    ExplainedVoid, "A key was explained while a fetch of it was void.";
    Forbidden, "A tenant was refused what it may not do.";
    ForgottenInFlight, "The origin told of a change of a key while it was fetched.";
    LeftBeforeAnswer, "A client left that had sent a whole write and knew nothing of it.";
    LeftWithinBody, "A client left in the middle of the body of a write.";
    LevelBrownout, "A shard had so much to do that misses had a small budget.";
    LevelDownToBrownout, "A shard that shed had less to do for a second.";
    LevelDownToElevated, "A shard in a brownout had refused nothing for a second.";
    LevelDownToNormal, "A shard did everything again.";
    LevelDownToShed, "A shard in an emergency had less to do for a second.";
    LevelElevated, "A shard had so much to do that it did nothing early.";
    LevelEmergency, "A shard had so much to do that misses had a tiny budget.";
    LevelShed, "A shard had so much to do that nothing stale was fetched anew.";
    OldNewsLanded, "A fetch landed with a value that had been replaced while it was under way.";
    OriginDown, "A fetch failed because the origin was down for a while.";
    OriginFailed, "A fetch of a key that has a value failed.";
    OversizedLanded, "A fetch landed with a value that is larger than it may be.";
    PurgedInFlight, "A key was purged while it was fetched.";
    RateLimited, "A tenant was refused what is beyond its rate.";
    ReadBehindWrite, "A read was answered that its connection had sent behind a write of its key.";
    ReceiveEndedByItself, "A receive shot ended with data and without a failure.";
    ReceiveNoBuffers, "A receive shot ended because no buffer was free.";
    ReceiveNoBuffersAtOnce, "A receive found no buffer free when it was armed, and no data either.";
    ReceiveOneByte, "A receive delivered one byte of many.";
    ReceivesInOneTurn, "One receive shot completed four times or more in one turn.";
    RepliesAtOnce, "A client read the ends of several replies at once.";
    ResetLostInput, "A reset threw away bytes that the server had not received yet.";
    ResetLostOutput, "Closing with unread input threw away bytes that the client had not read yet.";
    SendFailed, "A send failed because the peer was gone.";
    SendInPieces, "A send was taken in more than one piece and completed once.";
    SendLate, "A send's memory was read in a later turn than the one that submitted it.";
    SendShort, "A send completed with fewer bytes than asked.";
    ShortLivedLanded, "A fetch landed with a value that is fresh for less than the usual time.";
    ShownBeforeAnswer, "A client was shown what another one had written and not been told of yet.";
    SnapshotFailed, "A snapshot was not written or not read because of the disk.";
    SnapshotRead, "A snapshot was read back while the shards served.";
    SnapshotWritten, "A snapshot was written while the shards served.";
    StalledForLong, "A shard was stalled in the middle of a turn for more than a second.";
    StalledInTurn, "A shard was stalled in the middle of a turn while others went on.";
    TurnEmpty, "A turn returned before its deadline without completions.";
    Unauthorized, "A client was refused that showed nobody's key, or none.";
    UnchangedAskedAgain, "The origin said that a value is unchanged which its owner had no more, and was asked for it.";
    UnchangedRenewed, "The origin said that a value is unchanged, and it was renewed where it lay.";
    UploadAwaited, "A request with a body waited for another to be answered.";
    WallBackwards, "The wall clock stepped back.";
    WallForwards, "The wall clock stepped forwards.";
    WriteContinued, "A client was told to send the body of a write.";
    WriteCreated, "A write gave a value to a key that had none.";
    WriteDeleted, "A write deleted a key.";
    WriteDoneLate, "A write was done after the plane had given up on it.";
    WriteDoneUnknown, "A write was done, and the plane was not told.";
    WriteFailed, "A write failed.";
    WriteOfNothing, "A write was to delete a key that was not there.";
    WriteRefused, "A write's precondition did not hold at the origin.";
    WriteReplaced, "A write gave a key another value.";
    WriteShed, "A write was refused because there was no room for it.";
    WriteUnknown, "A write was given up on.";
    WrittenInFlight, "A key was fetched anew because a write had overtaken the fetch under way.";
}

/// How often each path was walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// Counts one walk.
    pub const fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// Counts a walk if `walked`.
    pub fn hit_if(&mut self, walked: bool, mark: Mark) {
        self.0[mark as usize] += u64::from(walked);
    }

    /// Walks of one path.
    #[must_use]
    pub const fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Adds the walks of another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(other.0) {
            *sum += count;
        }
    }

    /// The walks of all paths, in the order of [`Mark::ALL`].
    pub fn counts_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.0.iter_mut()
    }
}
