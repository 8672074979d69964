//! Policies of retention against what both projects document: no build that tests can have knows them.
//!
//! <https://www.elastic.co/docs/api/doc/elasticsearch/group/endpoint-ilm>,
//! <https://docs.opensearch.org/latest/im-plugin/ism/api/>

use serde_json::{Value, json};
use stoq_api::queue::PartState;
use stoq_testkit::front::{Act, HttpFront};

use crate::elasticsearch::build;
use crate::testing::context;

fn answer(status: u16, body: Value) -> Act {
    Act::answer(status, "application/json", body.to_string())
}

/// A server of one kind, and what it says when there is no policy, when one was made, and of the one that it has.
struct Server {
    root: Value,
    target: &'static str,
    missing: Value,
    made: Value,
    kept: fn(Value) -> Value,
}

fn elasticsearch() -> Server {
    Server {
        root: json!({ "version": { "number": "9.1.0" } }),
        target: "/_ilm/policy/stoq",
        missing: json!({ "error": { "type": "resource_not_found_exception" }, "status": 404 }),
        made: json!({ "acknowledged": true }),
        // It fills in what was left out.
        kept: |mut sent| {
            sent["policy"]["phases"]["hot"]["min_age"] = "0ms".into();
            sent["policy"]["phases"]["delete"]["actions"]["delete"]["delete_searchable_snapshot"] = true.into();
            json!({ "stoq": {
                "version": 1, "modified_date": "2026-01-02T03:04:05.678Z", "policy": sent["policy"],
                "in_use_by": { "indices": [], "data_streams": [], "composable_templates": ["stoq"] },
            } })
        },
    }
}

fn opensearch() -> Server {
    Server {
        root: json!({ "version": { "distribution": "opensearch", "number": "3.6.0" } }),
        target: "/_plugins/_ism/policies/stoq",
        missing: json!({ "error": { "type": "status_exception", "reason": "Policy not found" }, "status": 404 }),
        made: json!({ "_id": "stoq", "_version": 1, "_primary_term": 1, "_seq_no": 7 }),
        kept: |mut sent| {
            for state in sent["policy"]["states"].as_array_mut().unwrap() {
                for action in state["actions"].as_array_mut().unwrap() {
                    action["retry"] = json!({ "count": 3, "backoff": "exponential", "delay": "1m" });
                }
            }
            sent["policy"]["policy_id"] = "stoq".into();
            sent["policy"]["schema_version"] = 21.into();
            sent["policy"]["error_notification"] = Value::Null;
            json!({ "_id": "stoq", "_version": 1, "_seq_no": 7, "_primary_term": 1, "policy": sent["policy"] })
        },
    }
}

/// Has `stoq setup` meet the answers; gives the state of the policy and what was sent with the last request.
async fn setup(
    url: &str,
    front: &HttpFront,
    make: bool,
    days: u64,
    stream: bool,
    acts: Vec<Act>,
) -> (PartState, Value) {
    let mut options = json!({ "nodes": [url], "retention": days * 86_400, "template": false });
    if stream {
        options["data_stream"] = "stoq".into();
    }
    front.forget();
    front.plan(acts);
    let parts = build(options.as_object().unwrap(), &context()).unwrap().setup(make).await.unwrap();
    assert_eq!(front.planned(), 0, "every question was asked");
    let [part] = &parts[..] else { panic!("{parts:?}") };
    let last = front.seen().pop().unwrap();
    (part.state.clone(), serde_json::from_slice(&last.body).unwrap_or_default())
}

async fn is_made_once_and_known_again(server: Server, stream: bool) -> Value {
    let front = HttpFront::start(None).await;
    let url = front.url();
    let root = || answer(200, server.root.clone());
    let nothing = || answer(404, server.missing.clone());
    let (state, _) = setup(&url, &front, false, 90, stream, vec![root(), nothing()]).await;
    assert_eq!(state, PartState::Missing);
    let (state, sent) =
        setup(&url, &front, true, 90, stream, vec![root(), nothing(), answer(201, server.made.clone())]).await;
    assert_eq!(state, PartState::Missing, "it was, and is not any more");
    let asked: Vec<_> = front.seen().into_iter().map(|one| (one.method, one.target)).collect();
    let wanted = [("GET", "/"), ("GET", server.target), ("PUT", server.target)];
    assert_eq!(asked, wanted.map(|(method, target)| (method.to_owned(), target.to_owned())));
    let kept = || answer(200, (server.kept)(sent.clone()));
    assert_eq!(setup(&url, &front, true, 90, stream, vec![root(), kept()]).await.0, PartState::Present);
    let (other, _) = setup(&url, &front, true, 30, stream, vec![root(), kept()]).await;
    assert!(matches!(&other, PartState::Different(why) if why.contains("delete it")), "{other:?}");
    // A build without the module.
    for status in [400, 405] {
        let none = answer(status, json!({ "error": "no handler found for uri" }));
        let (state, _) = setup(&url, &front, true, 90, stream, vec![root(), none]).await;
        assert!(matches!(&state, PartState::Different(why) if why.contains("no such thing")), "{state:?}");
    }
    sent
}

#[tokio::test]
async fn elasticsearch_gets_a_lifecycle_policy() {
    let delete = json!({ "min_age": "90d", "actions": { "delete": {} } });
    let sent = is_made_once_and_known_again(elasticsearch(), false).await;
    assert_eq!(sent, json!({ "policy": { "phases": { "hot": { "actions": {} }, "delete": delete } } }));
    let sent = is_made_once_and_known_again(elasticsearch(), true).await;
    let hot = json!({ "actions": { "rollover": { "max_primary_shard_size": "50gb", "max_age": "30d" } } });
    assert_eq!(sent, json!({ "policy": { "phases": { "hot": hot, "delete": delete } } }));
}

#[tokio::test]
async fn opensearch_gets_a_state_management_policy() {
    for (stream, actions, pattern) in [
        (false, json!([]), "stoq-*.*"),
        (true, json!([{ "rollover": { "min_primary_shard_size": "50gb", "min_index_age": "30d" } }]), "stoq"),
    ] {
        let sent = is_made_once_and_known_again(opensearch(), stream).await;
        let states = json!([
            {
                "name": "hot", "actions": actions,
                "transitions": [{ "state_name": "delete", "conditions": { "min_index_age": "90d" } }],
            },
            { "name": "delete", "actions": [{ "delete": {} }], "transitions": [] },
        ]);
        assert_eq!(sent["policy"]["states"], states);
        assert_eq!(sent["policy"]["default_state"], "hot");
        assert_eq!(sent["policy"]["ism_template"][0]["index_patterns"], json!([pattern]));
    }
}
