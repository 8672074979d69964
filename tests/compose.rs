//! The fleet of `docker/compose.yaml` without a container engine: its commands, its environment and its configuration, on
//! servers of their own, fed with the samples.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use serde_yaml_ng::Value as Yaml;
use stoq_testkit::services::{Process, Search, SearchOptions, VersityGw};

use crate::servers::{PASSWORD, Servers, replaced};
use crate::support::{PATIENCE, fixture, responses_in, run, stoq, text, until};

const COMPOSE: &str = include_str!("../docker/compose.yaml");
const CONFIGURATION: &str = include_str!("../docker/stoq.toml");
/// Roles that go on until they are told to end.
const ROLES: [&str; 3] = ["worker", "connector", "provider"];
/// How the file says which password it is, unless the user has another.
const DEFAULT: &str = "${STOQ_PASSWORD:-stoq-local}";

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_gets_its_response_and_its_documents() {
    let (servers, search) = tokio::join!(Servers::start(), Search::opensearch(SearchOptions::default()));
    let dir = tempfile::Builder::new().prefix("stoq-compose-").tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    copy_samples(&place("inbox"));
    let mut configuration = servers.adapt(CONFIGURATION);
    for (old, new) in [
        ("http://opensearch:9200", search.url().as_str()),
        ("/inbox", text(&place("inbox"))),
        ("/var/lib/stoq/results", text(&place("results"))),
    ] {
        configuration = replaced(&configuration, old, new);
    }
    fs::write(place("stoq.toml"), configuration).unwrap();

    let mut compose: Yaml = serde_yaml_ng::from_str(COMPOSE).unwrap();
    compose.apply_merge().unwrap();
    let setup = run(command(&compose, "setup", dir.path(), None)).expect(0);
    assert!(setup.out.contains("made") && setup.out.contains("search"), "{}", setup.out);
    let start = |role: &&str| Process::spawn(command(&compose, role, dir.path(), None), &place(&format!("{role}.log")));
    let mut roles: Vec<Process> = ROLES.iter().map(start).collect();
    let samples = fs::read_dir(place("inbox")).unwrap().count();
    until("all samples have a response", || {
        for role in &mut roles {
            assert!(role.exited().is_none(), "a role ended:\n{}", role.log());
        }
        responses_in(&place("results")).len() >= samples
    });
    let responses = responses_in(&place("results"));
    assert_eq!(responses.len(), samples);
    let payloads: usize = responses.iter().map(|response| response["results"].as_array().unwrap().len()).sum();
    let mut found = 0;
    for _ in 0..PATIENCE.as_secs() {
        search.ask("POST", "/stoq-*/_refresh", "").await;
        let (status, told) = search.ask("GET", "/stoq-*/_count", "").await;
        let told: Value = serde_json::from_str(&told).unwrap();
        found = told["count"].as_u64().unwrap_or_else(|| panic!("{status}: {told}"));
        if found >= payloads as u64 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(found, payloads as u64, "a document for each payload");
    // As `docker compose exec worker stoq status` is run.
    let status = run(command(&compose, "worker", dir.path(), Some(&["status"]))).expect(0);
    assert!(status.out.contains("roots"), "{}", status.out);
    for mut role in roles {
        role.stop(PATIENCE).await;
        assert!(role.exited().is_some_and(|status| status.success()), "{}", role.log());
    }
}

fn copy_samples(to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(fixture("")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What a service runs, or `other` words instead, as the image's entry point with the service's environment.
fn command(compose: &Yaml, service: &str, dir: &Path, other: Option<&[&str]>) -> Command {
    let service = &compose["services"][service];
    let words = |list: &Yaml| -> Vec<String> {
        let list = list.as_sequence().expect("a list of words");
        list.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let words =
        other.map_or_else(|| words(&service["command"]), |other| other.iter().map(|w| (*w).to_owned()).collect());
    let mut command = stoq(&words.iter().map(String::as_str).collect::<Vec<_>>());
    // Of the Dockerfile; a container each, so that nobody shares them.
    let data = dir.join(format!("data-{}", words.join("-")));
    command.env("STOQ__CORE__DATA_DIR", data).env("STOQ__CORE__LOG__FORMAT", "json").current_dir(dir);
    for (name, value) in service["environment"].as_mapping().expect("variables") {
        let (name, value) = (name.as_str().unwrap(), value.as_str().unwrap());
        let value = match name {
            "STOQ_HOME" => text(dir).to_owned(),
            "STOQ__HTTP__LISTEN" => "127.0.0.1:0".to_owned(),
            "STOQ__STORES__PAYLOADS__S3__SECRET_ACCESS_KEY" => replaced(value, DEFAULT, VersityGw::SECRET_KEY),
            _ => replaced(value, DEFAULT, PASSWORD),
        };
        command.env(name, value);
    }
    command
}
