//! Built-in worker and dispatcher plugins: pure functions from bytes to results and children.
//!
//! One folder a plugin: `mod.rs` (what it is, and the code where that is short), `config.rs` (options), `parse.rs` and
//! others by what they do, `tests.rs`, `testdata/` (golden samples). Nothing here opens a file, a socket or a thread;
//! plugins run in a jailed slot and get what they need when they are built.
#![forbid(unsafe_code)]

use stoq_api::scanner::Registration;

/// All built-in plugins that read bytes, by name.
pub fn registry() -> Vec<Registration> {
    vec![]
}
