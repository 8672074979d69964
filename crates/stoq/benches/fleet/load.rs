//! What the generator publishes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stoq_api::queue::Message;

use crate::support::files;

/// A payload's bytes.
const SIZE: usize = 12 << 10;
/// A small payload's bytes.
const SMALL: usize = 1 << 10;
/// Payloads in one packed message.
const PACKED: usize = 16;
/// A reference's bytes.
const REFERENCE: usize = 300;
/// Files that references name, in turn.
pub(crate) const FILES: usize = 500;

/// What one message of the intake holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// A payload of 12 KiB as it is.
    Singles,
    /// A payload of 1 KiB as it is.
    Small,
    /// 300 bytes that name a file of 12 KiB, which the worker reads.
    References,
    /// Sixteen payloads of 12 KiB in base64, which are one scan.
    Packed,
    /// An archive in an archive, ten payloads in all, as it is.
    Archives,
}

impl Load {
    /// The intake's format.
    pub(crate) fn format(self) -> &'static str {
        match self {
            Self::Singles | Self::Small | Self::Archives => "raw",
            Self::References | Self::Packed => "native",
        }
    }

    /// Payloads of one message.
    pub(crate) fn payloads_each(self) -> usize {
        match self {
            Self::Singles | Self::Small | Self::References => 1,
            Self::Packed => PACKED,
            Self::Archives => 10,
        }
    }

    /// Message `n`; no two have the same content.
    pub(crate) fn message(self, n: usize) -> Message {
        let body = match self {
            Self::Singles => content(n, SIZE),
            Self::Small => content(n, SMALL),
            Self::Archives => files::nested_zip(n),
            Self::References => {
                let mut body = json!({
                    "payload": { "path": file(n), "size": SIZE },
                    "network": { "src_ip": "192.0.2.7", "src_port": 80, "sensor": "dmz-1" },
                    "request_meta": { "source": "", "extra_data": { "n": n } },
                });
                let missing = REFERENCE.saturating_sub(body.to_string().len());
                body["request_meta"]["source"] = "s".repeat(missing).into();
                body.to_string().into_bytes()
            }
            Self::Packed => {
                let payload = |part: usize| json!({ "base64": STANDARD.encode(content(n * PACKED + part, SIZE)) });
                json!({ "payloads": (0..PACKED).map(payload).collect::<Vec<_>>() }).to_string().into_bytes()
            }
        };
        let mut message = Message::new(format!("{self:?}-{n}"), body);
        if self.format() == "raw" {
            message.headers.push(("filename".to_owned(), n.to_string()));
        }
        message
    }
}

/// The name of the file that reference `n` names.
pub(crate) fn file(n: usize) -> String {
    format!("{}.txt", n % FILES)
}

/// Text of `size` bytes.
pub(crate) fn content(n: usize, size: usize) -> Vec<u8> {
    let line = format!("payload {n}: the quick brown fox {{\"key\": 1234567890}}\n");
    let mut content = line.repeat(size / line.len() + 1).into_bytes();
    content.truncate(size);
    content
}

/// The file of reference `n`.
pub(crate) fn file_content(n: usize) -> Vec<u8> {
    content(n, SIZE)
}
