//! Options of `decompress`.

use serde::Deserialize;
use stoq_api::scanner::{OptionInfo, OptionKind};

/// The options as they are listed. The defaults of [`Config`] say the same.
pub(super) const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "passwords",
        kind: OptionKind::List,
        default: r#"["-", "infected", "password"]"#,
        help: "passwords to try, after those that the payload's metadata and ancestors bring",
    },
    OptionInfo {
        name: "maximum_size",
        kind: OptionKind::Size,
        default: "\"50 MB\"",
        help: "largest archive that is opened, and largest member that is extracted",
    },
    OptionInfo {
        name: "max_members",
        kind: OptionKind::Int,
        default: "10000",
        help: "members of an archive that are read; the rest is left out, with a finding",
    },
    OptionInfo {
        name: "max_ratio",
        kind: OptionKind::Int,
        default: "1000",
        help: "extracted bytes per byte of the archive, once 64 MiB have come out of it",
    },
    OptionInfo {
        name: "always_dispatch",
        kind: OptionKind::List,
        default: "[]",
        help: "workers to run on each extracted member",
    },
    OptionInfo {
        name: "archive_extracted",
        kind: OptionKind::Bool,
        default: "true",
        help: "whether destination archivers may keep extracted members",
    },
];

/// Options of `decompress`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Tried last, in this order.
    pub(super) passwords: Vec<String>,
    /// In bytes, of the archive and of each member.
    pub(super) maximum_size: u64,
    /// Members read of an archive.
    pub(super) max_members: u64,
    /// Extracted bytes per byte of the archive.
    pub(super) max_ratio: u64,
    /// `dispatch_to` of children.
    pub(super) always_dispatch: Vec<String>,
    /// `should_archive` of children.
    pub(super) archive_extracted: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            passwords: ["-", "infected", "password"].map(str::to_owned).to_vec(),
            maximum_size: 50_000_000,
            max_members: 10_000,
            max_ratio: 1_000,
            always_dispatch: Vec::new(),
            archive_extracted: true,
        }
    }
}
