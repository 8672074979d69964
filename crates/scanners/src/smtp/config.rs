//! Options of `smtp`.

use serde::Deserialize;

/// As in stoQ, with its defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub(super) omit_body: bool,
    pub(super) always_dispatch: Vec<String>,
    pub(super) archive_attachments: bool,
    pub(super) extract_iocs: bool,
    pub(super) ioc_keys: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let keys = ["received", "x-orig-ip", "x-originating-ip", "x-remote-ip", "x-sender-ip", "body", "body_html"];
        Self {
            omit_body: false,
            always_dispatch: Vec::new(),
            archive_attachments: true,
            extract_iocs: false,
            ioc_keys: keys.map(str::to_owned).to_vec(),
        }
    }
}
