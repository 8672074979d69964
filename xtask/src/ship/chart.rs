//! The chart: linted and rendered with each example, against the schemas of Kubernetes and our own rules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_yaml_ng::Value;

use super::{SCHEMAS, quietly};
use crate::services;

const CHART: &str = "helm/stoq";
/// The version of Kubernetes that the chart is rendered for.
const KUBERNETES: &str = "1.33.0";
/// Roles that run for ever.
const ROLES: [&str; 3] = ["provider", "worker", "connector"];

/// A value that is misspelt or of the wrong kind, and what the refusal has to name.
const REFUSED: &[(&str, &str)] = &[
    ("workerz.default.replicas=1", "workerz"),
    ("workers.default.replica=1", "replica"),
    ("workers.default.autoscaling.min=-1", "min"),
    ("http.port=80", "port"),
    ("autoscaling.broker=rabbit", "broker"),
    ("image.digest=sha256:abc", "digest"),
];

/// What KEDA 2.21 reads of the triggers that are used here. No schema knows: it takes any key, and overlooks those that it
/// does not know.
const TRIGGERS: &[(&str, &[&str])] = &[
    ("rabbitmq", &["protocol", "queueName", "mode", "value", "vhostName"]),
    ("kafka", &["bootstrapServers", "topic", "consumerGroup", "lagThreshold", "offsetResetPolicy", "sasl", "tls"]),
    ("gcp-pubsub", &["subscriptionName", "mode", "value"]),
    ("prometheus", &["serverAddress", "query", "threshold"]),
];

/// Checks the chart with all of its examples.
pub(crate) fn check(root: &Path) -> Result<()> {
    versions(root)?;
    let helm = services::go_program("helm")?;
    let conform = services::go_program("kubeconform")?;
    let mut examples: Vec<PathBuf> =
        fs::read_dir(root.join(CHART).join("examples"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    examples.sort();
    ensure!(!examples.is_empty(), "{CHART} has no examples");
    for example in &examples {
        let rendered = render(root, &helm, example, &[]).with_context(|| example.display().to_string())?;
        conforms(root, &conform, &rendered).with_context(|| example.display().to_string())?;
        let objects = objects(&rendered)?;
        let problems = house_rules(&objects);
        ensure!(problems.is_empty(), "{}: {}", example.display(), problems.join("\n  "));
    }
    let everything = ["monitoring.podMonitor.enabled=true", "monitoring.rules.enabled=true"];
    let everything = [everything.as_slice(), &["monitoring.dashboards.enabled=true"]].concat();
    let rendered = render(root, &helm, &examples[0], &everything)?;
    conforms(root, &conform, &rendered)?;
    for (given, named) in REFUSED {
        let refused = render(root, &helm, &examples[0], &[given]);
        let Err(error) = refused else { bail!("the chart takes {given}") };
        let text = format!("{error:#}");
        ensure!(text.contains(named) && text.contains("schema"), "of {given} is only said:\n{text}");
    }
    Ok(())
}

/// The chart is of the program's version, and so are the compose files' images.
fn versions(root: &Path) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let named: Value = serde_yaml_ng::from_str(&fs::read_to_string(root.join(CHART).join("Chart.yaml"))?)?;
    for key in ["version", "appVersion"] {
        ensure!(named[key].as_str() == Some(version), "{CHART}/Chart.yaml: {key} is not {version}");
    }
    let compose = fs::read_to_string(root.join("docker/compose.yaml"))?;
    ensure!(
        compose.contains(&format!("image: stoq:{version}\n")),
        "docker/compose.yaml: the image is not stoq:{version}"
    );
    Ok(())
}

fn render(root: &Path, helm: &Path, example: &Path, set: &[&str]) -> Result<String> {
    let values = example.join("values.yaml");
    let config = format!("config={}", example.join("stoq.toml").display());
    let given = |command: &mut Command| {
        command.arg("--values").arg(&values).args(["--set-file", &config, "--kube-version", KUBERNETES]);
        command.args(set.iter().flat_map(|value| ["--set", value])).current_dir(root);
    };
    let mut template = Command::new(helm);
    given(template.args(["template", "stoq", CHART, "--namespace", "scanning"]));
    let rendered = quietly(&mut template)?;
    let mut lint = Command::new(helm);
    given(lint.args(["lint", "--strict", CHART]));
    quietly(&mut lint)?;
    Ok(rendered)
}

pub(super) fn conforms(root: &Path, conform: &Path, rendered: &str) -> Result<()> {
    let file = std::env::temp_dir().join(format!("stoq-chart-{}.yaml", std::process::id()));
    fs::write(&file, rendered)?;
    let place = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", root.join(SCHEMAS).display());
    let mut command = Command::new(conform);
    command.args(["-strict", "-summary", "-schema-location", &place]).arg(&file);
    let done = quietly(&mut command);
    fs::remove_file(&file)?;
    done.map(|_| ())
}

pub(super) fn objects(rendered: &str) -> Result<Vec<Value>> {
    use serde::Deserialize as _;
    let documents = serde_yaml_ng::Deserializer::from_str(rendered);
    let all: Vec<Value> = documents.map(|document| Ok(Value::deserialize(document)?)).collect::<Result<_>>()?;
    Ok(all.into_iter().filter(|object| !object.is_null()).collect())
}

/// The pod that an object makes, its labels and its spec.
fn pod(object: &Value) -> Option<(&Value, &Value)> {
    let template = match object["kind"].as_str()? {
        "Pod" => object,
        "Deployment" | "Job" => &object["spec"]["template"],
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    Some((&template["metadata"]["labels"], &template["spec"]))
}

/// What no schema knows: how pods of this chart have to be.
fn house_rules(objects: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for object in objects {
        problems.extend(triggers(object));
        let Some((labels, spec)) = pod(object) else { continue };
        let name = object["metadata"]["name"].as_str().unwrap_or("?");
        let role = labels["app.kubernetes.io/component"].as_str().unwrap_or("?");
        *seen.entry(role.to_owned()).or_default() += 1;
        let mut expect = |holds: bool, what: &str| {
            if !holds {
                problems.push(format!("{name}: {what}"));
            }
        };
        confined(spec, &mut expect);
        expect(selected(objects, labels), "no policy says what it may reach");
        if ROLES.contains(&role) {
            probed(spec, &mut expect);
            let budgets = objects.iter().filter(|o| o["kind"].as_str() == Some("PodDisruptionBudget"));
            let mut selectors = budgets.map(|o| &o["spec"]["selector"]["matchLabels"]);
            expect(selectors.any(|selector| matches(selector, labels)), "no disruption budget");
        }
    }
    for role in ROLES {
        if !seen.contains_key(role) {
            problems.push(format!("no {role}"));
        }
    }
    problems
}

/// What is wrong with the triggers of a ScaledObject.
pub(super) fn triggers(object: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for trigger in object["spec"]["triggers"].as_sequence().into_iter().flatten() {
        let kind = trigger["type"].as_str().unwrap_or_default();
        let Some((_, known)) = TRIGGERS.iter().find(|(name, _)| *name == kind) else {
            problems.push(format!("a trigger of type {kind:?}, which xtask/src/ship/chart.rs does not know"));
            continue;
        };
        for (key, value) in trigger["metadata"].as_mapping().into_iter().flatten() {
            if !key.as_str().is_some_and(|key| known.contains(&key)) || !value.is_string() {
                problems.push(format!("the trigger {kind} has {key:?}: {value:?}"));
            }
        }
    }
    problems
}

/// The restricted pod security standard, and more.
fn confined(spec: &Value, expect: &mut impl FnMut(bool, &str)) {
    let pod = &spec["securityContext"];
    expect(pod["runAsNonRoot"].as_bool() == Some(true), "may run as root");
    expect(pod["seccompProfile"]["type"].as_str() == Some("RuntimeDefault"), "no seccomp profile");
    expect(spec["automountServiceAccountToken"].as_bool() == Some(false), "gets a token of Kubernetes");
    for list in [&spec["volumes"], &spec["containers"][0]["volumeMounts"], &spec["containers"][0]["env"]] {
        let key = if list[0]["mountPath"].is_string() { "mountPath" } else { "name" };
        let names: Vec<&Value> = list.as_sequence().into_iter().flatten().map(|one| &one[key]).collect();
        let twice = names.iter().enumerate().any(|(at, name)| names[..at].contains(name));
        expect(!twice, &format!("a {key} is there twice: {names:?}"));
    }
    for container in spec["containers"].as_sequence().into_iter().flatten() {
        let own = &container["securityContext"];
        expect(own["allowPrivilegeEscalation"].as_bool() == Some(false), "may gain privileges");
        expect(own["readOnlyRootFilesystem"].as_bool() == Some(true), "may write to its root");
        let dropped = own["capabilities"]["drop"].as_sequence().is_some_and(|all| all.contains(&"ALL".into()));
        expect(dropped, "keeps capabilities");
        expect(!container["resources"]["limits"]["memory"].is_null(), "has no limit of memory");
    }
}

fn probed(spec: &Value, expect: &mut impl FnMut(bool, &str)) {
    let container = &spec["containers"][0];
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        expect(container[probe]["httpGet"]["path"].as_str() == Some(path), &format!("{probe} does not ask {path}"));
    }
    let env = container["env"].as_sequence().into_iter().flatten();
    let grace =
        env.filter(|one| one["name"].as_str() == Some("STOQ__CORE__GRACE")).find_map(|one| one["value"].as_str());
    let grace = grace.and_then(|text| text.strip_suffix(" s")).and_then(|text| text.parse::<u64>().ok());
    let given = spec["terminationGracePeriodSeconds"].as_u64();
    let enough = grace.zip(given).is_some_and(|(grace, given)| given >= grace + 5);
    expect(enough, "is killed before its grace is over");
}

/// Whether a policy that selects these labels does more than deny.
fn selected(objects: &[Value], labels: &Value) -> bool {
    let policies = objects.iter().filter(|object| object["kind"].as_str() == Some("NetworkPolicy"));
    let mut with_rules = policies.filter(|policy| policy["spec"]["egress"].as_sequence().is_some());
    with_rules.any(|policy| matches(&policy["spec"]["podSelector"]["matchLabels"], labels))
}

fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_mapping();
    wanted.is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
}
