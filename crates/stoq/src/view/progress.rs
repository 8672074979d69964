//! Progress over many files, on standard error, and only if that is a terminal.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use parking_lot::Mutex;
use stoq_engine::intake;

use super::style::{Look, fit};
use super::summary::Totals;

/// Drawings a second.
const RATE: u8 = 10;
/// Time between two drawings while nothing ends: rates and times need it.
const TICK: Duration = Duration::from_millis(250);
/// Columns of the name at the end of the line.
const NAME: usize = 40;

/// A line that says how far the scans are, and the sums for the end.
pub(crate) struct Progress {
    bar: ProgressBar,
    intakes: Mutex<Vec<Arc<intake::Progress>>>,
    totals: Mutex<Totals>,
}

impl Progress {
    /// A line on standard error, if that is a terminal.
    pub(crate) fn on_terminal() -> Self {
        let progress = Self::on(ProgressDrawTarget::stderr_with_hz(RATE));
        progress.bar.enable_steady_tick(TICK);
        progress
    }

    /// No line; the sums only.
    pub(crate) fn none() -> Self {
        Self::on(ProgressDrawTarget::hidden())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.set_style(style());
        Self { bar, intakes: Mutex::default(), totals: Mutex::default() }
    }

    /// What is to come is what these intakes take.
    pub(crate) fn follow(&self, intakes: Vec<Arc<intake::Progress>>) {
        *self.intakes.lock() = intakes;
    }

    /// A scan is done, whose sums these are, of what has this name.
    pub(crate) fn scanned(&self, sums: Totals, name: Option<&str>) {
        let (files, bytes) = {
            let mut totals = self.totals.lock();
            totals.add(sums);
            (totals.scans, totals.bytes)
        };
        let (taken, known) = self
            .intakes
            .lock()
            .iter()
            .fold((0, 0), |(files, bytes), i| (files + i.taken.load(Relaxed), bytes + i.bytes.load(Relaxed)));
        if let Some(name) = name {
            self.bar.set_message(fit(name, NAME));
        }
        self.bar.set_prefix(format!("{}/{} files", HumanCount(files), HumanCount(taken.max(files))));
        self.bar.set_length(known.max(bytes));
        self.bar.set_position(bytes);
    }

    /// Does `print` while the line is out of the way.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// The sums of all scans so far, on one line.
    pub(crate) fn summary(&self, look: Look) -> String {
        self.totals.lock().line(Some(self.bar.elapsed()), look)
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix}  {done} of {all}  {rate}  {left} left  {msg}";
    // The template is checked by the test below.
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
    use std::sync::Mutex;

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

    #[test]
    fn the_line_says_how_far_and_what() {
        let terminal = Terminal::default();
        let progress = Progress::on(ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255));
        let intake = Arc::new(intake::Progress::default());
        intake.taken.store(2, Relaxed);
        intake.bytes.store(2048, Relaxed);
        progress.follow(vec![intake]);
        let mut response = crate::view::tests::mail();
        response.results[0].payload_meta = stoq_api::PayloadMeta::with("filename", "a\u{1b}[2Jb");
        let name = crate::view::name(&response.results[0]);
        progress.scanned(crate::view::tests::sums(&response), Some(&name));
        progress.bar.force_draw();
        let text = terminal.0.lock().unwrap().clone();
        progress.finish();
        assert!(text.contains("1/2 files  1007 B of 2.00 KiB"), "{text:?}");
        assert!(text.contains(" left  a\\u{1b}[2Jb"), "{text:?}");
        assert!(progress.summary(Look::wide(false, None)).starts_with("1007 B, 5 payloads"));
    }
}
