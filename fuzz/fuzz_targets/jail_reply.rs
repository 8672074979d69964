//! See `stoq_jail::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoq_jail::fuzzing::jail_reply(data));
