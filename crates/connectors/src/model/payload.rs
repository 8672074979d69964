//! `payload`: a payload's own members as they stand in the response, behind what places it in its scan.

use super::members::Members;
use super::scan::Scan;
use super::write::{Object, list};

/// Members that a document has of its own. A payload's member of such a name would be there twice.
const OWN: [&str; 13] = [
    "@timestamp",
    "scan_id",
    "tenant",
    "source",
    "name",
    "complete",
    "replay_of",
    "root",
    "ancestors",
    "network",
    "scan",
    "errors",
    "engine",
];

/// The document of the payload at `place`.
pub(super) fn document(scan: &Scan<'_>, place: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(room(scan, place));
    let mut object = Object::open(&mut out);
    object.value("@timestamp", &scan.timestamp());
    members(scan, place, &mut object);
    object.close();
    out
}

/// Bytes that a document will hardly exceed.
pub(super) fn room(scan: &Scan<'_>, place: usize) -> usize {
    let members: usize = scan.nodes[place].members.iter().map(|(name, json)| name.len() + json.get().len() + 4).sum();
    members + 2_048
}

/// All but the time.
pub(super) fn members(scan: &Scan<'_>, place: usize, object: &mut Object<'_>) {
    let node = &scan.nodes[place];
    object.value("scan_id", &scan.scan_id);
    object.maybe("tenant", scan.tenant.as_deref());
    object.maybe("source", scan.source.as_deref());
    object.maybe("name", node.name.as_deref());
    for name in ["complete", "replay_of"] {
        if let Some(json) = scan.shared(name, place) {
            object.raw(name, json);
        }
    }
    object.with("root", |out| root(scan, node.root, place, out));
    object.with("ancestors", |out| {
        let above = scan.above(place);
        list(
            out,
            above.iter().map(|one| {
                let mut text = Vec::new();
                let mut object = Object::open(&mut text);
                object.value("payload_id", &one.id);
                object.maybe("sha256", one.sha256);
                object.maybe("name", one.name);
                object.maybe("plugin", one.plugin);
                object.close();
                // JSON text is UTF-8.
                String::from_utf8(text).unwrap_or_default()
            }),
        );
    });
    if let Some(network) = scan.network.filter(|network| place == 0 || network.len() <= super::MAX_SHARED) {
        object.raw("network", network);
    }
    for (name, json) in node.members.iter().filter(|(name, _)| !OWN.contains(name)) {
        object.raw(name, json.get());
    }
    object.with("errors", |out| list(out, scan.errors(place)));
    object.with("scan", |out| whole(scan, place, out));
    if let Some(engine) = scan.shared("engine", place) {
        object.raw("engine", engine);
    }
}

/// What is known of the root.
fn root(scan: &Scan<'_>, root: usize, place: usize, out: &mut Vec<u8>) {
    let node = &scan.nodes[root];
    let mut object = Object::open(out);
    object.value("payload_id", &node.id);
    object.maybe("sha256", node.sha256());
    object.maybe("name", node.name.as_deref());
    // Its own document has it already.
    let meta: Option<Members<'_>> = (root != place).then(|| node.read("payload_meta")).flatten();
    if let Some(extra) = meta.as_ref().and_then(|meta| meta.get("extra_data"))
        && extra.get().len() <= super::MAX_SHARED
    {
        object.raw("extra_data", extra.get());
    }
    object.close();
}

/// What is known of the scan as a whole.
fn whole(scan: &Scan<'_>, place: usize, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.value("payloads", &scan.nodes.len());
    if !scan.request.is_empty() && (place == 0 || scan.request_bytes() <= super::MAX_SHARED) {
        object.with("request", |out| {
            let mut request = Object::open(out);
            for (name, json) in &scan.request {
                request.raw(name, json.get());
            }
            request.close();
        });
    }
    for name in ["decorators", "findings"] {
        if let Some(json) = scan.shared(name, place).filter(|json| !matches!(*json, "{}" | "[]")) {
            object.raw(name, json);
        }
    }
    if scan.is_cut(place) {
        object.value("cut", &true);
    }
    object.close();
}
