//! The body of a batch: `{"keys":["a","b"]}`, read in place and without memory of its own.
//!
//! The body is checked whole before any key of it is asked for; then its keys are taken one after
//! the other. JSON is that of RFC 8259, and nothing beside one object with the one member `keys`,
//! an array of strings, is taken: what a client says and is not understood is refused.
//!
//! ```text
//! { "keys" : [ "a" , "\u00e9" ] }      between two tokens any white space
//!              ^at                     taken: the token as it stands, and the decoded key
//! ```

use super::refusal::Refusal;
use super::request::KEY_SIZE_MAX;

/// The only member.
const MEMBER: &[u8] = b"keys";

/// Checks a whole body. Answers how many keys it has, and where the first may begin.
///
/// # Errors
/// [`Refusal::BadBatch`] for all that is no batch, [`Refusal::TooManyKeys`] beyond `count_max`.
pub fn check(body: &[u8], count_max: u16, key_size_max: u16) -> Result<(u16, u32), Refusal> {
    std::str::from_utf8(body).map_err(|_| Refusal::BadBatch)?;
    let mut text = Text { body, at: 0 };
    let mut room = [0; KEY_SIZE_MAX];
    text.mark(b'{')?;
    let (_, size) = text.string(&mut room)?;
    if &room[..size] != MEMBER {
        return Err(Refusal::BadBatch);
    }
    text.mark(b':')?;
    text.mark(b'[')?;
    let first_at = text.position();
    let mut count = 0_u16;
    if !text.has(b']') {
        loop {
            let (_, size) = text.string(&mut room)?;
            if !(1..=usize::from(key_size_max)).contains(&size) {
                return Err(Refusal::BadBatch);
            }
            count = count.saturating_add(1);
            if !text.has(b',') {
                break;
            }
        }
        text.mark(b']')?;
    }
    text.mark(b'}')?;
    text.skip_space();
    match text.at == body.len() {
        true if count > count_max => Err(Refusal::TooManyKeys),
        true => Ok((count, first_at)),
        false => Err(Refusal::BadBatch),
    }
}

/// A key of a body that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where its opening quote stands.
    pub start: u32,
    /// Bytes from quote to quote, both included.
    pub size: u16,
    /// Bytes of the decoded key.
    pub key_size: u16,
}

impl Token {
    /// Where the next key may begin.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.start + u32::from(self.size)
    }

    /// The token as it stands in `body`.
    ///
    /// # Panics
    /// If it is of another body.
    #[must_use]
    pub fn of<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        &body[self.start as usize..][..usize::from(self.size)]
    }
}

/// Takes the key that begins at `at` or behind a comma there, and decodes it into `room`.
///
/// # Panics
/// If `body` was not checked, or has no further key.
pub fn take(body: &[u8], at: u32, room: &mut [u8; KEY_SIZE_MAX]) -> Token {
    let mut text = Text { body, at: at as usize };
    text.has(b',');
    let (start, key_size) = text.string(room).expect("the body was checked");
    let small = |size: usize| u16::try_from(size).expect("a key is bounded");
    Token { start, size: small(text.at - start as usize), key_size: small(key_size) }
}

/// JSON text, read from `at` on.
struct Text<'a> {
    body: &'a [u8],
    at: usize,
}

impl Text<'_> {
    fn position(&self) -> u32 {
        u32::try_from(self.at).expect("the parser bounds bodies")
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.body.get(self.at) {
            self.at += 1;
        }
    }

    /// Takes `mark`, with the space before it, if that is what follows.
    fn has(&mut self, mark: u8) -> bool {
        self.skip_space();
        let has = self.body.get(self.at) == Some(&mark);
        self.at += usize::from(has);
        has
    }

    fn mark(&mut self, mark: u8) -> Result<(), Refusal> {
        if self.has(mark) { Ok(()) } else { Err(Refusal::BadBatch) }
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        let byte = self.body.get(self.at).ok_or(Refusal::BadBatch)?;
        self.at += 1;
        Ok(*byte)
    }

    /// Takes a string, with the space before it, and decodes it into `room`. Answers where it
    /// begins, and how many bytes it has when decoded; one that is longer than `room` is refused.
    fn string(&mut self, room: &mut [u8; KEY_SIZE_MAX]) -> Result<(u32, usize), Refusal> {
        self.skip_space();
        let start = self.position();
        self.mark(b'"')?;
        let mut size = 0;
        let mut put = |bytes: &[u8]| {
            let place = room.get_mut(size..size + bytes.len()).ok_or(Refusal::BadBatch)?;
            place.copy_from_slice(bytes);
            size += bytes.len();
            Ok(())
        };
        loop {
            match self.byte()? {
                b'"' => return Ok((start, size)),
                b'\\' => {
                    let mut utf8 = [0; 4];
                    put(self.escape()?.encode_utf8(&mut utf8).as_bytes())?;
                }
                0..=0x1f => return Err(Refusal::BadBatch),
                byte => put(&[byte])?,
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, Refusal> {
        Ok(match self.byte()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.code_point(),
            _ => return Err(Refusal::BadBatch),
        })
    }

    /// What follows `\u`: one unit of UTF-16, or the two of a surrogate pair.
    fn code_point(&mut self) -> Result<char, Refusal> {
        let first = self.unit()?;
        let mut units = [first, 0];
        let mut count = 1;
        if (0xd800..0xdc00).contains(&first) {
            if [self.byte()?, self.byte()?] != *b"\\u" {
                return Err(Refusal::BadBatch);
            }
            units[1] = self.unit()?;
            count = 2;
        }
        let mut chars = char::decode_utf16(units[..count].iter().copied());
        let decoded = chars.next().and_then(Result::ok).ok_or(Refusal::BadBatch)?;
        if chars.next().is_some() { Err(Refusal::BadBatch) } else { Ok(decoded) }
    }

    fn unit(&mut self) -> Result<u16, Refusal> {
        (0..4).try_fold(0, |unit: u16, _| {
            let digit = char::from(self.byte()?).to_digit(16).ok_or(Refusal::BadBatch)?;
            Ok(unit << 4 | u16::try_from(digit).expect("a digit has four bits"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use serde::Deserialize;

    /// The same by an obviously right reader, but for the bounds.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        keys: Vec<String>,
    }

    fn expected(body: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        let body: Body = serde_json::from_slice(body).map_err(|_| Refusal::BadBatch)?;
        let keys: Vec<Vec<u8>> = body.keys.into_iter().map(String::into_bytes).collect();
        match keys.iter().any(|key| key.is_empty() || key.len() > 16) {
            true => Err(Refusal::BadBatch),
            false if keys.len() > 4 => Err(Refusal::TooManyKeys),
            false => Ok(keys),
        }
    }

    fn read(body: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        let (count, mut at) = check(body, 4, 16)?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let mut room = [0; KEY_SIZE_MAX];
            let token = take(body, at, &mut room);
            let key = &room[..usize::from(token.key_size)];
            let echoed: String = serde_json::from_slice(token.of(body)).expect("a JSON string");
            assert_eq!(echoed.as_bytes(), key, "the token is that of the key");
            keys.push(key.to_vec());
            at = token.end();
        }
        Ok(keys)
    }

    #[test]
    fn keys_are_read_with_their_escapes_and_any_white_space() {
        for body in [
            r#"{"keys":[]}"#,
            r#"{"keys":["a","b"]}"#,
            " {\n\t\"keys\" : [ \"a\" ,\r\"b\" ] } ",
            r#"{"keys":["\"\\\/\b\f\n\r\t","\u00e9\u20AC","\ud83d\ude00",","]}"#,
            r#"{"k\u0065ys":["]"]}"#,
        ] {
            assert_eq!(
                read(body.as_bytes()).map_err(|_| body),
                Ok(expected(body.as_bytes()).unwrap())
            );
        }
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let long = format!(r#"{{"keys":["{}"]}}"#, "x".repeat(17));
        let longest = format!(r#"{{"keys":["{}"]}}"#, "x".repeat(KEY_SIZE_MAX + 1));
        for body in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"keys":null}"#,
            r#"{"keys":"a"}"#,
            r#"{"keys":[1]}"#,
            r#"{"keys":["a",]}"#,
            r#"{"keys":[,"a"]}"#,
            r#"{"keys":["a" "b"]}"#,
            r#"{"keys":["a"]"#,
            r#"{"keys":["a"],"x":1}"#,
            r#"{"keys":["a"],"keys":["b"]}"#,
            r#"{"keys":["a"]} x"#,
            r#"{"key":["a"]}"#,
            r#"{"keys":[""]}"#,
            r#"{"keys":["\x"]}"#,
            r#"{"keys":["\u12"]}"#,
            r#"{"keys":["\ud800"]}"#,
            r#"{"keys":["\udc00"]}"#,
            r#"{"keys":["\ud800\u0041"]}"#,
            r#"{"keys":["\ud800x"]}"#,
            "{\"keys\":[\"\n\"]}",
            r#"{"keys":["a]}"#,
            &long,
            &longest,
        ] {
            assert_eq!(read(body.as_bytes()), Err(Refusal::BadBatch), "{body}");
        }
        assert_eq!(read(b"{\"keys\":[\"\xff\"]}"), Err(Refusal::BadBatch));
        let five = r#"{"keys":["a","b","c","d","e"]}"#;
        assert_eq!(read(five.as_bytes()), Err(Refusal::TooManyKeys));
    }

    /// Bodies that are nearly right.
    fn bodies() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{".to_owned()),
            Just("}".to_owned()),
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just(",".to_owned()),
            Just(":".to_owned()),
            Just("\"keys\"".to_owned()),
            Just(" ".to_owned()),
            Just("\"".to_owned()),
            Just("\\".to_owned()),
            Just("\"a\"".to_owned()),
            Just("\"\\ud83d\\ude00\"".to_owned()),
            any::<String>().prop_map(|text| serde_json::to_string(&text).expect("a string")),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn it_is_what_serde_reads(keys in proptest::collection::vec(any::<String>(), 0..6)) {
            let body = serde_json::json!({ "keys": keys }).to_string();
            prop_assert_eq!(read(body.as_bytes()), expected(body.as_bytes()));
        }

        #[test]
        fn what_serde_refuses_is_refused(inner in bodies(), is_inside in any::<bool>()) {
            let body = if is_inside { format!("{{\"keys\":[{inner}]}}") } else { inner };
            prop_assert_eq!(read(body.as_bytes()), expected(body.as_bytes()));
        }
    }
}
