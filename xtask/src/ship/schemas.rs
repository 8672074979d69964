//! `cargo xtask schemas`: writes `helm/schemas` again, one strict JSON schema for each kind that the chart makes.
//!
//! They come from what Kubernetes itself publishes of its API (`api/openapi-spec/swagger.json` of its module) and from the
//! definitions of custom resources in the modules of KEDA and of the Prometheus operator. Strict: a key that is not in the
//! schema is an error, which the API server would only warn of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::SCHEMAS;
use crate::golang;

/// Modules with the definitions, and the versions that the committed schemas were made from.
const KUBERNETES: &str = "k8s.io/kubernetes@v1.36.3";
const KEDA: &str = "github.com/kedacore/keda/v2@v2.21.0";
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";

/// Kinds of Kubernetes' own, as its document calls their definitions.
const KINDS: [&str; 11] = [
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "io.k8s.api.batch.v1.CronJob",
    "io.k8s.api.batch.v1.Job",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Pod",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
];

/// Custom resources: module and file.
const CUSTOM: [(&str, &str); 4] = [
    (KEDA, "config/crd/bases/keda.sh_scaledobjects.yaml"),
    (KEDA, "config/crd/bases/keda.sh_triggerauthentications.yaml"),
    (OPERATOR, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"),
    (OPERATOR, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
];

/// Deepest nesting of a definition that is followed.
const MAX_DEPTH: usize = 60;

/// Writes all of them; needs Go, which fetches the modules.
pub(crate) fn write(root: &Path) -> Result<()> {
    let folder = root.join(SCHEMAS);
    fs::create_dir_all(&folder)?;
    let document = golang::module(golang::go()?, KUBERNETES)?.join("api/openapi-spec/swagger.json");
    let document: Value = serde_json::from_str(&fs::read_to_string(document)?)?;
    let mut definitions = document["definitions"].as_object().context("the document has no definitions")?.clone();
    for (name, definition) in &mut definitions {
        if name.ends_with(".util.intstr.IntOrString") {
            *definition = either("integer");
        } else if name.ends_with(".api.resource.Quantity") {
            *definition = either("number");
        } else {
            strict(definition, MAX_DEPTH);
        }
    }
    for kind in KINDS {
        let known = &definitions[kind]["x-kubernetes-group-version-kind"][0];
        let file = file_name(word(known, "group"), word(known, "version"), word(known, "kind"));
        let mut needed = BTreeSet::from([kind.to_owned()]);
        reach(&definitions[kind], &definitions, &mut needed, MAX_DEPTH);
        let kept: Map<String, Value> = needed.iter().map(|name| (name.clone(), bare(&definitions[name]))).collect();
        save(&folder.join(file), &json!({ "$ref": format!("#/definitions/{kind}"), "definitions": kept }))?;
    }
    for (from, path) in CUSTOM {
        let text = fs::read_to_string(golang::module(golang::go()?, from)?.join(path))?;
        let definition: Value = serde_yaml_ng::from_str(&text)?;
        let spec = &definition["spec"];
        let version = &spec["versions"][0];
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        schema["properties"]["metadata"] = json!({ "type": "object" });
        strict(&mut schema, MAX_DEPTH);
        // What is in metadata is for Kubernetes to know.
        schema["properties"]["metadata"] = json!({ "type": "object" });
        let file = file_name(word(spec, "group"), word(version, "name"), word(&spec["names"], "kind"));
        save(&folder.join(file), &bare(&schema))?;
    }
    Ok(())
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// As kubeconform looks for them: kind, the first word of the group, version.
fn file_name(group: &str, version: &str, kind: &str) -> String {
    let group = group.split('.').next().filter(|word| !word.is_empty());
    let group = group.map_or_else(String::new, |word| format!("{word}-"));
    format!("{kind}-{group}{version}.json").to_lowercase()
}

fn either(other: &str) -> Value {
    json!({ "oneOf": [{ "type": "string" }, { "type": other }] })
}

/// Closes every object whose keys are known, and says what may be a number or a text.
fn strict(value: &mut Value, depth: usize) {
    if depth == 0 {
        return;
    }
    match value {
        Value::Object(map) => {
            if map.get("format").and_then(Value::as_str) == Some("int-or-string")
                || map.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true)
            {
                let Value::Object(new) = either("integer") else { return };
                *map = new;
                return;
            }
            let object = map.get("type").and_then(Value::as_str).is_none_or(|kind| kind == "object");
            let open = map.get("x-kubernetes-preserve-unknown-fields").and_then(Value::as_bool) == Some(true);
            if object && !open && map.get("properties").is_some_and(Value::is_object) {
                map.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            map.values_mut().for_each(|inner| strict(inner, depth - 1));
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| strict(inner, depth - 1)),
        _ => {}
    }
}

/// Adds the names of all definitions that `value` refers to, by whatever way.
fn reach(value: &Value, all: &Map<String, Value>, found: &mut BTreeSet<String>, depth: usize) {
    if depth == 0 {
        return;
    }
    match value {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str).and_then(|text| text.rsplit('/').next());
            if let Some((name, definition)) = name.and_then(|name| all.get_key_value(name))
                && found.insert(name.clone())
            {
                reach(definition, all, found, depth - 1);
            }
            map.values().for_each(|inner| reach(inner, all, found, depth - 1));
        }
        Value::Array(list) => list.iter().for_each(|inner| reach(inner, all, found, depth - 1)),
        _ => {}
    }
}

/// Without what says nothing about validity. A property may be called like one of these, so only texts and what Kubernetes
/// adds are left out.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, inner)| {
                !(key.starts_with("x-kubernetes-") || key.as_str() == "description" && inner.is_string())
            });
            Value::Object(kept.map(|(key, inner)| (key.clone(), bare(inner))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(bare).collect()),
        other => other.clone(),
    }
}

fn save(path: &Path, schema: &Value) -> Result<()> {
    let text = serde_json::to_string(schema)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
