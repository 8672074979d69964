//! How tasks are packed.

use bytes::Bytes;
use stoq_api::{Budgets, Location, PayloadId, PayloadMeta, ScanId, Sha256};
use stoq_testkit::samples::head;

use super::*;

/// A task with so many inline bytes.
fn task(n: u32, bytes: usize) -> Task {
    let scan_id = ScanId::derive("test", &n.to_le_bytes(), &Sha256::of(b""));
    let head = head(scan_id, &[], Budgets::default());
    Task {
        scan_id,
        payload_id: PayloadId::root(scan_id, 0),
        scan: Arc::new(head),
        parent: None,
        ancestors: Vec::new(),
        depth: 0,
        sha256: None,
        size: bytes as u64,
        location: Location::Inline,
        payload_meta: PayloadMeta::with("filename", format!("{n}.txt")),
        inline: Bytes::from(vec![n as u8; bytes]),
    }
}

/// How many tasks each parcel has, of tasks with so many bytes; all of them have to come out as they went in.
fn packed(sizes: &[usize]) -> Vec<usize> {
    let tasks: Vec<Task> = (0..).zip(sizes).map(|(n, bytes)| task(n, *bytes)).collect();
    let parcels = pack(tasks.clone());
    let mut written = Vec::new();
    let mut counts = Vec::new();
    for parcel in &parcels {
        let message = parcel.write().unwrap();
        assert!(message.body.len() <= parcel.size(), "what it holds is not told too low");
        let frames = envelope::decode(&message.body).unwrap();
        counts.push(frames.len());
        assert_eq!(message.id, frames[0].payload_id.to_string());
        written.extend(frames.into_iter().map(|frame| *frame.task.unwrap()));
    }
    assert_eq!(written, tasks);
    counts
}

#[test]
fn small_tasks_travel_together_and_large_ones_alone() {
    const SMALL: usize = 100;
    assert_eq!(packed(&[]), Vec::<usize>::new());
    assert_eq!(packed(&[SMALL; 40]), [16, 16, 8]);
    assert_eq!(packed(&[SMALL, ALONE_BYTES, SMALL]), [3]);
    assert_eq!(packed(&[SMALL, ALONE_BYTES + 1, SMALL, SMALL]), [1, 1, 2]);
    assert_eq!(packed(&[ALONE_BYTES; 17]), [16, 1], "sixteen of them are a whole message");
}
