//! The chart on a real control plane, scaled by a real broker: from nothing to as many as there is work for, and back.
//!
//! `cargo xtask k8s` builds Kubernetes and KEDA and runs this. Pods run as processes beside them, see `kubelet`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]
#![expect(clippy::print_stdout, reason = "the figures of a run are what it is for")]

mod api;
mod control;
mod kubelet;
#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod timeline;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stoq_api::queue::{Message, Queue};
use stoq_testkit::services::{VersityGw, cached};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::control::{Cluster, condition};
use crate::kubelet::{Kubelet, Tallies, cpu_of};
use crate::servers::{PASSWORD, Servers, replaced};
use crate::support::{files, text};
use crate::timeline::{Moment, ROLES, table};

/// The namespace of the fleet, which admits only pods of the restricted standard.
const NAMESPACE: &str = "scanning";
/// The chart, and the example that it is installed with.
const CHART: &str = "helm/stoq";
const EXAMPLE: &str = "helm/stoq/examples/kind";
/// Other people's queue, and how the broker calls it.
const OTHERS: &str = "others";
const INTAKE_QUEUE: &str = "others.intake.main";
/// Payloads of a run, unless `K8S_PAYLOADS` says otherwise.
const PAYLOADS: usize = 20_000;
/// A part that comes at the end and slowly, so that the fleet shrinks while there is work.
const TAIL: usize = 5;
const TAIL_TIME: Duration = Duration::from_secs(60);
/// References published at a time.
const PUBLISH: usize = 100;
/// One of so many payloads is an archive.
const ARCHIVE: usize = 50;
/// Most processes of each role.
const MOST: [u64; 3] = [2, 4, 2];
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long a whole run may take, and each step of preparing it.
const LIMIT: Duration = Duration::from_secs(1_800);
const PATIENCE: Duration = Duration::from_secs(240);
/// Between two questions whether something has come about.
const ASK: Duration = Duration::from_millis(100);

/// Waits until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let limit = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < limit, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(ASK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kubernetes and KEDA, which `cargo xtask k8s` builds before it runs this"]
async fn a_burst_scales_the_fleet_up_and_back_to_nothing() {
    let payloads =
        std::env::var("K8S_PAYLOADS").map_or(PAYLOADS, |text| text.parse().expect("K8S_PAYLOADS is a number"));
    let program = std::env::var_os("K8S_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_stoq").into(), PathBuf::from);
    let dir = tempfile::Builder::new().prefix("stoq-k8s-run-").tempdir().unwrap();
    let (cluster, mut servers) = tokio::join!(Cluster::start(), Servers::start());
    println!("a control plane, RabbitMQ, Redis and S3 are ready");

    let pods = dir.path().join("pods");
    std::fs::create_dir(&pods).unwrap();
    let kubelet = Kubelet::new(&cluster.api, NAMESPACE, &program, &pods);
    let tallies = kubelet.tallies();
    let stop = CancellationToken::new();
    prepare(&cluster.api, &servers).await;
    // Neither a provider nor KEDA can do without it.
    let intake = servers.intake("stoq", OTHERS).await;
    let mut kubelet = tokio::spawn(kubelet.run(stop.clone()));
    let results = dir.path().join("results");
    let installed = install(&cluster, &servers, dir.path(), &results);
    tokio::select! {
        () = installed => {}
        ended = &mut kubelet => panic!("the kubelet ended: {ended:?}"),
    }

    let run = Run { api: cluster.api.clone(), tallies: Arc::clone(&tallies), results, payloads };
    let before = servers.groups().map(|(name, group)| (name, cpu_of(group)));
    let moments = tokio::select! {
        moments = run.burst(intake) => moments,
        ended = &mut kubelet => panic!("the kubelet ended: {ended:?}"),
    };
    for ((name, group), (_, before)) in servers.groups().into_iter().zip(before) {
        println!("{name}: {:?} of a processor for a payload", run.each(cpu_of(group).saturating_sub(before)));
    }
    if let Some(path) = std::env::var_os("K8S_TIMELINE") {
        std::fs::write(path, table(&moments)).unwrap();
    }
    run.look_back(&moments);
    // With all roles at rest, the chart's own test: every lane and the ledger, read as the fleet would.
    helm(&cluster, &["test", "stoq", "--namespace", NAMESPACE]).await;
    stop.cancel();
    kubelet.await.unwrap();
    let tallies = tallies.lock().unwrap().clone();
    for (role, tally) in &tallies {
        println!("{role}: {:?} of a processor for a payload; {tally:?}", run.each(tally.cpu));
        assert!(tally.faults.is_empty(), "{role}: {:#?}", tally.faults);
    }
    for role in ROLES {
        assert_eq!(tallies[role].drained, tallies[role].started, "{role}: each was asked to end, and did");
    }
    assert_eq!(tallies["setup"].started, 1);
}

/// The example's configuration with these servers in it, and a sink whose documents can be counted.
fn configuration(servers: &Servers, results: &Path) -> String {
    let text = servers.adapt(&std::fs::read_to_string(tree(EXAMPLE).join("stoq.toml")).unwrap());
    let text = replaced(&text, "queue = \"intake\"", &format!("queue = \"{INTAKE_QUEUE}\""));
    let sink = format!("[connectors.files.filedir]\nresults_dir = \"{}\"", support::text(results));
    replaced(&text, "[connectors.show.stdout]", &sink)
}

/// A path of the source tree.
fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap().join(path)
}

/// What has to be there before the chart: the namespace, and Secrets that nobody puts into values.
async fn prepare(api: &Api, servers: &Servers) {
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    api.create("/api/v1/namespaces", &json!({ "metadata": { "name": NAMESPACE, "labels": labels } })).await;
    let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let services = json!({ "rabbitmq": PASSWORD, "redis": PASSWORD, "s3": VersityGw::SECRET_KEY });
    let keda = json!({ "uri": servers.lanes() });
    for (name, data) in [("stoq-services", services), ("stoq-keda", keda)] {
        api.create(&secrets, &json!({ "metadata": { "name": name }, "stringData": data })).await;
    }
}

/// Values beside those of the example: every role is scaled by what waits for it.
fn values() -> Value {
    let scaled =
        |role: usize, messages: u64| json!({ "enabled": true, "min": 0, "max": MOST[role], "messages": messages });
    let mut provider = scaled(0, 1);
    provider["extraTriggers"] = json!([{
        "type": "rabbitmq",
        "metadata": { "protocol": "amqp", "queueName": INTAKE_QUEUE, "mode": "QueueLength", "value": "5000" },
        "authenticationRef": { "name": "stoq" },
    }]);
    json!({
        "providers": { "default": { "plugins": ["intake"], "autoscaling": provider } },
        "workers": { "default": { "autoscaling": scaled(1, 50) } },
        "connectors": { "default": { "plugins": ["files"], "autoscaling": scaled(2, 200) } },
        // Patience is five minutes by default, which nobody wants to watch.
        "autoscaling": {
            "kind": "keda", "broker": "rabbitmq", "pollingInterval": 2, "cooldownPeriod": 15,
            "rabbitmq": { "secret": "stoq-keda" },
        },
    })
}

/// Has helm do something.
async fn helm(cluster: &Cluster, words: &[&str]) -> String {
    let mut helm = tokio::process::Command::new(cached("helm-3.22.0", "helm"));
    helm.args(words).env("KUBECONFIG", &cluster.kubeconfig).env("HOME", "/nonexistent").kill_on_drop(true);
    let done = helm.output().await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "helm {words:?}: {said}{}", String::from_utf8_lossy(&done.stderr));
    said
}

/// Installs the chart, and waits until everything that scales is ready to.
async fn install(cluster: &Cluster, servers: &Servers, dir: &Path, results: &Path) {
    let (config, more) = (dir.join("stoq.toml"), dir.join("values.yaml"));
    std::fs::write(&config, configuration(servers, results)).unwrap();
    std::fs::write(&more, values().to_string()).unwrap();
    let (chart, example) = (tree(CHART), tree(EXAMPLE).join("values.yaml"));
    let config = format!("config={}", text(&config));
    let words = ["install", "stoq", text(&chart), "--namespace", NAMESPACE, "--values", text(&example)];
    let said = helm(cluster, &[&words[..], &["--values", text(&more), "--set-file", &config]].concat()).await;
    println!("{}", said.lines().take(4).collect::<Vec<_>>().join("; "));
    let path = format!("/apis/keda.sh/v1alpha1/namespaces/{NAMESPACE}/scaledobjects");
    eventually("KEDA has taken up what is to be scaled", || async {
        let objects = cluster.api.list(&path).await;
        objects.len() == ROLES.len() && objects.iter().all(|object| condition(object, "Ready"))
    })
    .await;
    eventually("nothing runs, since nothing waits", || async { desired(&cluster.api).await == [0, 0, 0] }).await;
}

/// How many the Deployments ask for.
async fn desired(api: &Api) -> [u64; 3] {
    let deployments = api.list(&format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments")).await;
    ROLES.map(|role| {
        let name = format!("stoq-{role}-default");
        let found = deployments.iter().find(|deployment| deployment["metadata"]["name"] == *name);
        found.unwrap_or_else(|| panic!("no Deployment {name}"))["spec"]["replicas"].as_u64().unwrap()
    })
}

/// A burst, and what comes of it.
struct Run {
    api: Api,
    tallies: Tallies,
    results: PathBuf,
    payloads: usize,
}

impl Run {
    /// Publishes everything and looks on until all is done and nothing runs.
    async fn burst(&self, intake: Arc<dyn Queue>) -> Vec<Moment> {
        let start = Instant::now();
        let mut moments: Vec<Moment> = Vec::new();
        let at_once = self.payloads - self.payloads / TAIL;
        let mut published = 0;
        let mut next = tokio::time::interval(LOOK);
        let mut tail = None;
        loop {
            next.tick().await;
            let late =
                || format!("not done within {LIMIT:?}: {:?}\n{:#?}", moments.last(), self.tallies.lock().unwrap());
            assert!(start.elapsed() < LIMIT, "{}", late());
            let due = match tail {
                // A second before, so that the plot shows from where it went.
                _ if moments.len() < 3 => 0,
                None => at_once,
                Some(since) => at_once + share(self.payloads - at_once, Instant::elapsed(&since)),
            };
            while published < due {
                let upto = due.min(published + PUBLISH);
                intake.publish((published..upto).map(reference).collect()).await.unwrap();
                published = upto;
            }
            let moment = self.look(start, published).await;
            // The rest begins once most of what came at once is done.
            if published >= at_once && tail.is_none() && moment.open < at_once / TAIL {
                tail = Some(Instant::now());
            }
            let done =
                published == self.payloads && moment.open == 0 && moment.desired == [0; 3] && moment.running == [0; 3];
            if moments.len().is_multiple_of(10) || done {
                println!("{moment:?}");
            }
            moments.push(moment);
            if done {
                return moments;
            }
        }
    }

    /// The part of a payload in what was used for all.
    fn each(&self, all: Duration) -> Duration {
        all / u32::try_from(self.payloads).unwrap()
    }

    async fn look(&self, start: Instant, published: usize) -> Moment {
        let desired = desired(&self.api).await;
        let tallies = self.tallies.lock().unwrap();
        let running = ROLES.map(|role| tallies.get(role).map_or(0, |tally| tally.running));
        let open = published - documents(&self.results).count();
        Moment { at: start.elapsed(), open, desired, running }
    }

    /// Each payload has one document, and the fleet was as large as it should have been.
    fn look_back(&self, moments: &[Moment]) {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for path in documents(&self.results) {
            let response: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(response["complete"], true, "{response:#}");
            *found.entry(support::name_of(&response)).or_default() += 1;
        }
        let missing: Vec<usize> = (0..self.payloads).filter(|n| !found.contains_key(&name(*n))).collect();
        assert!(missing.is_empty(), "{} payloads have no document: {:.500?}", missing.len(), missing);
        let twice: Vec<_> = found.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty() && found.len() == self.payloads, "more than one document: {twice:?}");

        let most =
            |of: fn(&Moment) -> [u64; 3], role: usize| moments.iter().map(|m| of(m)[role]).max().unwrap_or_default();
        for (n, role) in ROLES.iter().enumerate() {
            let desired = most(|moment| moment.desired, n);
            let running = most(|moment| moment.running.map(|count| count as u64), n);
            println!("{role}: {desired} asked for at most, {running} ran");
            assert!(desired >= 1 && desired <= MOST[n], "{role}: {desired} asked for");
            assert!(running >= desired, "{role}: {desired} asked for, {running} ran at most");
        }
        assert_eq!(most(|moment| moment.desired, 1), MOST[1], "a burst takes all workers that it may");
        let shrunk = moments.windows(2).find(|pair| pair[1].desired[1] < pair[0].desired[1]);
        let open = shrunk.map_or(0, |pair| pair[1].open);
        let last = moments.last().map_or(Duration::ZERO, |moment| moment.at);
        println!(
            "{} documents of {} payloads; {open} were open when the first worker was let go; {last:.1?} in all",
            found.len(),
            self.payloads
        );
    }
}

/// The part of `all` that is due after that time.
fn share(all: usize, time: Duration) -> usize {
    let millis = |time: Duration| usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
    all * millis(time.min(TAIL_TIME)) / millis(TAIL_TIME)
}

fn name(n: usize) -> String {
    format!("{n}.bin")
}

fn reference(n: usize) -> Message {
    let content = if n.is_multiple_of(ARCHIVE) {
        files::zip(&[("inner.txt".to_owned(), format!("inside of {n}").into_bytes())])
    } else {
        format!("payload {n}\n").repeat(20).into_bytes()
    };
    let body = json!({ "payload": { "base64": STANDARD.encode(content), "filename": name(n) } });
    Message::new(format!("reference-{n}"), serde_json::to_vec(&body).unwrap())
}

/// The documents that were written.
fn documents(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    // One that is being written has another name until it is whole.
    entries.map(|entry| entry.path()).filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
}
