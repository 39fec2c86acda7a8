//! See `pelton_tests::fuzz::cache`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| pelton_tests::fuzz::cache(input));
