//! Replays the corpora of this crate's fuzz targets.

use stoq_api::fuzzing::TARGETS;

#[test]
fn corpora_are_survived() {
    stoq_testkit::corpus::replay("stoq_api", &TARGETS);
}
