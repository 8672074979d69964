//! Places in virtual time, and lanes that fail.

use std::collections::VecDeque;

use async_trait::async_trait;
use proptest::prelude::*;
use stoq_api::FaultKind;
use stoq_api::queue::{Message, Queue};
use stoq_memory::MemoryQueue;

use super::*;

/// Gives out as many places as there are to tenants that always want more, one by one.
fn fill(places: &Arc<Places>, wants: &[usize], held: &mut VecDeque<(usize, Place)>) {
    while let Some(tenant) = places.open().into_iter().find(|tenant| wants.contains(tenant)) {
        held.push_back((tenant, places.take(tenant)));
    }
}

fn count(held: &VecDeque<(usize, Place)>, tenant: usize) -> usize {
    held.iter().filter(|(of, _)| *of == tenant).count()
}

#[tokio::test(start_paused = true)]
async fn one_tenant_alone_has_all_places_and_no_more() {
    let mut held = VecDeque::new();
    fill(&Arc::new(Places::new(8, &[1])), &[0], &mut held);
    assert_eq!(held.len(), 8);
    let (places, mut held) = (Arc::new(Places::new(8, &[1, 1])), VecDeque::new());
    fill(&places, &[0], &mut held);
    assert_eq!(held.len(), 9, "those for all, and its own");
    assert_eq!(places.open(), [1], "one that comes late finds a place");
}

#[tokio::test(start_paused = true)]
async fn late_comers_find_a_place_however_many_there_are() {
    let weights = [1; 20];
    let (places, mut held) = (Arc::new(Places::new(4, &weights)), VecDeque::new());
    fill(&places, &[0], &mut held);
    for tenant in 1..weights.len() {
        assert!(places.open().contains(&tenant), "tenant {tenant}");
        held.push_back((tenant, places.take(tenant)));
    }
    assert!(places.open().is_empty(), "and no more than that");
    held.clear();
    assert_eq!(places.open().len(), weights.len());
    assert_eq!(places.state.lock().common, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Tenants that always want more hold places in proportion to their weights, however long they hold each.
    #[test]
    fn places_are_held_by_weight(
        all in 8..64_usize,
        tenants in proptest::collection::vec((1..6_u32, 1..20_u64), 2..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let weights: Vec<u32> = tenants.iter().map(|(weight, _)| *weight).collect();
            let (places, mut held) = (Arc::new(Places::new(all, &weights)), VecDeque::new());
            let wants: Vec<usize> = (0..tenants.len()).collect();
            let mut sum = vec![0.0; tenants.len()];
            let steps = 2_000;
            for step in 0..steps {
                fill(&places, &wants, &mut held);
                for tenant in &wants {
                    sum[*tenant] += if step > steps / 4 { count(&held, *tenant) as f64 } else { 0.0 };
                }
                tokio::time::advance(Duration::from_millis(1)).await;
                let now = Instant::now();
                held.retain(|(tenant, place)| now - place.since < Duration::from_millis(tenants[*tenant].1));
            }
            let part = |tenant: usize| sum[tenant] / f64::from(weights[tenant]);
            let (most, least) = wants.iter().fold((0.0, f64::MAX), |(most, least): (f64, f64), tenant| {
                (most.max(part(*tenant)), least.min(part(*tenant)))
            });
            // A place is held whole, and each tenant has one of its own whatever its weight.
            assert!(most <= 1.5 * least, "{weights:?} of {all}: {sum:?}");
        });
    }
}

/// A lane that cannot be reached.
struct Away;

#[async_trait]
impl Deliveries for Away {
    async fn next(&mut self) -> Result<Option<Delivery>, Fault> {
        Err(Fault::new(FaultKind::Unavailable, "no route"))
    }
}

async fn line(number: usize, kind: TaskLane, messages: usize) -> Line {
    let queue = MemoryQueue::new("lane");
    queue.declare(&[WORKERS]).await.expect("memory");
    queue.publish(vec![Message::new("m", "body"); messages]).await.expect("memory");
    let deliveries = queue.subscribe(WORKERS, Prefetch { messages: 100 }).await.expect("memory");
    Line { number, lane: Lane { tenant: number, kind }, deliveries, rests: None }
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_away_is_in_nobodys_way() {
    let mut lines = Vec::new();
    for (number, messages) in [(0, 0), (1, 20)] {
        for kind in TaskLane::ALL {
            lines.push(line(number, kind, messages).await);
        }
    }
    lines[0].deliveries = Box::new(Away);
    lines[1].deliveries = Box::new(Away);
    let mut feed = Feed { places: Arc::new(Places::new(64, &[1, 1])), lines };
    let (start, stop) = (Instant::now(), CancellationToken::new());
    let mut lanes = Vec::new();
    for _ in 0..40 {
        let (lane, delivery, _place) = feed.next(&stop).await.expect("something waits");
        lanes.push(lane.kind);
        delivery.ack().await.expect("memory");
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waited for it");
    let children = lanes.iter().position(|kind| *kind == TaskLane::Roots);
    assert_eq!(children, Some(20), "children before roots: {lanes:?}");
    stop.cancel();
    assert!(feed.next(&stop).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_place_gets_the_next_one() {
    let mut feed = Feed {
        places: Arc::new(Places::new(2, &[1, 1])),
        lines: vec![line(0, TaskLane::Children, 0).await, line(0, TaskLane::Roots, 10).await],
    };
    feed.lines.push(line(1, TaskLane::Children, 0).await);
    feed.lines.push(line(1, TaskLane::Roots, 0).await);
    let stop = CancellationToken::new();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(feed.next(&stop).await.expect("something waits"));
    }
    // All places that it may have are taken, so the next message comes when one is given back, and not before.
    let give_back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        held.remove(0);
    };
    let start = Instant::now();
    let (next, ()) = tokio::join!(feed.next(&stop), give_back);
    assert!(next.is_some() && start.elapsed() == Duration::from_secs(1), "after {:?}", start.elapsed());
}
