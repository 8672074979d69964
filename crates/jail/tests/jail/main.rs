//! The jail from outside: pools of real slots with plugins that try everything.
//!
//! This binary is its own fork server, so it has a `main` of its own in place of the usual harness.
#![expect(clippy::unwrap_used, reason = "tests; without the usual harness clippy does not see that")]

mod escapes;
mod plugins;
mod pool;
mod support;
mod tools;

use libtest_mimic::{Arguments, Trial};

fn main() {
    stoq_jail::enter_if_asked(plugins::build);
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(pool::trials());
    trials.extend(escapes::trials());
    trials.extend(tools::trials());
    libtest_mimic::run(&arguments, trials).exit();
}
