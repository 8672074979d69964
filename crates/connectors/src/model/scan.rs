//! A response as models see it: what places its payloads, and the rest as text.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;
use stoq_api::json::Named;
use stoq_api::payload::{MAX_ANCESTORS, MAX_NAME};
use stoq_api::{PayloadId, ScanId, Timestamp};
use time::PrimitiveDateTime;
use time::macros::format_description;

use super::MAX_SHARED;
use super::members::Members;

/// A response whose payloads have found their parents.
pub(super) struct Scan<'a> {
    pub(super) scan_id: ScanId,
    /// When it was first seen.
    pub(super) time: Timestamp,
    pub(super) tenant: Option<Cow<'a, str>>,
    /// From the request's metadata.
    pub(super) source: Option<Cow<'a, str>>,
    /// The network context of the reference, if it is an object.
    pub(super) network: Option<&'a str>,
    /// What else is said of the request: `request_meta.extra_data` without the network.
    pub(super) request: Vec<(String, &'a RawValue)>,
    /// The response's own members, but for payloads and errors, in order.
    pub(super) members: Vec<(&'static str, &'a str)>,
    /// Its payloads, in order.
    pub(super) nodes: Vec<Node<'a>>,
    /// Errors of no payload.
    pub(super) errors: Vec<&'a str>,
}

/// A payload in its scan.
pub(super) struct Node<'a> {
    pub(super) id: PayloadId,
    /// Its members, in order.
    pub(super) members: Members<'a>,
    /// Its file name, cut to [`MAX_NAME`] characters.
    pub(super) name: Option<String>,
    /// Its first parent, which stands before it.
    parent: Option<usize>,
    /// The plugin that extracted it from there.
    by: Option<String>,
    /// The root above it, or itself.
    pub(super) root: usize,
    /// Its errors.
    pub(super) errors: Vec<&'a str>,
}

/// One payload above another.
pub(super) struct Above<'s> {
    pub(super) id: PayloadId,
    pub(super) sha256: Option<&'s str>,
    pub(super) name: Option<&'s str>,
    /// The plugin that extracted the next one below.
    pub(super) plugin: Option<&'s str>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    results: Vec<Members<'a>>,
    #[serde(borrow)]
    request_meta: &'a RawValue,
    #[serde(borrow)]
    errors: Vec<&'a RawValue>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    decorators: &'a RawValue,
    scan_id: ScanId,
    complete: bool,
    #[serde(borrow, default)]
    findings: Option<&'a RawValue>,
    #[serde(borrow)]
    engine: &'a RawValue,
    #[serde(borrow, default)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    replay_of: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    extra_data: Named<&'a RawValue>,
}

#[derive(Deserialize)]
struct OfPayload {
    payload_id: Option<PayloadId>,
}

impl<'a> Scan<'a> {
    /// Reads a response.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, String> {
        Self::parse(json).map_err(|e| format!("not a response: {e}"))
    }

    fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        let wire: Wire<'a> = serde_json::from_slice(json)?;
        let request: Request<'a> = serde_json::from_str(wire.request_meta.get())?;
        let (source, Named(extra)) = (request.source, request.extra_data);
        let is_network = |name: &str, json: &RawValue| name == "network" && json.get().starts_with('{');
        let (network, request): (Vec<_>, Vec<_>) = extra.into_iter().partition(|(name, json)| is_network(name, json));
        let network = network.first().map(|(_, json)| json.get());
        let mut nodes = nodes(wire.results)?;
        let errors = share_out(wire.errors, &mut nodes)?;
        let mut members = vec![("request_meta", wire.request_meta.get()), ("decorators", wire.decorators.get())];
        members.extend([("complete", if wire.complete { "true" } else { "false" })]);
        members.extend(wire.findings.map(|findings| ("findings", findings.get())));
        members.push(("engine", wire.engine.get()));
        members.extend(wire.replay_of.map(|scan| ("replay_of", scan.get())));
        let time = moment(&wire.time).ok_or_else(|| serde_json::Error::custom(format!("time {:?}", wire.time)))?;
        let (scan_id, tenant) = (wire.scan_id, wire.tenant);
        Ok(Self { scan_id, time, tenant, source, network, request, members, nodes, errors })
    }

    /// A member of the response, for a document of the payload at `place`; `None` where it is too large to be repeated.
    pub(super) fn shared(&self, name: &str, place: usize) -> Option<&'a str> {
        let (_, json) = self.members.iter().find(|(n, _)| *n == name)?;
        (place == 0 || json.len() <= MAX_SHARED).then_some(*json)
    }

    /// Bytes of what is said of the request.
    pub(super) fn request_bytes(&self) -> usize {
        self.request.iter().map(|(name, json)| name.len() + json.get().len()).sum()
    }

    /// Whether something about the whole scan is left out of documents of the payload at `place`.
    pub(super) fn is_cut(&self, place: usize) -> bool {
        place != 0 && self.members.iter().any(|(_, json)| json.len() > MAX_SHARED)
    }

    /// Errors for documents of the payload at `place`: its own, and in front those of no payload for the first one.
    pub(super) fn errors(&self, place: usize) -> impl Iterator<Item = &'a str> + '_ {
        let of_none = if place == 0 { self.errors.as_slice() } else { &[] };
        of_none.iter().chain(&self.nodes[place].errors).copied()
    }

    /// The payloads above the one at `place`, root first: at most [`MAX_ANCESTORS`], the root and the nearest ones.
    pub(super) fn above(&self, place: usize) -> Vec<Above<'_>> {
        let mut above = Vec::new();
        let mut below = &self.nodes[place];
        while let Some(parent) = below.parent {
            if above.len() + 1 == MAX_ANCESTORS && parent != self.nodes[place].root {
                // The root's own child is further up than what is carried.
                above.push(self.one_above(self.nodes[place].root, None));
                break;
            }
            above.push(self.one_above(parent, below.by.as_deref()));
            below = &self.nodes[parent];
        }
        above.reverse();
        above
    }

    fn one_above<'s>(&'s self, place: usize, plugin: Option<&'s str>) -> Above<'s> {
        let node = &self.nodes[place];
        Above { id: node.id, sha256: node.sha256(), name: node.name.as_deref(), plugin }
    }

    /// `2026-01-02T03:04:05.678901Z`.
    pub(super) fn timestamp(&self) -> String {
        self.time.iso() + "Z"
    }
}

impl<'a> Node<'a> {
    /// A member's text.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.members.get(name).map(|raw| raw.get())
    }

    /// The digest, as text; `None` if the payload could not be fetched.
    pub(super) fn sha256(&self) -> Option<&'a str> {
        let text = self.get("sha256")?.strip_prefix('"')?.strip_suffix('"')?;
        (!text.contains('\\')).then_some(text)
    }

    /// Results by worker.
    pub(super) fn workers(&self) -> Members<'a> {
        self.read("workers").unwrap_or_default()
    }

    /// A member's value, if it can be read as `T`.
    pub(super) fn read<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?).ok()
    }
}

/// What is needed of each payload's members.
fn nodes(results: Vec<Members<'_>>) -> Result<Vec<Node<'_>>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow)]
        extra_data: Extra<'a>,
    }
    #[derive(Deserialize)]
    struct Extra<'a> {
        #[serde(borrow, default)]
        filename: Option<&'a RawValue>,
    }
    let mut places = HashMap::with_capacity(results.len());
    let mut nodes: Vec<Node<'_>> = Vec::with_capacity(results.len());
    for (place, members) in results.into_iter().enumerate() {
        let get = |name: &'static str| members.get(name).map(|raw| raw.get());
        let id: PayloadId =
            serde_json::from_str(get("payload_id").ok_or_else(|| serde_json::Error::missing_field("payload_id"))?)?;
        let from: Vec<PayloadId> = get("extracted_from").map_or(Ok(Vec::new()), serde_json::from_str)?;
        let by: Vec<String> = get("extracted_by").map_or(Ok(Vec::new()), serde_json::from_str)?;
        let meta: Option<Meta<'_>> = get("payload_meta").and_then(|meta| serde_json::from_str(meta).ok());
        let name = meta.and_then(|meta| serde_json::from_str::<String>(meta.extra_data.filename?.get()).ok());
        let name = name.map(|name| name.chars().take(MAX_NAME).collect());
        // Parents stand in front: payloads come breadth first.
        let parent: Option<usize> = from.first().and_then(|parent| places.get(parent).copied());
        let root = parent.map_or(place, |parent: usize| nodes[parent].root);
        places.insert(id, place);
        nodes.push(Node { id, members, name, parent, by: by.into_iter().next(), root, errors: Vec::new() });
    }
    Ok(nodes)
}

/// Gives errors to their payloads; what is left belongs to none.
fn share_out<'a>(errors: Vec<&'a RawValue>, nodes: &mut [Node<'a>]) -> Result<Vec<&'a str>, serde_json::Error> {
    let places: HashMap<PayloadId, usize> = if errors.is_empty() {
        HashMap::new()
    } else {
        nodes.iter().enumerate().map(|(place, node)| (node.id, place)).collect()
    };
    let mut of_none = Vec::new();
    for error in errors {
        let of: OfPayload = serde_json::from_str(error.get())?;
        match of.payload_id.and_then(|id| places.get(&id)) {
            Some(place) => nodes[*place].errors.push(error.get()),
            None => of_none.push(error.get()),
        }
    }
    Ok(of_none)
}

/// A response's `time`.
fn moment(text: &str) -> Option<Timestamp> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond]");
    let nanos = PrimitiveDateTime::parse(text, &format).ok()?.assume_utc().unix_timestamp_nanos();
    u64::try_from(nanos / 1_000).ok().map(Timestamp)
}
