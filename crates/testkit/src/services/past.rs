//! A Redis that comes back without its last operations, as one that does not write through, or a replica that takes over
//! too soon.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use super::Redis;

/// Where Redis keeps its log, see <https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/>.
const FOLDER: &str = "appendonlydir";
const MANIFEST: &str = "appendonly.aof.manifest";

/// A moment in a server's life.
#[derive(Clone, Debug)]
pub struct Moment {
    log: PathBuf,
    length: u64,
}

impl Moment {
    /// Whether the server has written anything since.
    pub fn is_over(&self) -> bool {
        fs::metadata(&self.log).map_or(true, |log| log.len() > self.length)
    }
}

impl Redis {
    /// This moment. A server that writes each command before it answers has everything in it that was answered so far.
    ///
    /// # Panics
    /// It keeps no log.
    pub fn moment(&mut self) -> Moment {
        let folder = self.service().place().directory.join(FOLDER);
        let manifest = fs::read_to_string(folder.join(MANIFEST)).unwrap();
        // `file NAME seq NUMBER type i`, the current one last; a rewrite begins another.
        let name = manifest.lines().rev().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            ["file", name, _, _, "type", "i"] => Some(name.to_owned()),
            _ => None,
        });
        let log = folder.join(name.expect("the manifest names a log"));
        let length = fs::metadata(&log).unwrap().len();
        Moment { log, length }
    }

    /// Kills the server, and starts it again as it was at `moment`, or up to one command before. Gives what it has
    /// forgotten, as the log had it: nothing if the log was rewritten since, when it forgets nothing.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn fall_back(&mut self, moment: &Moment) -> Vec<u8> {
        self.kill();
        let mut forgotten = Vec::new();
        if self.moment().log == moment.log {
            let log = fs::read(&moment.log).unwrap();
            let end = whole(&log, usize::try_from(moment.length).unwrap());
            forgotten = log[end..].to_vec();
            OpenOptions::new().write(true).open(&moment.log).unwrap().set_len(end as u64).unwrap();
        }
        self.restart().await;
        forgotten
    }
}

/// The end of the last whole command, or transaction, of a log that ends at `limit` at the latest.
fn whole(log: &[u8], limit: usize) -> usize {
    let (mut at, mut end, mut inside) = (0, 0, false);
    while let Some((next, name)) = command(log, at)
        && next <= limit
    {
        match name.to_ascii_uppercase().as_slice() {
            b"MULTI" => inside = true,
            b"EXEC" => inside = false,
            _ => {}
        }
        at = next;
        if !inside {
            end = at;
        }
    }
    end
}

/// Where the command that starts at `at` ends, and its name.
fn command(log: &[u8], at: usize) -> Option<(usize, &[u8])> {
    let (mut at, count) = number(log, at, b'*')?;
    let mut name = &log[..0];
    for n in 0..count {
        let (start, length) = number(log, at, b'$')?;
        let text = log.get(start..start + length)?;
        if n == 0 {
            name = text;
        }
        at = start + length + 2;
    }
    (at <= log.len()).then_some((at, name))
}

/// The number in the line at `at`, which begins with `mark`, and where the next line starts.
fn number(log: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let line = log.get(at..)?.strip_prefix(&[mark])?;
    let length = line.windows(2).position(|two| two == b"\r\n")?;
    let number = std::str::from_utf8(&line[..length]).ok()?.parse().ok()?;
    Some((at + 1 + length + 2, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_with_a_whole_command() {
        let (one, multi, exec) = ("*2\r\n$3\r\nDEL\r\n$1\r\na\r\n", "*1\r\n$5\r\nMULTI\r\n", "*1\r\n$4\r\nEXEC\r\n");
        let log = [one, multi, one, exec, one].concat();
        let ends = [one.len(), log.len() - one.len(), log.len()];
        for limit in 0..=log.len() {
            let expected = ends.into_iter().filter(|end| *end <= limit).max().unwrap_or(0);
            assert_eq!(whole(log.as_bytes(), limit), expected, "{limit}");
        }
    }

    #[tokio::test]
    async fn forgets_what_came_after_a_moment() {
        let mut server = Redis::start().await;
        server.cli(&["set", "before", "1"]).await;
        let moment = server.moment();
        assert!(!moment.is_over());
        server.cli(&["eval", "redis.call('set', 'after', '1') redis.call('set', 'too', '1')", "0"]).await;
        assert!(moment.is_over());
        let forgotten = String::from_utf8(server.fall_back(&moment).await).unwrap();
        assert!(
            forgotten.contains("after") && forgotten.contains("too") && !forgotten.contains("before"),
            "{forgotten}"
        );
        assert_eq!(server.cli(&["keys", "*"]).await, "before");
        server.cli(&["set", "again", "1"]).await;
        server.kill();
        server.restart().await;
        assert_eq!(server.cli(&["get", "again"]).await, "1");
    }
}
