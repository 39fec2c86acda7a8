//! See `pelton_tests::fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pelton_tests::fuzz::config(input));
