//! Samples that fuzzing found, and what it started from, keep the promises of their targets.

use stoq_providers::fuzzing::TARGETS;

#[test]
fn corpora_replay() {
    stoq_testkit::corpus::replay("stoq_providers", &TARGETS);
}
