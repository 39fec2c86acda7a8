//! The bearer token of whoever may change something (RFC 6750 section 2.1).

use crate::error::StartError;
use axum::http::{HeaderMap, header};
use std::path::Path;

/// A shorter token could be guessed: 16 random letters and digits have 95 bits.
const TOKEN_SIZE_MIN: usize = 16;

/// What a request must bear.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
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
        let token = text.trim_ascii();
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused("it holds more than one line of visible ASCII".into()));
        }
        if token.len() < TOKEN_SIZE_MIN {
            return Err(refused(format!(
                "its token has {} bytes, and {TOKEN_SIZE_MIN} are the least",
                token.len()
            )));
        }
        Ok(Self(token.as_bytes().into()))
    }

    /// Whether a request bears it. How long that takes does not tell where a wrong one differs.
    pub(super) fn is_borne_by(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ")
            && token.len() == self.0.len()
            && token.iter().zip(&self.0).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(text: &str) -> Result<Token, StartError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Token::read(file.path())
    }

    #[test]
    fn only_the_whole_token_is_taken() {
        let token = read("0123456789abcdef\n").expect("a token");
        let is_borne = |value: &'static str| {
            let headers = [(header::AUTHORIZATION, HeaderValue::from_static(value))];
            token.is_borne_by(&headers.into_iter().collect())
        };
        assert!(is_borne("Bearer 0123456789abcdef") && is_borne("bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
        ] {
            assert!(!is_borne(wrong), "{wrong:?}");
        }
        assert!(!token.is_borne_by(&HeaderMap::new()));
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
}
