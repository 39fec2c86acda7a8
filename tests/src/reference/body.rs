//! Where a body ends: RFC 9112 sections 6 and 7.1.

use super::{CRLF, is_token, is_value, run};
use pelton::http::Refusal;

/// Digits of a chunk's size; bytes of all extensions of a body; bytes of all its trailers.
const SIZE_DIGITS_MAX: usize = 16;
const EXTENSIONS_SIZE_MAX: usize = 1024;
const TRAILERS_SIZE_MAX: usize = 1024;

/// How a body is framed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(usize),
    Chunked,
}

impl Body {
    /// The body that `text` begins with: its bytes and its data; `None` if it is not whole.
    pub(super) fn read(
        &self,
        text: &[u8],
        data_size_max: usize,
    ) -> Result<Option<(usize, Vec<u8>)>, Refusal> {
        match self {
            Self::None => Ok(Some((0, Vec::new()))),
            Self::Length(size) => Ok(text.get(..*size).map(|data| (*size, data.to_vec()))),
            Self::Chunked => match chunks(text, data_size_max) {
                Ok(chunks) => Ok(Some(chunks)),
                Err(Stop::Unfinished) => Ok(None),
                Err(Stop::Refused(refusal)) => Err(refusal),
            },
        }
    }
}

/// Why a part of a chunked body has no end.
enum Stop {
    Unfinished,
    Refused(Refusal),
}

/// Bytes of the chunked body that `text` begins with, and its data.
fn chunks(text: &[u8], data_size_max: usize) -> Result<(usize, Vec<u8>), Stop> {
    let (mut at, mut data, mut extensions_size) = (0, Vec::new(), 0);
    loop {
        let (digits, chunk_size) = chunk_size(&text[at..], data_size_max - data.len())?;
        at += digits;
        if text.get(at) == Some(&b';') {
            let extension = run(&text[at + 1..], is_value);
            extensions_size += extension;
            if extensions_size > EXTENSIONS_SIZE_MAX {
                return Err(Stop::Refused(Refusal::BadChunk));
            }
            at += 1 + extension;
        }
        at += exactly(&text[at..], CRLF)?;
        if chunk_size == 0 {
            return Ok((at + trailers_size(&text[at..])?, data));
        }
        data.extend_from_slice(text.get(at..at + chunk_size).ok_or(Stop::Unfinished)?);
        at += chunk_size;
        at += exactly(text.get(at..).ok_or(Stop::Unfinished)?, CRLF)?;
    }
}

/// The digits of the size that `text` begins with, and what they say.
fn chunk_size(text: &[u8], size_max: usize) -> Result<(usize, usize), Stop> {
    let digits = run(text, |byte| byte.is_ascii_hexdigit());
    let mut size = 0;
    for end in 1..=digits {
        if end > SIZE_DIGITS_MAX {
            return Err(Stop::Refused(Refusal::BadChunk));
        }
        let digits = std::str::from_utf8(&text[..end]).expect("digits are ASCII");
        size = usize::from_str_radix(digits, 16).expect("16 digits fit");
        if size > size_max {
            return Err(Stop::Refused(Refusal::ContentTooLarge));
        }
    }
    match text.get(digits) {
        None => Err(Stop::Unfinished),
        Some(b';' | b'\r') if digits > 0 => Ok((digits, size)),
        Some(_) => Err(Stop::Refused(Refusal::BadChunk)),
    }
}

/// Bytes of the trailers that `text` begins with, their blank line included.
fn trailers_size(text: &[u8]) -> Result<usize, Stop> {
    let (mut at, mut size) = (0, 0);
    let mut count = |more: usize| {
        size += more;
        if size > TRAILERS_SIZE_MAX { Err(Stop::Refused(Refusal::HeadTooLarge)) } else { Ok(more) }
    };
    while text.get(at) != Some(&b'\r') {
        let name = run(&text[at..], is_token);
        at += count(name)?;
        match text.get(at) {
            None => return Err(Stop::Unfinished),
            Some(b':') if name > 0 => {}
            Some(_) => return Err(Stop::Refused(Refusal::BadChunk)),
        }
        at += count(1 + run(&text[at + 1..], is_value))?;
        at += exactly(&text[at..], CRLF)?;
    }
    Ok(at + exactly(&text[at..], CRLF)?)
}

/// Bytes of `expected`, which `text` has to begin with.
fn exactly(text: &[u8], expected: &[u8]) -> Result<usize, Stop> {
    if text.starts_with(expected) {
        Ok(expected.len())
    } else if expected.starts_with(text) {
        Err(Stop::Unfinished)
    } else {
        Err(Stop::Refused(Refusal::BadChunk))
    }
}
