//! `smtp`: header fields, bodies and attachments of a mail message (RFC 5322, RFC 2045–2047, RFC 2183, RFC 2231).
//!
//! Results are flat, as stoQ gives them: every header field under its name in lower case, decoded, repeats joined by a
//! line break in order; then `body` and `body_html`. What stoQ does not have stands under one more key, `stoq`:
//! `attachments` (a line for each child), `addresses`, `date` (RFC 3339), `passwords`, and `defects`: whatever in the
//! message was not as it should be, since odd structure is how attachments are hidden from scanners. A header field that
//! is itself called like one of these keys gives way and is named among the defects.
//!
//! Children, in the order of the message: each part that is not the body that a reader sees. Attachments keep their exact
//! bytes, only the transfer encoding is undone; attached messages are children as they stand, for `smtp` again. A text
//! with a file name is a child even where it is the body too, and so is each uuencoded file between its lines. The walk over parts is our own and the fields are read by
//! `mail-parser`: depth, parts and bytes must be bounded here, and children must be byte-exact.
//!
//! Passwords that the text seems to tell ("the password is …") go to each child as `extra_data.passwords`, where
//! `decompress` looks for them.

mod config;
mod decode;
mod field;
mod passwords;
mod report;
mod structure;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use stoq_api::scanner::{
    Build, BuildError, Built, Context, OptionInfo, OptionKind, Output, Payload, PluginInfo, PluginKind, Registration,
    ScanError, Scanner,
};

use config::Config;

/// The entry for the list of plugins.
pub(crate) fn registration() -> Registration {
    Registration {
        info: PluginInfo {
            name: "smtp",
            description: "Header fields, bodies and attachments of a mail message",
            kinds: &[PluginKind::Worker],
            options: &[
                OptionInfo {
                    name: "omit_body",
                    kind: OptionKind::Bool,
                    default: "false",
                    help: "leave body and body_html out of the results",
                },
                OptionInfo {
                    name: "always_dispatch",
                    kind: OptionKind::List,
                    default: "[]",
                    help: "workers to run on each attachment",
                },
                OptionInfo {
                    name: "archive_attachments",
                    kind: OptionKind::Bool,
                    default: "true",
                    help: "archivers may keep attachments",
                },
                OptionInfo {
                    name: "extract_iocs",
                    kind: OptionKind::Bool,
                    default: "false",
                    help: "hand the values of ioc_keys to iocextract as one more child",
                },
                OptionInfo {
                    name: "ioc_keys",
                    kind: OptionKind::List,
                    default: "[\"received\", \"x-orig-ip\", \"x-originating-ip\", \"x-remote-ip\", \"x-sender-ip\", \
                              \"body\", \"body_html\"]",
                    help: "results that extract_iocs hands on",
                },
            ],
            required_workers: &[],
        },
        build,
    }
}

fn build(from: &Build) -> Result<Built, BuildError> {
    Ok(Built { scanner: Some(Arc::new(Smtp { config: from.config()? })), ..Built::default() })
}

struct Smtp {
    config: Config,
}

impl Scanner for Smtp {
    fn scan(&self, payload: &Payload<'_>, cx: &mut Context<'_>) -> Result<Output, ScanError> {
        let tree = structure::read(payload.content);
        if tree.parts[0].fields.is_empty() {
            return Err(ScanError::failed("not a mail message: it begins with no header field"));
        }
        Ok(report::report(&self.config, &tree, cx))
    }
}
