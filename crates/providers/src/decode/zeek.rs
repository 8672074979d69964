//! Format `zeek`: lines of `files.log` as JSON (`LogAscii::use_json=T`, or the Kafka writer's, which may put each line under
//! the log's name), with the folder of extracted files as the intake's root.
//!
//! A line without `extracted` names nothing to scan: Zeek logs every file and keeps those that a script chose.

use serde_json::{Map, Value};
use stoq_api::{PayloadMeta, RequestMeta};

use super::members::Members;
use super::network::Network;
use super::{Decoded, MAX_NAME, Meaning, Named, Place, Refusal, Settings, base_name};

/// The log's name, under which the Kafka writer puts a line.
const LOG: &str = "files";
/// Members that are kept as they are, in the payload's `extra_data`.
const KEPT: [&str; 7] =
    ["fuid", "mime_type", "source", "missing_bytes", "overflow_bytes", "timedout", "extracted_cutoff"];

pub(super) fn decode(members: Map<String, Value>, settings: &Settings) -> Result<Meaning, Refusal> {
    let mut line = Members::new("files.log", members);
    if let Some(inner) = line.object(LOG)? {
        line.done()?;
        line = Members::new("files.log", inner);
    }
    let fuid = line.needed("fuid", MAX_NAME)?;
    let Some(extracted) = line.text("extracted", MAX_NAME)?.filter(|path| !path.is_empty()) else {
        return Ok(Meaning::Nothing("a file that was not extracted".to_owned()));
    };
    let path = extracted.strip_prefix(&settings.strip_prefix).map_or(extracted.clone(), str::to_owned);
    let mut meta = PayloadMeta::default();
    let sniffed = line.text("filename", MAX_NAME)?;
    if let Some(name) = sniffed.as_deref().and_then(base_name).or_else(|| base_name(&path)) {
        meta.extra_data.insert("filename".to_owned(), name.into());
    }
    meta.extra_data.insert("fuid".to_owned(), fuid.into());
    for name in KEPT {
        if let Some(value) = line.take(name) {
            meta.extra_data.insert(name.to_owned(), value);
        }
    }
    let seen = line.size("seen_bytes")?;
    // What was lost on the way is filled up with zeros, and what came after a cut-off or a time-out was never written.
    let zero = |name: &str| meta.extra_data.get(name).is_none_or(|value| value.as_u64() == Some(0));
    let unset = |name: &str| meta.extra_data.get(name).is_none_or(|value| value == false);
    let whole = ["missing_bytes", "overflow_bytes"].into_iter().all(zero)
        && ["timedout", "extracted_cutoff"].into_iter().all(unset);
    let size = seen.filter(|_| whole);
    let mut request_meta = RequestMeta::default();
    network(&mut line)?.put_into(&mut request_meta);
    let root = Named { place: Place::File { path, size }, meta };
    Ok(Meaning::Reference(Decoded { roots: vec![root], request_meta }))
}

/// The connection. Zeek before 5.1 has lists of hosts instead, sender first.
fn network(line: &mut Members) -> Result<Network, Refusal> {
    let mut network = Network::default();
    for (end, ip, port, hosts) in
        [("src", "id.orig_h", "id.orig_p", "tx_hosts"), ("dest", "id.resp_h", "id.resp_p", "rx_hosts")]
    {
        let mut address = line.text(ip, MAX_NAME)?;
        if let Some(Value::String(host)) = line.list(hosts)?.unwrap_or_default().into_iter().next() {
            address = address.or(Some(host));
        }
        network.end(end, address, line.take(port))?;
    }
    let mut flow = line.text("uid", 128)?;
    if let Some(Value::String(uid)) = line.list("conn_uids")?.unwrap_or_default().into_iter().next() {
        flow = flow.or(Some(uid));
    }
    network.text("flow_id", flow.filter(|flow| flow.len() <= 128));
    network.text("community_id", line.text("community_id", 128)?);
    network.text("sensor", line.text("_system_name", MAX_NAME)?);
    network.observed(line.take("ts"))?;
    Ok(network)
}
