//! A control plane of Kubernetes on the loopback address, with KEDA: everything real but the nodes, which kwok keeps alive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use stoq_testkit::services::{Authority, Identity, Place, Service, cached};

use crate::api::{Api, TOKEN};
use crate::eventually;
use crate::support::text;

/// Where `cargo xtask k8s` puts the programs, and what belongs to them.
const CACHE: &str = "k8s-1.36.3-1";
/// KEDA's own namespace.
const KEDA: &str = "keda";
/// Nodes, in two zones.
const NODES: usize = 3;

/// A control plane. Fields end in their order: those that ask before those that answer.
pub(crate) struct Cluster {
    _kwok: Service,
    _adapter: Service,
    _operator: Service,
    _scheduler: Service,
    _controllers: Service,
    _server: Service,
    _etcd: Service,
    pub(crate) api: Api,
    pub(crate) kubeconfig: PathBuf,
    _authorities: [Authority; 2],
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("stoq-k8s-").tempdir().unwrap();
        let (authority, front) = (Authority::new(), Authority::new());
        let etcd = etcd().await;
        let (server, api) = server(dir.path(), &authority, &front, &etcd).await;
        let kubeconfig = kubeconfig(dir.path(), &api, &authority);
        let serving = authority.server();
        let controllers = controllers(&api, &kubeconfig, &serving, dir.path(), &authority).await;
        let scheduler = scheduler(&api, &kubeconfig, &serving).await;
        let kwok = kwok(&api, &kubeconfig, dir.path()).await;
        let (operator, adapter) = keda(&api, &kubeconfig, dir.path(), &authority).await;
        Self {
            _kwok: kwok,
            _adapter: adapter,
            _operator: operator,
            _scheduler: scheduler,
            _controllers: controllers,
            _server: server,
            _etcd: etcd,
            api,
            kubeconfig,
            _authorities: [authority, front],
            _dir: dir,
        }
    }
}

/// One of the programs, in the directory of its place.
fn program(name: &str, place: &Place) -> Command {
    let mut command = Command::new(cached(CACHE, name));
    command.current_dir(&place.directory);
    // What the user's own tools are set to is nothing for these.
    command.env_remove("KUBECONFIG").env("HOME", &place.directory);
    command
}

/// A service that is ready once `url` answers 200; `{n}` there is its port n.
async fn started(
    name: &'static str,
    ports: usize,
    api: &Api,
    url: &'static str,
    flags: impl Fn(&Place, &mut Command) + Send + Sync + 'static,
) -> Service {
    let asking = api.clone();
    let ready = move |place: Place| -> futures::future::BoxFuture<'static, bool> {
        let api = asking.clone();
        Box::pin(async move {
            let url = url.replace("{0}", &place.ports[0].to_string());
            api.is_well(&url).await
        })
    };
    let command = move |place: &Place| {
        let mut command = program(name, place);
        flags(place, &mut command);
        command
    };
    let mut service = Service::new(name, ports, command, ready);
    service.start().await;
    service
}

async fn etcd() -> Service {
    let command = |place: &Place| {
        let [client, peer] = [0, 1].map(|n| format!("http://127.0.0.1:{}", place.ports[n]));
        let mut command = program("etcd", place);
        command
            .args(["--name=n1", "--unsafe-no-fsync", "--data-dir=data"])
            .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=n1={peer}"));
        command
    };
    let ready = |place: Place| -> futures::future::BoxFuture<'static, bool> {
        Box::pin(async move {
            let answer = reqwest::get(format!("http://127.0.0.1:{}/health", place.ports[0])).await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
    };
    let mut service = Service::new("etcd", 2, command, ready);
    service.start().await;
    service
}

async fn server(dir: &Path, authority: &Authority, front: &Authority, etcd: &Service) -> (Service, Api) {
    fs::write(dir.join("tokens.csv"), format!("{TOKEN},admin,admin,\"system:masters\"\n")).unwrap();
    // Tokens of service accounts are signed with any key; whoever checks them wants a certificate of it.
    let accounts = authority.client("service-accounts");
    fs::copy(&accounts.key, dir.join("accounts.pem")).unwrap();
    let serving = authority.server_named(&["localhost", "kubernetes.default.svc", "127.0.0.1", "10.0.0.1"]);
    let asking = front.client("front-proxy");
    let show = |flag: &str, path: &Path| format!("--{flag}={}", text(path));
    let mut flags = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", etcd.port(0)),
        show("tls-cert-file", &serving.certificate),
        show("tls-private-key-file", &serving.key),
        show("client-ca-file", &authority.certificate()),
        show("token-auth-file", &dir.join("tokens.csv")),
        show("service-account-key-file", &accounts.certificate),
        show("service-account-signing-key-file", &dir.join("accounts.pem")),
        show("requestheader-client-ca-file", &front.certificate()),
        show("proxy-client-cert-file", &asking.certificate),
        show("proxy-client-key-file", &asking.key),
    ];
    let fixed = [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--api-audiences=https://kubernetes.default.svc",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ];
    flags.extend(fixed.map(str::to_owned));
    let certificate = authority.certificate();
    let ready = move |place: Place| -> futures::future::BoxFuture<'static, bool> {
        let api = Api::new(place.ports[0], &certificate);
        Box::pin(async move { api.is_well("/readyz").await })
    };
    let command = move |place: &Place| {
        let mut command = program("kube-apiserver", place);
        command.args(&flags).arg(format!("--secure-port={}", place.ports[0]));
        command
    };
    let mut service = Service::new("kube-apiserver", 1, command, ready);
    service.start().await;
    let api = Api::new(service.port(0), &authority.certificate());
    (service, api)
}

/// The file by which programs know the server, and who they are.
fn kubeconfig(dir: &Path, api: &Api, authority: &Authority) -> PathBuf {
    let path = dir.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": {
            "server": api.address(), "certificate-authority": text(&authority.certificate()),
        } }],
        "users": [{ "name": "admin", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "admin" } }],
        "current-context": "test",
    });
    // JSON is YAML.
    fs::write(&path, config.to_string()).unwrap();
    path
}

/// Flags of all programs that belong to the control plane.
fn common(kubeconfig: &Path, serving: &Identity) -> Vec<String> {
    let kubeconfig = text(kubeconfig);
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--tls-cert-file={}", text(&serving.certificate)),
        format!("--tls-private-key-file={}", text(&serving.key)),
        "--bind-address=127.0.0.1".to_owned(),
    ]
}

async fn controllers(api: &Api, kubeconfig: &Path, serving: &Identity, dir: &Path, authority: &Authority) -> Service {
    let mut flags = common(kubeconfig, serving);
    flags.extend([
        format!("--service-account-private-key-file={}", text(&dir.join("accounts.pem"))),
        format!("--root-ca-file={}", text(&authority.certificate())),
    ]);
    let fixed = [
        "--leader-elect=false",
        "--use-service-account-credentials=false",
        "--controllers=*,-nodeipam,-node-route-controller,-service-lb-controller",
        // Of which a run would else mostly consist.
        "--horizontal-pod-autoscaler-sync-period=2s",
    ];
    flags.extend(fixed.map(str::to_owned));
    started("kube-controller-manager", 1, api, "https://localhost:{0}/healthz", move |place, command| {
        command.args(&flags).arg(format!("--secure-port={}", place.ports[0]));
    })
    .await
}

async fn scheduler(api: &Api, kubeconfig: &Path, serving: &Identity) -> Service {
    let flags = common(kubeconfig, serving);
    started("kube-scheduler", 1, api, "https://localhost:{0}/healthz", move |place, command| {
        command.args(&flags).args(["--leader-elect=false", &format!("--secure-port={}", place.ports[0])]);
    })
    .await
}

/// Nodes, and who says for them that they live. What runs on them is nothing of kwok's here: its configuration has no
/// stages of pods.
async fn kwok(api: &Api, kubeconfig: &Path, dir: &Path) -> Service {
    for n in 0..NODES {
        let labels = json!({
            "kubernetes.io/hostname": format!("node-{n}"),
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("zone-{}", n % 2),
        });
        let size = json!({ "cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "110" });
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": format!("node-{n}"), "labels": labels },
            "status": { "allocatable": size, "capacity": size },
        });
        api.create("/api/v1/nodes", &node).await;
    }
    let stages = ["node-initialize.yaml", "node-heartbeat-with-lease.yaml"];
    let stages = stages.map(|name| fs::read_to_string(cached(CACHE, &format!("kwok-stages/{name}"))).unwrap());
    let config = dir.join("kwok.yaml");
    fs::write(&config, stages.join("\n---\n")).unwrap();
    let flags = [
        format!("--config={}", text(&config)),
        format!("--kubeconfig={}", text(kubeconfig)),
        "--manage-all-nodes=true".to_owned(),
        "--node-lease-duration-seconds=40".to_owned(),
        "--node-ip=127.0.0.1".to_owned(),
        "--cidr=10.244.0.0/16".to_owned(),
    ];
    let service = started("kwok", 1, api, "http://127.0.0.1:{0}/healthz", move |place, command| {
        command.args(&flags).arg(format!("--server-address=127.0.0.1:{}", place.ports[0]));
    })
    .await;
    eventually("nodes are ready", || async {
        let nodes = api.list("/api/v1/nodes").await;
        nodes.iter().all(|node| condition(node, "Ready"))
    })
    .await;
    service
}

/// Whether a condition of an object holds.
pub(crate) fn condition(object: &Value, name: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == name && condition["status"] == "True")
}

/// KEDA's operator, and the adapter by which the autoscaler asks it for metrics.
async fn keda(api: &Api, kubeconfig: &Path, dir: &Path, authority: &Authority) -> (Service, Service) {
    for entry in fs::read_dir(cached(CACHE, "keda-crds")).unwrap() {
        let definition = fs::read_to_string(entry.unwrap().path()).unwrap();
        api.create_text("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    }
    eventually("KEDA's kinds are known", || async { api.find("/apis/keda.sh/v1alpha1/scaledobjects").await.is_some() })
        .await;
    api.create("/api/v1/namespaces", &json!({ "metadata": { "name": KEDA } })).await;

    // Each shows the other the same certificate, and asks for it.
    let certificates = dir.join("keda");
    fs::create_dir(&certificates).unwrap();
    let identity = authority.peer_named(&["127.0.0.1", "localhost", "keda-metrics-apiserver.keda.svc"]);
    fs::copy(identity.certificate, certificates.join("tls.crt")).unwrap();
    fs::copy(identity.key, certificates.join("tls.key")).unwrap();
    fs::copy(authority.certificate(), certificates.join("ca.crt")).unwrap();
    let certificates = text(&certificates).to_owned();
    let own = text(kubeconfig).to_owned();

    let surroundings = [("WATCH_NAMESPACE", ""), ("POD_NAMESPACE", KEDA), ("KEDA_CLUSTER_OBJECT_NAMESPACE", KEDA)];
    let flags = [format!("--kubeconfig={own}"), format!("--cert-dir={certificates}")];
    let operator = started("keda-operator", 3, api, "http://127.0.0.1:{0}/readyz", move |place, command| {
        command.envs(surroundings).args(&flags);
        let addresses = ["health-probe", "metrics", "metrics-service"];
        for (name, port) in addresses.iter().zip(&place.ports) {
            command.arg(format!("--{name}-bind-address=127.0.0.1:{port}"));
        }
    })
    .await;

    let flags = [
        format!("--kubeconfig={own}"),
        format!("--authentication-kubeconfig={own}"),
        format!("--authorization-kubeconfig={own}"),
        format!("--lister-kubeconfig={own}"),
        format!("--cert-dir={certificates}"),
        format!("--tls-cert-file={certificates}/tls.crt"),
        format!("--tls-private-key-file={certificates}/tls.key"),
        format!("--metrics-service-address=localhost:{}", operator.port(2)),
        "--bind-address=127.0.0.1".to_owned(),
    ];
    let adapter = started("keda-adapter", 2, api, "https://localhost:{0}/readyz", move |place, command| {
        command.envs(surroundings).args(&flags);
        command.args([format!("--secure-port={}", place.ports[0]), format!("--port={}", place.ports[1])]);
    })
    .await;
    announce(api, adapter.port(0), authority).await;
    (operator, adapter)
}

/// Tells the API server where metrics of others are.
async fn announce(api: &Api, port: u16, authority: &Authority) {
    use base64::Engine as _;
    let service = json!({
        "metadata": { "name": "keda-metrics-apiserver" },
        "spec": { "type": "ExternalName", "externalName": "localhost", "ports": [{ "port": port }] },
    });
    api.create(&format!("/api/v1/namespaces/{KEDA}/services"), &service).await;
    let bundle = base64::engine::general_purpose::STANDARD.encode(fs::read(authority.certificate()).unwrap());
    let metrics = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": { "name": "v1beta1.external.metrics.k8s.io" },
        "spec": {
            "service": { "name": "keda-metrics-apiserver", "namespace": KEDA, "port": port },
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": bundle,
        },
    });
    let path = "/apis/apiregistration.k8s.io/v1/apiservices";
    api.create(path, &metrics).await;
    eventually("metrics of others can be asked for", || async {
        let known = api.get(&format!("{path}/v1beta1.external.metrics.k8s.io")).await;
        condition(&known, "Available")
    })
    .await;
}
