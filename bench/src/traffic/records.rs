//! Keys to ask for, and the bodies that are right for them: from files, or made up.
//!
//! A made-up record is as good as its key: anyone who knows the key, the version and the size can
//! tell whether a body is right.
//!
//! ```text
//! {"key":"key-00000042","version":3,"fill":"xxxxxxxx..."}
//! ```

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

/// Keys in the order of the file; where the file has values, the body of each.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) keys: Vec<String>,
    /// Empty, or one a key: the JSON text of its value.
    pub(crate) bodies: Vec<Box<[u8]>>,
}

#[derive(Deserialize)]
struct Line<'a> {
    key: String,
    #[serde(borrow)]
    value: &'a RawValue,
}

impl Records {
    /// Reads `{"key":..,"value":..}` lines where the file's name says `.jsonl`, otherwise one key
    /// a line. Either may be compressed, with `.gz` at the end.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let in_file =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let name = path.to_string_lossy();
        let file = File::open(path).map_err(in_file)?;
        let input: Box<dyn Read> = match name.strip_suffix(".gz") {
            Some(_) => Box::new(MultiGzDecoder::new(file)),
            None => Box::new(file),
        };
        let is_jsonl = name.trim_end_matches(".gz").ends_with(".jsonl");
        Self::parse(BufReader::new(input), is_jsonl).map_err(in_file)
    }

    fn parse(input: impl BufRead, is_jsonl: bool) -> io::Result<Self> {
        let mut records = Self { keys: Vec::new(), bodies: Vec::new() };
        for (index, line) in input.lines().enumerate() {
            let line = line?;
            if line.is_empty() {
                continue;
            }
            if !is_jsonl {
                records.keys.push(line);
                continue;
            }
            let record: Line<'_> = serde_json::from_str(&line)
                .map_err(|error| io::Error::other(format!("line {}: {error}", index + 1)))?;
            records.keys.push(record.key);
            records.bodies.push(record.value.get().as_bytes().into());
        }
        if records.keys.is_empty() {
            return Err(io::Error::other("holds no key"));
        }
        Ok(records)
    }

    /// The first `count` made-up keys, without bodies.
    pub(crate) fn generated(count: u32) -> Self {
        Self { keys: (0..count).map(generated_key).collect(), bodies: Vec::new() }
    }
}

/// The made-up key of this number.
fn generated_key(number: u32) -> String {
    format!("key-{number:08}")
}

/// The value of a made-up key, `size` bytes, or a few more where that is too few for its fields.
fn generated_value(key: &str, version: u64, size: usize) -> String {
    let fields = format!("{{\"key\":\"{key}\",\"version\":{version},\"fill\":\"\"}}");
    let fill = "x".repeat(size.saturating_sub(fields.len()));
    format!("{}{fill}\"}}", &fields[..fields.len() - 2])
}

/// Writes `count` made-up records as lines that `pelton import` reads.
pub(crate) fn write_generated(
    output: &mut impl Write,
    count: u32,
    version: u64,
    value_size: usize,
) -> io::Result<()> {
    for key in (0..count).map(generated_key) {
        let value = generated_value(&key, version, value_size);
        writeln!(output, "{{\"key\":\"{key}\",\"value\":{value}}}")?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_byte_for_byte() {
        let text = "{\"key\":\"a\",\"value\":{\"x\": 1.50}}\n\n{\"key\":\"b\",\"value\":\"y\"}\n";
        let records = Records::parse(text.as_bytes(), true).unwrap();
        assert_eq!(records.keys, ["a", "b"]);
        assert_eq!(&*records.bodies[0], b"{\"x\": 1.50}");
        assert_eq!(&*records.bodies[1], b"\"y\"");
    }

    #[test]
    fn plain_files_hold_a_key_a_line() {
        let records = Records::parse("a b\nc\n".as_bytes(), false).unwrap();
        assert_eq!(records.keys, ["a b", "c"]);
        assert!(records.bodies.is_empty());
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Records::parse("{\"key\":\"a\",\"value\":1}\n{\n".as_bytes(), true).err();
        assert!(error.unwrap().to_string().starts_with("line 2: "));
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(Records::parse("".as_bytes(), false).is_err());
    }

    #[test]
    fn generated_records_are_read_back_in_their_size() {
        let mut text = Vec::new();
        write_generated(&mut text, 3, 7, 100).unwrap();
        let records = Records::parse(&text[..], true).unwrap();
        assert_eq!(records.keys, ["key-00000000", "key-00000001", "key-00000002"]);
        assert!(records.bodies.iter().all(|body| body.len() == 100));
        assert!(records.bodies[2].starts_with(b"{\"key\":\"key-00000002\",\"version\":7,"));
        assert_eq!(generated_value("k", 1, 0), "{\"key\":\"k\",\"version\":1,\"fill\":\"\"}");
    }
}
