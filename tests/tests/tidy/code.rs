//! Rust text as far as the rules need it: which bytes are code, which words and paths are in it.
//!
//! A lexer of comments, strings and characters, nothing more; it trusts that the text compiles.

/// The text with comments, strings and characters overwritten by blanks. Line ends stay, and so
/// does the length: a byte found in the result lies at the same place in the text.
pub(crate) fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while out.len() < bytes.len() {
        let at = out.len();
        let opaque = opaque_len(&bytes[at..], at > 0 && is_word(bytes[at - 1]));
        if opaque == 0 {
            out.push(bytes[at]);
        }
        for &byte in &bytes[at..at + opaque] {
            out.push(if byte == b'\n' { byte } else { b' ' });
        }
    }
    String::from_utf8(out).expect("only whole characters are blanked")
}

/// How many bytes at the start are a comment, a string or a character; 0 where code goes on.
fn opaque_len(rest: &[u8], in_word: bool) -> usize {
    match rest {
        [b'/', b'/', ..] => find(rest, b"\n").unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_len(rest),
        [b'"', ..] => quoted_len(rest, b'"'),
        [b'\'', b'\\', ..] => quoted_len(rest, b'\''),
        // A character ends in a quote; a lifetime does not.
        [b'\'', first, ..] => {
            let end = 1 + utf8_len(*first);
            if rest.get(end) == Some(&b'\'') { end + 1 } else { 0 }
        }
        [b'r', b'"' | b'#', ..] if !in_word => raw_string_len(rest),
        [b'b', b'r', b'"' | b'#', ..] if !in_word => 1 + raw_string_len(&rest[1..]),
        _ => 0,
    }
}

fn block_comment_len(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a literal with escapes, both quotes included.
fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of `r#"..."#`, or 0 for a raw identifier.
fn raw_string_len(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    let open = 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    find(&rest[open + 1..], &end).map_or(rest.len(), |at| open + 1 + at + end.len())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn utf8_len(first: u8) -> usize {
    match first.leading_ones() {
        0 | 1 => 1,
        ones => ones as usize,
    }
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands in the code as a word of its own.
pub(crate) fn find_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at == 0 || !is_word(bytes[at - 1]);
        let after = bytes.get(at + word.len()).is_none_or(|&byte| !is_word(byte));
        before && after
    })
}

/// The word that the code begins with, or nothing.
pub(crate) fn first_word(code: &str) -> &str {
    &code[..code.bytes().take_while(|&byte| is_word(byte)).count()]
}

/// Where every path that begins with `root::` leads: its second segment, once a branch of a
/// group, with its place.
pub(crate) fn second_segments<'a>(code: &'a str, root: &str) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for at in find_word(code, root) {
        let Some(rest) = code[at + root.len()..].strip_prefix("::") else { continue };
        let start = at + root.len() + 2;
        if rest.starts_with('{') {
            found.extend(group(rest).into_iter().map(|(offset, word)| (start + offset, word)));
        } else {
            found.push((start, first_word(rest)));
        }
    }
    found.retain(|(_, word)| !word.is_empty());
    found
}

/// The first word of every branch of a `{...}` group, with its offset.
fn group(code: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut depth = 0;
    let mut expects = false;
    for (at, byte) in code.bytes().enumerate() {
        if expects && is_word(byte) {
            words.push((at, first_word(&code[at..])));
            expects = false;
        }
        match byte {
            b'{' => {
                depth += 1;
                expects = depth == 1;
            }
            b'}' => depth -= 1,
            b',' => expects = depth == 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    words
}

/// The text of a bracketed part that begins with `open` at the start of `code`, brackets included.
pub(crate) fn bracketed(code: &str, open: char, close: char) -> &str {
    let mut depth = 0;
    for (at, character) in code.char_indices() {
        if character == open {
            depth += 1;
        } else if character == close {
            depth -= 1;
        }
        if depth == 0 {
            return &code[..at + character.len_utf8()];
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let text = "a // b\n/* c /* d */ */ e \"f\\\"g\" 'h' '\\'' r#\"i\"j\"# br\"k\" l";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "e", "l"]);
        assert_eq!(code.find('l'), text.find('l'));
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        let text = "fn f<'a>(r#type: &'a str) -> for_r {}";
        assert_eq!(blank(text), text);
    }

    #[test]
    fn characters_of_several_bytes_are_blanked_whole() {
        assert_eq!(blank("'\u{e9}' x \"\u{e9}\""), "     x     ");
    }

    #[test]
    fn words_are_found_whole() {
        assert_eq!(find_word("unsafe_code unsafe not_unsafe", "unsafe").collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn groups_name_each_branch_once() {
        let code = "use crate::{error::{A, B}, mesh, ring::Ring}; fn f() { crate::sys::g() }";
        let words: Vec<&str> =
            second_segments(code, "crate").into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, ["error", "mesh", "ring", "sys"]);
    }

    #[test]
    fn brackets_match() {
        assert_eq!(bracketed("(a(b)c)d", '(', ')'), "(a(b)c)");
    }
}
