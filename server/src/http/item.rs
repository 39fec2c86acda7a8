//! The reply to a batch: one JSON object that is streamed, item by item and in pieces.
//!
//! ```text
//! {"items":[                                                           head
//!  {"key":"a","status":200,"content_type":"application/json","value":1}
//! ,{"key":"b","status":200,"content_type":"text/plain","value_base64":"eA=="}
//! ,{"key":"c","status":404}
//! ,{"key":"d","status":503,"error":"overloaded_try_again"}
//! ]}                                                                   tail
//! ```
//!
//! What is written at a time is one chunk (RFC 9112 section 7.1); HTTP/1.0, which has none, reads
//! until the connection ends.

use super::refusal::Refusal;

/// Room for an item beside its key: all of it but the value, of which a little must fit as well.
pub const ITEM_SIZE_MAX: usize = 256;

/// What stands around the data of a chunk: four digits of its size, and two CRLF.
const SIZE_LINE_SIZE: usize = 6;
const END_SIZE: usize = 2;

/// How a value stands in its item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is: it is known to be JSON.
    Json,
    /// In base64 (RFC 4648 section 4).
    Base64,
}

/// A piece of the reply, written to the beginning of `out`.
#[derive(Debug)]
pub struct Chunk<'a> {
    out: &'a mut [u8],
    start: usize,
    size: usize,
    end_size: usize,
}

impl<'a> Chunk<'a> {
    /// An empty piece; `is_framed` unless the reply ends with the connection.
    ///
    /// # Panics
    /// If `out` has more than 64 KiB.
    #[must_use]
    pub fn new(out: &'a mut [u8], is_framed: bool) -> Self {
        assert!(out.len() <= 1 << 16, "the size of a chunk has four digits");
        let (start, end_size) = if is_framed { (SIZE_LINE_SIZE, END_SIZE) } else { (0, 0) };
        Self { out, start, size: 0, end_size }
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.out.len().saturating_sub(self.start + self.size + self.end_size)
    }

    /// Ends the piece. Answers the bytes of `out` that it takes: none if nothing was put.
    #[must_use]
    pub fn finish(self) -> usize {
        let end = self.start + self.size;
        if self.size == 0 || self.end_size == 0 {
            return self.size;
        }
        for (place, shift) in self.out[..4].iter_mut().zip([12, 8, 4, 0]) {
            *place = b"0123456789abcdef"[self.size >> shift & 0xf];
        }
        self.out[4..SIZE_LINE_SIZE].copy_from_slice(b"\r\n");
        self.out[end..end + END_SIZE].copy_from_slice(b"\r\n");
        end + END_SIZE
    }

    /// The beginning of the items.
    pub fn items(&mut self) {
        self.put(br#"{"items":["#);
    }

    /// The end of the items.
    pub fn items_end(&mut self) {
        self.put(b"]}");
    }

    /// The beginning of the item of the key whose token is `key`.
    pub fn item(&mut self, key: &[u8], is_first: bool) {
        self.put(if is_first { br#"{"key":"# } else { br#",{"key":"#.as_slice() });
        self.put(key);
        self.put(br#","status":"#);
    }

    /// The rest of the item of a key that the origin does not have.
    pub fn absent(&mut self) {
        self.put(b"404}");
    }

    /// The rest of the item of a key that was refused.
    pub fn refused(&mut self, refusal: Refusal) {
        self.put(&refusal.status().as_bytes()[..3]);
        self.put(b",");
        let body = refusal.body().as_bytes();
        self.put(&body[1..]);
    }

    /// What stands before a value.
    pub fn value_head(&mut self, content_type: &str, form: Form) {
        self.put(br#"200,"content_type":""#);
        for &byte in content_type.as_bytes() {
            if matches!(byte, b'"' | b'\\') {
                self.put(b"\\");
            }
            self.put(&[byte]);
        }
        self.put(match form {
            Form::Json => br#"","value":"#,
            Form::Base64 => br#"","value_base64":""#.as_slice(),
        });
    }

    /// As much of `rest` as fits, which is the end of the value if `is_end`. Answers how many bytes
    /// of it that is: all of it exactly if the item is complete.
    pub fn value(&mut self, rest: &[u8], is_end: bool, form: Form) -> usize {
        let room = self.room();
        if room == 0 {
            return 0;
        }
        // What closes the item goes out with the last byte, or the item would seem complete before.
        let open = rest.len().saturating_sub(usize::from(is_end));
        match form {
            Form::Json if is_end && rest.len() < room => {
                self.put(rest);
                self.put(b"}");
                rest.len()
            }
            Form::Json => {
                let size = open.min(room);
                self.put(&rest[..size]);
                size
            }
            Form::Base64 if is_end && rest.len().div_ceil(3) * 4 + 2 <= room => {
                self.base64(rest);
                self.put(b"\"}");
                rest.len()
            }
            Form::Base64 => {
                let size = (open / 3).min(room / 4) * 3;
                self.base64(&rest[..size]);
                size
            }
        }
    }

    fn base64(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for group in bytes.chunks(3) {
            let mut three = [0; 3];
            three[..group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            let mut four = [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 0x3f) as usize]);
            four[group.len() + 1..].fill(b'=');
            self.put(&four);
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let at = self.start + self.size;
        self.out[at..at + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    /// What `write` puts into a chunk, without its frame.
    fn text(write: impl FnOnce(&mut Chunk<'_>)) -> String {
        let mut out = [b'?'; 1024];
        let mut chunk = Chunk::new(&mut out, false);
        write(&mut chunk);
        let size = chunk.finish();
        String::from_utf8(out[..size].to_vec()).expect("ASCII")
    }

    #[test]
    fn items_are_those_of_the_page() {
        let item = |write: &dyn Fn(&mut Chunk<'_>)| {
            text(|chunk| {
                chunk.item(br#""a""#, true);
                write(chunk);
            })
        };
        let value = |content_type: &str, form, value: &[u8]| {
            item(&|chunk| {
                chunk.value_head(content_type, form);
                assert_eq!(chunk.value(value, true, form), value.len());
            })
        };
        assert_eq!(item(&|chunk| chunk.absent()), r#"{"key":"a","status":404}"#);
        assert_eq!(
            item(&|chunk| chunk.refused(Refusal::Overloaded)),
            r#"{"key":"a","status":503,"error":"overloaded_try_again"}"#
        );
        assert_eq!(
            value("application/json", Form::Json, b"[1]"),
            r#"{"key":"a","status":200,"content_type":"application/json","value":[1]}"#
        );
        assert_eq!(
            value(r#"a/b;c="\""#, Form::Base64, b"x"),
            r#"{"key":"a","status":200,"content_type":"a/b;c=\"\\\"","value_base64":"eA=="}"#
        );
    }

    #[test]
    fn no_item_needs_more_room_than_the_bound() {
        let longest = "\"".repeat(crate::http::CONTENT_TYPE_SIZE_MAX);
        let head = text(|chunk| {
            chunk.item(b"", false);
            chunk.value_head(&longest, Form::Base64);
        });
        assert!(head.len() + SIZE_LINE_SIZE + END_SIZE + 6 <= ITEM_SIZE_MAX, "and three bytes");
        for &refusal in Refusal::ALL {
            let item = text(|chunk| {
                chunk.item(b"", false);
                chunk.refused(refusal);
            });
            assert!(item.len() + SIZE_LINE_SIZE + END_SIZE <= ITEM_SIZE_MAX, "{item}");
        }
    }

    #[test]
    fn a_chunk_has_its_size_before_it_and_nothing_is_no_chunk() {
        let mut out = [0; 64];
        let mut chunk = Chunk::new(&mut out, true);
        chunk.items();
        let size = chunk.finish();
        assert_eq!(&out[..size], b"000a\r\n{\"items\":[\r\n");
        assert_eq!(Chunk::new(&mut out, true).finish(), 0);
        let mut chunk = Chunk::new(&mut out[..3], true);
        assert_eq!((chunk.value(b"1", true, Form::Json), chunk.finish()), (0, 0));
    }

    proptest! {
        #[test]
        fn a_value_in_pieces_is_the_value(
            value in proptest::collection::vec(any::<u8>(), 0..200),
            rooms in proptest::collection::vec(8_usize..40, 1..8),
            piece_size in 3_usize..80,
            is_json in any::<bool>(),
        ) {
            let form = if is_json { Form::Json } else { Form::Base64 };
            let (mut whole, mut written, mut piece_at) = (Vec::new(), 0, 0);
            for room in rooms.iter().cycle() {
                let piece_end = (piece_at + piece_size).min(value.len());
                let is_end = piece_end == value.len();
                let mut out = vec![0; *room];
                let mut chunk = Chunk::new(&mut out, false);
                let taken = chunk.value(&value[written..piece_end], is_end, form);
                let size = chunk.finish();
                whole.extend_from_slice(&out[..size]);
                written += taken;
                if written == value.len() {
                    break;
                }
                prop_assert!(taken > 0 || !is_end, "something fits");
                if !is_end && piece_end - written < 3 {
                    piece_at = written;
                }
            }
            let text = String::from_utf8_lossy(&whole).into_owned();
            if is_json {
                let end = [&value[..], b"}"].concat();
                prop_assert_eq!(whole, end);
            } else {
                let mut encoded = String::new();
                for group in value.chunks(3) {
                    let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                        << (8 * (3 - group.len()));
                    for index in 0..4 {
                        let digit = bits >> (18 - 6 * index) & 0x3f;
                        encoded.push(match u8::try_from(digit).expect("six bits") {
                            _ if index > group.len() => '=',
                            digit @ 0..26 => char::from(b'A' + digit),
                            digit @ 26..52 => char::from(b'a' + digit - 26),
                            digit @ 52..62 => char::from(b'0' + digit - 52),
                            62 => '+',
                            _ => '/',
                        });
                    }
                }
                prop_assert_eq!(text, encoded + "\"}");
            }
        }
    }
}
