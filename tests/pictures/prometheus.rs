//! A real Prometheus that scrapes a fleet, and what it answers to the expressions of dashboards.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use stoq_testkit::services::Service;

use crate::support::text;

/// Seconds between two scrapes, and between two evaluations of the rules.
const EVERY: u64 = 2;

/// The server.
pub(crate) struct Prometheus {
    service: Service,
    client: reqwest::Client,
}

impl Prometheus {
    /// Starts it. It scrapes `targets`, each under its name, and evaluates the rules of that file.
    pub(crate) async fn start(rules: &Path, targets: &[(String, SocketAddr)]) -> Self {
        let targets: Vec<Value> = targets
            .iter()
            .map(|(name, address)| json!({ "targets": [address.to_string()], "labels": { "instance": name } }))
            .collect();
        // JSON is YAML.
        let configuration = json!({
            "global": { "scrape_interval": format!("{EVERY}s"), "evaluation_interval": format!("{EVERY}s") },
            "rule_files": [text(rules)],
            "scrape_configs": [{ "job_name": "stoq", "static_configs": targets }],
        });
        let mut service = Service::new(
            "prometheus",
            1,
            move |place| {
                let file = place.directory.join("prometheus.yml");
                fs::write(&file, configuration.to_string()).unwrap();
                let mut command = Command::new("prometheus");
                command
                    .arg(format!("--config.file={}", text(&file)))
                    .arg(format!("--storage.tsdb.path={}", text(&place.directory.join("data"))))
                    .arg(format!("--web.listen-address=127.0.0.1:{}", place.ports[0]));
                command
            },
            |place| {
                Box::pin(async move {
                    let answer = reqwest::get(format!("http://127.0.0.1:{}/-/ready", place.ports[0])).await;
                    answer.is_ok_and(|answer| answer.status().is_success())
                })
            },
        );
        service.start().await;
        Self { service, client: reqwest::Client::new() }
    }

    /// The data of an answer to a question.
    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut url = reqwest::Url::parse(&format!("http://127.0.0.1:{}/api/v1/{path}", self.service.port(0))).unwrap();
        url.query_pairs_mut().extend_pairs(parameters);
        let answer = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].take()
    }

    /// What every panel of a dashboard shows from `start` to `end`, in seconds: for each panel the answers to its
    /// expressions, with the dashboard's variables set to all that there is.
    pub(crate) async fn answers(&self, board: &Value, (start, end): (u64, u64), step: u64) -> Value {
        let mut variables = Vec::new();
        for variable in board["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["query"]["query"].as_str() {
                variables.push((format!("${}", variable["name"].as_str().unwrap()), self.values(query).await));
            }
        }
        let [from, to, every] = [start, end, step].map(|seconds| seconds.to_string());
        let mut panels = serde_json::Map::new();
        for panel in board["panels"].as_array().unwrap() {
            let mut answers = Vec::new();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().unwrap();
                let filled = variables.iter().fold(expression.to_owned(), |text, (name, all)| text.replace(name, all));
                let range = [
                    ("query", filled.as_str()),
                    ("start", from.as_str()),
                    ("end", to.as_str()),
                    ("step", every.as_str()),
                ];
                answers.push(self.ask("query_range", &range).await["result"].take());
            }
            panels.insert(panel["id"].to_string(), answers.into());
        }
        json!({ "start": start, "end": end, "step": step, "panels": panels })
    }

    /// All values of a variable, as Grafana puts them into an expression. Its query is `label_values(SERIES, LABEL)`.
    async fn values(&self, query: &str) -> String {
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (series, label) = inner.rsplit_once(", ").unwrap();
        let found = self.ask(&format!("label/{label}/values"), &[("match[]", series)]).await;
        let names: Vec<&str> = found.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert!(!names.is_empty(), "{query}: there is nothing");
        format!("({})", names.join("|"))
    }
}
