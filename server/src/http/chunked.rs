//! Takes a chunked body out of its chunks (RFC 9112 section 7.1), byte by byte but for the data.
//!
//! ```text
//! 5 ;ext CR LF  hello CR LF  0 CR LF  Trailer: x CR LF  CR LF
//! size          data         last     trailers          end
//! ```
//!
//! Every part is bounded for the body as a whole, so that no client keeps a connection busy with
//! framing: data by `body_size_max`, extensions and trailers by the bounds below. CRLF is a CR and
//! an LF; a space after the size is refused.

use super::refusal::Refusal;
use super::scan;
use std::ops::Range;

/// Digits of a chunk size; more than any bound needs, few enough that leading zeros end.
const SIZE_DIGITS_MAX: u8 = 16;

/// Bytes of all extensions of a body.
const EXTENSIONS_SIZE_MAX: u16 = 1024;

/// Bytes of all trailer lines of a body.
const TRAILERS_SIZE_MAX: u16 = 1024;

/// How far a chunked body has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunked {
    part: Part,
    /// Bytes of data that may still come.
    data_left: u32,
    /// Bytes of this chunk: those it announces so far, then those that have not come yet.
    chunk_left: u32,
    digits: u8,
    extensions_size: u16,
    trailers_size: u16,
}

/// The part of the body that the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// What a call took of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Where data lies in the input, in one piece.
    pub(crate) data: Range<usize>,
    /// Bytes of the input that are done with: the data, and framing around it.
    pub(crate) consumed: usize,
    /// The body is over.
    pub(crate) is_last: bool,
}

impl Chunked {
    /// A body of which nothing has come; its data may have at most `size_max` bytes.
    pub(crate) const fn new(size_max: u32) -> Self {
        Self {
            part: Part::Size,
            data_left: size_max,
            chunk_left: 0,
            digits: 0,
            extensions_size: 0,
            trailers_size: 0,
        }
    }

    /// Takes from `input` up to the second piece of data in it: all of it, or to the body's end.
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<Taken, Refusal> {
        let (mut at, mut data) = (0, 0..0);
        while at < input.len() {
            if self.part == Part::Data {
                if !data.is_empty() {
                    break;
                }
                data = at..at + self.skip_data(input.len() - at);
                at = data.end;
            } else {
                let is_last = self.step(input[at])?;
                at += 1;
                if is_last {
                    return Ok(Taken { data, consumed: at, is_last });
                }
            }
        }
        Ok(Taken { data, consumed: at, is_last: false })
    }

    /// Skips data, of which `available` bytes may have come; answers how many had.
    fn skip_data(&mut self, available: usize) -> usize {
        let skipped = u32::try_from(available).map_or(self.chunk_left, |n| n.min(self.chunk_left));
        self.chunk_left -= skipped;
        if self.chunk_left == 0 {
            self.part = Part::DataCr;
        }
        usize::try_from(skipped).expect("it is at most `available`")
    }

    /// Takes one byte of framing; whether it was the last of the body.
    fn step(&mut self, byte: u8) -> Result<bool, Refusal> {
        self.part = match (self.part, byte) {
            (Part::Size, b'\r') if self.digits > 0 => Part::SizeLf,
            (Part::Size, b';') if self.digits > 0 => Part::Extension,
            (Part::Size, _) => self.digit(byte)?,
            (Part::Extension, b'\r') => Part::SizeLf,
            (Part::Extension, _) if scan::is_value(byte) => {
                self.extensions_size += 1;
                if self.extensions_size > EXTENSIONS_SIZE_MAX {
                    return Err(Refusal::BadChunk);
                }
                Part::Extension
            }
            (Part::SizeLf, b'\n') => self.begin_chunk(),
            (Part::DataCr, b'\r') => Part::DataLf,
            (Part::DataLf, b'\n') => Part::Size,
            (Part::TrailerStart, b'\r') => Part::EndLf,
            (Part::TrailerStart | Part::TrailerName, _) if scan::is_token(byte) => {
                self.trailer(Part::TrailerName)?
            }
            (Part::TrailerName, b':') => self.trailer(Part::TrailerValue)?,
            (Part::TrailerValue, b'\r') => Part::TrailerLf,
            (Part::TrailerValue, _) if scan::is_value(byte) => self.trailer(Part::TrailerValue)?,
            (Part::TrailerLf, b'\n') => Part::TrailerStart,
            (Part::EndLf, b'\n') => return Ok(true),
            _ => return Err(Refusal::BadChunk),
        };
        Ok(false)
    }

    /// Takes a digit of a size. It grows no further than `data_left`, so it cannot overflow.
    fn digit(&mut self, byte: u8) -> Result<Part, Refusal> {
        let digit = char::from(byte).to_digit(16).ok_or(Refusal::BadChunk)?;
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err(Refusal::BadChunk);
        }
        let size = u64::from(self.chunk_left) * 16 + u64::from(digit);
        match u32::try_from(size) {
            Ok(size) if size <= self.data_left => self.chunk_left = size,
            _ => return Err(Refusal::ContentTooLarge),
        }
        Ok(Part::Size)
    }

    /// After the line of a size.
    fn begin_chunk(&mut self) -> Part {
        self.digits = 0;
        self.data_left -= self.chunk_left;
        if self.chunk_left == 0 { Part::TrailerStart } else { Part::Data }
    }

    /// Counts a byte of a trailer that belongs to `part`.
    fn trailer(&mut self, part: Part) -> Result<Part, Refusal> {
        self.trailers_size += 1;
        if self.trailers_size > TRAILERS_SIZE_MAX { Err(Refusal::HeadTooLarge) } else { Ok(part) }
    }
}
