//! Built-in worker and dispatcher plugins: pure functions from bytes to results and children.
//!
//! One folder a plugin: `mod.rs` (what it is, and the code where that is short), `config.rs` (options), `parse.rs` and
//! others by what they do, `tests.rs`, `testdata/` (golden samples). Nothing here opens a file, a socket or a thread;
//! plugins run in a jailed slot and get what they need when they are built.
//!
//! # Golden samples
//!
//! `tests/golden.rs` runs every sample that it finds in `src/<plugin>/testdata/` and compares what came out with what is
//! on file. To add one, put in
//!
//! * `<case>.in`, the payload as it is, or `<case>.in.b64`, the same in base64 for what virus scanners and git would
//!   trip over;
//! * optionally `<case>.json`, what surrounds the payload (every member is optional):
//!   `{"options": {…}, "files": {"<option>": ["<file beside it>"]}, "payload_meta": {…}, "request_meta": {…},
//!   "dispatch_meta": {…}, "results": {…}, "ancestors": […], "remaining": {"children": 1, "bytes": 100}}`
//!
//! then run `UPDATE_EXPECT=1 cargo test -p stoq-scanners --test golden`, read the new `<case>.out.json` and commit all of
//! them. Every plugin needs a case called `empty…` whose payload has no bytes, and one called `malformed…` or `hostile…`.
#![forbid(unsafe_code)]

use stoq_api::scanner::Registration;

mod bounds;
mod decompress;
mod entropy;
pub mod exif;
#[doc(hidden)]
pub mod fuzzing;
mod hash;
pub mod memory_sink;
mod mimetype;
mod pecarve;
mod smtp;
pub mod text;
mod yara;

/// All built-in plugins that read bytes, by name.
pub fn registry() -> Vec<Registration> {
    let all = [
        decompress::registration,
        entropy::registration,
        exif::registration,
        hash::registration,
        mimetype::registration,
        pecarve::registration,
        smtp::registration,
        yara::registration,
        // One a line, so that two additions do not get into each other's way.
    ];
    all.iter().map(|registration| registration()).collect()
}
