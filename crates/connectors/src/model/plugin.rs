//! `plugin`: stoQ's `split()`, with an id.
//!
//! Each document is a response with one payload and one result. Unlike stoQ's, it has only the errors of its payload, and
//! only the first payload's documents have those of none: a copy of all in each would square the size of a bad scan.

use serde_json::value::RawValue;
use stoq_api::PayloadId;
use uuid::Uuid;

use super::payload::room;
use super::scan::Scan;
use super::write::{Object, list};

/// The id of the document of a worker's result.
pub(super) fn id(payload: PayloadId, worker: &str) -> String {
    Uuid::new_v5(&payload.0, &[b"worker\0", worker.as_bytes()].concat()).to_string()
}

/// The document of a worker's result on the payload at `place`.
pub(super) fn document(scan: &Scan<'_>, place: usize, worker: &str, result: &RawValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(room(scan, place));
    let mut object = Object::open(&mut out);
    object.with("results", |out| {
        out.push(b'[');
        let mut one = Object::open(out);
        for (name, json) in scan.nodes[place].members.iter() {
            match name {
                "workers" => one.with(name, |out| {
                    let mut workers = Object::open(out);
                    workers.raw(worker, result.get());
                    workers.close();
                }),
                _ => one.raw(name, json.get()),
            }
        }
        one.close();
        out.push(b']');
    });
    let shared = |object: &mut Object<'_>, name: &str| {
        if let Some(json) = scan.shared(name, place) {
            object.raw(name, json);
        }
    };
    shared(&mut object, "request_meta");
    object.with("errors", |out| list(out, scan.errors(place)));
    object.value("time", &scan.time.iso());
    shared(&mut object, "decorators");
    object.value("scan_id", &scan.scan_id);
    for name in ["complete", "findings", "engine"] {
        shared(&mut object, name);
    }
    object.maybe("tenant", scan.tenant.as_deref());
    shared(&mut object, "replay_of");
    object.close();
    out
}
