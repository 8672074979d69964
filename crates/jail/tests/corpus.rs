//! Replays the corpora of this crate's fuzz targets.

use stoq_jail::fuzzing::TARGETS;

#[test]
fn corpora_are_survived() {
    stoq_testkit::corpus::replay("stoq_jail", &TARGETS);
}
