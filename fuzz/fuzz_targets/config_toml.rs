//! See `stoq_runtime::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoq_runtime::fuzzing::config_toml(data));
