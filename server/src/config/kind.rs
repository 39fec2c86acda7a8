//! The kinds of values a parameter can have: what is written, what it becomes, what is expected.
//!
//! A [`Raw`] is what the file or the command line said, a [`Value`] is what passed the kind's
//! check. Everything that is said about a kind (to a user, in the reference) comes from here.

use super::address::Address;
use super::unit;
use crate::api_key::KeyDigest;
use serde_json::json;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// What was written, before any check, with its place in the source.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    /// Bytes of the source that hold it.
    pub(crate) span: Range<usize>,
    /// What it is.
    pub(crate) form: Form,
}

/// The forms of TOML values that some parameter has.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Text(String),
    /// `None` if it does not fit.
    Integer(Option<u64>),
    Flag(bool),
    List(Vec<Raw>),
    /// No parameter has this form; its name.
    Foreign(&'static str),
}

/// Why a kind refused a [`Raw`]: where, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) span: Range<usize>,
    pub(crate) what: String,
}

/// How much memory the cache may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// So many bytes, all shards together.
    Bytes(u64),
    /// A share of the smaller of available memory and the cgroup's limit, in percent.
    Percent(u8),
}

/// A share in tenths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u16);

impl Share {
    /// In tenths of a percent.
    #[must_use]
    pub const fn permille(self) -> u16 {
        self.0
    }
}

/// What `auto` means for [`Memory`], in percent: leaves room for everything else on the host.
const MEMORY_AUTO_PERCENT: u8 = 25;

/// CPUs are numbered below this: what an affinity mask of the C library holds.
const CPU_INDEX_MAX: u16 = 1023;

/// A kind of value with its bounds, both ends included.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Bytes.
    Size(u64, u64),
    /// Milliseconds.
    Duration(u64, u64),
    /// A number, or `auto`.
    CountOrAuto(u32, u32),
    /// A number.
    Count(u32, u32),
    /// A number, or `off`.
    CountOrOff(u32, u32),
    /// `true` or `false`.
    Flag,
    /// One of some words.
    Word(&'static [&'static str]),
    /// Some of some words.
    Words(&'static [&'static str]),
    /// Digests of API keys, at most so many.
    KeyDigests(usize),
    /// A path.
    Path,
    /// A path, or `off`.
    PathOrOff,
    /// A text with something in it.
    Text,
    /// A text with something in it, or `off`.
    TextOrOff,
    /// So many texts, each with something in it.
    Texts(usize, usize),
    /// One or more places to listen on.
    Addresses,
    /// One socket address, or `off`.
    AddressOrOff,
    /// A list of CPUs, or `auto`.
    Cpus,
    /// A [`Memory`].
    Memory,
    /// Tenths of a percent.
    Share(u16, u16),
    /// 128 bits in hex digits, or `random`.
    HashKey,
}

/// A checked value; one variant a kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Size(u64),
    Duration(Duration),
    CountOrAuto(Option<u32>),
    Count(u32),
    CountOrOff(Option<u32>),
    Flag(bool),
    Word(&'static str),
    Words(Vec<&'static str>),
    KeyDigests(Vec<KeyDigest>),
    Path(PathBuf),
    PathOrOff(Option<PathBuf>),
    Text(String),
    TextOrOff(Option<String>),
    Texts(Vec<String>),
    Addresses(Vec<Address>),
    AddressOrOff(Option<SocketAddr>),
    Cpus(Option<Vec<u16>>),
    Memory(Memory),
    Share(Share),
    HashKey(Option<[u64; 2]>),
}

impl Kind {
    /// Checks what was written.
    pub(crate) fn read(self, raw: &Raw) -> Result<Value, Wrong> {
        match &raw.form {
            Form::Text(text) => self.read_text(text).map_err(|what| wrong(raw, what)),
            Form::Flag(flag) if matches!(self, Self::Flag) => Ok(Value::Flag(*flag)),
            Form::Flag(_) => Err(wrong(raw, "a flag does not belong here".into())),
            Form::Integer(number) => self.read_integer(*number).map_err(|what| wrong(raw, what)),
            Form::List(items) if matches!(self, Self::Addresses) => read_addresses(raw, items),
            Form::List(items) => self.read_list(raw, items),
            Form::Foreign(name) => Err(wrong(raw, format!("{name} does not belong here"))),
        }
    }

    /// Checks what was written in quotes.
    fn read_text(self, text: &str) -> Result<Value, String> {
        let no = |what: &str| format!("\"{text}\" is not {what}");
        match self {
            Self::Size(min, max) => {
                let size = unit::size(text).ok_or_else(|| no("a size"))?;
                within(size, min, max, unit::size_text).map(Value::Size)
            }
            Self::Duration(min, max) => {
                let duration = unit::duration(text).ok_or_else(|| no("a duration"))?;
                let show = |ms| unit::duration_text(Duration::from_millis(ms));
                let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                within(ms, min, max, show).map(|_| Value::Duration(duration))
            }
            Self::CountOrAuto(..) if text == "auto" => Ok(Value::CountOrAuto(None)),
            Self::CountOrOff(..) if text == "off" => Ok(Value::CountOrOff(None)),
            Self::CountOrAuto(..) | Self::Count(..) | Self::CountOrOff(..) => Err(no("a number")),
            Self::Words(words) => word(words, text).map(|word| Value::Words(vec![word])),
            Self::KeyDigests(_) => {
                KeyDigest::parse(text).map(|digest| Value::KeyDigests(vec![digest]))
            }
            Self::Flag => Err(no("a flag")),
            Self::Word(words) => word(words, text).map(Value::Word),
            Self::Path | Self::PathOrOff if text.is_empty() => Err(no("a path")),
            Self::PathOrOff if text == "off" => Ok(Value::PathOrOff(None)),
            Self::PathOrOff => Ok(Value::PathOrOff(Some(text.into()))),
            Self::Path => Ok(Value::Path(text.into())),
            Self::Text | Self::TextOrOff | Self::Texts(..) if text.is_empty() => Err(no("a text")),
            Self::TextOrOff if text == "off" => Ok(Value::TextOrOff(None)),
            Self::TextOrOff => Ok(Value::TextOrOff(Some(text.into()))),
            Self::Texts(..) => Ok(Value::Texts(vec![text.into()])),
            Self::Text => Ok(Value::Text(text.into())),
            Self::Addresses => text.parse().map(|address| Value::Addresses(vec![address])),
            Self::AddressOrOff if text == "off" => Ok(Value::AddressOrOff(None)),
            Self::AddressOrOff => address(text).map(|address| Value::AddressOrOff(Some(address))),
            Self::Cpus if text == "auto" => Ok(Value::Cpus(None)),
            Self::Cpus => {
                cpus(text).map(|cpus| Value::Cpus(Some(cpus))).ok_or_else(|| no("a list of CPUs"))
            }
            Self::Memory => memory(text).map(Value::Memory),
            Self::Share(min, max) => {
                let share = unit::permille(text).ok_or_else(|| no("a share"))?;
                let show = |share| unit::permille_text(u16::try_from(share).unwrap_or(u16::MAX));
                within(share.into(), min.into(), max.into(), show)
                    .map(|_| Value::Share(Share(share)))
            }
            Self::HashKey if text == "random" => Ok(Value::HashKey(None)),
            Self::HashKey => hash_key(text)
                .map(|key| Value::HashKey(Some(key)))
                .ok_or_else(|| "this is not a hash key".into()),
        }
    }

    /// Checks a list of texts; `raw` is the whole list.
    fn read_list(self, raw: &Raw, items: &[Raw]) -> Result<Value, Wrong> {
        if let Self::Words(words) = self {
            return each(items, |text| word(words, text)).map(Value::Words);
        }
        let (Self::Texts(_, max) | Self::KeyDigests(max)) = self else {
            return Err(wrong(raw, "a list does not belong here".into()));
        };
        let min = if let Self::Texts(min, _) = self { min } else { 0 };
        if !(min..=max).contains(&items.len()) {
            return Err(wrong(raw, format!("there are {}, not {min} to {max}", items.len())));
        }
        if let Self::KeyDigests(_) = self {
            return each(items, KeyDigest::parse).map(Value::KeyDigests);
        }
        let text = |text: &str| match text {
            "" => Err("this is not a text in quotes".into()),
            text => Ok(text.to_owned()),
        };
        each(items, text).map(Value::Texts)
    }

    /// Checks what was written as a bare number.
    fn read_integer(self, number: Option<u64>) -> Result<Value, String> {
        let number = number.ok_or("the number is out of range")?;
        let bounded = |min: u32, max: u32| {
            let number = within(number, min.into(), max.into(), |number| number.to_string())?;
            Ok(u32::try_from(number).expect("it is at most `max`"))
        };
        if let Self::Count(min, max) = self {
            bounded(min, max).map(Value::Count)
        } else if let Self::CountOrOff(min, max) = self {
            bounded(min, max).map(|count| Value::CountOrOff(Some(count)))
        } else if let Self::CountOrAuto(min, max) = self {
            bounded(min, max).map(|count| Value::CountOrAuto(Some(count)))
        } else if matches!(self, Self::Cpus) {
            self.read_text(&number.to_string())
        } else if matches!(
            self,
            Self::Size(..) | Self::Duration(..) | Self::Memory | Self::Share(..)
        ) {
            Err(format!("{number} has no unit"))
        } else {
            Err("a number does not belong here".into())
        }
    }

    /// What is expected, as the end of a sentence.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Size(min, max) => format!(
                "a size from \"{}\" to \"{}\", in B, KiB, MiB, GiB or TiB",
                unit::size_text(min),
                unit::size_text(max)
            ),
            Self::Duration(min, max) => format!(
                "a duration from \"{}\" to \"{}\", in ms, s, m, h or d",
                unit::duration_text(Duration::from_millis(min)),
                unit::duration_text(Duration::from_millis(max))
            ),
            Self::CountOrAuto(min, max) => format!("\"auto\" or a number from {min} to {max}"),
            Self::Count(min, max) => format!("a number from {min} to {max}"),
            Self::CountOrOff(min, max) => format!("\"off\" or a number from {min} to {max}"),
            Self::Flag => "true or false".into(),
            Self::Word(words) => quoted(words, " or "),
            Self::Words(words) => format!("a list of {}", quoted(words, ", ")),
            Self::KeyDigests(max) => {
                format!("a list of up to {max} digests as `pelton key new` prints them")
            }
            Self::Path => "a path".into(),
            Self::PathOrOff => "a path, or \"off\"".into(),
            Self::Text => "a text".into(),
            Self::TextOrOff => "a text, or \"off\"".into(),
            Self::Texts(_, max) => format!("a text, or a list of up to {max}"),
            Self::Addresses => {
                "a list, such as [\"0.0.0.0:8080\", \"[::]:8080\", \"unix:/run/pelton.sock\"]"
                    .into()
            }
            Self::AddressOrOff => {
                "an address with a port, such as \"127.0.0.1:9090\", or \"off\"".into()
            }
            Self::Cpus => "\"auto\" or a list of CPUs, such as \"0-3,8\"".into(),
            Self::Memory => {
                "\"auto\" (25%), a share such as \"5%\", or a size such as \"256MiB\"".into()
            }
            Self::Share(min, max) => format!(
                "a share from \"{}\" to \"{}\"",
                unit::permille_text(min),
                unit::permille_text(max)
            ),
            Self::HashKey => "\"random\" or 32 hex digits".into(),
        }
    }
}

impl Value {
    /// The value as it can be written into a configuration; a hash key stays a secret.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let or_auto = |text: Option<String>| json!(text.unwrap_or_else(|| "auto".into()));
        match self {
            Self::Size(size) => json!(unit::size_text(*size)),
            Self::Duration(duration) => json!(unit::duration_text(*duration)),
            Self::CountOrAuto(Some(count)) | Self::Count(count) => json!(count),
            Self::CountOrAuto(None) => json!("auto"),
            Self::CountOrOff(count) => count.map_or_else(|| json!("off"), |count| json!(count)),
            Self::Flag(flag) => json!(flag),
            Self::Word(word) => json!(word),
            Self::Words(words) => json!(words),
            Self::KeyDigests(digests) => json!(format!("{} set, not shown", digests.len())),
            Self::Path(path) => json!(path.to_string_lossy()),
            Self::PathOrOff(None) => json!("off"),
            Self::PathOrOff(Some(path)) => json!(path.to_string_lossy()),
            Self::Text(text) => json!(text),
            Self::TextOrOff(text) => json!(text.as_deref().unwrap_or("off")),
            Self::Texts(texts) => json!(texts),
            Self::Addresses(addresses) => {
                json!(addresses.iter().map(Address::to_string).collect::<Vec<_>>())
            }
            Self::AddressOrOff(address) => {
                json!(address.map_or_else(|| "off".to_string(), |address| address.to_string()))
            }
            Self::Cpus(cpus) => or_auto(
                cpus.as_ref()
                    .map(|cpus| cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",")),
            ),
            Self::Memory(Memory::Bytes(bytes)) => json!(unit::size_text(*bytes)),
            Self::Memory(Memory::Percent(percent)) => json!(format!("{percent}%")),
            Self::Share(share) => json!(unit::permille_text(share.0)),
            Self::HashKey(key) => json!(if key.is_some() { "set, not shown" } else { "random" }),
        }
    }
}

/// Reads each item of a list of texts.
fn each<T>(items: &[Raw], read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Wrong> {
    let one = |item: &Raw| {
        let Form::Text(text) = &item.form else {
            return Err(wrong(item, "this is not a text in quotes".into()));
        };
        read(text).map_err(|what| wrong(item, what))
    };
    items.iter().map(one).collect()
}

/// The one of `words` that `text` is.
fn word(words: &[&'static str], text: &str) -> Result<&'static str, String> {
    let found = words.iter().find(|word| **word == text);
    found.copied().ok_or_else(|| format!("\"{text}\" is not one of the words"))
}

fn wrong(raw: &Raw, what: String) -> Wrong {
    Wrong { span: raw.span.clone(), what }
}

/// `value` if it is from `min` to `max`, else a sentence with the bound it breaks.
fn within(value: u64, min: u64, max: u64, show: impl Fn(u64) -> String) -> Result<u64, String> {
    if value < min {
        Err(format!("{} is less than {}", show(value), show(min)))
    } else if value > max {
        Err(format!("{} is more than {}", show(value), show(max)))
    } else {
        Ok(value)
    }
}

fn quoted(words: &[&str], between: &str) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(between)
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: Result<SocketAddr, _> = text.parse();
    address.map_err(|_| format!("\"{text}\" is not an address with a port"))
}

/// Each item must be an address and none may come twice; `raw` is the whole list.
fn read_addresses(raw: &Raw, items: &[Raw]) -> Result<Value, Wrong> {
    if items.is_empty() {
        return Err(wrong(raw, "the list is empty".into()));
    }
    let mut addresses: Vec<Address> = Vec::new();
    for item in items {
        let Form::Text(text) = &item.form else {
            return Err(wrong(item, "this is not an address in quotes".into()));
        };
        let address = text.parse().map_err(|what| wrong(item, what))?;
        if addresses.contains(&address) {
            return Err(wrong(item, format!("\"{text}\" comes twice")));
        }
        addresses.push(address);
    }
    Ok(Value::Addresses(addresses))
}

fn memory(text: &str) -> Result<Memory, String> {
    if text == "auto" {
        Ok(Memory::Percent(MEMORY_AUTO_PERCENT))
    } else if let Some(percent) = unit::percent(text) {
        within(percent.into(), 1, 90, |percent| format!("{percent}%"))?;
        Ok(Memory::Percent(percent))
    } else if let Some(bytes) = unit::size(text) {
        within(bytes, 1 << 20, 1 << 50, unit::size_text).map(Memory::Bytes)
    } else {
        Err(format!("\"{text}\" is neither a size nor a share"))
    }
}

/// Reads `"0-3,8"` into ascending numbers, none twice. The kernel writes such lists as well.
pub(crate) fn cpus(text: &str) -> Option<Vec<u16>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > CPU_INDEX_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

fn hash_key(text: &str) -> Option<[u64; 2]> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (high, low) = digits.then(|| text.split_at(16))?;
    Some([u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, text: &str) -> Result<Value, String> {
        let raw = Raw { span: 0..0, form: Form::Text(text.into()) };
        kind.read(&raw).map_err(|wrong| wrong.what)
    }

    fn integer(kind: Kind, number: u64) -> Result<Value, String> {
        let raw = Raw { span: 0..0, form: Form::Integer(Some(number)) };
        kind.read(&raw).map_err(|wrong| wrong.what)
    }

    #[test]
    fn sizes_and_durations_keep_their_bounds() {
        let size = Kind::Size(1024, 4096);
        assert_eq!(text(size, "4KiB"), Ok(Value::Size(4096)));
        assert_eq!(text(size, "5KiB").unwrap_err(), "5KiB is more than 4KiB");
        assert_eq!(text(size, "1B").unwrap_err(), "1B is less than 1KiB");
        assert_eq!(integer(size, 4096).unwrap_err(), "4096 has no unit");
        let duration = Kind::Duration(1, 1000);
        assert_eq!(text(duration, "1s"), Ok(Value::Duration(Duration::from_secs(1))));
        assert_eq!(text(duration, "2s").unwrap_err(), "2s is more than 1s");
        assert_eq!(text(duration, "soon").unwrap_err(), "\"soon\" is not a duration");
    }

    #[test]
    fn counts_are_bare_numbers() {
        let count = Kind::CountOrAuto(1, 8);
        assert_eq!(text(count, "auto"), Ok(Value::CountOrAuto(None)));
        assert_eq!(integer(count, 8), Ok(Value::CountOrAuto(Some(8))));
        assert_eq!(integer(count, 9).unwrap_err(), "9 is more than 8");
        assert_eq!(text(count, "8").unwrap_err(), "\"8\" is not a number");
    }

    #[test]
    fn words_are_taken_exactly() {
        let word = Kind::Word(&["text", "json"]);
        assert_eq!(text(word, "json"), Ok(Value::Word("json")));
        assert!(text(word, "JSON").is_err());
        assert_eq!(word.expected(), "\"text\" or \"json\"");
    }

    #[test]
    fn addresses_are_of_any_family_and_never_twice() {
        let list = |items: &[&str]| {
            let item = |text: &&str| Raw { span: 7..9, form: Form::Text((*text).into()) };
            let form = Form::List(items.iter().map(item).collect());
            Kind::Addresses.read(&Raw { span: 0..0, form })
        };
        let Ok(Value::Addresses(addresses)) = list(&["0.0.0.0:80", "[::]:80", "unix:a"]) else {
            panic!("all are addresses");
        };
        assert_eq!(addresses[2], Address::Unix("a".into()));
        assert_eq!(list(&["[::]:80", "[::]:80"]).unwrap_err().span, 7..9);
        assert_eq!(list(&[]).unwrap_err().what, "the list is empty");
        assert!(list(&["localhost:80"]).is_err());
        assert_eq!(text(Kind::AddressOrOff, "off"), Ok(Value::AddressOrOff(None)));
    }

    #[test]
    fn texts_are_one_or_a_bounded_list() {
        let list = |items: &[Form]| {
            let item = |form: &Form| Raw { span: 7..9, form: form.clone() };
            let form = Form::List(items.iter().map(item).collect());
            Kind::Texts(1, 2).read(&Raw { span: 0..0, form }).map_err(|wrong| wrong.what)
        };
        let a = Form::Text("a".into());
        assert_eq!(text(Kind::Texts(1, 2), "a"), Ok(Value::Texts(vec!["a".into()])));
        assert_eq!(list(&[a.clone(), a.clone()]), Ok(Value::Texts(vec!["a".into(), "a".into()])));
        assert_eq!(list(&[]).unwrap_err(), "there are 0, not 1 to 2");
        assert_eq!(list(&[a.clone(), a.clone(), a]).unwrap_err(), "there are 3, not 1 to 2");
        assert!(list(&[Form::Integer(Some(1))]).is_err());
        assert!(text(Kind::Texts(1, 2), "").is_err() && text(Kind::TextOrOff, "").is_err());
        assert_eq!(text(Kind::TextOrOff, "off"), Ok(Value::TextOrOff(None)));
        assert_eq!(text(Kind::TextOrOff, "a"), Ok(Value::TextOrOff(Some("a".into()))));
    }

    #[test]
    fn cpu_lists_are_sorted_and_bounded() {
        assert_eq!(cpus("8,0-3,2"), Some(vec![0, 1, 2, 3, 8]));
        for bad in ["", "3-1", "a", "0-", "1024", "0,,1", "0-70000"] {
            assert_eq!(cpus(bad), None, "{bad:?}");
        }
        assert_eq!(integer(Kind::Cpus, 3), Ok(Value::Cpus(Some(vec![3]))));
    }

    #[test]
    fn memory_is_a_size_or_a_share() {
        assert_eq!(text(Kind::Memory, "auto"), Ok(Value::Memory(Memory::Percent(25))));
        assert_eq!(text(Kind::Memory, "5%"), Ok(Value::Memory(Memory::Percent(5))));
        assert_eq!(text(Kind::Memory, "64MiB"), Ok(Value::Memory(Memory::Bytes(64 << 20))));
        assert!(text(Kind::Memory, "100%").is_err());
        assert!(text(Kind::Memory, "lots").is_err());
        assert_eq!(text(Kind::Share(0, 500), "0.5%"), Ok(Value::Share(Share(5))));
        assert!(text(Kind::Share(0, 500), "50.1%").is_err());
        assert!(text(Kind::Share(0, 500), "much").is_err());
    }

    #[test]
    fn a_hash_key_is_never_shown() {
        let key = "000000000000000100000000000000ff";
        let value = text(Kind::HashKey, key).unwrap();
        assert_eq!(value, Value::HashKey(Some([1, 255])));
        assert_eq!(value.to_json(), "set, not shown");
        assert!(!text(Kind::HashKey, &key[1..]).unwrap_err().contains("ff"));
    }
}
