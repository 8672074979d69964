//! Fields of Splunk's Common Information Model that describe a payload: flat, texts and lists of texts, all bounded.
//!
//! Names: <https://help.splunk.com/en/splunk-cloud-platform/common-information-model/6.0/data-models/malware>.
//! `docs/sinks/splunk.md` has the table.

use serde_json::Value;

use super::MAX_SHARED;
use super::ecs::{digests, hits};
use super::members::Members;
use super::scan::{Node, Scan};
use super::write::Object;

/// Most characters of a value; all of it stands in the event.
const MAX_VALUE: usize = 1_024;
/// Most values of one field.
const MAX_VALUES: usize = 64;
/// Members of the network context, and the fields that they become.
const NETWORK: [(&str, &str); 13] = [
    ("src_ip", "src"),
    ("src_port", "src_port"),
    ("dest_ip", "dest"),
    ("dest_port", "dest_port"),
    ("proto", "transport"),
    ("app_proto", "app"),
    ("host", "url_domain"),
    ("url", "url"),
    ("method", "http_method"),
    ("user_agent", "http_user_agent"),
    ("sensor", "dvc"),
    ("community_id", "community_id"),
    ("sender", "sender"),
];

/// Writes the fields of the payload at `place`, with the rule hits of `all` payloads or of that one.
pub(super) fn write(scan: &Scan<'_>, place: usize, all: bool, id: &str, out: &mut Vec<u8>) {
    let mut fields = Fields(Object::open(out));
    members(scan, place, all, id, &mut fields);
    fields.0.close();
}

fn members(scan: &Scan<'_>, place: usize, all: bool, id: &str, fields: &mut Fields<'_>) {
    fields.one("stoq_id", id);
    fields.one("stoq_scan_id", &scan.scan_id.to_string());
    if let Some(tenant) = &scan.tenant {
        fields.one("stoq_tenant", tenant);
    }
    fields.one("vendor_product", "stoQ");
    let Some(node) = scan.nodes.get(place) else { return };
    let payload_of = [("stoq_payload_id", node.id.to_string()), ("stoq_root_id", scan.nodes[node.root].id.to_string())];
    payload_of.iter().for_each(|(name, id)| fields.one(name, id));
    let workers = node.workers();
    file(node, &workers, fields);
    let hits: Vec<_> = if all {
        scan.nodes.iter().flat_map(|node| hits(&node.workers())).take(MAX_VALUES).collect()
    } else {
        hits(&workers).into_iter().take(MAX_VALUES).collect()
    };
    fields.many("signature", hits.iter().map(|hit| hit.rule.as_str()));
    fields.many("category", hits.iter().flat_map(|hit| hit.tags.iter().map(String::as_str)));
    network(scan, fields);
}

/// Each name is written once at most.
struct Fields<'o>(Object<'o>);

impl Fields<'_> {
    fn one(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.value(name, cut(value));
        }
    }

    /// Each value once, in order.
    fn many<'v>(&mut self, name: &str, values: impl Iterator<Item = &'v str>) {
        let mut list: Vec<&str> = Vec::new();
        for value in values.map(cut).filter(|value| !value.is_empty()) {
            if list.len() < MAX_VALUES && !list.contains(&value) {
                list.push(value);
            }
        }
        if !list.is_empty() {
            self.0.value(name, &list);
        }
    }
}

/// The beginning of a value that is too long.
fn cut(value: &str) -> &str {
    value.char_indices().nth(MAX_VALUE).map_or(value, |(end, _)| &value[..end])
}

fn file(node: &Node<'_>, workers: &Members<'_>, fields: &mut Fields<'_>) {
    if let Some(size) = node.read::<u64>("size") {
        fields.one("file_size", &size.to_string());
    }
    if let Some(name) = &node.name {
        // A name may be a path of the sender's; what follows its last separator is the name.
        let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
        fields.one("file_name", last);
        if last.len() < name.len() {
            fields.one("file_path", name);
        }
    }
    let digests = digests(node, workers);
    fields.many("file_hash", ["sha256", "sha1", "md5"].iter().filter_map(|name| digests.get(*name)?.as_str()));
}

fn network(scan: &Scan<'_>, fields: &mut Fields<'_>) {
    let Some(network) = scan.network.filter(|network| network.len() <= MAX_SHARED) else { return };
    let Ok(Value::Object(seen)) = serde_json::from_str(network) else { return };
    for (member, field) in NETWORK {
        match seen.get(member) {
            Some(Value::String(text)) if field == "transport" || field == "app" => {
                fields.one(field, &text.to_lowercase())
            }
            Some(Value::String(text)) => fields.one(field, text),
            Some(Value::Number(number)) => fields.one(field, &number.to_string()),
            _ => {}
        }
    }
}
