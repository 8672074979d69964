//! One settlement code under every fault: whatever dies, fails or comes twice at any moment, each reference ends as one
//! document, complete unless something is really missing, and nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod full;
mod packing;
mod silent;
mod tenants;
mod world;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use stoq_api::Timestamp;
use stoq_api::ledger::Ledger;
use stoq_engine::sweep;
use stoq_memory::MemoryLedger;
use stoq_testkit::fault::{FaultPlan, Trouble};

use world::World;

/// A tree with a leaf, a content that occurs three times at two depths, a child too large to travel inline, a copy of the
/// root's own child's parent, and four levels.
const TREE: &[u8] = b"root(leaf)(same)(branch(same)(too large to be inline)(deep(deeper(deepest))))(same)";

/// Documents of a run in which nothing goes wrong.
async fn expected(content: &[u8]) -> (String, String) {
    let world = World::new().await;
    world.take(content, 1).await;
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    one_document(&world, "calm").await
}

async fn one_document(world: &World, case: &str) -> (String, String) {
    let documents = world.documents().await;
    assert_eq!(documents.len(), 1, "{case}: {} documents", documents.len());
    let (id, texts) = documents.into_iter().next().unwrap();
    assert_eq!(texts.len(), 1, "{case}: its copies differ: {texts:#?}");
    (id, texts.into_iter().next().unwrap())
}

/// Everything is finished, nothing is left, nothing is dead.
async fn settled(world: &World, case: &str) {
    assert_eq!(world.waiting().await, 0, "{case}: tasks are left");
    assert_eq!(world.ledger.open_scans().await.unwrap(), 0, "{case}: a scan is open");
    assert_eq!(world.dead_letters().await, 0, "{case}: something is dead");
}

async fn operations(content: &[u8], workers: usize, copies: usize) -> u64 {
    let world = World::new().await;
    world.take(content, copies).await;
    let plan = FaultPlan::calm();
    world.live(&plan, workers, |_| ()).await;
    plan.operations()
}

fn complete(document: &str) -> bool {
    serde_json::from_str::<Value>(document).unwrap()["complete"] == Value::Bool(true)
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_wrong() {
    let (_, document) = expected(TREE).await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["results"].as_array().unwrap().len(), 8);
    let runs = document["results"].as_array().unwrap().iter().flat_map(|r| r["runs"].as_array().unwrap());
    assert!(runs.into_iter().all(|run| run["status"] == "ok"), "a budget that is not spent cut something");
    let leaf = expected(b"leaf").await;
    assert!(complete(&leaf.1));
}

#[tokio::test(start_paused = true)]
async fn what_plugins_did_is_counted() {
    expected(b"leaf").await;
    // Other tests of this process count as well, so there is no telling how much.
    let rendered = stoq_runtime::metrics::render();
    let counted = |line: &&str| line.starts_with("stoq_out_total{") && line.contains("name=\"open\"");
    assert!(rendered.lines().any(|line| counted(&line)), "{rendered}");
}

#[tokio::test(start_paused = true)]
async fn a_fault_or_crash_at_every_operation_changes_nothing_in_the_end() {
    for content in [TREE, b"leaf"] {
        let expected = expected(content).await;
        let count = operations(content, 1, 1).await;
        for trouble in Trouble::ALL {
            for k in 0..count {
                let case = format!("{trouble:?} at operation {k} of {count}");
                let world = World::new().await;
                world.take(content, 1).await;
                world.live(&FaultPlan::at(k, trouble), 1, |_| ()).await;
                world.live(&FaultPlan::calm(), 1, |_| ()).await;
                assert_eq!(one_document(&world, &case).await, expected, "{case}");
                settled(&world, &case).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_crashes_one_after_the_other_change_nothing_either() {
    let expected = expected(TREE).await;
    let count = operations(TREE, 1, 1).await;
    for k in (0..count).step_by(3) {
        for second in (0..count).step_by(5) {
            let case = format!("crashes at {k} and then at {second}");
            let world = World::new().await;
            world.take(TREE, 1).await;
            world.live(&FaultPlan::at(k, Trouble::CrashAfter), 1, |_| ()).await;
            world.live(&FaultPlan::at(second, Trouble::CrashBefore), 1, |_| ()).await;
            world.live(&FaultPlan::calm(), 1, |_| ()).await;
            assert_eq!(one_document(&world, &case).await, expected, "{case}");
            settled(&world, &case).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_workers_on_the_same_items_make_one_document() {
    let expected = expected(TREE).await;
    let count = operations(TREE, 2, 3).await;
    for k in (0..count).step_by(4) {
        let case = format!("three copies, two workers, crash at {k}");
        let world = World::new().await;
        world.take(TREE, 3).await;
        world.live(&FaultPlan::at(k, Trouble::CrashBefore), 2, |_| ()).await;
        world.live(&FaultPlan::calm(), 2, |_| ()).await;
        assert_eq!(one_document(&world, &case).await, expected, "{case}");
        settled(&world, &case).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_makes_scans_late_and_nothing_else() {
    let expected = expected(TREE).await;
    for start in [0, 3, 8, 15] {
        let world = World::new().await;
        world.take(TREE, 1).await;
        world.live(&FaultPlan::during(start..start + 40, Trouble::Before), 1, |_| ()).await;
        assert_eq!(one_document(&world, "outage").await, expected, "outage from {start}");
        settled(&world, "outage").await;
    }
}

/// A retry that finds fewer or other children must neither lose a document nor call one complete that is not: what was
/// admitted and never came stays outstanding until the sweeper names it.
#[tokio::test(start_paused = true)]
async fn a_retry_with_other_children_ends_and_does_not_lie() {
    let count = operations(TREE, 1, 1).await;
    let fewer: fn(&mut Vec<String>) = |parts| parts.truncate(1);
    let other: fn(&mut Vec<String>) = |parts| parts.iter_mut().for_each(|part| part.push('!'));
    for twist in [fewer, other] {
        for k in 0..count {
            let case = format!("crash at {k}");
            let world = World::new().await;
            world.take(TREE, 1).await;
            world.live(&FaultPlan::at(k, Trouble::CrashAfter), 1, |_| ()).await;
            world.live(&FaultPlan::calm(), 1, twist).await;
            let open = world.ledger.open_scans().await.unwrap();
            let around = world.around(&FaultPlan::calm(), twist);
            let later = Timestamp::now().after(Duration::from_secs(120));
            assert_eq!(sweep::once(&around, later).await.unwrap() as u64, open, "{case}");
            let (_, document) = one_document(&world, &case).await;
            assert_eq!(complete(&document), open == 0, "{case}: {document}");
            let missing = document.contains("\"missing\"") || document.contains("ended before this payload");
            assert_eq!(missing, open == 1, "{case}");
            settled(&world, &case).await;
        }
    }
}

/// Redis comes back without its last second, or without anything: the scan is made anew, under the same id.
#[tokio::test(start_paused = true)]
async fn a_ledger_that_forgets_everything_makes_the_scan_anew() {
    let expected = expected(TREE).await;
    let count = operations(TREE, 1, 1).await;
    for k in 0..count {
        let case = format!("crash at {k}, then an empty ledger");
        let mut world = World::new().await;
        world.take(TREE, 1).await;
        world.live(&FaultPlan::at(k, Trouble::CrashAfter), 1, |_| ()).await;
        world.ledger = Arc::new(MemoryLedger::new());
        world.live(&FaultPlan::calm(), 1, |_| ()).await;
        assert_eq!(one_document(&world, &case).await, expected, "{case}");
        settled(&world, &case).await;
    }
}

/// Redis loses a scan between the answer that it is finished and the look at what it holds: nobody else may know of it.
#[tokio::test(start_paused = true)]
async fn a_finished_scan_that_is_forgotten_is_not_taken_for_closed() {
    let mut world = World::new().await;
    world.take(TREE, 1).await;
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    let scan = world.documents().await.keys().next().unwrap().parse().map(stoq_api::ScanId).unwrap();
    stoq_engine::settle::finish(&world.around(&FaultPlan::calm(), |_| ()), scan).await.unwrap();
    world.ledger = Arc::new(MemoryLedger::new());
    let gone = stoq_engine::settle::finish(&world.around(&FaultPlan::calm(), |_| ()), scan).await.unwrap_err();
    assert_eq!(gone.kind, stoq_api::FaultKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_after_the_sweeper_adds_nothing() {
    let count = operations(TREE, 1, 1).await;
    for k in 0..count {
        let case = format!("crash at {k}, then the sweeper, then a worker");
        let world = World::new().await;
        world.take(TREE, 1).await;
        world.live(&FaultPlan::at(k, Trouble::CrashAfter), 1, |_| ()).await;
        let open = world.ledger.open_scans().await.unwrap();
        let around = world.around(&FaultPlan::calm(), |_| ());
        // The backlog stands still: tasks wait, so nobody's time runs, however late it is.
        let later = Timestamp::now().after(Duration::from_secs(120));
        let swept = if world.waiting().await > 0 { sweep::once(&around, later).await.unwrap() } else { 0 };
        for overdue in world.ledger.overdue(later, later, 10).await.unwrap() {
            world.ledger.freeze(overdue.scan_id, Duration::from_secs(1), later).await.unwrap();
            stoq_engine::settle::finish(&around, overdue.scan_id).await.unwrap();
        }
        world.live(&FaultPlan::calm(), 1, |_| ()).await;
        let documents = world.documents().await;
        assert_eq!(documents.len(), 1, "{case}");
        // A response that was published before the crash and the same one after it are one document; a scan that was
        // cut by the sweeper has no second, complete one.
        let texts = documents.values().next().unwrap();
        assert_eq!(texts.len(), 1, "{case}: {open} open: {texts:#?}");
        // Only a scan that was whole already may be finished over a backlog.
        assert!(swept == 0 || texts.iter().all(|text| complete(text)), "{case}: a backlog made a scan partial");
        settled(&world, &case).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_budget_is_spent_once_and_said() {
    let wide: Vec<u8> = (0..50).flat_map(|n| format!("(child number {n})").into_bytes()).collect();
    for (change, kind) in [
        (|b: &mut stoq_api::Budgets| b.max_payloads = 10, "payload_limit"),
        (|b: &mut stoq_api::Budgets| b.max_bytes = 100, "byte_limit"),
        (
            |b: &mut stoq_api::Budgets| {
                b.max_expansion = 0;
                b.expansion_floor = 100;
            },
            "expansion_limit",
        ),
        (|b: &mut stoq_api::Budgets| b.max_depth = 0, "depth_limit"),
    ] as [(fn(&mut stoq_api::Budgets), &str); 4]
    {
        let mut world = World::new().await;
        change(&mut world.budgets);
        world.take(&wide, 1).await;
        world.live(&FaultPlan::calm(), 1, |_| ()).await;
        let (_, document) = one_document(&world, kind).await;
        assert!(complete(&document), "{kind}: a spent budget is a finding, not a failure");
        assert!(document.contains(&format!("\"kind\":\"{kind}\"")), "{kind}: {document}");
        settled(&world, kind).await;
    }
}

/// Days are dropped by age, but never while something that waits may need them.
#[tokio::test(start_paused = true)]
async fn old_days_are_dropped_unless_a_backlog_needs_them() {
    let world = World::new().await;
    world.take(TREE, 1).await;
    let around = world.around(&FaultPlan::calm(), |_| ());
    let (week, month) = (Duration::from_secs(7 * 86_400), Duration::from_secs(30 * 86_400));
    let later = Timestamp::now().after(month);
    // The large child is in the store, and its task waits.
    world.live(&FaultPlan::at(12, Trouble::CrashAfter), 1, |_| ()).await;
    assert!(world.waiting().await > 0 && !around.store.days().await.unwrap().is_empty(), "nothing to keep");
    assert_eq!(stoq_engine::retain::once(&around, &[], week, later).await.unwrap(), 0);
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    assert_eq!(stoq_engine::retain::once(&around, &[], month + week, later).await.unwrap(), 0);
    assert_eq!(stoq_engine::retain::once(&around, &[], week, later).await.unwrap(), 1);
    assert!(around.store.days().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_lies_behind_a_network_is_fetched_or_the_response_says_why_not() {
    for (url, size, leaf, finding) in [
        ("whole", Some(10), true, None),
        ("stream", None, true, None),
        ("stream", Some(11), true, Some("reference_mismatch")),
        ("changed", Some(10), true, Some("reference_mismatch")),
        ("large", None, false, Some("size_limit")),
        ("gone", None, false, Some("unfetched")),
    ] {
        let world = World::new().await;
        world.take_remote(url, size).await;
        world.live(&FaultPlan::calm(), 1, |_| ()).await;
        settled(&world, url).await;
        let (_, document) = one_document(&world, url).await;
        assert_eq!(document.contains("leaf") || document.contains("\"size\":4"), leaf, "{url}: {document}");
        for kind in ["reference_mismatch", "size_limit", "unfetched"] {
            assert_eq!(document.contains(kind), finding == Some(kind), "{url} {size:?}: {document}");
        }
    }
    let world = World::new().await;
    world.take_remote("away", None).await;
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    assert_eq!((world.waiting().await, world.dead_letters().await), (0, 1), "given up, and kept for a replay");
    let (_, document) = one_document(&world, "away").await;
    assert!(document.contains("quarantined"), "{document}");
}

#[tokio::test(start_paused = true)]
async fn scan_ids_do_not_depend_on_when_or_by_whom() {
    assert_eq!(expected(TREE).await.0, expected(TREE).await.0);
    assert_ne!(expected(TREE).await.0, expected(b"leaf").await.0);
}

/// One response of some megabytes is written into a file on its way, and is as whole as any other.
#[tokio::test(start_paused = true)]
async fn a_large_response_is_whole() {
    const CHILDREN: usize = 5_000;
    let mut world = World::new().await;
    world.budgets.max_payloads = CHILDREN as u64;
    let content: String = (0..CHILDREN).map(|n| format!("(child {n})")).collect();
    world.take(content.as_bytes(), 1).await;
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    let (_, document) = one_document(&world, "large").await;
    assert!(document.len() > 2 << 20, "{} bytes would not have gone into a file", document.len());
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["results"].as_array().unwrap().len(), 1 + CHILDREN);
    assert_eq!((&document["complete"], &document["findings"]), (&Value::Bool(true), &Value::Array(Vec::new())));
    settled(&world, "large").await;
}
