//! The URL of a key's value: a template with a place for the key.

use std::fmt::Write as _;

/// Where the key stands in a template.
const PLACE: &str = "{key}";

/// A template, checked.
#[derive(Debug)]
pub(super) struct Url {
    before: String,
    after: String,
    /// Bytes of scheme and authority.
    server_size: usize,
}

impl Url {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let scheme = ["http://", "https://"].into_iter().find(|scheme| text.starts_with(scheme));
        let scheme = scheme.ok_or("neither an http:// nor an https:// URL")?;
        let authority = text[scheme.len()..].find('/').ok_or("without a path")?;
        let server_size = scheme.len() + authority;
        let (before, after) = text.split_once(PLACE).ok_or("without a place for {key}")?;
        if before.len() <= server_size {
            return Err("one with {key} in the name of the server");
        }
        if after.contains(PLACE) {
            return Err("one with {key} twice");
        }
        if text[..server_size].contains('@') {
            return Err("one with a user, which everybody would be shown");
        }
        let url = Self { before: before.to_owned(), after: after.to_owned(), server_size };
        let is_uri = url.of(b"key").parse::<hyper::Uri>().is_ok_and(|uri| uri.host().is_some());
        if is_uri { Ok(url) } else { Err("no URL") }
    }

    /// Scheme and authority.
    pub(super) fn server(&self) -> &str {
        &self.before[..self.server_size]
    }

    /// Host and port.
    pub(super) fn address(&self) -> String {
        let (scheme, authority) = self.server().split_once("://").expect("checked above");
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        match scheme {
            _ if has_port => authority.to_owned(),
            "http" => format!("{authority}:80"),
            _ => format!("{authority}:443"),
        }
    }

    /// The URL of a key: whatever is not unreserved (RFC 3986 section 2.3) is escaped.
    pub(super) fn of(&self, key: &[u8]) -> String {
        let mut url = String::with_capacity(self.before.len() + 3 * key.len() + self.after.len());
        url.push_str(&self.before);
        for byte in key {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                url.push(char::from(*byte));
            } else {
                write!(url, "%{byte:02X}").expect("a string takes it");
            }
        }
        url.push_str(&self.after);
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_put_in_its_place_and_escaped() {
        let url = Url::parse("http://[::1]:80/a/{key}?b=c").expect("a template");
        assert_eq!((url.server(), &*url.address()), ("http://[::1]:80", "[::1]:80"));
        assert_eq!(url.of(b"k-1"), "http://[::1]:80/a/k-1?b=c");
        assert_eq!(url.of(b"a/b?\xff ~"), "http://[::1]:80/a/a%2Fb%3F%FF%20~?b=c");
        let url = Url::parse("https://host/?q={key}").expect("a template");
        assert_eq!(url.of(b"k"), "https://host/?q=k");
    }

    #[test]
    fn a_server_without_a_port_has_that_of_its_scheme() {
        for (text, address) in [
            ("http://host/{key}", "host:80"),
            ("https://host/{key}", "host:443"),
            ("https://[::1]/{key}", "[::1]:443"),
            ("https://host:1/{key}", "host:1"),
        ] {
            assert_eq!(Url::parse(text).expect("a template").address(), address);
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_reason() {
        for (text, what) in [
            ("ftp://host/{key}", "neither"),
            ("http://host", "without a path"),
            ("http://host/", "without a place"),
            ("http://{key}/", "in the name of the server"),
            ("http://host/{key}/{key}", "twice"),
            ("http://user:secret@host/{key}", "a user"),
            ("http://ho st/{key}", "no URL"),
            ("http:///{key}", "no URL"),
        ] {
            let error = Url::parse(text).expect_err(text);
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
