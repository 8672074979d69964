//! What is looked at once a second, for the plot.

use std::fmt::Write as _;
use std::time::Duration;

/// Roles, in the order of their columns.
pub(crate) const ROLES: [&str; 3] = ["provider", "worker", "connector"];

/// One look.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Duration,
    /// Payloads that were published and have no response document.
    pub(crate) open: usize,
    /// By role: how many the Deployment asks for, and how many processes there are.
    pub(crate) desired: [u64; 3],
    pub(crate) running: [usize; 3],
}

/// All looks as text, a line each, for `cargo xtask k8s`.
pub(crate) fn table(moments: &[Moment]) -> String {
    let mut text = String::from("seconds,open");
    for role in ROLES {
        let _infallible = write!(text, ",{role}s desired,{role}s running");
    }
    for moment in moments {
        let _infallible = write!(text, "\n{:.1},{}", moment.at.as_secs_f64(), moment.open);
        for (desired, running) in moment.desired.iter().zip(moment.running) {
            let _infallible = write!(text, ",{desired},{running}");
        }
    }
    text.push('\n');
    text
}
