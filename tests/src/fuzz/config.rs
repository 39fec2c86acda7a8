//! The configuration: a file's text and settings over it.

use pelton::config::{Config, PARAMETERS};
use pelton::limits::{Grant, Limits};

/// A host that grants little, so that its bounds are met.
const GRANT: Grant = Grant { shards: 2, descriptors_max: 4_096, memory_size: 1 << 30 };

/// The input is the text of a file, then after a NUL one setting a line.
///
/// # Panics
/// If an error says nothing, or a configuration that was taken does not read back as it was.
pub fn config(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (text, sets) = input.split_once('\0').unwrap_or((input, ""));
    let sets: Vec<String> = sets.lines().map(str::to_owned).collect();
    let config = match Config::parse("fuzz", text, &sets) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.to_string().trim().is_empty(), "an error says what is wrong");
            return;
        }
    };
    let json = config.to_json();
    let effective: Vec<String> = PARAMETERS
        .iter()
        .map(|p| format!("{}.{}={}", p.section, p.key, json[p.section][p.key]))
        .collect();
    let again = Config::parse("effective", "", &effective);
    assert_eq!(again.ok().as_ref(), Some(&config), "read back from {effective:?}");
    if let Ok(limits) = Limits::new(&config, &GRANT) {
        assert!(limits.bill(&config).total() <= GRANT.memory_size, "the bill is within the grant");
    }
}
