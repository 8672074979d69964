//! The process that becomes a tool: this binary again, for as long as it takes to lock itself in.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::sandbox::tool::{self, ToolRules};
use crate::server::{SLOT_FDS, read_block, receive};
use crate::sys;

/// The argument that makes this binary a tool's helper.
pub(crate) const MARKER: &str = "__tool";
/// Greatest description of a tool.
pub(super) const MAX_RULES: usize = 1 << 20;

/// Becomes the tool that the supervisor describes on standard input.
pub(crate) fn become_tool() -> ! {
    let code = match run() {
        Ok(()) => 0,
        Err(_) => 1,
    };
    sys::exit_now(code)
}

fn run() -> io::Result<()> {
    let control: UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    let mut go = [0];
    let (_, fds) = receive(&control, &mut go)?;
    let rules: ToolRules = serde_json::from_slice(&read_block(&control, MAX_RULES)?)?;
    let Ok([stdin, stdout, stderr]) = <[OwnedFd; SLOT_FDS]>::try_from(fds) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    rustix::stdio::dup2_stdin(&stdin)?;
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    // Their copies are closed with everything else, without their owners.
    for fd in [stdin, stdout, stderr] {
        std::mem::forget(fd);
    }
    let failure = tool::become_tool(&rules, control.as_fd());
    // A file's write: the sandbox may stand already, and a socket's way of writing is closed in it.
    let mut control = File::from(OwnedFd::from(control));
    control.write_all(&u32::try_from(failure.len()).unwrap_or(0).to_le_bytes())?;
    control.write_all(failure.as_bytes())
}
