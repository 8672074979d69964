//! See `stoq_connectors::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stoq_connectors::fuzzing::splunk_reply(data));
