//! The Lua scripts: one for each operation, run by their digest.

use redis::Cmd;
use sha1::{Digest as _, Sha1};

/// A script and the digest under which servers keep it.
pub(crate) struct Script {
    text: String,
    digest: String,
}

impl Script {
    /// A script that works on one scan.
    fn of_scan(body: &str) -> Self {
        Self::new(format!("{}\n{body}", include_str!("lua/common.lua")))
    }

    fn new(text: String) -> Self {
        let digest = hex::encode(Sha1::digest(&text));
        Self { text, digest }
    }

    /// Runs it where the server knows it already.
    pub(crate) fn by_digest(&self, keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
        Self::command("EVALSHA", self.digest.as_bytes(), keys, arguments)
    }

    /// Runs it anywhere, and makes it known.
    pub(crate) fn whole(&self, keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
        Self::command("EVAL", self.text.as_bytes(), keys, arguments)
    }

    fn command(name: &str, script: &[u8], keys: &[String], arguments: &[Vec<u8>]) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        command
    }
}

/// All of them.
pub(crate) struct Scripts {
    pub(crate) open: Script,
    pub(crate) admit: Script,
    pub(crate) settle: Script,
    pub(crate) begin: Script,
    pub(crate) survived: Script,
    pub(crate) frozen: Script,
    pub(crate) close: Script,
    pub(crate) freeze: Script,
    pub(crate) forget: Script,
    pub(crate) probe: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            open: Script::of_scan(include_str!("lua/open.lua")),
            admit: Script::of_scan(include_str!("lua/admit.lua")),
            settle: Script::of_scan(include_str!("lua/settle.lua")),
            begin: Script::of_scan(include_str!("lua/begin.lua")),
            survived: Script::of_scan(include_str!("lua/survived.lua")),
            frozen: Script::of_scan(include_str!("lua/frozen.lua")),
            close: Script::of_scan(include_str!("lua/close.lua")),
            freeze: Script::of_scan(include_str!("lua/freeze.lua")),
            forget: Script::of_scan(include_str!("lua/forget.lua")),
            probe: Script::new(include_str!("lua/probe.lua").to_owned()),
        }
    }
}
