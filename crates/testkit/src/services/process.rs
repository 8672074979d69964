//! Programs that never outlive the test that started them.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep};

/// Reads its standard input to the end, which comes when the test's process is gone in whatever way, and then kills the
/// group. A parent-death signal would not do: it follows the thread that started the program, and reaches only one
/// process.
const GUARD: &str = r#"read -r line; kill -s KILL -- "-$1""#;

/// A program in a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    guard: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` without input; what it writes to both outputs replaces the file `log`.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let stdout = File::create(log).unwrap();
        drop(stdout);
        // Appending, so that both outputs share one end of the file.
        let append = || OpenOptions::new().append(true).open(log).unwrap();
        let program = command.get_program().to_string_lossy().into_owned();
        let child =
            command.process_group(0).stdin(Stdio::null()).stdout(append()).stderr(append()).spawn().unwrap_or_else(
                |e| panic!("{program} cannot be started ({e}); `cargo xtask test` installs what tests need"),
            );
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard", &child.id().to_string()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, guard: Some(guard), log: log.to_owned() }
    }

    /// Its process id, which is its group's too.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap();
        if status.is_some() {
            self.sweep();
        }
        status
    }

    /// Kills it and everything in its group, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.guard.is_some() {
            // Before the process is reaped: after that its number may be another's.
            let _gone = kill_process_group(self.pid(), Signal::KILL);
            self.child.wait().unwrap();
            self.sweep();
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Panics
    /// It does not within `limit`.
    pub async fn stop(&mut self, limit: Duration) {
        self.signal(Signal::TERM);
        let end = Instant::now() + limit;
        while self.exited().is_none() {
            assert!(Instant::now() < end, "{:?} did not stop within {limit:?}:\n{}", self.child, self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops it in its tracks, so that it neither answers nor closes anything, until [`Process::thaw`].
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        if self.exited().is_none() {
            kill_process(self.pid(), signal).unwrap();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends what the program left behind in its group, and the guard.
    fn sweep(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            let _nothing_left = kill_process_group(self.pid(), Signal::KILL);
            guard.kill().unwrap();
            guard.wait().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;
    use crate::wait::until;

    const ROLE: &str = "STOQ_TESTKIT_HOLDER";

    /// Whether a process of that number is there and is no zombie.
    fn lives(pid: &str) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
    }

    #[tokio::test]
    async fn ends_with_the_test_that_holds_it_even_if_that_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        if std::env::var_os(ROLE).is_some() {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 1000 & echo $! >&2; wait"]);
            let process = Process::spawn(command, &directory.path().join("log"));
            until("the inner one's number", || async { process.log().ends_with('\n') }).await;
            // Past the harness, which keeps what tests print.
            std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("pid {}\npid {}", process.id(), process.log()).as_bytes(),
            )
            .unwrap();
            return std::future::pending().await;
        }
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "services::process::tests::ends_with_the_test_that_holds_it_even_if_that_is_killed",
            ])
            .env(ROLE, "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(holder.stderr.take().unwrap()).lines().map_while(Result::ok);
        let pids: Vec<String> = lines.filter_map(|l| l.strip_prefix("pid ").map(str::to_owned)).take(2).collect();
        assert!(pids.len() == 2 && pids.iter().all(|pid| lives(pid)), "{pids:?}");
        holder.kill().unwrap();
        holder.wait().unwrap();
        until("both are gone", || async { !pids.iter().any(|pid| lives(pid)) }).await;
    }
}
