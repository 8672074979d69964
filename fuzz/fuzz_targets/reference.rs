//! See `stoq_providers::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoq_providers::fuzzing::reference(data));
