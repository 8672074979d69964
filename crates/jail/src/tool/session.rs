//! One payload: in a process of its own, or in one that has a conversation.

use std::hash::{BuildHasher, RandomState};

use stoq_api::Content;

use super::process::{LIFETIME_FACTOR, Printed, Process, killed};
use super::{Conversation, ToolLimits, ToolOutput, ToolProfile, ToolStop};
use crate::job::StopReason;
use crate::spawn::Keeper;

/// A process is replaced when it has used this part of its whole CPU time.
const CPU_SHARE: u32 = 2;
/// Nonces have at most 15 digits, which every tool reads as a number.
const NONCES: u64 = 1_000_000_000_000_000;

/// Runs the tool over one payload and no other.
pub(super) fn run_once(profile: &ToolProfile, keeper: &Keeper, content: &Content) -> Result<ToolOutput, ToolStop> {
    let limits = &profile.limits;
    let mut process = Process::start(profile, keeper, Some(content))?;
    let deadline = process.deadline(limits);
    let mut printed = Printed::default();
    process.read(&mut printed, limits, &deadline, |_| false)?;
    let status = process.wait(limits, &deadline)?;
    if let Some(stop) = killed(status) {
        return Err(stop);
    }
    let files = match limits.scratch_bytes {
        0 => Vec::new(),
        _ if process.scratch.is_over(limits) => return Err(Process::over(limits)),
        _ => process.scratch.collect(limits, &profile.scratch_dir).map_err(ToolStop::unavailable("a tool's files"))?,
    };
    Ok(ToolOutput { code: status.code(), stdout: printed.stdout.into(), stderr: printed.stderr.into(), files })
}

/// A process that takes one payload after the other.
pub(super) struct Session {
    process: Process,
    pub(super) payloads: u32,
    nonce: u64,
}

impl Session {
    pub(super) fn start(profile: &ToolProfile, keeper: &Keeper) -> Result<Self, ToolStop> {
        let process = Process::start(profile, keeper, None)?;
        Ok(Self { process, payloads: 0, nonce: random_number() })
    }

    /// Has one payload answered. After an error the process is of no more use.
    pub(super) fn ask(
        &mut self,
        profile: &ToolProfile,
        conversation: &Conversation,
        content: &Content,
    ) -> Result<ToolOutput, ToolStop> {
        let limits = &profile.limits;
        self.payloads += 1;
        self.nonce = self.nonce.wrapping_add(1) % NONCES;
        let numbered = |text: &str| text.replace("{nonce}", &self.nonce.to_string());
        let ready = format!("{}\n", numbered(&conversation.ready)).into_bytes();
        let request: String = conversation.request.iter().map(|line| numbered(line) + "\n").collect();
        self.process.scratch.fill(content).map_err(ToolStop::unavailable("a tool's input"))?;
        let deadline = self.process.deadline(limits);
        let mut printed = Printed::default();
        if self.process.has_said_more() {
            return Err(ToolStop::over(StopReason::Protocol, "it went on printing after its last answer"));
        }
        let gone = self.process.write(request.as_bytes()).is_err();
        let answered = !gone && self.process.read(&mut printed, limits, &deadline, |out| out.ends_with(&ready))?;
        if !answered {
            let status = self.process.wait(limits, &deadline)?;
            let detail = format!("it ended within a conversation: {status}");
            return Err(killed(status).unwrap_or_else(|| ToolStop::over(StopReason::Crash, detail)));
        }
        printed.stdout.truncate(printed.stdout.len() - ready.len());
        Ok(ToolOutput { code: None, stdout: printed.stdout.into(), stderr: printed.stderr.into(), files: Vec::new() })
    }

    /// It has used so much of its CPU time that the kernel's limit might strike.
    pub(super) fn is_worn(&self, limits: &ToolLimits) -> bool {
        self.process.cpu() > limits.cpu * (LIFETIME_FACTOR / CPU_SHARE)
    }
}

/// A number that no payload knows.
fn random_number() -> u64 {
    // The standard library seeds its hashers from the kernel's random numbers.
    RandomState::new().hash_one(0) % NONCES
}
