//! Progress over many files, on standard error, and only if that is a terminal.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use stoq_runtime::escape::visible;

use super::style::fit;

/// Drawings a second.
const RATE: u8 = 10;
/// Columns of the name at the end of the line.
const NAME: usize = 40;

/// A line that says how far the scans are. Where standard error is no terminal, every call does nothing.
pub(crate) struct Progress {
    bar: ProgressBar,
    files: u64,
    of: Option<u64>,
}

impl Progress {
    /// A line on standard error, for `files` with `bytes` together, where these are known.
    pub(crate) fn new(files: Option<u64>, bytes: Option<u64>) -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(RATE), files, bytes)
    }

    fn on(target: ProgressDrawTarget, files: Option<u64>, bytes: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(bytes, target);
        bar.set_style(style(bytes.is_some()));
        // A rate needs time to pass even when nothing ends.
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, files: 0, of: files }
    }

    /// A file is being scanned.
    pub(crate) fn started(&self, name: &str) {
        self.bar.set_message(fit(&visible(name), NAME));
    }

    /// A file of `bytes` is done.
    pub(crate) fn finished(&mut self, bytes: u64) {
        self.files += 1;
        self.bar.set_prefix(match self.of {
            Some(of) => format!("{}/{} files", HumanCount(self.files), HumanCount(of)),
            None => format!("{} files", HumanCount(self.files)),
        });
        self.bar.inc(bytes);
    }

    /// Does `print` while the line is out of the way.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Takes the line away.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
    }
}

fn style(known: bool) -> ProgressStyle {
    let template =
        if known { "{prefix}  {done} of {all}  {rate}  {left} left  {msg}" } else { "{prefix}  {done}  {rate}  {msg}" };
    // Both templates are checked by the tests below.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("done", |s: &ProgressState, w: &mut dyn Write| {
            write!(w, "{}", HumanBytes(s.pos())).ok();
        })
        .with_key("all", |s: &ProgressState, w: &mut dyn Write| {
            write!(w, "{}", HumanBytes(s.len().unwrap_or_default())).ok();
        })
        .with_key("rate", |s: &ProgressState, w: &mut dyn Write| {
            write!(w, "{}/s", HumanBytes(s.per_sec() as u64)).ok();
        })
        .with_key("left", |s: &ProgressState, w: &mut dyn Write| {
            write!(w, "{:#}", HumanDuration(s.eta())).ok();
        })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// A terminal that keeps what is written.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(files: Option<u64>, bytes: Option<u64>) -> String {
        let terminal = Terminal::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let mut progress = Progress::on(target, files, bytes);
        progress.finished(512);
        progress.started("a\u{1b}[2Jb");
        progress.bar.force_draw();
        let text = terminal.0.lock().unwrap().clone();
        progress.done();
        text
    }

    #[test]
    fn the_line_says_how_far_and_what() {
        let text = shown(Some(2), Some(1024));
        assert!(text.contains("1/2 files  512 B of 1.00 KiB"), "{text:?}");
        assert!(text.contains(" left  a\\u{1b}[2Jb"), "{text:?}");
        let text = shown(None, None);
        assert!(text.contains("1 files  512 B  "), "{text:?}");
    }
}
