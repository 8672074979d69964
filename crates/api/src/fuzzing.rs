//! Bodies of the fuzz targets of this crate under `fuzz/`, so that ordinary tests replay what fuzzing found.

use bytes::Bytes;

use crate::envelope::{decode, encode, header_alone};
use crate::task::Task;

/// A target: takes whatever the fuzzer made.
type Target = fn(&[u8]);

/// Every target by the name of its file.
pub const TARGETS: [(&str, Target); 1] = [("envelope", envelope)];

/// Whatever lies on a lane is read or refused, and a task that was read can be passed on: written again it is the same.
/// Data that are no message are taken for a task's header alone, which spares the fuzzer from making lengths fit.
///
/// # Panics
/// That does not hold.
pub fn envelope(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    if let Ok(frames) = decode(&message) {
        let tasks = frames.into_iter().filter_map(|frame| {
            let ids = (frame.scan_id, frame.payload_id);
            let task = frame.task.ok()?;
            assert_eq!(ids, (task.scan_id, task.payload_id));
            Some(*task)
        });
        again(&tasks.collect::<Vec<_>>());
    } else if let Some(task) = header_alone(data) {
        // What cannot be read back from a lane must be refused there, and not come back as something else.
        match encode(std::slice::from_ref(&task)).map(|written| decode(&written)) {
            Ok(Ok(frames)) if frames.iter().all(|f| f.task.is_ok()) => again(&[task]),
            Ok(Ok(frames)) => {
                assert!(frames.iter().all(|f| f.scan_id == task.scan_id && f.payload_id == task.payload_id))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn again(tasks: &[Task]) {
    let written = match encode(tasks) {
        Ok(written) => written,
        Err(error) => panic!("what was read cannot be written: {error}"),
    };
    let read =
        decode(&written).map(|frames| frames.into_iter().map(|f| f.task.map(|t| *t)).collect::<Result<Vec<_>, _>>());
    assert_eq!(read, Ok(Ok(tasks.to_vec())));
}
