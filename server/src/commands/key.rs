//! `pelton key new`: makes an API key.

use crate::api_key::{KeyDigest, new_key};
use crate::error::Exit;
use serde_json::json;
use std::io::Write;

/// Writes a new key, and the digest by which the server knows it.
pub(super) fn new(json: bool, out: &mut dyn Write) -> Exit {
    let key = new_key();
    let (text, digest) = (String::from_utf8_lossy(&key), KeyDigest::of(&key).to_string());
    let written = if json {
        writeln!(out, "{}", json!({ "key": text, "digest": digest }))
    } else {
        writeln!(
            out,
            "{text}\n{digest}\n\nThe first line is for the client, and is shown this once. The \
             second belongs into the keys of a\n[[tenant]] in the configuration."
        )
    };
    // A key that could not be shown is known to nobody.
    if written.is_ok() { Exit::Fine } else { Exit::Failed }
}
