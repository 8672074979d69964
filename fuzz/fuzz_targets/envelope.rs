//! See `stoq_api::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoq_api::fuzzing::envelope(data));
