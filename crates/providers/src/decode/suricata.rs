//! Format `suricata`: `fileinfo` events of `eve.json`, with the file store (version 2) as the intake's root.
//!
//! The store keeps a file as `ab/abcdef…`, under the first two digits of its SHA-256 and all of them. Other events, and files
//! that were not stored, name nothing to scan.

use serde_json::{Map, Value};
use stoq_api::{PayloadMeta, RequestMeta, Sha256};

use super::members::Members;
use super::network::Network;
use super::{Decoded, MAX_NAME, MAX_URL, Meaning, Named, Place, Refusal, base_name};

/// Members of `fileinfo` that are kept as they are, in the payload's `extra_data`.
const KEPT: [&str; 4] = ["state", "gaps", "magic", "tx_id"];

pub(super) fn decode(members: Map<String, Value>) -> Result<Meaning, Refusal> {
    let mut event = Members::new("event", members);
    let kind = event.needed("event_type", MAX_NAME)?;
    if kind != "fileinfo" {
        return Ok(Meaning::Nothing(format!("an event of type {kind:?}")));
    }
    let Some(file) = event.object("fileinfo")? else { return Err(event.refuse("fileinfo is missing")) };
    let mut file = Members::new("fileinfo", file);
    if file.flag("stored")? != Some(true) {
        return Ok(Meaning::Nothing("a file that was not stored".to_owned()));
    }
    let digest = file.needed("sha256", MAX_NAME)?;
    let digest: Sha256 = digest.parse().map_err(|_| file.refuse("sha256 is not 64 hexadecimal digits"))?;
    let digest = digest.to_string();
    let mut meta = PayloadMeta::default();
    if let Some(name) = file.text("filename", MAX_URL)?.as_deref().and_then(base_name) {
        meta.extra_data.insert("filename".to_owned(), name.into());
    }
    let size = file.size("size")?;
    for name in KEPT {
        if let Some(value) = file.take(name) {
            meta.extra_data.insert(name.to_owned(), value);
        }
    }
    let path = format!("{}/{digest}", &digest[..2]);
    let mut request_meta = RequestMeta::default();
    network(&mut event)?.put_into(&mut request_meta);
    let root = Named { place: Place::File { path, size }, meta };
    Ok(Meaning::Reference(Decoded { roots: vec![root], request_meta }))
}

fn network(event: &mut Members) -> Result<Network, Refusal> {
    let mut network = Network::default();
    for end in ["src", "dest"] {
        let ip = event.text(&format!("{end}_ip"), MAX_NAME)?;
        network.end(end, ip, event.take(&format!("{end}_port")))?;
    }
    for name in ["proto", "app_proto", "community_id"] {
        network.text(name, event.text(name, 128)?);
    }
    if let Some(Value::Number(flow)) = event.take("flow_id") {
        network.text("flow_id", Some(flow.to_string()));
    }
    if let Some(http) = event.object("http")? {
        let mut http = Members::new("http", http);
        network.text("host", http.text("hostname", MAX_NAME)?);
        network.text("url", http.text("url", MAX_URL)?);
        network.text("method", http.text("http_method", 64)?);
        network.text("user_agent", http.text("http_user_agent", MAX_NAME)?);
    }
    network.text("sensor", event.text("host", MAX_NAME)?);
    network.observed(event.take("timestamp"))?;
    Ok(network)
}
