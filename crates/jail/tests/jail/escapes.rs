//! Plugins that are bugs or worse.

use libtest_mimic::Trial;
use stoq_api::scanner::Sink;

pub(crate) fn plugin(name: &str, _content: &[u8], _sink: &mut dyn Sink) {
    match name {
        "panic" => panic!("as it was told"),
        other => panic!("no plugin {other}"),
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    Vec::new()
}
