//! Passwords of an origin's servers, which are kept out of the configuration: that is shown.

use crate::error::StartError;
use std::path::Path;

/// The password in the first line of the file that `setting` names; none without a file.
///
/// # Errors
/// The file cannot be read, or its first line is empty.
pub(super) fn password(setting: &str, path: Option<&Path>) -> Result<Option<String>, StartError> {
    let Some(path) = path else { return Ok(None) };
    let refused = |why: &str| {
        StartError::failed(
            format!("{setting} {} cannot be used: {why}.", path.display()),
            "Write the password into its first line, readable for this user alone, or set it to \
             off.",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(&error.to_string()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(line.to_owned())),
        _ => Err(refused("its first line is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        assert!(
            password("a.password_file", Some(&path))
                .expect_err("no file")
                .to_string()
                .contains("password_file")
        );
        for (text, expected) in [("a b\n", Some("a b")), ("a\r\nmore", Some("a")), ("\na", None)] {
            std::fs::write(&path, text).expect("written");
            let read = password("a.password_file", Some(&path)).ok().flatten();
            assert_eq!(read.as_deref(), expected, "{text:?}");
        }
        assert_eq!(password("a.password_file", None), Ok(None));
    }
}
