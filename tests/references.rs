//! References from strangers, from the queue that they came on to the dead lane: each hostile one is refused with its own
//! reason, its original bytes are kept, and nothing is fetched on its word.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to stop")]

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Map, Value, json};
use stoq_api::backend::OpenQueue;
use stoq_api::fetch::{Buckets, Fetcher};
use stoq_api::plugin::{Archiver, NotTold, Provider, Reference, Root, RootBytes, Taking};
use stoq_api::queue::{Deliveries, Depth, Message, Part, Prefetch, Queue};
use stoq_api::scanner::BuildError;
use stoq_api::task::{Place, RemoteRef};
use stoq_api::{Budgets, Content, Fault, FaultKind, Location, PayloadMeta, RequestMeta, Task, envelope};
use stoq_engine::intake::{Intake, IntakeSettings};
use stoq_engine::lanes::{DEAD, WORKERS};
use stoq_engine::{Lanes, Links, Settings, TenantLanes, dead};
use stoq_memory::{MemoryLedger, MemoryQueue, MemoryStore};
use stoq_providers::{Context, Open, ProviderRegistration};
use stoq_runtime::files::FileRoots;
use stoq_testkit::wait::{must_end, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// Everything that a hostile reference could reach.
struct World {
    _dir: tempfile::TempDir,
    root: PathBuf,
    archive: PathBuf,
    port: u16,
}

/// What intakes of a test open.
struct Parts {
    queue: Arc<MemoryQueue>,
    archive: PathBuf,
}

impl OpenQueue for Parts {
    fn queue(&self, _: &str, _: &str) -> Result<Arc<dyn Queue>, BuildError> {
        Ok(Arc::clone(&self.queue) as Arc<dyn Queue>)
    }
}

impl Open for Parts {
    fn archiver(&self, name: &str) -> Result<Arc<dyn Archiver>, BuildError> {
        let registration = stoq_stores::archivers::registry().into_iter().find(|r| r.info.name == name);
        let options = json!({ "archive_dir": self.archive });
        (registration.unwrap().build)(options.as_object().unwrap(), self)
    }

    fn buckets(&self, _: &str) -> Result<Arc<dyn Buckets>, BuildError> {
        let options = json!({ "bucket": "own", "endpoint": "https://s3.invalid", "access_key_id": "a", "secret_access_key": "b" });
        stoq_stores::buckets("s3", options.as_object().unwrap())
    }
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    let (root, archive) = (base.join("root"), base.join("archive"));
    for folder in [root.join("in"), archive.clone()] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(base.join("secret"), "secret").unwrap();
    std::fs::write(root.join("in/ok"), "fine").unwrap();
    for folder in [&root, &archive] {
        symlink(base.join("secret"), folder.join("link")).unwrap();
        symlink("..", folder.join("up")).unwrap();
    }
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
    World { _dir: dir, root, archive, port: server().await }
}

/// A server of an allowed host that redirects wherever a hostile one would like us to go.
async fn server() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let away = BTreeMap::from([
        ("/loopback", format!("http://localhost:{port}/secret")),
        ("/metadata", "http://169.254.169.254/latest/meta-data/".to_owned()),
        ("/round", "/round".to_owned()),
        ("/file", "file:///etc/passwd".to_owned()),
    ]);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let got = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..got]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            assert_ne!(path, "/secret", "a redirect was followed");
            let head = match away.get(path) {
                Some(to) => format!("302 Found\r\nlocation: {to}"),
                None => "404 Not Found".to_owned(),
            };
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    port
}

fn registration() -> ProviderRegistration {
    stoq_providers::registry().into_iter().find(|r| r.info.name == "queue").unwrap()
}

impl World {
    fn context(&self, queue: &Arc<MemoryQueue>) -> Context {
        Context {
            name: "strangers".to_owned(),
            data_dir: self.root.parent().unwrap().to_owned(),
            lasting: false,
            run_id: String::new(),
            roots: Arc::new(FileRoots::default()),
            workers_see_files: true,
            inline_limit: 64 << 10,
            max_payload: 1 << 20,
            open: Arc::new(Parts { queue: Arc::clone(queue), archive: self.archive.clone() }),
            on_skip: stoq_providers::log_skips(),
        }
    }

    fn options(&self, own: &Value) -> Map<String, Value> {
        let mut options = json!({
            "broker": "b", "queue": "q", "format": "native", "root": self.root, "file_wait": 0,
            "allow_hosts": ["files.example.org", "localhost", "*"], "allow_private": [format!("127.0.0.1:{}", self.port)],
            "allow_buckets": ["carved"], "store": "s", "allow_archivers": ["filedir"], "fetch": "provider",
        });
        let options = options.as_object_mut().unwrap();
        options.extend(own.as_object().unwrap().clone());
        std::mem::take(options)
    }
}

fn links(dead: Arc<dyn Queue>) -> (Arc<Links>, Arc<MemoryStore>) {
    let queue = |name| -> Arc<dyn Queue> { Arc::new(MemoryQueue::new(name)) };
    let lanes = Lanes::new(TenantLanes::plain(queue("children"), queue("roots")), [], queue("results"), dead);
    let store = Arc::new(MemoryStore::new());
    let links = Links::new(lanes, Arc::new(MemoryLedger::new()), Arc::clone(&store) as _, Settings::default());
    (Arc::new(links), store)
}

fn intake(links: &Arc<Links>) -> Intake {
    let settings = IntakeSettings {
        source: "strangers".into(),
        budgets: Budgets::default(),
        start_dispatch: Vec::new(),
        request_meta: RequestMeta::default(),
        tenant: None,
    };
    Intake::new(Arc::clone(links), settings)
}

async fn depth(queue: &dyn Queue, subscription: &str) -> u64 {
    let depth = queue.depth(subscription).await.unwrap();
    depth.ready + depth.held
}

async fn one(queue: &dyn Queue, subscription: &str) -> Message {
    let mut deliveries = queue.subscribe(subscription, Prefetch { messages: 1 }).await.unwrap();
    must_end(subscription, deliveries.next()).await.unwrap().unwrap().written().unwrap().into_owned()
}

/// Sends one message through an intake until it is acknowledged; gives the letter or the task that it became.
async fn pass(world: &World, own: &Value, message: Message) -> Result<Task, Message> {
    let queue = Arc::new(MemoryQueue::new("q"));
    queue.declare(&["stoq"]).await.unwrap();
    queue.publish(vec![message]).await.unwrap();
    let (links, _) = links(Arc::new(MemoryQueue::new("dead")));
    links.lanes.declare(&[]).await.unwrap();
    let mut provider = (registration().build)(&world.options(own), &world.context(&queue)).unwrap();
    let stop = CancellationToken::new();
    let (taking, stopping) = (intake(&links), stop.clone());
    let running = tokio::spawn(async move { taking.run(&mut *provider, &stopping).await });
    until("the message is acknowledged", async || depth(&*queue, "stoq").await == 0).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    if depth(&*links.lanes.dead, DEAD).await > 0 {
        assert_eq!(depth(&*links.lanes.of(None).roots, WORKERS).await, 0, "refused, and scanned all the same");
        return Err(one(&*links.lanes.dead, DEAD).await);
    }
    let mut frames = envelope::decode(&one(&*links.lanes.of(None).roots, WORKERS).await.body).unwrap();
    Ok(*frames.remove(0).task.unwrap())
}

/// Intake options beside the usual ones, the message, and what the reason for its refusal says.
type Case = (Value, Vec<u8>, &'static str);

fn payload(payload: Value) -> Vec<u8> {
    json!({ "payload": payload }).to_string().into_bytes()
}

fn files() -> Vec<Case> {
    let path = |path: &str| payload(json!({ "path": path }));
    let usual = || json!({});
    vec![
        (usual(), path("link"), "is or goes through a symbolic link"),
        (usual(), path("up/secret"), "is or goes through a symbolic link"),
        (usual(), path("../secret"), "leaves its root"),
        (usual(), path("in/../../secret"), "leaves its root"),
        (usual(), path("/etc/passwd"), "leaves its root"),
        (usual(), path("pipe"), "is a named pipe"),
        (json!({ "fetch": "worker" }), path("pipe"), "is a named pipe"),
        (json!({ "fetch": "worker" }), path("socket"), "is a socket"),
        (usual(), path("socket"), "is a socket or device"),
        (json!({ "root": "/dev" }), path("null"), "is a device"),
        (usual(), path("in"), "is a directory"),
        (usual(), path("gone"), "does not exist"),
        (usual(), path("in/ok/x"), "does not exist"),
        (usual(), path(""), "does not exist"),
        (usual(), path("in/ok\0.txt"), "a path that the system does not take"),
        (usual(), path(&"a/".repeat(3_000)), "path is longer than 4096 bytes"),
        (usual(), path(&"n".repeat(300)), "a path that the system does not take"),
        (json!({ "root": "" }), path("in/ok"), "this intake has no root"),
    ]
}

fn urls(port: u16) -> Vec<Case> {
    let url = |url: &str| payload(json!({ "url": url }));
    let usual = || json!({});
    let named = || json!({ "allow_hosts": ["files.example.org"] });
    let hop = |path: &str| url(&format!("http://127.0.0.1:{port}/{path}"));
    vec![
        (named(), url("https://evil.example/a"), "the host \"evil.example\" is not in allow_hosts"),
        (named(), url("https://files.example.org.evil.example/"), "is not in allow_hosts"),
        (named(), url("http://files.example.org:6379/"), "the host \"files.example.org:6379\" is not in allow_hosts"),
        (named(), url("http://files.example.org@127.0.0.1/"), "the URL holds credentials"),
        (named(), url("http://files.example.org\\@127.0.0.1/"), "the URL holds the character '\\\\'"),
        (usual(), url("http://127.0.0.1/"), "127.0.0.1 is loopback"),
        (usual(), url("http://0177.0.0.1/"), "127.0.0.1 is loopback"),
        (usual(), url("http://2130706433/"), "127.0.0.1 is loopback"),
        (usual(), url("http://0x7f000001/"), "127.0.0.1 is loopback"),
        (usual(), url("http://[::1]/"), "[::1] is loopback"),
        (usual(), url("http://[::ffff:127.0.0.1]/"), "is an IPv4 address in the form of IPv6"),
        (usual(), url("http://[fe80::1%25eth0]/"), "not a URL"),
        (usual(), url("http://10.1.2.3/"), "10.1.2.3 is private"),
        (usual(), url("http://100.64.0.1/"), "is shared by a carrier's customers"),
        (usual(), url("http://169.254.169.254/latest/meta-data/"), "169.254.169.254 is link-local"),
        (usual(), url("http://[fd00:ec2::254]/"), "is private"),
        (usual(), url("http://localhost/"), "which is loopback, and is not in allow_private"),
        (usual(), url("file:///etc/passwd"), "the scheme \"file\" is neither http nor https"),
        (usual(), url("gopher://127.0.0.1:6379/_FLUSHALL"), "the scheme \"gopher\" is neither"),
        (usual(), url(&format!("http://files.example.org/{}", "x".repeat(9_000))), "url is longer than 8192 bytes"),
        (usual(), hop("loopback"), "a redirect leads astray: the host \"localhost"),
        (usual(), hop("metadata"), "a redirect leads astray: the address 169.254.169.254 is link-local"),
        (usual(), hop("file"), "a redirect leads astray: the scheme \"file\""),
        (usual(), hop("round"), "more than 5 redirects"),
        (usual(), hop("nothing"), "127.0.0.1 answers 404"),
    ]
}

fn others(world: &World) -> Vec<Case> {
    let format = |format: &str| json!({ "format": format });
    let text = |text: &str| text.as_bytes().to_vec();
    let task = |path: &Path| json!({ "filedir": { "path": path } }).to_string().into_bytes();
    let deep = format!(r#"{{"payload":{{"base64":"","meta":{{"extra_data":{{"a":{}}}}}}}}}"#, "[".repeat(99_999));
    let key = |key: &str| {
        let s3 = json!({ "bucket": { "name": "carved" }, "object": { "key": key } });
        json!({ "Records": [{ "eventName": "s3:ObjectCreated:Put", "s3": s3 }] }).to_string().into_bytes()
    };
    let stored = |digest: &str| {
        let file = json!({ "stored": true, "sha256": digest });
        json!({ "event_type": "fileinfo", "fileinfo": file }).to_string().into_bytes()
    };
    let values =
        format!(r#"{{"payload":{{"base64":""}},"request_meta":{{"extra_data":{{"a":[{}0]}}}}}}"#, "0,".repeat(20_000));
    vec![
        (
            format("stoq_task"),
            text(r#"{"s3":{"bucket":"b","path":"p"}}"#),
            "the archiver \"s3\" is not in allow_archivers",
        ),
        (format("stoq_task"), task(&world.root.join("in/ok")), "is not below archive_dir"),
        (format("stoq_task"), task(&world.archive.join("../secret")), "leaves its root"),
        (format("stoq_task"), task(Path::new("link")), "is or goes through a symbolic link"),
        (format("stoq_task"), text(r#"{"filedir":"/etc/passwd"}"#), "is not an object"),
        (
            json!({}),
            payload(json!({ "bucket": "payroll", "key": "k" })),
            "the bucket \"payroll\" is not in allow_buckets",
        ),
        (
            json!({ "format": "s3", "allow_buckets": ["other"] }),
            key("a"),
            "the bucket \"carved\" is not in allow_buckets",
        ),
        (format("s3"), key("a/../../b"), "the key \"a/../../b\" cannot be asked for"),
        (format("s3"), key("%ff"), "key is not encoded as UTF-8"),
        (format("s3"), key(&"k".repeat(2_000)), "key is longer than 1024 bytes"),
        (format("suricata"), stored("../../../../etc/passwd"), "sha256 is not 64 hexadecimal digits"),
        (format("suricata"), stored(&"a".repeat(64)), "does not exist"),
        (format("zeek"), text(r#"{"fuid":"F","extracted":"../../secret"}"#), "leaves its root"),
        (json!({ "max_message": 100 }), vec![b'x'; 101], "the message has 101 bytes, max_message allows 100"),
        (json!({}), deep.into_bytes(), "nested deeper than 64 levels"),
        (json!({}), values.into_bytes(), "more than 16384 values"),
        (json!({}), text(r#"{"payload":{"base64":""},"payload":{"path":"in/ok"}}"#), "\"payload\" is there twice"),
        (json!({}), text(r#"{"payload":{"path":"in/ok","size":NaN}}"#), "not JSON that can be read"),
        (json!({}), b"{\"payload\":{\"path\":\"\xff\xfe\"}}".to_vec(), "not JSON that can be read"),
        (json!({}), text(r#"{"payload":{"path":"in/ok"},"$serde_json::private::RawValue":"[["}"#), "is reserved"),
        (json!({}), payload(json!({ "base64": " A ".repeat(50_000) })), "its content is not base64"),
        (
            json!({}),
            payload(json!({ "base64": "AAAA", "size": u64::MAX })),
            "base64 has 3 bytes, size says 18446744073709551615",
        ),
        (
            json!({}),
            json!({ "payloads": vec![json!({ "base64": "" }); 65] }).to_string().into_bytes(),
            "at most 64 are taken",
        ),
        (
            json!({}),
            payload(json!({ "base64": "", "filename": "n".repeat(4_097) })),
            "filename is longer than 4096 bytes",
        ),
        (
            json!({}),
            payload(json!({ "base64": "", "meta": { "extra_data": { "a": "x".repeat(70_000) } } })),
            "metadata is longer",
        ),
        (format("auto"), b"MZ\x90\0\x03\0\0\0".to_vec(), "not JSON that can be read"),
        (format("auto"), text(r#"{"payload":{"path":"in/ok"},"fuid":"F"}"#), "it could be any of [Native, Zeek]"),
        (format("auto"), text("[]"), "it is JSON but not an object"),
        (
            format("gcs"),
            text(r#"{"kind":"storage#object","bucket":"carved","name":"k","generation":"../1"}"#),
            "is not a number",
        ),
        (format("stoq_payload"), text(r#"{"_is_payload":true,"_content":"%%%"}"#), "its content is not base64"),
    ]
}

#[tokio::test]
async fn hostile_references_end_on_the_dead_lane_with_their_reason_and_their_bytes() {
    let world = world().await;
    let mut cases = files();
    cases.extend(urls(world.port));
    cases.extend(others(&world));
    assert!(cases.len() >= 40);
    for (number, (options, body, says)) in cases.into_iter().enumerate() {
        let shown = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        let mut message = Message::new(format!("message {number}"), body.clone());
        message.headers.push(("from".into(), "a stranger".into()));
        let letter = match pass(&world, &options, message).await {
            Err(letter) => letter,
            Ok(task) => panic!("{shown} was taken: {task:?}"),
        };
        let reason = letter.header(dead::REASON).unwrap();
        assert!(reason.contains(says), "{shown}: {reason}");
        assert_eq!(&letter.body[..], &body[..], "{shown}");
        assert_eq!(letter.id, format!("message {number}"));
        assert_eq!((letter.header(dead::KIND), letter.header(dead::FROM)), (Some("reference"), Some("strangers")));
        assert_eq!(letter.header("from"), Some("a stranger"));
    }
}

#[tokio::test]
async fn what_only_looks_like_a_reference_is_content() {
    let world = world().await;
    let body = payload(json!({ "path": "in/ok" }));
    let task = pass(&world, &json!({ "format": "raw" }), Message::new("1", body.clone())).await.unwrap();
    assert_eq!((&task.location, &task.inline[..]), (&Location::Inline, &body[..]));
    // The same the other way round: what a file holds is never read as a reference.
    std::fs::write(world.root.join("in/reference"), payload(json!({ "path": "../secret" }))).unwrap();
    let task = pass(&world, &json!({}), Message::new("2", payload(json!({ "path": "in/reference" })))).await.unwrap();
    assert_eq!(&task.inline[..], payload(json!({ "path": "../secret" })));
}

#[tokio::test]
async fn a_worker_trusts_no_provider() {
    let world = world().await;
    let queue = Arc::new(MemoryQueue::new("q"));
    let build = registration().fetcher.unwrap();
    let fetcher: Arc<dyn Fetcher> = build(&world.options(&json!({})), &world.context(&queue)).unwrap();
    let object = |bucket: &str| Place::Object { bucket: bucket.into(), key: "k".into(), version: None, etag: None };
    let asked = |path: &str| json!({ "path": path }).as_object().unwrap().clone();
    for place in [
        Place::Url("http://127.0.0.1/".into()),
        Place::Url("http://localhost/".into()),
        Place::Url(format!("http://127.0.0.1:{}/loopback", world.port)),
        object("payroll"),
        Place::Archive { archiver: "other".into(), task: asked("x") },
        Place::Archive { archiver: "filedir".into(), task: asked("../secret") },
    ] {
        let shown = format!("{place:?}");
        let fault = fetcher.fetch(&RemoteRef { via: "strangers".into(), place, size: None }).await.err();
        assert_eq!(fault.map(|fault| fault.kind), Some(FaultKind::Refused), "{shown}");
    }
}

/// A provider of one reference.
struct Once(Option<Reference>);

#[async_trait]
impl Provider for Once {
    async fn next(&mut self) -> Result<Option<Taking>, Fault> {
        Ok(self.0.take().map(Into::into))
    }
}

#[tokio::test]
async fn metadata_that_no_worker_could_read_is_refused_whoever_brings_it() {
    let (links, _) = links(Arc::new(MemoryQueue::new("dead")));
    links.lanes.declare(&[]).await.unwrap();
    let mut nested = json!([]);
    for _ in 0..64 {
        nested = json!([nested]);
    }
    for in_request in [true, false] {
        let mut request_meta = RequestMeta::default();
        let mut meta = PayloadMeta::default();
        let extra_data = if in_request { &mut request_meta.extra_data } else { &mut meta.extra_data };
        extra_data.insert("deep".into(), nested.clone());
        let root = Root { bytes: RootBytes::Content(Content::from(b"bytes".to_vec())), meta };
        let reference =
            Reference { identity: b"id".to_vec(), roots: vec![root], request_meta, taken: Box::new(NotTold) };
        let intake = intake(&links);
        intake.run(&mut Once(Some(reference)), &CancellationToken::new()).await.unwrap();
        assert_eq!(intake.progress().refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
    assert_eq!(depth(&*links.lanes.of(None).roots, WORKERS).await, 0);
    assert_eq!(depth(&*links.lanes.dead, DEAD).await, 2);
    let letter = one(&*links.lanes.dead, DEAD).await;
    assert_eq!(letter.header(dead::REASON), Some("its metadata is nested deeper than 64 levels"));
    assert_eq!(&letter.body[..], b"bytes");
}

/// A queue that takes small messages only, as most brokers do.
struct Small(MemoryQueue);

#[async_trait]
impl Queue for Small {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        self.0.declare(subscriptions).await
    }

    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault> {
        self.0.inspect(subscriptions).await
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        if messages.iter().any(|message| message.body.len() > 10) {
            return Err(Fault::new(FaultKind::Refused, "the broker takes 10 bytes"));
        }
        self.0.publish(messages).await
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        self.0.subscribe(subscription, prefetch).await
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        self.0.depth(subscription).await
    }
}

#[tokio::test]
async fn a_letter_that_is_too_large_for_the_lane_is_kept_in_the_store() {
    let world = world().await;
    let queue = Arc::new(MemoryQueue::new("q"));
    queue.declare(&["stoq"]).await.unwrap();
    queue.publish(vec![Message::new("large", "not JSON, and more than ten bytes")]).await.unwrap();
    let (links, store) = links(Arc::new(Small(MemoryQueue::new("dead"))));
    links.lanes.declare(&[]).await.unwrap();
    let mut provider = (registration().build)(&world.options(&json!({})), &world.context(&queue)).unwrap();
    let stop = CancellationToken::new();
    let (taking, stopping) = (intake(&links), stop.clone());
    let running = tokio::spawn(async move { taking.run(&mut *provider, &stopping).await });
    until("the message is acknowledged", async || depth(&*queue, "stoq").await == 0).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    let letter = one(&*links.lanes.dead, DEAD).await;
    assert!(letter.body.is_empty() && letter.header(dead::REASON).unwrap().contains("not JSON"));
    let kept = store.kept(letter.header(dead::KEPT).unwrap()).unwrap();
    assert_eq!(&kept[..], b"not JSON, and more than ten bytes");
}
