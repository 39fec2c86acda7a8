//! Lines of bounded length out of a stream of unbounded ones.
//!
//! Memory never exceeds the bound: of a longer line nothing is kept, its bytes are only counted.

use std::io::{self, BufRead};

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The line, without its line feed.
    Text(&'a [u8]),
    /// It was longer than the bound: this many bytes, without its line feed.
    TooLong(u64),
    /// There are no more lines.
    End,
}

/// The lines of a stream.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    size_max: usize,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`, of at most `size_max` bytes each.
    pub(super) const fn new(input: R, size_max: usize) -> Self {
        Self { input, size_max, line: Vec::new() }
    }

    /// The next line; the last one needs no line feed.
    pub(super) fn next(&mut self) -> io::Result<Line<'_>> {
        self.line.clear();
        let mut size: u64 = 0;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() && size == 0 {
                return Ok(Line::End);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let ended = end.is_some() || chunk.is_empty();
            let consumed = part.len() + usize::from(end.is_some());
            size += u64::try_from(part.len()).expect("a chunk's length fits");
            let fits = size <= u64::try_from(self.size_max).unwrap_or(u64::MAX);
            if fits {
                self.line.extend_from_slice(part);
            }
            self.input.consume(consumed);
            if ended {
                return Ok(if fits { Line::Text(&self.line) } else { Line::TooLong(size) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{BufReader, Read};

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_stream_is_cut(
            text in "[ab\n]{0,60}",
            chunk_size in 1_usize..9,
        ) {
            let mut wanted: Vec<_> = text.split('\n').map(str::to_owned).collect();
            if wanted.last().is_some_and(String::is_empty) {
                wanted.pop();
            }
            let mut lines = Lines::new(BufReader::with_capacity(chunk_size, text.as_bytes()), 5);
            for wanted in wanted {
                let line = lines.next().expect("read");
                if wanted.len() > 5 {
                    prop_assert_eq!(line, Line::TooLong(wanted.len() as u64));
                } else {
                    prop_assert_eq!(line, Line::Text(wanted.as_bytes()));
                }
            }
            prop_assert_eq!(lines.next().expect("read"), Line::End);
        }
    }

    #[test]
    fn an_endless_line_costs_no_memory() {
        let size = 64 << 20;
        let input = io::repeat(b'x').take(size).chain(&b"\nok\n"[..]);
        let mut lines = Lines::new(BufReader::new(input), 1_000);
        assert_eq!(lines.next().expect("read"), Line::TooLong(size));
        assert!(lines.line.capacity() <= 16 * 1_024, "{}", lines.line.capacity());
        assert_eq!(lines.next().expect("read"), Line::Text(b"ok"));
    }
}
