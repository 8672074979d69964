//! Which server it is.

use serde::Deserialize;
use stoq_api::{Fault, FaultKind};

use crate::common::http::{Nodes, Reply, Request};

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    Elasticsearch,
    OpenSearch,
}

/// The first version numbers that Elasticsearch had and OpenSearch has not reached.
const ELASTIC_FROM: u32 = 5;

impl Flavour {
    /// The type that holds any object as one field.
    pub(super) fn flat(self) -> serde_json::Value {
        match self {
            // Deeper than any result is; and no single value that no index can hold.
            Self::Elasticsearch => serde_json::json!({ "type": "flattened", "depth_limit": 200, "ignore_above": 1024 }),
            Self::OpenSearch => serde_json::json!({ "type": "flat_object" }),
        }
    }
}

#[derive(Deserialize)]
struct Root {
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    distribution: String,
}

#[derive(Deserialize)]
struct NodesInfo {
    nodes: std::collections::BTreeMap<String, Node>,
}

#[derive(Deserialize)]
struct Node {
    version: String,
}

/// Asks which one it is. Not every server tells at its root, so the nodes' own word counts, too.
pub(super) async fn flavour(nodes: &Nodes) -> Result<Flavour, Fault> {
    let reply = nodes.send(&Request::new("GET", "/")).await?;
    if let Ok(Root { version }) = serde_json::from_slice(&reply.body) {
        let open = version.distribution == "opensearch";
        return Ok(if open { Flavour::OpenSearch } else { Flavour::Elasticsearch });
    }
    let reply = nodes.send(&Request::new("GET", "/_nodes/_local?filter_path=nodes.*.version")).await?;
    if !reply.is_success() {
        return Err(reply.fault("the question for its version"));
    }
    let version =
        serde_json::from_slice::<NodesInfo>(&reply.body).ok().and_then(|info| info.nodes.into_values().next());
    let major = version.and_then(|node| node.version.split('.').next()?.parse::<u32>().ok());
    match major {
        Some(major) if major >= ELASTIC_FROM => Ok(Flavour::Elasticsearch),
        Some(_) => Ok(Flavour::OpenSearch),
        None => {
            let text = format!("{} is neither Elasticsearch nor OpenSearch: {}", reply.place, reply.words());
            Err(Fault::new(FaultKind::Misconfigured, text))
        }
    }
}

/// Whether it answers and knows us. A user who may only write is refused its version, and known all the same.
pub(super) fn is_known(reply: &Reply) -> Result<(), Fault> {
    match reply.status {
        200..=299 | 403 | 405 => Ok(()),
        _ => Err(reply.fault("the question whether it is there")),
    }
}
