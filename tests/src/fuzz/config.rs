//! The configuration: a file's text and settings over it.

use pelton::config::{Config, PARAMETERS};
use pelton::limits::{Grant, Limits};

/// Hosts that grant little, so that its bounds are met, and much, so that none is.
const GRANTS: [Grant; 3] = [
    Grant { shards: 1, descriptors_max: 200, memory_size: 64 << 20 },
    Grant { shards: 2, descriptors_max: 4_096, memory_size: 1 << 30 },
    Grant { shards: 1_024, descriptors_max: 1 << 30, memory_size: 1 << 50 },
];

/// The input is the text of a file, then after a NUL one setting a line.
///
/// # Panics
/// If an error does not say where and what to do, or a configuration that was taken does not read
/// back as it was.
pub fn config(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (text, sets) = input.split_once('\0').unwrap_or((input, ""));
    let sets: Vec<String> = sets.lines().map(str::to_owned).collect();
    let config = match Config::parse("fuzz", text, &sets) {
        Ok(config) => config,
        Err(error) => return check_error(&error.to_string()),
    };
    check_reading_back(&config);
    for grant in GRANTS {
        match Limits::new(&config, &grant) {
            Ok(limits) => {
                let total = limits.bill(&config).total();
                assert!(total <= grant.memory_size, "the bill is within the grant");
            }
            Err(error) => assert!(!error.remedy.is_empty(), "{error}"),
        }
    }
}

/// What is wrong, in which line of what, and what to do.
fn check_error(error: &str) {
    assert!(error.trim_start().starts_with("config::"), "a code is missing: {error}");
    assert!(error.contains("[fuzz:") || error.contains("[--set:"), "a line is missing: {error}");
    assert!(error.contains("help: "), "a remedy is missing: {error}");
}

/// What is in effect, written as overrides and as a file, is the same configuration again; but
/// for the hash key, which is not shown.
fn check_reading_back(config: &Config) {
    let mut config = config.clone();
    config.cache.hash_key = None;
    let json = config.to_json();
    let sets: Vec<String> = PARAMETERS
        .iter()
        .map(|p| format!("{}.{}={}", p.section, p.key, json[p.section][p.key]))
        .collect();
    let again = Config::parse("effective", "", &sets);
    assert_eq!(again.ok().as_ref(), Some(&config), "read back from {sets:?}");
    let file = toml::to_string(&json).expect("every value has a form in TOML");
    let again = Config::parse("effective", &file, &[]);
    assert_eq!(again.ok().as_ref(), Some(&config), "read back from {file}");
}
