//! The bearer token of whoever may change something (RFC 6750 section 2.1).
//!
//! It is read once, and never shown: not in a log, not in `/config`, not by `Debug`.

use crate::config::Config;
use crate::error::StartError;
use std::path::Path;
use std::sync::Arc;

/// A shorter token could be guessed: 16 random letters and digits have 95 bits.
const TOKEN_SIZE_MIN: usize = 16;

/// What a request must bear.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<[u8]>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token of a server that is configured like this; none if nobody bears one.
    ///
    /// # Errors
    /// The file cannot be read or holds no token, or there is none and writes need it.
    pub fn of(config: &Config) -> Result<Option<Self>, StartError> {
        match &config.admin.token_file {
            Some(path) => Self::read(path).map(Some),
            None if config.http.writes && !config.has_writing_tenants() => Err(StartError::failed(
                "http.writes is true, admin.token_file is off and no tenant may write: whoever \
                     writes must bear a token or be a tenant.",
                "Set admin.token_file to a file with one line of random letters (openssl rand \
                     -hex 32), let a [[tenant]] have the methods PUT or DELETE, or set http.writes \
                     to false.",
            )),
            None => Ok(None),
        }
    }

    /// Reads the token from a file: one line, of visible ASCII.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub fn read(path: &Path) -> Result<Self, StartError> {
        let remedy = "Write one line of random letters into it (openssl rand -hex 32), readable \
                      for this user alone, or set admin.token_file to off.";
        let refused = |why: String| {
            let what = format!("admin.token_file {} cannot be used: {why}.", path.display());
            StartError::failed(what, remedy)
        };
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        Self::new(&text).map_err(refused)
    }

    /// The token that `text` holds, which is one line.
    ///
    /// # Errors
    /// Why it is no token.
    pub fn new(text: &str) -> Result<Self, String> {
        let token = text.trim_ascii();
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it holds more than one line of visible ASCII".into());
        }
        if token.len() < TOKEN_SIZE_MIN {
            return Err(format!(
                "its token has {} bytes, and {TOKEN_SIZE_MIN} are the least",
                token.len()
            ));
        }
        Ok(Self(token.as_bytes().into()))
    }

    /// Whether a request with this Authorization bears it. How long that takes does not tell where
    /// a wrong one differs.
    #[must_use]
    pub fn is_in(&self, authorization: &[u8]) -> bool {
        let Some((scheme, token)) = authorization.split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ")
            && token.len() == self.0.len()
            && token.iter().zip(&*self.0).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Token, StartError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Token::read(file.path())
    }

    #[test]
    fn only_the_whole_token_is_taken() {
        let token = read("0123456789abcdef\n").expect("a token");
        assert!(token.is_in(b"Bearer 0123456789abcdef") && token.is_in(b"bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
        ] {
            assert!(!token.is_in(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn a_file_without_a_token_is_refused_with_the_reason() {
        for (text, why) in [("short", "5 bytes"), ("", "0 bytes"), ("one line\nand more", "line")] {
            let error = read(text).expect_err("no token");
            assert!(error.what.contains(why), "{error}");
        }
        let error = Token::read(Path::new("/nowhere/token")).expect_err("no file");
        assert!(error.what.contains("/nowhere/token"), "{error}");
    }

    #[test]
    fn who_may_write_needs_a_token() {
        let of = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).into()).collect();
            Token::of(&Config::parse("test", "", &sets).expect("valid"))
        };
        assert!(of(&[]).expect("nobody may write").is_none());
        let error = of(&["http.writes=true"]).expect_err("no token");
        let tenant = "[http]\nwrites = true\n[[tenant]]\nmethods = [\"PUT\"]";
        let config = Config::parse("test", tenant, &[]).expect("valid");
        assert!(Token::of(&config).expect("a tenant may write").is_none());
        assert!(error.what.contains("http.writes") && error.remedy.contains("admin.token_file"));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "0123456789abcdef").expect("written");
        let path = format!("admin.token_file={}", file.path().display());
        assert!(of(&["http.writes=true", &path]).expect("a token").is_some());
    }
}
