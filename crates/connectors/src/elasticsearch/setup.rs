//! Index templates and retention, for `stoq setup`.

use serde_json::{Value, json};
use stoq_api::queue::{Part, PartState};
use stoq_api::{Fault, FaultKind, Sha256};

use super::config::Validated;
use super::mapping;
use super::server::{self, Flavour};
use crate::common::http::{Nodes, Request};

const JSON: &str = "application/json";
/// Above the servers' own templates, below what an operator writes for a special case.
const PRIORITY: u32 = 300;
/// When a data stream begins a new index.
const ROLLOVER: &str = "50gb";

/// Says what is there; with `make`, makes what is missing.
pub(super) async fn run(config: &Validated, nodes: &Nodes, make: bool) -> Result<Vec<Part>, Fault> {
    let flavour = server::flavour(nodes).await?;
    let mut parts = Vec::new();
    // First the policy: the template names it.
    if config.retention_days > 0 {
        parts.push(one(nodes, &Thing::policy(config, flavour), make).await?);
    }
    if config.template {
        parts.push(one(nodes, &Thing::template(config, flavour), make).await?);
    }
    Ok(parts)
}

/// Something to be installed.
struct Thing {
    what: String,
    target: String,
    /// How it is sent.
    body: Value,
    /// Where the answer to a question holds what [`Thing::mark`] should be.
    mark_at: String,
    mark: Value,
    /// What to do where the server has no such thing.
    otherwise: &'static str,
}

impl Thing {
    fn template(config: &Validated, flavour: Flavour) -> Self {
        let name = config.names.prefix();
        let mut settings = json!({ "number_of_shards": config.shards, "number_of_replicas": config.replicas });
        if config.retention_days > 0 && flavour == Flavour::Elasticsearch {
            settings["index.lifecycle.name"] = name.clone().into();
        }
        let template = json!({ "settings": settings, "mappings": mapping::of(config.model, flavour) });
        let mut body = json!({
            "index_patterns": [config.names.pattern()], "priority": PRIORITY, "template": template,
        });
        if config.names.data_stream {
            body["data_stream"] = json!({});
        }
        // A digest of what was installed tells whether it is what would be installed now, whatever form the server keeps.
        let mark: Value = Sha256::of(body.to_string().as_bytes()).to_string().into();
        body["_meta"] = json!({ "managed_by": "stoq", "digest": mark });
        Self {
            what: format!("index template {name} for {}", config.names.pattern()),
            target: format!("/_index_template/{name}"),
            body,
            mark_at: "/index_templates/0/index_template/_meta/digest".to_owned(),
            mark,
            otherwise: "it needs Elasticsearch 8 or OpenSearch 2, or newer",
        }
    }

    fn policy(config: &Validated, flavour: Flavour) -> Self {
        let (name, days) = (config.names.prefix(), config.retention_days);
        let age = format!("{days}d");
        let otherwise = "set retention = \"0 s\" and have indices deleted by other means";
        let roll = config.names.data_stream;
        match flavour {
            // https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-ilm-put-lifecycle
            Flavour::Elasticsearch => {
                let hot = if roll {
                    json!({ "rollover": { "max_primary_shard_size": ROLLOVER, "max_age": "30d" } })
                } else {
                    json!({})
                };
                Self {
                    what: format!("lifecycle policy {name}, {days} days"),
                    target: format!("/_ilm/policy/{name}"),
                    body: json!({ "policy": { "phases": {
                        "hot": { "actions": hot },
                        "delete": { "min_age": age, "actions": { "delete": {} } },
                    } } }),
                    mark_at: format!("/{name}/policy/phases/delete/min_age"),
                    mark: age.into(),
                    otherwise,
                }
            }
            // https://docs.opensearch.org/latest/im-plugin/ism/policies/
            Flavour::OpenSearch => {
                let actions = if roll {
                    json!([{ "rollover": { "min_primary_shard_size": ROLLOVER, "min_index_age": "30d" } }])
                } else {
                    json!([])
                };
                let to_delete = json!([{ "state_name": "delete", "conditions": { "min_index_age": age } }]);
                Self {
                    what: format!("state management policy {name}, {days} days"),
                    target: format!("/_plugins/_ism/policies/{name}"),
                    body: json!({ "policy": {
                        "description": "deletes what stoq wrote when it is old",
                        "default_state": "hot",
                        "states": [
                            { "name": "hot", "actions": actions, "transitions": to_delete },
                            { "name": "delete", "actions": [{ "delete": {} }], "transitions": [] },
                        ],
                        "ism_template": [{ "index_patterns": [config.names.pattern()], "priority": PRIORITY }],
                    } }),
                    mark_at: "/policy/states/0/transitions/0/conditions/min_index_age".to_owned(),
                    mark: age.into(),
                    otherwise,
                }
            }
        }
    }
}

async fn one(nodes: &Nodes, thing: &Thing, make: bool) -> Result<Part, Fault> {
    let reply = nodes.send(&Request::new("GET", &thing.target)).await?;
    let state = match reply.status {
        200..=299 => {
            let there: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            match there.pointer(&thing.mark_at) {
                Some(mark) if *mark == thing.mark => PartState::Present,
                _ => PartState::Different(
                    "it was made by somebody else, with other options or by another version: keep it, or delete it and \
                     run `stoq setup` again"
                        .to_owned(),
                ),
            }
        }
        404 => PartState::Missing,
        400 | 405 => PartState::Different(format!("this server has no such thing; {}", thing.otherwise)),
        _ => return Err(reply.fault(&format!("the question for the {}", thing.what))),
    };
    if make && state == PartState::Missing {
        let request = Request::new("PUT", &thing.target).with(JSON, thing.body.to_string());
        let reply = nodes.send(&request).await?;
        if !reply.is_success() {
            let fault = reply.fault(&format!("the {}", thing.what));
            // Nothing passes by itself that a person asked for.
            let kind = if fault.is_transient() { FaultKind::Unavailable } else { FaultKind::Misconfigured };
            return Err(Fault::new(kind, fault.context));
        }
    }
    Ok(Part { what: thing.what.clone(), state })
}
