//! What a person is told whose commands for a fleet cannot use its services: what is wrong with the configuration is told
//! apart from what is away.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use crate::fleet::{Fleet, Kind};

/// Commands that only look, or make what is missing.
const COMMANDS: [&[&str]; 5] = [&["setup", "--dry-run"], &["setup"], &["status"], &["dead", "list"], &["gc"]];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_the_callers_to_mend_and_a_broker_that_is_away_is_not() {
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| String::new()).await;
    let with = |command: &[&'static str], set: &'static str| [command, &["--set", set]].concat();
    for command in COMMANDS {
        let wrong = fleet.command(&with(command, "queues.main.rabbitmq.password=wrong")).expect(2);
        assert!(wrong.err.contains("password"), "{command:?}: {}", wrong.err);
        fleet.command(command).expect(0);
    }
    // A ledger with a password that nobody has.
    let wrong = fleet.command(&with(&["status"], "ledgers.main.redis.password=wrong")).expect(2);
    assert!(wrong.out.contains("open scans") && wrong.out.contains("password"), "{}", wrong.out);

    fleet.broker.kill();
    for command in COMMANDS {
        fleet.command(command).expect(4);
    }
    fleet.broker.restart().await;
    fleet.command(&["status"]).expect(0);
}
