//! Whose items a slot gets, without slots.

use stoq_api::Content;
use stoq_api::scanner::Remaining;

use super::*;

const NOW: Duration = Duration::ZERO;

fn items(tenant: &str, n: usize) -> Vec<JobItem> {
    let item = JobItem {
        header: bytes::Bytes::new(),
        content: Content::from(vec![0; 10]),
        remaining: Remaining { children: 0, bytes: 0 },
        tenant: (!tenant.is_empty()).then(|| tenant.into()),
    };
    vec![item; n]
}

fn sharing(tenants: &[(&str, u32)]) -> Sharing {
    Sharing { plain: 1, tenants: tenants.iter().map(|(name, weight)| ((*name).into(), *weight)).collect() }
}

fn batch(queue: &Queue) -> Option<Batch> {
    match queue.take(NOW) {
        Taken::Batch(batch) => Some(batch),
        Taken::Nothing | Taken::Closed => None,
    }
}

fn tenant(batch: &Batch) -> String {
    batch.tenant.as_deref().unwrap_or_default().to_owned()
}

#[test]
fn a_batch_holds_items_of_one_tenant() {
    let queue = Queue::new(16, 1 << 20, 1, &sharing(&[("a", 1)]));
    let calls: Vec<_> = ["a", "", "a", "gone", "gone", "", "other", "a"].map(|t| queue.push(items(t, 2))).into();
    let mut seen = Vec::new();
    while let Some(batch) = batch(&queue) {
        assert!(batch.jobs.iter().all(|job| job.item.tenant == batch.tenant));
        seen.push((tenant(&batch), batch.jobs.len()));
        queue.ended(batch.turn, batch.jobs.len(), Duration::from_millis(1));
    }
    let of = |name: &str| seen.iter().filter(|(t, _)| t == name).map(|(_, n)| n).sum::<usize>();
    assert_eq!((of("a"), of(""), of("gone"), of("other")), (6, 4, 4, 2), "{seen:?}");
    assert_eq!(calls.len(), 8);
}

#[test]
fn one_who_had_less_than_its_share_need_not_wait_for_a_slot() {
    let queue = Queue::new(4, 1 << 20, 2, &sharing(&[("a", 1), ("b", 1)]));
    let _call = queue.push(items("a", 100));
    // What a batch of it costs is known from the first one on.
    let first = batch(&queue).unwrap_or_else(|| panic!("it waits"));
    queue.ended(first.turn, first.jobs.len(), Duration::from_millis(10));
    let mut running = vec![batch(&queue), batch(&queue)];
    assert!(running.iter().all(Option::is_some) && batch(&queue).is_none(), "two slots, whoever has them");
    let _call = queue.push(items("b", 9));
    let late = batch(&queue);
    assert_eq!(late.as_ref().map(tenant).as_deref(), Some("b"), "it comes at once");
    assert!(batch(&queue).is_none(), "but only once");
    // While it has what it came for, it is not given more than the slots that there are.
    let one = running.pop().flatten().unwrap_or_else(|| panic!("two are running"));
    queue.ended(one.turn, one.jobs.len(), Duration::from_millis(5));
    assert!(batch(&queue).is_none(), "two are at work");
    let late = late.unwrap_or_else(|| panic!("it is running"));
    queue.ended(late.turn, late.jobs.len(), Duration::from_millis(1));
    assert_eq!(batch(&queue).as_ref().map(tenant).as_deref(), Some("b"), "its share is not used up");
}

/// Two slots in virtual time: each batch takes as long as its tenant's items do.
#[test]
fn slots_are_at_work_for_each_in_proportion_to_its_weight() {
    let weights = [("a", 3), ("b", 1)];
    let queue = Queue::new(16, 1 << 20, 2, &sharing(&weights));
    let mut calls = Vec::new();
    let mut running: Vec<(u64, u64, Batch)> = Vec::new();
    let (mut now, mut used) = (0, [0, 0]);
    while now < 1_000_000 {
        for (name, _) in weights {
            // There is always more to do, in calls of 5 items.
            calls.push(queue.push(items(name, 5)));
        }
        while let Some(batch) = batch(&queue) {
            let each = if tenant(&batch) == "a" { 700 } else { 100 };
            let cost = each * batch.jobs.len() as u64;
            used[usize::from(tenant(&batch) == "b")] += cost;
            running.push((now + cost, cost, batch));
        }
        assert!(running.len() >= 2, "a slot stands still at {now}");
        running.sort_by_key(|(end, ..)| std::cmp::Reverse(*end));
        let (end, cost, batch) = running.pop().unwrap_or_else(|| panic!("something runs"));
        now = end;
        queue.ended(batch.turn, batch.jobs.len(), Duration::from_micros(cost));
    }
    let ratio = used[0] as f64 / used[1] as f64;
    assert!((2.8..3.2).contains(&ratio), "{used:?}");
}

#[test]
fn a_batch_of_costly_items_is_short() {
    let queue = Queue::new(16, 1 << 20, 1, &sharing(&[]));
    let _call = queue.push(items("", 2_000));
    let taken = |cost: Duration| {
        let batch = batch(&queue).unwrap_or_else(|| panic!("it waits"));
        let items = batch.jobs.len();
        queue.ended(batch.turn, items, cost * u32::try_from(items).unwrap_or_default());
        items
    };
    assert_eq!(taken(BATCH_TIME / 4), 16, "nothing is known of the first");
    assert_eq!(taken(BATCH_TIME * 40), 4);
    assert_eq!(taken(Duration::from_micros(1)), 1, "one at least");
    let later: Vec<_> = (0..60).map(|_| taken(Duration::from_micros(1))).collect();
    assert_eq!(later.last(), Some(&16), "it is forgotten in time: {later:?}");
}
