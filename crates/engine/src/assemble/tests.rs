//! Assembly: order, folding, partial scans.

use proptest::prelude::*;
use serde_json::json;
use stoq_api::task::ScanHead;
use stoq_api::{Budgets, Edge, Location, PackedMeta, RequestMeta, RootRef, Run, RunStatus, ScanId, Timestamp};

use super::*;

fn scan_id() -> ScanId {
    ScanId::derive("test", b"1", &Sha256::of(b""))
}

fn root_content() -> Sha256 {
    Sha256::of(b"root")
}

fn frozen(outcomes: Vec<Outcome>, missing: Vec<PayloadId>) -> FrozenScan {
    let root = RootRef {
        id: PayloadId::root(scan_id(), 0),
        sha256: None,
        size: 4,
        location: Location::Inline,
        payload_meta: PayloadMeta::with("filename", "root.bin"),
    };
    FrozenScan {
        scan_id: scan_id(),
        head: Arc::new(ScanHead {
            source: "test".into(),
            first_seen: Timestamp(1_767_323_045_678_901),
            roots: vec![root],
            budgets: Budgets::default(),
            request_meta: RequestMeta::default(),
            start_dispatch: Vec::new(),
            tenant: None,
            allowed_plugins: None,
            replay_of: None,
            trace: None,
        }),
        completeness: if missing.is_empty() { Completeness::Complete } else { Completeness::Partial },
        outcomes: outcomes.into_iter().map(Kept::from).collect(),
        missing,
    }
}

fn child_id(content: &[u8]) -> PayloadId {
    PayloadId::child(scan_id(), &Sha256::of(content), true, &[])
}

fn edge(content: &[u8], plugin: &str, ordinal: u32) -> Edge {
    let name = format!("{plugin}-{ordinal}");
    Edge {
        child: child_id(content),
        plugin: plugin.into(),
        ordinal,
        sha256: Sha256::of(content),
        size: content.len() as u64,
        meta: PackedMeta::from(&PayloadMeta::with("filename", name)),
    }
}

fn outcome(id: PayloadId, sha256: Sha256, edges: Vec<Edge>) -> Outcome {
    Outcome { edges, ..Outcome::empty(id, Some(sha256), 4) }
}

/// root → a (twice, by two plugins), b, and itself; b → a again, c.
fn tree() -> Vec<Outcome> {
    vec![
        outcome(
            PayloadId::root(scan_id(), 0),
            root_content(),
            vec![edge(b"b", "zip", 0), edge(b"a", "zip", 1), edge(b"a", "carve", 0), edge(b"root", "zip", 2)],
        ),
        outcome(child_id(b"a"), Sha256::of(b"a"), vec![]),
        outcome(child_id(b"b"), Sha256::of(b"b"), vec![edge(b"a", "zip", 0), edge(b"c", "zip", 1)]),
        outcome(child_id(b"c"), Sha256::of(b"c"), vec![]),
        // Scanned before anyone knew that it equals the root.
        outcome(child_id(b"root"), root_content(), vec![edge(b"a", "other", 0)]),
    ]
}

fn names(response: &Response) -> Vec<String> {
    response.results.iter().map(|r| r.payload_meta.filename().unwrap_or_default().to_owned()).collect()
}

#[test]
fn breadth_first_with_every_parent_plugin_and_name() {
    let response = Assembly::new(frozen(tree(), vec![]), &Arc::default()).unwrap().response().unwrap();
    assert_eq!(names(&response), ["root.bin", "carve-0", "zip-0", "zip-1"]);
    let a = &response.results[1];
    assert_eq!(a.extracted_by, ["carve", "zip", "zip"]);
    assert_eq!(a.extracted_from, [PayloadId::root(scan_id(), 0), PayloadId::root(scan_id(), 0), child_id(b"b")]);
    assert_eq!(a.names, ["carve-0", "zip-1", "zip-0"]);
    assert_eq!(response.results.iter().map(|r| r.depth).collect::<Vec<_>>(), [0, 1, 1, 2]);
    let root = &response.results[0];
    assert_eq!((root.extracted_by.as_slice(), root.depth), (&["zip".to_owned()][..], 0));
    assert!(response.complete);
    assert_eq!(response.time, "2026-01-02T03:04:05.678901");
}

#[test]
fn a_partial_scan_names_what_is_missing() {
    let mut outcomes = tree();
    outcomes.retain(|o| o.payload_id != child_id(b"c"));
    let response = Assembly::new(frozen(outcomes, vec![child_id(b"c")]), &Arc::default()).unwrap().response().unwrap();
    assert!(!response.complete);
    let c = response.results.iter().find(|r| r.payload_id == child_id(b"c")).unwrap();
    assert_eq!(c.findings[0].kind, FindingKind::Missing);
    assert_eq!(response.errors.iter().filter(|e| e.payload_id == Some(child_id(b"c"))).count(), 1);
    assert_eq!(response.findings[0].kind, FindingKind::TimeLimit);
}

#[test]
fn a_scan_without_all_outcomes_is_never_called_complete() {
    let mut outcomes = tree();
    outcomes.retain(|o| o.payload_id != child_id(b"c"));
    let response = Assembly::new(frozen(outcomes, vec![]), &Arc::default()).unwrap().response().unwrap();
    assert!(!response.complete);
    assert_eq!(response.findings[0].kind, FindingKind::Missing);
    assert_eq!(response.errors.iter().filter(|e| e.payload_id == Some(child_id(b"c"))).count(), 1);
}

#[test]
fn runs_are_in_order_and_results_follow_them() {
    let run = |plugin: &str, round| Run {
        plugin: plugin.into(),
        round,
        why: vec!["always".into()],
        status: RunStatus::Ok,
        micros: 1,
        result: Some(Json::of(&json!({ "of": plugin }))),
    };
    let mut root = outcome(PayloadId::root(scan_id(), 0), root_content(), vec![]);
    root.runs = vec![run("z", 1), run("b", 2), run("a", 1)];
    let response = Assembly::new(frozen(vec![root], vec![]), &Arc::default()).unwrap().response().unwrap();
    let result = &response.results[0];
    assert_eq!(result.plugins_run.workers, ["a", "z", "b"]);
    assert_eq!(result.workers.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "z", "b"]);
    let v2 = stoq_api::response::v2::to_v2(&response);
    assert_eq!(v2["results"][0]["plugins_run"]["workers"], json!([["a", "z"], ["b"]]));
    assert_eq!(v2["results"][0]["workers"][1]["b"], json!({ "of": "b" }));
    assert_eq!((&v2["results"][0]["extracted_from"], &v2["errors"]), (&json!(null), &json!({})));
}

#[test]
fn splitting_and_reconstructing() {
    let mut outcomes = tree();
    outcomes[1].runs = vec![Run {
        plugin: "hash".into(),
        round: 1,
        why: vec![],
        status: RunStatus::Ok,
        micros: 0,
        result: Some(Json::of(&json!(1))),
    }];
    let response = Assembly::new(frozen(outcomes, vec![]), &Arc::default()).unwrap().response().unwrap();
    let parts = stoq_api::response::split::split(&response);
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0]["results"][0]["workers"], json!({ "hash": 1 }));
    let sizes: Vec<usize> = stoq_api::response::split::subresponses(&response).map(|r| r.results.len()).collect();
    assert_eq!(sizes, [4, 1, 2, 1]);
}

/// What is said of one payload that depends on others: its id, depth and name, and its parents, plugins and names.
type Said = (PayloadId, u16, String, Vec<(PayloadId, String)>, Vec<String>);

/// The same as [`Assembly`] says it, from everything at once and one step at a time.
fn model(roots: &[RootRef], outcomes: &[Outcome]) -> Vec<Said> {
    let outcome = |id: PayloadId| outcomes.iter().find(|outcome| outcome.payload_id == id);
    let twin = |root: &RootRef| Some(PayloadId::child(scan_id(), &outcome(root.id)?.sha256?, true, &[]));
    let filename = |meta: PayloadMeta| meta.filename().unwrap_or_default().to_owned();
    let mut said: Vec<Said> =
        roots.iter().map(|r| (r.id, 0, filename(r.payload_meta.clone()), Vec::new(), Vec::new())).collect();
    let mut at = 0;
    while at < said.len() {
        let (parent, depth) = (said[at].0, said[at].1);
        at += 1;
        let mut edges = outcome(parent).map(|outcome| outcome.edges.clone()).unwrap_or_default();
        edges.sort_by_key(|edge| (edge.plugin.to_string(), edge.ordinal));
        for edge in edges {
            let child = roots.iter().find(|root| twin(root) == Some(edge.child)).map_or(edge.child, |root| root.id);
            let (way, name) = ((parent, edge.plugin.to_string()), filename(edge.meta.get()));
            let Some((_, _, first, ways, names)) = said.iter_mut().find(|known| known.0 == child) else {
                said.push((child, depth + 1, name, vec![way], Vec::new()));
                continue;
            };
            if !ways.contains(&way) {
                ways.push(way);
            }
            if names.is_empty() {
                names.push(first.clone());
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    said.iter_mut().filter(|said| said.4.len() == 1).for_each(|said| said.4.clear());
    said
}

proptest! {
    #[test]
    fn any_scan_is_arranged_as_by_the_model(
        // Of each payload its edges, by content, plugin and place among that plugin's; the first two are roots.
        nodes in prop::collection::vec(prop::collection::vec((0_u8..8, 0_usize..3, 0_u32..4), 0..6), 8),
        count in 1_usize..3,
        lost in prop::collection::vec(prop::bool::weighted(0.1), 10),
        as_text: bool,
    ) {
        let content = |n: usize| vec![n as u8];
        let RootRef { location, payload_meta, .. } = frozen(vec![], vec![]).head.roots[0].clone();
        let roots: Vec<RootRef> = (0..count).map(|n| RootRef {
            id: PayloadId::root(scan_id(), n as u32),
            sha256: None,
            size: 1,
            location: location.clone(),
            payload_meta: payload_meta.clone(),
        }).collect();
        let edges = |n: usize| nodes[n].iter().map(|(to, plugin, ordinal)| {
            edge(&content(usize::from(*to)), ["zip", "carve", "ole"][*plugin], *ordinal)
        }).collect::<Vec<_>>();
        let all = (0..count).map(|n| outcome(roots[n].id, Sha256::of(&content(n)), edges(n)))
            .chain((0..8).map(|n| outcome(child_id(&content(n)), Sha256::of(&content(n)), edges(n))));
        let outcomes: Vec<Outcome> = all.zip(&lost).filter(|(_, lost)| !**lost).map(|(outcome, _)| outcome).collect();
        let expected = model(&roots, &outcomes);
        let mut scan = frozen(outcomes, vec![]);
        scan.head = Arc::new(ScanHead { roots, ..(*scan.head).clone() });
        if as_text {
            let text = |kept: Kept| Kept::of_text(serde_json::to_vec(&kept.into_outcome()?).unwrap().into());
            scan.outcomes = scan.outcomes.into_iter().map(text).collect::<Result<_, _>>().unwrap();
        }
        let response = Assembly::new(scan, &Arc::default()).unwrap().response().unwrap();
        let said: Vec<Said> = response.results.into_iter().map(|result| {
            let name = result.payload_meta.filename().unwrap_or_default().to_owned();
            let ways = result.extracted_from.into_iter().zip(result.extracted_by).collect();
            (result.payload_id, result.depth, name, ways, result.names)
        }).collect();
        prop_assert_eq!(said, expected);
    }

    #[test]
    fn the_order_of_outcomes_changes_nothing(order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle()) {
        let outcomes = tree();
        let shuffled = order.iter().map(|at| outcomes[*at].clone()).collect();
        let expected = serde_json::to_string(&Assembly::new(frozen(outcomes, vec![]), &Arc::default()).unwrap().response().unwrap()).unwrap();
        let mut got = Vec::new();
        Assembly::new(frozen(shuffled, vec![]), &Arc::default()).unwrap().write(&mut got).unwrap();
        prop_assert_eq!(String::from_utf8(got).unwrap(), expected);
    }
}
