//! `splunk` against a strict server of its protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use stoq_api::{FaultKind, fault};
use stoq_testkit::connector::{ConnectorHarness, Promise, connector_suite, drive, offer, response, responses};
use stoq_testkit::front::{Act, HttpFront};
use stoq_testkit::services::hec::{self, HecServer, Options, Token};
use stoq_testkit::services::{Authority, Identity};
use stoq_testkit::wait::{must_end, until};

use super::*;
use crate::testing::context;

/// Options of a connector to `urls`, with what `more` says.
fn options(urls: &[&str], more: Value) -> Map<String, Value> {
    let mut options = json!({
        "urls": urls, "token": "ours", "ack_poll": 0.02, "timeout": 5.0, "model": "response",
    });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options.as_object().unwrap().clone()
}

fn connector(urls: &[&str], more: Value) -> Arc<dyn Connector> {
    build(&options(urls, more), &context()).unwrap()
}

/// With acknowledgement, and with a token that may write to some indexes only.
fn server_options() -> Options {
    let mut ours = Token::new("ours", true);
    ours.indexes = ["main", "none", "acme"].map(str::to_owned).to_vec();
    let mut off = Token::new("off", true);
    off.disabled = true;
    Options::new(vec![ours, Token::new("takes", false), off])
}

async fn server() -> HecServer {
    HecServer::start(server_options()).await
}

/// Copies of each response, by scan.
fn copies(server: &HecServer) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for event in server.indexed() {
        *copies.entry(event.fields["stoq_scan_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    copies
}

/// The same response as of that tenant.
fn of_tenant(item: &Item, tenant: &str) -> Item {
    let mut json: Value = serde_json::from_slice(&item.json).unwrap();
    json["tenant"] = tenant.into();
    Item { json: serde_json::to_vec(&json).unwrap().into(), ..item.clone() }
}

struct Harness {
    server: HecServer,
    front: HttpFront,
    secure: HecServer,
    stranger: Authority,
    acknowledge: bool,
}

impl Harness {
    async fn start(acknowledge: bool) -> Self {
        let server = server().await;
        let front = HttpFront::start(Some(([127, 0, 0, 1], server.port()).into())).await;
        front.count_only(|method, path| method == "POST" && path == "/services/collector/event");
        let authority = Authority::new();
        let identity = authority.server();
        let secure = HecServer::start(Options { tls: Some(identity), ..server_options() }).await;
        Self { server, front, secure, stranger: Authority::new(), acknowledge }
    }

    fn more(&self) -> Value {
        let token = if self.acknowledge { "ours" } else { "takes" };
        json!({ "token": token, "acknowledge": self.acknowledge, "index": "{tenant}" })
    }
}

#[async_trait]
impl ConnectorHarness for Harness {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn connector(&mut self) -> Arc<dyn Connector> {
        connector(&[&self.front.url()], self.more())
    }

    async fn documents(&mut self) -> BTreeMap<String, usize> {
        copies(&self.server)
    }

    fn refused(&self) -> Option<Item> {
        self.acknowledge.then(|| of_tenant(&response(), "strangers"))
    }

    async fn away(&mut self, away: bool) -> bool {
        if away {
            self.server.down().await;
        } else {
            self.server.up().await;
        }
        true
    }

    async fn unknown(&mut self) -> Option<Arc<dyn Connector>> {
        // Without acknowledgement, readiness asks for the collector's health alone.
        self.acknowledge.then(|| connector(&[&self.front.url()], json!({ "token": "wrong" })))
    }

    fn front(&self) -> Option<&HttpFront> {
        Some(&self.front)
    }

    fn own_faults(&self) -> Vec<Act> {
        let code =
            |status, code| Act::answer(status, "application/json", format!(r#"{{"text":"words","code":{code}}}"#));
        vec![
            code(500, 8),
            code(503, 9),
            code(503, 18),
            code(503, 23),
            code(429, 26),
            code(429, 27),
            // One of four is wrong, and which is not told; or the request is too large for something on the way.
            code(400, 6),
            Act::answer(413, "text/html", "<html>Content-Length too large</html>"),
        ]
    }

    async fn untrusting(&mut self) -> Option<Arc<dyn Connector>> {
        let ca_file = self.stranger.certificate();
        Some(connector(&[&self.secure.url()], json!({ "ca_file": ca_file })))
    }
}

#[tokio::test]
async fn keeps_what_connectors_promise() {
    connector_suite(&mut Harness::start(true).await).await;
}

#[tokio::test]
async fn keeps_what_connectors_promise_without_acknowledgement() {
    connector_suite(&mut Harness::start(false).await).await;
}

#[tokio::test]
async fn nothing_counts_before_it_is_acknowledged() {
    let server = server().await;
    server.hold(true);
    let sink = connector(&[&server.url()], json!({ "ack_timeout": 60.0 }));
    let items = responses(5);
    let mut delivering = Box::pin(sink.deliver(&items));
    tokio::select! {
        biased;
        verdicts = &mut delivering => panic!("nothing is indexed: {verdicts:?}"),
        () = until("questions", async || server.questions() >= 5) => {}
    }
    // Late is early enough: nothing is sent again meanwhile.
    server.index();
    assert_eq!(must_end("an acknowledgement", delivering).await.unwrap(), vec![Verdict::Delivered; 5]);
    assert_eq!((server.posts(), server.count()), (1, 5));
}

#[tokio::test]
async fn what_is_never_acknowledged_is_sent_again_over_another_channel() {
    let server = server().await;
    server.withhold(true);
    let sink = connector(&[&server.url()], json!({ "ack_timeout": 0.2 }));
    let items = responses(3);
    for round in 1..=2 {
        let verdicts = offer(&*sink, &items).await.unwrap();
        let said = |v: &Verdict| matches!(v, Verdict::Retry(why) if why.contains("no acknowledgement of request 0"));
        assert!(verdicts.iter().all(said), "{verdicts:?}");
        assert_eq!((server.channels(), server.count()), (round, 3 * round));
    }
    server.withhold(false);
    for _ in 0..3 {
        drive(&*sink, &items).await;
    }
    assert_eq!(server.channels(), 3, "one on which all is well is used again");
    assert_eq!(copies(&server).into_values().collect::<Vec<_>>(), [5; 3]);
}

/// The indexer forgets what it took, and gives the same numbers again to whoever comes next.
#[tokio::test]
async fn an_indexer_that_forgets_loses_nothing() {
    let mut server = server().await;
    let sink = connector(&[&server.url()], json!({ "ack_timeout": 0.5 }));
    let earlier = responses(2);
    drive(&*sink, &earlier).await;
    server.hold(true);
    let batches: Vec<Vec<Item>> = (0..4).map(|_| responses(3)).collect();
    let all = futures::future::join_all(batches.iter().map(|batch| drive(&*sink, batch)));
    tokio::pin!(all);
    for _ in 0..3 {
        let waiting = until("events in memory", async || server.waiting() >= 3);
        tokio::select! {
            biased;
            () = waiting => {}
            _ = &mut all => panic!("nothing is indexed"),
        }
        server.crash().await;
        assert_eq!(server.waiting(), 0);
    }
    server.hold(false);
    let driven = must_end("everything", all).await;
    assert!(driven.iter().all(|d| d.rejected.is_empty()), "{driven:?}");
    let copies = copies(&server);
    let wanted: BTreeSet<_> = batches.iter().flatten().chain(&earlier).map(|item| item.id.clone()).collect();
    assert_eq!(copies.keys().cloned().collect::<BTreeSet<_>>(), wanted);
    // What was in flight when the server began to index again may have been taken twice.
    assert!(copies.values().all(|n| *n <= 2), "{copies:?}");
}

#[tokio::test]
async fn events_are_what_searches_need() {
    let server = server().await;
    let more = json!({ "model": "payload", "index": "main", "source": "stoq-{source}", "host": "h-{tenant}" });
    let sink = connector(&[&server.url()], more);
    let item = of_tenant(&response(), "acme");
    drive(&*sink, std::slice::from_ref(&item)).await;
    let events = server.indexed();
    let [root, child] = &events[..] else { panic!("two payloads: {events:?}") };
    assert_eq!(root.time.as_deref(), Some("1767323045.678901"));
    assert_eq!((root.host.as_deref(), root.source.as_deref()), (Some("h-acme"), Some("stoq-suite")));
    assert_eq!(root.sourcetype.as_deref(), Some("stoq:payload"));
    assert_eq!(root.event["payload_id"], root.fields["stoq_id"]);
    assert_eq!(root.fields["stoq_tenant"], "acme");
    assert_eq!(root.fields["file_name"], "a plain text");
    assert_eq!(root.fields["file_size"], "12");
    assert_eq!(root.fields["file_hash"], json!([root.event["sha256"]]));
    assert_eq!(root.fields["signature"], json!(["sample"]));
    assert_eq!(child.fields["stoq_root_id"], root.fields["stoq_id"]);
    assert_ne!(child.fields["stoq_id"], root.fields["stoq_id"]);
    for event in &events {
        let own: Vec<_> = event.fields.keys().filter(|name| event.event.get(name).is_some()).collect();
        assert!(own.is_empty(), "a field that is in the event, too, would have two values: {own:?}");
    }
    // The same ids, whenever and by whomever it is sent.
    let ids = |event: &hec::Event| event.fields["stoq_id"].clone();
    let before: BTreeSet<_> = events.iter().map(|event| ids(event).to_string()).collect();
    let again = connector(&[&server.url()], json!({ "model": "payload" }));
    drive(&*again, &[item]).await;
    let after: BTreeSet<_> = server.indexed().iter().map(|event| ids(event).to_string()).collect();
    assert_eq!((after, server.count()), (before, 4));
}

#[tokio::test]
async fn large_batches_become_requests_and_large_requests_halves() {
    let server = HecServer::start(Options { max_content_length: 20_000, ..server_options() }).await;
    let sink = connector(&[&server.url()], json!({ "request_bytes": 100_000 }));
    let items = responses(60);
    let driven = drive(&*sink, &items).await;
    assert!(driven.rejected.is_empty() && driven.rounds == 1, "{driven:?}");
    assert_eq!((copies(&server).len(), server.count()), (60, 60));
    let huge = stoq_testkit::connector::response_with(&"x".repeat(30_000));
    let verdicts = offer(&*sink, &[items[0].clone(), huge]).await.unwrap();
    let [Verdict::Delivered, Verdict::Rejected(why)] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert!(why.contains("max_content_length"), "{why}");

    let before = server.posts();
    let sink = connector(&[&server.url()], json!({ "request_bytes": 10_000 }));
    assert_eq!(drive(&*sink, &items).await.rounds, 1);
    assert!(server.posts() - before > 5, "small requests");
}

#[tokio::test]
async fn what_a_person_has_to_mend_is_said() {
    let server = server().await;
    for (more, code, words) in [
        (json!({ "token": "wrong" }), 4, "token_file"),
        (json!({ "token": "off" }), 1, "disabled"),
        (json!({ "token": "takes" }), 14, "useACK"),
        (json!({ "index": "secret" }), 7, "allowed indexes"),
    ] {
        let sink = connector(&[&server.url()], more.clone());
        let fault = offer(&*sink, &responses(2)).await.unwrap_err();
        let said = fault::chain(&fault);
        assert!(fault.kind == FaultKind::Misconfigured && said.contains(words), "code {code}: {said}");
        assert!(!said.contains("wrong"), "the token is not shown: {said}");
        if code != 7 {
            let fault = sink.check().await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Misconfigured, "{}", fault::chain(&fault));
        }
    }
    // From whatever code, events get there in the end, or a person is told.
    let sink = connector(&[&server.url()], json!({}));
    for code in (1..=27_u16).filter(|code| !matches!(code, 17 | 24 | 25)) {
        let items = responses(3);
        server.fail_events(1, hec::Fault::Code(code));
        let mend = matches!(code, 1..=5 | 7 | 10 | 11 | 14 | 16 | 21 | 22);
        match offer(&*sink, &items).await {
            Err(fault) => assert_eq!((mend, fault.kind), (true, FaultKind::Misconfigured), "code {code}"),
            Ok(verdicts) => assert!(!mend, "code {code}: {verdicts:?}"),
        }
        let driven = drive(&*sink, &items).await;
        assert!(driven.rejected.is_empty(), "code {code}: {driven:?}");
    }
    server.healthy(false);
    assert_eq!(sink.check().await.unwrap_err().kind, FaultKind::Unavailable);
}

#[tokio::test]
async fn one_bad_event_hurts_only_itself() {
    for keeps_earlier in [false, true] {
        let server = HecServer::start(Options { keeps_earlier, ..server_options() }).await;
        let sink = connector(&[&server.url()], json!({ "index": "{tenant}" }));
        let mut items: Vec<Item> = responses(6).iter().map(|item| of_tenant(item, "acme")).collect();
        for bad in [1, 4] {
            items[bad] = of_tenant(&items[bad], "Strangers/..");
        }
        let driven = drive(&*sink, &items).await;
        assert_eq!(driven.rejected.len(), 2);
        let why = &driven.rejected[&items[1].id];
        assert!(why.contains("index strangers_") && why.contains(&items[1].id), "{why}");
        let copies = copies(&server);
        assert_eq!(copies.len(), 4);
        assert!(copies.values().all(|n| if keeps_earlier { *n <= 3 } else { *n == 1 }), "{copies:?}");
    }
}

#[tokio::test]
async fn questions_that_fail_are_asked_again() {
    let server = server().await;
    let sink = connector(&[&server.url()], json!({}));
    for fault in [
        hec::Fault::Code(9),
        hec::Fault::Status(502, "bad gateway"),
        hec::Fault::Reset,
        hec::Fault::Slow(Duration::from_millis(50)),
    ] {
        server.fail_acks(2, fault.clone());
        let items = responses(2);
        let driven = drive(&*sink, &items).await;
        assert_eq!(driven.rounds, 1, "{fault:?}: {driven:?}");
        server.mend();
    }
    assert!(copies(&server).values().all(|n| *n == 1));
    // An answer that is lost takes its number with it.
    for fault in [hec::Fault::ResetAfter, hec::Fault::Truncated] {
        let sink = connector(&[&server.url()], json!({ "ack_timeout": 0.2 }));
        server.fail_acks(1, fault);
        let items = responses(2);
        drive(&*sink, &items).await;
        assert_eq!(items.iter().filter(|item| copies(&server)[&item.id] == 2).count(), 2);
    }
    server.fail_acks(1, hec::Fault::Code(14));
    assert_eq!(offer(&*sink, &responses(1)).await.unwrap_err().kind, FaultKind::Misconfigured);
    server.fail_acks(1, hec::Fault::Redirect("http://127.0.0.1:1/".to_owned()));
    assert_eq!(offer(&*sink, &responses(1)).await.unwrap_err().kind, FaultKind::Misconfigured);
}

#[tokio::test]
async fn others_take_over_and_acknowledge_what_they_took() {
    let mut first = server().await;
    let second = server().await;
    first.down().await;
    let sink = connector(&[&first.url(), &second.url()], json!({}));
    for _ in 0..4 {
        assert_eq!(drive(&*sink, &responses(2)).await.rounds, 1);
    }
    assert_eq!((first.count(), second.count()), (0, 8));
    sink.check().await.unwrap();
}

#[tokio::test]
async fn a_balancers_cookie_leads_to_the_indexer_that_knows() {
    let server = HecServer::start(Options { indexers: 3, ..server_options() }).await;
    let sink = connector(&[&server.url()], json!({ "ack_timeout": 60.0 }));
    let batches: Vec<Vec<Item>> = (0..8).map(|_| responses(2)).collect();
    futures::future::join_all(batches.iter().map(|batch| drive(&*sink, batch))).await;
    for batch in &batches {
        assert_eq!(drive(&*sink, batch).await.rounds, 1);
    }
    assert!(copies(&server).values().all(|n| *n == 2), "no question went astray");
}

#[tokio::test]
async fn tls_by_ones_own_authority_and_no_other() {
    let authority = Authority::new();
    let start = async |identity: Identity| HecServer::start(Options { tls: Some(identity), ..server_options() }).await;
    let server = start(authority.server()).await;
    let ca_file = authority.certificate();
    let sink = connector(&[&server.url()], json!({ "ca_file": ca_file }));
    drive(&*sink, &responses(2)).await;
    sink.check().await.unwrap();
    assert_eq!(server.count(), 2);
    // One whose certificate names another host, one of another authority, one without TLS.
    let elsewhere = start(authority.server_named(&["splunk.example"])).await;
    let plain = HecServer::start(server_options()).await;
    let stranger = Authority::new();
    for (url, ca_file) in [
        (server.url(), stranger.certificate()),
        (elsewhere.url(), ca_file.clone()),
        (plain.url().replace("http:", "https:"), ca_file.clone()),
    ] {
        let sink = connector(&[&url], json!({ "ca_file": ca_file }));
        let fault = offer(&*sink, &responses(1)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Misconfigured, "{url}: {}", fault::chain(&fault));
    }
    assert_eq!((elsewhere.count(), plain.count()), (0, 0));
}

#[tokio::test]
async fn a_token_is_read_again_when_it_is_refused() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "ours\n").unwrap();
    let more = |file: &Path| json!({ "token": "", "token_file": file });
    let sink = connector(&[&server.url()], more(&file));
    drive(&*sink, &responses(1)).await;
    std::fs::write(&file, "older\n").unwrap();
    let late = connector(&[&server.url()], more(&file));
    assert_eq!(offer(&*late, &responses(1)).await.unwrap_err().kind, FaultKind::Misconfigured);
    std::fs::write(&file, "ours\n").unwrap();
    assert_eq!(drive(&*late, &responses(1)).await.rounds, 1);
}

#[test]
fn a_wrong_option_stops_the_start() {
    for (more, word) in [
        (json!({ "urls": [] }), "urls"),
        (json!({ "urls": ["splunk:8088"] }), "http"),
        (json!({ "urls": ["https://x:hunter2@splunk:8088"] }), "use the options"),
        (json!({ "token": "" }), "token_file"),
        (json!({ "token_file": "/x" }), "not both"),
        (json!({ "index": "Main" }), "index"),
        (json!({ "sourcetype": "{sha256}" }), "sha256"),
        (json!({ "requests": 0 }), "requests"),
        (json!({ "request_bytes": 0 }), "request_bytes"),
        (json!({ "ack_timeout": 0.0 }), "ack_timeout"),
        (json!({ "ack_poll": -1.0 }), "ack_poll"),
        (json!({ "model": "cim" }), "cim"),
        (json!({ "indx": "main" }), "indx"),
    ] {
        let error = build(&options(&["http://h:1"], more.clone()), &context()).err().unwrap().to_string();
        assert!(error.contains(word) && !error.contains("hunter2"), "{more}: {error}");
    }
}

#[test]
fn defaults_are_what_is_said() {
    let mut said = Map::new();
    for option in &config::OPTIONS {
        said.insert(option.name.to_owned(), serde_json::from_str(option.default).unwrap());
    }
    let given = json!({ "urls": ["http://h:1"], "token": "t" }).as_object().unwrap().clone();
    said.extend(given.clone());
    // What all connectors have beside the kind's own.
    let (common, said) = crate::common::options::split(&said).unwrap();
    assert_eq!((common.settings.concurrency, common.settings.batch_items), (8, 100));
    let [said, silent] = [said, given].map(|options| config_of::<Config>(&options).unwrap().validate().unwrap());
    assert_eq!(format!("{:?}", said.http), format!("{:?}", silent.http));
    assert_eq!((said.request_bytes, said.requests), (silent.request_bytes, silent.requests));
    assert_eq!(said.ack.map(|ack| (ack.timeout, ack.poll)), silent.ack.map(|ack| (ack.timeout, ack.poll)));
}
