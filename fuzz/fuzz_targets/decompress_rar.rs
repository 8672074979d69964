//! See `stoq_scanners::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoq_scanners::fuzzing::target("decompress_rar", data));
