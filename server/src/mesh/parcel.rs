//! What travels between two shards: a read goes out and its answer comes back in the same parcel.
//!
//! A parcel belongs to the shard that reads. It is made at start, holds the key on its way out and
//! the value on its way back, and returns to its owner's pool when the reply has been written. So
//! memory is bounded by the pools, and no byte is shared between two threads at any time.
//!
//! A value that is larger than the parcel comes in pieces. With the first one the key's owner lends
//! the value: it keeps these bytes, whatever becomes of the key, until the parcel has fetched the
//! last piece or has asked for what is behind it, because nobody wants the rest.

use super::origin::ContentType;
use super::tenants::{NO_TENANT, TenantIndex};
use crate::error::FetchFailure;
use crate::http::{Beyond, KEY_SIZE_MAX, Source, Term};
use shard_cache::hash::{Etag, KeyHash};

/// Names a reply that a connection is owed: its place in the shard's table, and which life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyRef {
    /// Index in the table of replies.
    pub index: u32,
    /// Which life of that place.
    pub generation: u32,
}

impl ReplyRef {
    /// No reply: of what is written by who has it.
    pub const NONE: Self = Self { index: u32::MAX, generation: 0 };
}

/// The facts of a value that the reply's head needs.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// Hash of value and content type.
    pub etag: Etag,
    /// Its content type.
    pub content_type: ContentType,
    /// How long it lives.
    pub term: Term,
    /// How long it may be served after that.
    pub beyond: Beyond,
    /// Bytes of all of it; the parcel holds a piece of them.
    pub size: u32,
}

/// Names a value that its owner keeps for a parcel that fetches it in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LentId {
    /// The shard that keeps it.
    pub owner: u16,
    /// Index in that shard's table.
    pub index: u32,
    /// Which life of that place.
    pub generation: u32,
}

/// Leave to serve copies of a value, as long as its owner's lease lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The epoch of owner and reader; the copy is void once that is over.
    pub epoch: u32,
    /// When the value was stored, milliseconds.
    pub born_ms: u64,
    /// Until when it is fresh, milliseconds; `None` if that never ends.
    pub fresh_until_ms: Option<u64>,
}

/// What the owner says to a read.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Not answered yet: the parcel is on its way out.
    Pending,
    /// The value lies in the parcel, or the piece of it that was asked for.
    Value(Value, Source),
    /// The origin does not have the key.
    Absent(Term, Source),
    /// The origin failed.
    Failed(FetchFailure),
    /// The owner had no room to wait in.
    Shed,
    /// The owner could not keep the value any longer: the rest of it does not come.
    Withdrawn,
}

/// One remote read.
#[derive(Debug)]
pub struct Parcel {
    /// Which reply of the reader it is for.
    pub reply: ReplyRef,
    /// The key's hash.
    pub hash: KeyHash,
    /// What the owner said.
    pub answer: Answer,
    /// The value whose next piece it asks for, or of which more can be asked.
    pub lent: Option<LentId>,
    /// Who reads.
    pub tenant: TenantIndex,
    /// Whether the reader would keep a copy.
    pub wants_copy: bool,
    /// Whether it may.
    pub grant: Option<Grant>,
    /// Where the piece lies in the value.
    offset: u32,
    piece_size: u32,
    key_size: u16,
    /// The key on the way out; the value, or a piece of it, on the way back.
    bytes: Box<[u8]>,
}

impl Parcel {
    /// A parcel that holds values of up to `size` bytes.
    #[must_use]
    pub fn with_size(size: u32) -> Box<Self> {
        let size = (size as usize).max(KEY_SIZE_MAX);
        Box::new(Self {
            reply: ReplyRef::NONE,
            hash: KeyHash::from_bits(0),
            answer: Answer::Pending,
            lent: None,
            tenant: NO_TENANT,
            wants_copy: false,
            grant: None,
            offset: 0,
            piece_size: 0,
            key_size: 0,
            bytes: vec![0; size].into_boxed_slice(),
        })
    }

    /// Addresses it: the key to read, and the reply it is for.
    pub fn address(&mut self, reply: ReplyRef, hash: KeyHash, key: &[u8]) {
        self.reply = reply;
        self.hash = hash;
        self.answer = Answer::Pending;
        self.tenant = NO_TENANT;
        self.wants_copy = false;
        self.grant = None;
        self.key_size = u16::try_from(key.len()).expect("keys are at most 512 bytes");
        self.bytes[..key.len()].copy_from_slice(key);
    }

    /// The key that is read.
    ///
    /// # Panics
    /// If it was answered with a value: that lies where the key lay.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        assert!(!matches!(self.answer, Answer::Value(..)), "the value took the key's place");
        &self.bytes[..usize::from(self.key_size)]
    }

    /// The key of a value that may be copied: it lies at the end, behind the value.
    ///
    /// # Panics
    /// If nothing was granted.
    #[must_use]
    pub fn copied_key(&self) -> &[u8] {
        assert!(self.grant.is_some(), "only of a copy the key is kept");
        &self.bytes[self.bytes.len() - usize::from(self.key_size)..]
    }

    /// Lets the reader keep a copy of the value that it is about to be filled with.
    ///
    /// # Panics
    /// If key and value do not fit together.
    pub fn allow_copy(&mut self, grant: Grant, value_size: usize) {
        let key_size = usize::from(self.key_size);
        let key_at = self.bytes.len() - key_size;
        assert!(value_size <= key_at, "small values are copied");
        self.bytes.copy_within(..key_size, key_at);
        self.grant = Some(grant);
    }

    /// The largest piece it holds, bytes.
    #[must_use]
    pub fn size_max(&self) -> usize {
        self.bytes.len()
    }

    /// Answers with a value, or as much of its beginning as fits. What does not fit is fetched in
    /// further pieces if `lent` names it.
    ///
    /// # Panics
    /// If `lent` says otherwise than the sizes do.
    pub fn fill(&mut self, value: Value, source: Source, bytes: &[u8], lent: Option<LentId>) {
        assert_eq!(bytes.len(), value.size as usize, "the value's facts speak of its bytes");
        assert_eq!(lent.is_some(), bytes.len() > self.size_max(), "what does not fit is lent");
        self.answer = Answer::Value(value, source);
        self.lent = lent;
        self.offset = 0;
        self.put_piece(bytes);
    }

    /// Goes on with the value that is lent to `other`, which can go home then.
    pub fn take_over(&mut self, other: &mut Self) {
        self.answer = other.answer;
        self.lent = other.lent.take();
    }

    /// Asks for the bytes of the value from `offset` on, for `reply`.
    ///
    /// # Panics
    /// If no value is lent to it.
    pub fn ask_piece(&mut self, reply: ReplyRef, offset: u32) {
        assert!(self.lent.is_some(), "only of a value that is lent there is more");
        self.reply = reply;
        self.offset = offset;
        self.piece_size = 0;
    }

    /// Asks for nothing more of the value: its owner need not keep it any longer.
    pub fn ask_end(&mut self) {
        self.ask_piece(self.reply, self.size());
    }

    /// Answers with the piece of `bytes`, the whole value, that was asked for. Returns whether it
    /// was the last.
    pub fn fill_piece(&mut self, bytes: &[u8]) -> bool {
        assert_eq!(bytes.len(), self.size() as usize, "a value that is lent does not change");
        self.put_piece(&bytes[self.offset as usize..]);
        self.offset + self.piece_size == self.size()
    }

    /// The piece of the value that it was answered with.
    ///
    /// # Panics
    /// If it was answered otherwise.
    #[must_use]
    pub fn piece(&self) -> &[u8] {
        assert!(matches!(self.answer, Answer::Value(..)), "only a value has pieces");
        &self.bytes[..self.piece_size as usize]
    }

    /// Where in the value the piece begins.
    #[must_use]
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    fn size(&self) -> u32 {
        let Answer::Value(value, _) = &self.answer else {
            panic!("only a parcel with a value is asked for its size");
        };
        value.size
    }

    fn put_piece(&mut self, rest: &[u8]) {
        let size = rest.len().min(self.bytes.len());
        self.bytes[..size].copy_from_slice(&rest[..size]);
        self.piece_size = u32::try_from(size).expect("a parcel has some kilobytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: ReplyRef = ReplyRef { index: 3, generation: 4 };
    const LENT: LentId = LentId { owner: 1, index: 2, generation: 3 };

    fn value(size: u32) -> Value {
        let (etag, content_type) = (Etag::from_bits(7), ContentType::JSON);
        let (term, beyond) = (Term::Ever, Beyond::AS_CONFIGURED);
        Value { etag, content_type, term, beyond, size }
    }

    #[test]
    fn a_value_comes_in_pieces_of_the_size_of_the_parcel() {
        let bytes: Vec<u8> = (0..2_500_u32).map(|n| (n % 251) as u8).collect();
        let mut parcel = Parcel::with_size(1_000);
        parcel.address(REPLY, KeyHash::from_bits(1), b"key");
        parcel.fill(value(2_500), Source::Hit, &bytes, Some(LENT));
        let mut read = parcel.piece().to_vec();
        for is_last in [false, true] {
            parcel.ask_piece(REPLY, u32::try_from(read.len()).unwrap());
            assert_eq!(parcel.fill_piece(&bytes), is_last);
            assert_eq!(parcel.offset() as usize, read.len());
            read.extend(parcel.piece());
        }
        assert_eq!(read, bytes);
    }

    #[test]
    fn the_key_of_a_copy_comes_back_behind_the_value() {
        let grant = Grant { epoch: 1, born_ms: 2, fresh_until_ms: None };
        let mut parcel = Parcel::with_size(1_000);
        parcel.address(REPLY, KeyHash::from_bits(1), b"key");
        parcel.allow_copy(grant, 997);
        parcel.fill(value(997), Source::Hit, &[7; 997], None);
        assert_eq!((parcel.copied_key(), parcel.piece()), (b"key".as_slice(), [7; 997].as_slice()));
        parcel.address(REPLY, KeyHash::from_bits(1), b"key");
        assert_eq!(parcel.grant, None);
    }

    #[test]
    fn who_wants_no_more_is_answered_with_nothing_and_that_is_the_last() {
        let bytes = [1; 2_500];
        let mut parcel = Parcel::with_size(1_000);
        parcel.address(REPLY, KeyHash::from_bits(1), b"key");
        parcel.fill(value(2_500), Source::Hit, &bytes, Some(LENT));
        parcel.ask_end();
        assert!(parcel.fill_piece(&bytes));
        assert!(parcel.piece().is_empty());
    }

    #[test]
    #[should_panic(expected = "what does not fit is lent")]
    fn a_value_that_does_not_fit_is_not_cut_off_silently() {
        let mut parcel = Parcel::with_size(1_000);
        parcel.address(REPLY, KeyHash::from_bits(1), b"key");
        parcel.fill(value(2_500), Source::Hit, &[1; 2_500], None);
    }
}
