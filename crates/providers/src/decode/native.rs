//! Format `native`: stoq's own JSON.
//!
//! ```json
//! {
//!   "payloads": [{ "path": "a/b.exe", "filename": "b.exe", "size": 73802, "meta": { "dispatch_to": ["yara"] } }],
//!   "network": { "src_ip": "192.0.2.7", "src_port": 80, "sensor": "dmz-1" },
//!   "request_meta": { "source": "proxy", "extra_data": { "ticket": "INC-1" } }
//! }
//! ```
//!
//! `payload` stands for one, `payloads` for several; each has one of `path`, `url`, `bucket` with `key`, or `base64`.

use serde_json::{Map, Value};
use stoq_api::task;

use super::members::{Members, payload_meta, request_meta};
use super::{
    Decoded, MAX_KEY, MAX_NAME, MAX_ROOTS, MAX_URL, Meaning, Named, Place, Refusal, Settings, base_name, base64,
    network,
};

pub(super) fn decode(members: Map<String, Value>, settings: &Settings) -> Result<Meaning, Refusal> {
    let mut members = Members::new("reference", members);
    let one = members.object("payload")?;
    let several = members.list("payloads")?;
    let payloads = match (one, several) {
        (Some(one), None) => vec![Value::Object(one)],
        (None, Some(several)) if several.len() > MAX_ROOTS => {
            let payloads = several.len();
            return Err(members.refuse(format_args!("it names {payloads} payloads, at most {MAX_ROOTS} are taken")));
        }
        (None, Some(several)) => several,
        (Some(_), Some(_)) => return Err(members.refuse("payload and payloads are both there")),
        (None, None) => return Err(members.refuse("neither payload nor payloads is there")),
    };
    let mut meta = members.object("request_meta")?.map(request_meta).transpose()?.unwrap_or_default();
    if let Some(given) = members.object("network")? {
        network::checked(given)?.put_into(&mut meta);
    }
    members.done()?;
    let roots = payloads.into_iter().map(|payload| root(payload, settings)).collect::<Result<_, _>>()?;
    Ok(Meaning::Reference(Decoded { roots, request_meta: meta }))
}

fn root(payload: Value, settings: &Settings) -> Result<Named, Refusal> {
    let Value::Object(payload) = payload else { return Err(Refusal("payload: not an object".to_owned())) };
    let mut members = Members::new("payload", payload);
    let mut meta = members.object("meta")?.map(payload_meta).transpose()?.unwrap_or_default();
    let given = members.text("filename", MAX_NAME)?;
    let size = members.size("size")?;
    let mut places = Vec::new();
    if let Some(path) = members.text("path", MAX_NAME)? {
        let path = path.strip_prefix(&settings.strip_prefix).map_or(path.clone(), str::to_owned);
        let name = base_name(&path).map(str::to_owned);
        places.push((Place::File { path, size }, name));
    }
    if let Some(url) = members.text("url", MAX_URL)? {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let name = path.split_once("://").and_then(|(_, path)| path.split_once('/')).and_then(|(_, p)| base_name(p));
        let name = name.map(str::to_owned);
        places.push((Place::Remote { place: task::Place::Url(url), size }, name));
    }
    if let Some(bucket) = members.text("bucket", MAX_NAME)? {
        let key = members.needed("key", MAX_KEY)?;
        let (version, etag) = (members.text("version", MAX_NAME)?, members.text("etag", MAX_NAME)?);
        let name = base_name(&key).map(str::to_owned);
        places.push((Place::Remote { place: task::Place::Object { bucket, key, version, etag }, size }, name));
    }
    if let Some(text) = members.text("base64", usize::MAX)? {
        let content = base64::content(&text)?;
        if let Some(size) = size.filter(|size| *size != content.len() as u64) {
            return Err(members.refuse(format_args!("base64 has {} bytes, size says {size}", content.len())));
        }
        places.push((Place::Content(content), None));
    }
    if places.len() != 1 {
        return Err(members.refuse("needs exactly one of path, url, bucket (with key) or base64"));
    }
    members.done()?;
    let Some((place, name)) = places.pop() else { return Err(Refusal("payload: no place".to_owned())) };
    if let Some(name) = given.or(name) {
        meta.extra_data.entry("filename").or_insert(name.into());
    }
    Ok(Named { place, meta })
}
