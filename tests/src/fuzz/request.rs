//! The request parser beside `httparse`.

use crate::heads::compare;

/// The input is the beginning of a connection.
///
/// # Panics
/// If the two parsers disagree for no reason that is named.
pub fn request(input: &[u8]) {
    if let Err(disagreement) = compare(input) {
        panic!("{disagreement}: {}", input.escape_ascii());
    }
}
