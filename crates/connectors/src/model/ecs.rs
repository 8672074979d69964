//! `ecs`: a payload in Elastic Common Schema, version [`super::ECS_VERSION`]; under `stoq` the `payload` document.
//!
//! Field meanings: <https://www.elastic.co/docs/reference/ecs/ecs-field-reference>. `docs/sinks/models.md` has the table.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::members::Members;
use super::payload::{self, room};
use super::scan::{Node, Scan};
use super::write::Object;
use super::{ECS_VERSION, MAX_SHARED};

/// Rule hits of one payload that are told as `rule.*`; all of them stand under `stoq.workers`.
const MAX_RULES: usize = 256;
/// Error texts that are told as `error.message`; all of them stand under `stoq.errors`.
const MAX_ERRORS: usize = 64;
/// Digests that `hash`, `ssdeep` and their like name as ECS does.
const DIGESTS: [&str; 7] = ["md5", "sha1", "sha256", "sha384", "sha512", "ssdeep", "tlsh"];
/// Longest digest: that of ssdeep.
const MAX_DIGEST: usize = 160;
/// Metadata of rules that names techniques of MITRE ATT&CK, in the spellings that are seen.
const TECHNIQUES: [&str; 5] = ["mitre_attack", "mitre_att", "mitre", "attack", "technique_id"];

/// The document of the payload at `place`.
pub(super) fn document(scan: &Scan<'_>, place: usize) -> Vec<u8> {
    let node = &scan.nodes[place];
    let workers = node.workers();
    let hits = hits(&workers);
    let mut related = Related::default();
    let mut out = Vec::with_capacity(room(scan, place) + 2_048);
    let mut object = Object::open(&mut out);
    object.value("@timestamp", &scan.timestamp());
    object.value("ecs", &json!({ "version": ECS_VERSION }));
    object.value("event", &event(scan, node, !hits.is_empty()));
    object.value("file", &file(node, &workers, &mut related));
    object.value("observer", &observer(scan, place));
    network(scan, &mut object, &mut related);
    rules(&hits, &mut object);
    let errors: Vec<String> = scan.errors(place).take(MAX_ERRORS).filter_map(message).collect();
    if !errors.is_empty() {
        object.value("error", &json!({ "message": errors }));
    }
    if let Some(sha256) = scan.nodes[node.root].sha256() {
        related.hash.insert(sha256.to_owned());
    }
    object.value("related", &related.all());
    object.with("stoq", |out| {
        let mut stoq = Object::open(out);
        payload::members(scan, place, &mut stoq);
        stoq.close();
    });
    object.close();
    out
}

/// What all events about the same thing can be found by.
#[derive(Default)]
struct Related {
    hash: BTreeSet<String>,
    ip: BTreeSet<String>,
    hosts: BTreeSet<String>,
}

impl Related {
    fn all(self) -> Map<String, Value> {
        let Self { hash, ip, hosts } = self;
        let all = [("hash", hash), ("ip", ip), ("hosts", hosts)];
        all.into_iter().filter(|(_, set)| !set.is_empty()).map(|(name, set)| (name.to_owned(), json!(set))).collect()
    }
}

fn event(scan: &Scan<'_>, node: &Node<'_>, alert: bool) -> Value {
    let mut event = json!({
        "kind": if alert { "alert" } else { "event" },
        "category": ["file"],
        "type": ["info"],
        "module": "stoq",
        "dataset": "stoq.payload",
        "id": node.id,
        "created": scan.timestamp(),
    });
    let seen = scan.network.and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(observed) = seen.as_ref().and_then(|network| network["observed"].as_str()) {
        event["start"] = observed.into();
    }
    event
}

fn file(node: &Node<'_>, workers: &Members<'_>, related: &mut Related) -> Map<String, Value> {
    let mut file = Map::new();
    file.insert("type".to_owned(), "file".into());
    if let Some(size) = node.read::<u64>("size") {
        file.insert("size".to_owned(), size.into());
    }
    if let Some(name) = &node.name {
        // A name may be a path of the sender's; what follows its last separator is the name.
        let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
        file.insert("name".to_owned(), last.into());
        if last.len() < name.len() {
            file.insert("path".to_owned(), name.as_str().into());
        }
        if let Some((stem, extension)) = last.rsplit_once('.')
            && !stem.is_empty()
            && !extension.is_empty()
        {
            file.insert("extension".to_owned(), extension.into());
        }
    }
    let text = |worker: &str, key: &str| {
        let results: Value = serde_json::from_str(workers.get(worker)?.get()).ok()?;
        results[key].as_str().map(str::to_owned)
    };
    if let Some(mime) = text("mimetype", "mimetype") {
        file.insert("mime_type".to_owned(), mime.into());
    }
    let hash = digests(node, workers);
    related.hash.extend(hash.values().filter_map(Value::as_str).map(str::to_owned));
    file.insert("hash".to_owned(), hash.into());
    file
}

/// Digests of a payload by name, the engine's own and those of plugins.
pub(super) fn digests(node: &Node<'_>, workers: &Members<'_>) -> Map<String, Value> {
    let mut hash = Map::new();
    for worker in ["hash", "ssdeep", "hash_ssdeep", "tlsh"] {
        let Some(Ok(Value::Object(results))) = workers.get(worker).map(|raw| serde_json::from_str(raw.get())) else {
            continue;
        };
        for name in DIGESTS {
            if let Some(digest) = results.get(name).filter(|d| d.as_str().is_some_and(|d| d.len() <= MAX_DIGEST)) {
                hash.insert(name.to_owned(), digest.clone());
            }
        }
    }
    // What the engine computed itself wins over any plugin's word.
    if let Some(sha256) = node.sha256() {
        hash.insert("sha256".to_owned(), sha256.into());
    }
    hash
}

fn observer(scan: &Scan<'_>, place: usize) -> Value {
    #[derive(Deserialize)]
    struct Engine {
        version: String,
    }
    let mut observer = json!({ "vendor": "stoQ", "product": "stoq", "type": "scanner" });
    if let Some(Ok(engine)) = scan.shared("engine", place).map(serde_json::from_str::<Engine>) {
        observer["version"] = engine.version.into();
    }
    let seen = scan.network.filter(|n| n.len() <= MAX_SHARED).and_then(|n| serde_json::from_str::<Value>(n).ok());
    if let Some(sensor) = seen.as_ref().and_then(|network| network["sensor"].as_str()) {
        observer["name"] = sensor.into();
    }
    observer
}

/// Where the payload was seen on the wire.
fn network(scan: &Scan<'_>, object: &mut Object<'_>, related: &mut Related) {
    let Some(Ok(seen)) = scan.network.filter(|n| n.len() <= MAX_SHARED).map(serde_json::from_str::<Value>) else {
        return;
    };
    let get = |name: &str| seen.get(name).filter(|value| !value.is_null()).cloned();
    let mut field = |name: &str, members: &[(&str, Option<Value>)]| {
        let members: Map<String, Value> =
            members.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?))).collect();
        if !members.is_empty() {
            object.value(name, &members);
        }
    };
    let lower = |name: &str| get(name)?.as_str().map(|text| text.to_lowercase().into());
    for (end, side) in [("src", "source"), ("dest", "destination")] {
        let ip = get(&format!("{end}_ip"));
        related.ip.extend(ip.iter().filter_map(Value::as_str).map(str::to_owned));
        field(side, &[("ip", ip.clone()), ("address", ip), ("port", get(&format!("{end}_port")))]);
    }
    let (transport, protocol) = (lower("proto"), lower("app_proto"));
    field("network", &[("transport", transport), ("protocol", protocol), ("community_id", get("community_id"))]);
    field("url", &[("original", get("url")), ("domain", get("host"))]);
    field("user_agent", &[("original", get("user_agent"))]);
    if let Some(method) = get("method") {
        field("http", &[("request", Some(json!({ "method": method })))]);
    }
    related.hosts.extend([get("host"), get("sensor")].iter().flatten().filter_map(Value::as_str).map(str::to_owned));
}

/// A rule that matched, as `yara` tells it.
#[derive(Deserialize)]
pub(super) struct Hit {
    pub(super) rule: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default)]
    meta: Map<String, Value>,
}

/// Rules that matched, from every worker that tells them as `yara` does.
pub(super) fn hits(workers: &Members<'_>) -> Vec<Hit> {
    #[derive(Deserialize)]
    struct Matches<'a> {
        #[serde(borrow)]
        matches: Vec<&'a RawValue>,
    }
    let with_matches = workers.iter().filter(|(_, raw)| raw.get().contains("\"matches\""));
    let matches = with_matches.filter_map(|(_, raw)| serde_json::from_str::<Matches<'_>>(raw.get()).ok());
    matches.flat_map(|m| m.matches).filter_map(|raw| serde_json::from_str(raw.get()).ok()).take(MAX_RULES).collect()
}

fn rules(hits: &[Hit], object: &mut Object<'_>) {
    if hits.is_empty() {
        return;
    }
    let of_meta = |keys: &[&str]| -> BTreeSet<String> {
        let values = hits.iter().flat_map(|hit| keys.iter().filter_map(|key| hit.meta.get(*key)));
        values.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let all: [(&str, BTreeSet<String>); 7] = [
        ("name", hits.iter().map(|hit| hit.rule.clone()).collect()),
        ("ruleset", hits.iter().filter_map(|hit| hit.namespace.clone()).collect()),
        ("category", hits.iter().flat_map(|hit| hit.tags.iter().cloned()).collect()),
        ("description", of_meta(&["description"])),
        ("author", of_meta(&["author"])),
        ("reference", of_meta(&["reference"])),
        ("license", of_meta(&["license"])),
    ];
    let rule: Map<String, Value> =
        all.into_iter().filter(|(_, set)| !set.is_empty()).map(|(name, set)| (name.to_owned(), json!(set))).collect();
    object.value("rule", &rule);
    let named = of_meta(&TECHNIQUES);
    let ids: BTreeSet<&str> = named.iter().flat_map(|text| techniques(text)).collect();
    if !ids.is_empty() {
        let techniques: BTreeSet<&str> = ids.iter().map(|id| id.split_once('.').map_or(*id, |(id, _)| id)).collect();
        let mut technique = json!({ "id": techniques });
        let subtechniques: Vec<&&str> = ids.iter().filter(|id| id.contains('.')).collect();
        if !subtechniques.is_empty() {
            technique["subtechnique"] = json!({ "id": subtechniques });
        }
        object.value("threat", &json!({ "framework": "MITRE ATT&CK", "technique": technique }));
    }
}

/// Ids of techniques in a text: `T1055`, `T1055.001`.
fn techniques(text: &str) -> impl Iterator<Item = &str> {
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(move |word| {
        let Some(number) = word.strip_prefix('T') else { return false };
        match number.split_once('.') {
            Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
            None => digits(number, 4),
        }
    })
}

fn message(error: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Text {
        error: String,
    }
    serde_json::from_str::<Text>(error).ok().map(|text| text.error)
}
