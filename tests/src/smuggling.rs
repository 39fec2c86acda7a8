//! The corpus of request smuggling, `tests/smuggling/payloads.txt`.

use crate::process::root;

/// The request that no refused payload may get answered.
const HIDDEN: &str = r"GET /lookup/k1 HTTP/1.1\r\nHost: a\r\n\r\n";

/// One row of the corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The published class.
    pub class: String,
    /// A name of its own.
    pub name: String,
    /// Statuses in order, `hidden` for the hidden request, `close` if the connection ends.
    pub answers: String,
    /// As they are sent.
    pub bytes: Vec<u8>,
}

impl Payload {
    /// Of the requests that it is read as, in order, whether each is the hidden one; `None` if it
    /// is refused and the connection ended.
    #[must_use]
    pub fn requests(&self) -> Option<Vec<bool>> {
        if let Some(status) = self.answers.strip_suffix(" close")
            && status.starts_with(['4', '5'])
        {
            return None;
        }
        let answers = self.answers.split(' ').filter(|answer| *answer != "close");
        Some(answers.map(|answer| answer == "hidden").collect())
    }
}

/// All payloads.
///
/// # Panics
/// If the file breaks the form that its head describes.
#[must_use]
pub fn corpus() -> Vec<Payload> {
    let file = root().join("tests/smuggling/payloads.txt");
    let text = std::fs::read_to_string(file).expect("the corpus is there");
    let mut payloads: Vec<Payload> = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.starts_with('#')) {
        let (row, bytes) = block.split_once('\n').expect("a row and bytes");
        let (class, rest) =
            row.strip_prefix('[').and_then(|row| row.split_once("] ")).expect("[class] name");
        let (name, answers) = rest.split_once(" = ").expect("name = answers");
        assert!(payloads.iter().all(|other| other.name != name), "{name} is there twice");
        let bytes = unescaped(&bytes.replace('\n', "").replace("{hidden}", HIDDEN));
        payloads.push(Payload {
            class: class.into(),
            name: name.into(),
            answers: answers.into(),
            bytes,
        });
    }
    payloads
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().expect("a character behind a backslash") {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'\\' => b'\\',
                b'x' => {
                    let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                    let digits = digit().zip(digit()).expect("two hex digits");
                    u8::try_from(digits.0 << 4 | digits.1).expect("two hex digits are a byte")
                }
                other => panic!("no escape: {}", char::from(other)),
            },
            _ => byte,
        });
    }
    bytes
}
