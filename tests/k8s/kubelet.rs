//! What a kubelet does of what matters here: pods that are bound to a node run as processes of this machine. They see
//! their ConfigMaps and Secrets, are asked whether they are ready, and get SIGTERM and their grace when they are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stoq_testkit::services::{Port, Process};
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::support::{command, text};

/// Between two looks at what there should be.
const LOOK: Duration = Duration::from_millis(250);
/// Ticks of a second in `/proc`, on every Linux of today.
const TICKS: u64 = 100;
/// The label by which the chart says what a pod is.
const ROLE: &str = "app.kubernetes.io/component";
/// The variable by which the chart says where the probes are; pods of one machine cannot all have the same port.
const LISTEN: &str = "STOQ__HTTP__LISTEN";

/// What happened to pods of a role.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Processes that run, those that are about to end among them.
    pub(crate) running: usize,
    /// Pods that were started.
    pub(crate) started: usize,
    /// Those that ended well after they were asked to, within their grace, and how long the slowest took.
    pub(crate) drained: usize,
    pub(crate) slowest: Duration,
    /// Processor time of all its processes, as far as it was seen: less than a look's worth of each is missing.
    pub(crate) cpu: Duration,
    /// What should not have happened: killed after the grace, ended otherwise, ended without being asked.
    pub(crate) faults: Vec<String>,
}

/// Tallies by role.
pub(crate) type Tallies = Arc<Mutex<BTreeMap<String, Tally>>>;

/// Runs the pods of one namespace.
pub(crate) struct Kubelet {
    api: Api,
    namespace: String,
    program: PathBuf,
    dir: PathBuf,
    pods: BTreeMap<String, Running>,
    tallies: Tallies,
}

/// A pod that runs.
struct Running {
    name: String,
    role: String,
    process: Process,
    probe: Option<String>,
    ready: bool,
    cpu: Duration,
    /// When it was asked to end, and how long it may take.
    asked: Option<(Instant, Duration)>,
    _port: Port,
}

/// A pod that has ended, which stays until somebody removes it.
enum End {
    Removed,
    Stays,
}

impl Kubelet {
    pub(crate) fn new(api: &Api, namespace: &str, program: &Path, dir: &Path) -> Self {
        Self {
            api: api.clone(),
            namespace: namespace.to_owned(),
            program: program.to_owned(),
            dir: dir.to_owned(),
            pods: BTreeMap::new(),
            tallies: Tallies::default(),
        }
    }

    pub(crate) fn tallies(&self) -> Tallies {
        Arc::clone(&self.tallies)
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut over = BTreeSet::new();
        while !stop.is_cancelled() {
            let wanted = self.api.list(&format!("/api/v1/namespaces/{}/pods", self.namespace)).await;
            for pod in &wanted {
                let id = pod["metadata"]["uid"].as_str().unwrap().to_owned();
                let bound = pod["spec"]["nodeName"].is_string();
                if bound && !self.pods.contains_key(&id) && !over.contains(&id) {
                    if pod["metadata"]["deletionTimestamp"].is_string() {
                        self.api.remove(&self.path(pod["metadata"]["name"].as_str().unwrap())).await;
                        over.insert(id);
                    } else {
                        let running = self.start(&id, pod).await;
                        self.pods.insert(id, running);
                    }
                }
            }
            for pod in &wanted {
                let id = pod["metadata"]["uid"].as_str().unwrap();
                if over.contains(id) && pod["metadata"]["deletionTimestamp"].is_string() {
                    self.api.remove(&self.path(pod["metadata"]["name"].as_str().unwrap())).await;
                }
                if let Some(running) = self.pods.remove(id) {
                    match self.tend(running, pod).await {
                        Ok(running) => {
                            self.pods.insert(id.to_owned(), running);
                        }
                        Err(End::Removed | End::Stays) => {
                            over.insert(id.to_owned());
                        }
                    }
                }
            }
            self.count();
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn path(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{name}", self.namespace)
    }

    fn tally(&self, role: &str, change: impl FnOnce(&mut Tally)) {
        change(self.tallies.lock().unwrap().entry(role.to_owned()).or_default());
    }

    fn count(&self) {
        let mut tallies = self.tallies.lock().unwrap();
        tallies.values_mut().for_each(|tally| tally.running = 0);
        for pod in self.pods.values() {
            tallies.entry(pod.role.clone()).or_default().running += 1;
        }
    }

    /// Starts a pod's one container.
    async fn start(&self, id: &str, pod: &Value) -> Running {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let role = pod["metadata"]["labels"][ROLE].as_str().unwrap_or("other").to_owned();
        let root = self.dir.join(id);
        let places = self.mount(pod, &root).await;
        let container = &pod["spec"]["containers"][0];
        let port = Port::claim();
        let listen = format!("127.0.0.1:{}", port.number());
        let words = container["args"].as_array().unwrap();
        let words: Vec<String> = words.iter().map(|word| relocated(word.as_str().unwrap(), &places)).collect();
        let mut process = command(text(&self.program), &words.iter().map(String::as_str).collect::<Vec<_>>());
        process.current_dir(&root);
        for variable in container["env"].as_array().into_iter().flatten() {
            let value = relocated(variable["value"].as_str().unwrap(), &places);
            process.env(variable["name"].as_str().unwrap(), value);
        }
        let probe = container["readinessProbe"]["httpGet"]["path"].as_str();
        if probe.is_some() {
            process.env(LISTEN, &listen);
        }
        let process = Process::spawn(process, &self.dir.join(format!("{name}.log")));
        self.tally(&role, |tally| tally.started += 1);
        let status = json!({ "status": {
            "phase": "Running",
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "podIPs": [{ "ip": "127.0.0.1" }],
            "startTime": pod["metadata"]["creationTimestamp"],
            "conditions": conditions(pod, false),
            "containerStatuses": [container_status(pod, false, &json!({ "running": {} }))],
        }});
        self.api.patch(&format!("{}/status", self.path(&name)), &status).await;
        let probe = probe.map(|path| format!("http://{listen}{path}"));
        Running { name, role, process, probe, ready: false, cpu: Duration::ZERO, asked: None, _port: port }
    }

    /// Puts volumes below `root`, where their mounts are, and says what lies where instead.
    async fn mount(&self, pod: &Value, root: &Path) -> Vec<(String, String)> {
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
        let mut places: Vec<(String, String)> = mounts
            .iter()
            .map(|mount| {
                let path = mount["mountPath"].as_str().unwrap();
                (path.to_owned(), format!("{}{path}", text(root)))
            })
            .collect();
        places.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        for mount in mounts {
            let path = PathBuf::from(format!("{}{}", text(root), mount["mountPath"].as_str().unwrap()));
            let volumes = pod["spec"]["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
            let files = self.files(volume).await;
            match (mount["subPath"].as_str(), files) {
                (Some(name), Some(files)) => {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(&path, relocated(&files[name], &places)).unwrap();
                }
                (None, files) => {
                    fs::create_dir_all(&path).unwrap();
                    for (name, content) in files.unwrap_or_default() {
                        fs::write(path.join(name), content).unwrap();
                    }
                }
                (Some(_), None) => panic!("part of a volume without files: {mount}"),
            }
        }
        places
    }

    /// What lies in a volume; nothing, if that is the pod's own affair.
    async fn files(&self, volume: &Value) -> Option<BTreeMap<String, String>> {
        let namespace = &self.namespace;
        if let Some(name) = volume["configMap"]["name"].as_str() {
            let map = self.api.get(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}")).await;
            return Some(serde_json::from_value(map["data"].clone()).unwrap());
        }
        let name = volume["secret"]["secretName"].as_str()?;
        let secret = self.api.get(&format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await;
        let data: BTreeMap<String, String> = serde_json::from_value(secret["data"].clone()).unwrap();
        let plain = |coded: String| String::from_utf8(STANDARD.decode(coded).unwrap()).unwrap();
        Some(data.into_iter().map(|(name, coded)| (name, plain(coded))).collect())
    }

    /// Looks after a pod: is it ready, has it ended, is it to end?
    async fn tend(&self, mut running: Running, pod: &Value) -> Result<Running, End> {
        if let Some(status) = running.process.exited() {
            return Err(self.ended(running, pod, status).await);
        }
        let cpu = cpu_of(running.process.id());
        let more = cpu.saturating_sub(running.cpu);
        running.cpu += more;
        self.tally(&running.role, |tally| tally.cpu += more);
        let deleted = pod["metadata"]["deletionTimestamp"].is_string();
        match running.asked {
            None if deleted => {
                let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap();
                running.asked = Some((Instant::now(), Duration::from_secs(grace)));
                terminate(running.process.id());
            }
            Some((since, grace)) if since.elapsed() > grace => {
                running.process.kill();
                self.tally(&running.role, |tally| {
                    tally.faults.push(format!("{}: killed after {grace:?}", running.name))
                });
                self.api.remove(&self.path(&running.name)).await;
                return Err(End::Removed);
            }
            _ => {}
        }
        if let Some(probe) = &running.probe {
            let ready = self.api.is_well(probe).await;
            if ready != running.ready {
                running.ready = ready;
                let status = json!({ "status": {
                    "conditions": conditions(pod, ready),
                    "containerStatuses": [container_status(pod, ready, &json!({ "running": {} }))],
                }});
                self.api.patch(&format!("{}/status", self.path(&running.name)), &status).await;
            }
        }
        Ok(running)
    }

    /// A process ended: because it was asked to, or because it was done.
    async fn ended(&self, running: Running, pod: &Value, status: ExitStatus) -> End {
        let Running { name, role, process, asked, .. } = running;
        let once = pod["spec"]["restartPolicy"] == "Never";
        let fault = match asked {
            Some((since, _)) if status.success() => {
                let took = since.elapsed();
                self.tally(&role, |tally| {
                    tally.drained += 1;
                    tally.slowest = tally.slowest.max(took);
                });
                None
            }
            None if once && status.success() => None,
            _ => Some(format!("{name} ended with {status}:\n{:.2000}", process.log())),
        };
        let failed = fault.is_some();
        self.tally(&role, |tally| tally.faults.extend(fault));
        if asked.is_some() {
            self.api.remove(&self.path(&name)).await;
            return End::Removed;
        }
        let phase = if failed { "Failed" } else { "Succeeded" };
        let state = json!({ "terminated": { "exitCode": status.code().unwrap_or(-1) } });
        let change = json!({ "status": {
            "phase": phase,
            "conditions": conditions(pod, false),
            "containerStatuses": [container_status(pod, false, &state)],
        }});
        self.api.patch(&format!("{}/status", self.path(&name)), &change).await;
        End::Stays
    }
}

/// A text with the paths of mounts replaced by where they are.
fn relocated(text: &str, places: &[(String, String)]) -> String {
    places.iter().fold(text.to_owned(), |text, (path, place)| text.replace(path.as_str(), place))
}

fn conditions(pod: &Value, ready: bool) -> Value {
    let truth = |holds: bool| if holds { "True" } else { "False" };
    let one = |name: &str, holds: bool| json!({ "type": name, "status": truth(holds), "lastTransitionTime": pod["metadata"]["creationTimestamp"] });
    json!([one("PodScheduled", true), one("Initialized", true), one("ContainersReady", ready), one("Ready", ready)])
}

fn container_status(pod: &Value, ready: bool, state: &Value) -> Value {
    let container = &pod["spec"]["containers"][0];
    json!({
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "started": true,
        "restartCount": 0,
        "state": state,
    })
}

/// Processor time of a process group, with that of its processes' children that have ended.
pub(crate) fn cpu_of(group: u32) -> Duration {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let ticks = entries.filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses may hold anything; what follows does not: state, parent, group, and so on.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let own = fields.get(2)?.parse() == Ok(group);
        own.then(|| fields[11..15].iter().filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
    });
    Duration::from_millis(ticks.sum::<u64>() * 1_000 / TICKS)
}

fn terminate(pid: u32) {
    let status = Command::new("kill").args(["-s", "TERM", &pid.to_string()]).status().unwrap();
    // One that ended just now is found out at the next look.
    let _gone = status;
}
