//! What is shown of the program on a terminal. `tests/pictures` runs it, `cargo xtask pictures` draws it, and
//! `cargo xtask ship` looks whether all of it is there.
#![allow(dead_code, reason = "the test runs views and the drawing shows them: each uses a part of this")]

/// A command, and the terminal that it is run in.
pub(crate) struct View {
    /// Its picture is `docs/pictures/NAME.svg`.
    pub(crate) name: &'static str,
    /// As somebody would type it.
    pub(crate) command: &'static str,
    pub(crate) columns: u16,
    pub(crate) rows: u16,
    /// How the command ends.
    pub(crate) code: i32,
    /// Whether the picture is of the moment at which half of the files are done, and not of the end.
    pub(crate) midway: bool,
}

const WIDE: View = View { name: "", command: "", columns: 110, rows: 40, code: 0, midway: false };

/// All of them.
pub(crate) const VIEWS: [View; 5] = [
    View { name: "scan", command: "stoq scan tests/fixtures", ..WIDE },
    View { name: "progress", command: "stoq scan samples", rows: 16, midway: true, ..WIDE },
    View { name: "list", command: "stoq list", rows: 100, ..WIDE },
    View { name: "check", command: "stoq check -c stoq.toml", code: 2, ..WIDE },
    View { name: "status", command: "stoq status -c stoq.toml", ..WIDE },
];
