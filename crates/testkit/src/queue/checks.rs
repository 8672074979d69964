//! Checks that need no restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stoq_api::queue::{Message, Parcel, Prefetch, Queue};
use stoq_api::stamp::Timestamp;
use stoq_api::{Fault, FaultKind};
use tokio::task::JoinSet;

use super::{QueueHarness, SUB, declared, is_quiet, next, numbered, subscribe};
use crate::wait::{must_end, until};

pub(super) async fn refuses_what_nobody_would_get(harness: &mut dyn QueueHarness) {
    let queue = harness.queue("refused").await;
    let refused = queue.publish(numbered(1)).await.expect_err("a message that no subscription gets is not accepted");
    // Where not even the queue is there, that is for the operator to mend.
    assert!(matches!(refused.kind, FaultKind::Refused | FaultKind::Misconfigured), "{refused:?}");
    queue.declare(&[SUB]).await.unwrap();
    queue.declare(&[SUB]).await.unwrap();
    let wrong = queue.subscribe("never declared", Prefetch { messages: 1 }).await;
    assert!(wrong.is_err(), "a subscription that was not declared");
    queue.publish(Vec::new()).await.unwrap();
    queue.publish(numbered(1)).await.unwrap();
    assert_eq!(next(&mut subscribe(&*queue, 1).await).await.message.id, "m0");
}

/// So many bytes that a publisher of this process has in mind.
struct Thought(usize);

impl Parcel for Thought {
    fn write(&self) -> Result<Message, Fault> {
        Ok(Message::new(self.0.to_string(), vec![b'x'; self.0]))
    }

    fn size(&self) -> usize {
        self.0
    }
}

pub(super) async fn parcels_say_what_their_messages_say(harness: &mut dyn QueueHarness) {
    const SIZES: [usize; 3] = [1, 200, 2_000];
    let queue = declared(harness, "parcels").await;
    let parcels = SIZES.map(|size| Arc::new(Thought(size)) as Arc<dyn Parcel>);
    queue.publish_parcels(parcels.to_vec()).await.unwrap();
    let mut deliveries = subscribe(&*queue, 10).await;
    for again in [false, true] {
        let mut said = BTreeSet::new();
        let mut held = Vec::new();
        for _ in SIZES {
            let delivery = next(&mut deliveries).await;
            let written = delivery.written().unwrap().into_owned();
            assert_eq!(written.id, written.body.len().to_string());
            if let Some(Thought(size)) = delivery.parcel() {
                assert_eq!(*size, written.body.len());
            }
            said.insert(written.body.len());
            held.push(delivery);
        }
        assert_eq!(said, BTreeSet::from(SIZES), "again: {again}");
        for delivery in held {
            if again { delivery.ack().await } else { delivery.release().await }.unwrap();
        }
    }
    assert!(is_quiet(&mut deliveries, harness.quiet()).await);
}

pub(super) async fn carries_every_kind_of_message(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "kinds").await;
    let large: Vec<u8> = (0_u32..1 << 18).flat_map(u32::to_le_bytes).collect();
    assert_eq!(large.len(), 1 << 20);
    let headers = [("kind", "1"), ("Name", "täst \u{1f980}"), ("empty", "")];
    let headers = headers.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
    let messages = [
        Message::new("empty", Vec::new()),
        Message::new("large", large),
        Message::new("every byte", (0..=255).collect::<Vec<u8>>()),
        Message { headers, ..Message::new("headers", "x") },
        Message::new("the same id", "1"),
        Message::new("the same id", "2"),
        Message::new("", "no id"),
    ];
    queue.publish(messages.to_vec()).await.unwrap();
    let mut deliveries = subscribe(&*queue, 100).await;
    let (mut got, mut untold) = (Vec::new(), BTreeSet::new());
    for _ in &messages {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.first, harness.tells_first(), "{:?} was never delivered before", delivery.message.id);
        untold.extend(delivery.untold.clone());
        got.push(delivery.message.clone());
        delivery.ack().await.unwrap();
    }
    let told_apart = if harness.tells_first() { 0 } else { messages.len() };
    assert_eq!(untold.len(), told_apart, "each message is told from all others where first deliveries are not told");
    // Headers have names; their order is not promised.
    let sorted = |mut all: Vec<Message>| {
        all.iter_mut().for_each(|m| m.headers.sort());
        all.sort_by(|a, b| (&a.id, &a.body).cmp(&(&b.id, &b.body)));
        all
    };
    assert!(sorted(got) == sorted(messages.to_vec()), "messages arrive as they were published");
}

pub(super) async fn gives_each_subscription_every_message(harness: &mut dyn QueueHarness) {
    let queue = harness.queue("fan out").await;
    let names = ["one", "two", "three"];
    queue.declare(&names).await.unwrap();
    queue.publish(numbered(20)).await.unwrap();
    for name in names {
        let mut deliveries = queue.subscribe(name, Prefetch { messages: 7 }).await.unwrap();
        let mut got = BTreeSet::new();
        for _ in 0..20 {
            let delivery = next(&mut deliveries).await;
            assert_eq!(
                delivery.first,
                harness.tells_first(),
                "{name}: a verdict in another subscription is none in this one"
            );
            got.insert(delivery.message.id.clone());
            delivery.ack().await.unwrap();
        }
        assert_eq!(got.len(), 20, "{name} gets every message");
    }
}

pub(super) async fn starts_a_late_subscription_with_later_messages(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "late").await;
    queue.publish(vec![Message::new("before", "")]).await.unwrap();
    queue.declare(&[SUB, "late"]).await.unwrap();
    queue.publish(vec![Message::new("after", "")]).await.unwrap();
    let mut late = queue.subscribe("late", Prefetch { messages: 10 }).await.unwrap();
    let delivery = next(&mut late).await;
    assert_eq!(delivery.message.id, "after");
    delivery.ack().await.unwrap();
    assert!(is_quiet(&mut late, harness.quiet()).await, "only what was published from then on");
    let mut main = subscribe(&*queue, 10).await;
    let got = [next(&mut main).await.message.id, next(&mut main).await.message.id];
    assert_eq!(BTreeSet::from(got).len(), 2, "declaring again takes nothing away");
}

pub(super) async fn shares_among_subscribers(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "shared").await;
    let (mut one, mut two) = (subscribe(&*queue, 1).await, subscribe(&*queue, 1).await);
    queue.publish(numbered(4)).await.unwrap();
    let held = next(&mut one).await;
    let mut got = BTreeSet::from([held.message.id.clone()]);
    for _ in 0..3 {
        let delivery = next(&mut two).await;
        got.insert(delivery.message.id.clone());
        delivery.ack().await.unwrap();
    }
    assert_eq!(got.len(), 4, "one subscriber that holds its message leaves the others to the other");
    held.ack().await.unwrap();
}

pub(super) async fn wakes_every_subscriber_with_room(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "woken").await;
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let mut deliveries = subscribe(&*queue, 1).await;
        waiting.spawn(async move {
            let delivery = next(&mut deliveries).await;
            (deliveries, delivery)
        });
    }
    tokio::task::yield_now().await;
    queue.publish(numbered(3)).await.unwrap();
    let mut woken = must_end("one message for each", waiting.join_all()).await;
    // Whoever has no room left does not keep the others from what comes back. The one that gave it back has room again,
    // and some brokers hand it out before anybody asks, so that one goes.
    let (deliveries, released) = woken.swap_remove(0);
    released.release().await.unwrap();
    drop(deliveries);
    let mut another = subscribe(&*queue, 1).await;
    assert!(!next(&mut another).await.first);
}

pub(super) async fn gives_back_what_was_released_or_dropped(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "given back").await;
    let mut deliveries = subscribe(&*queue, 2).await;
    queue.publish(vec![Message::new("a", "body")]).await.unwrap();
    let mut untold = BTreeSet::new();
    for round in 0..3 {
        let delivery = next(&mut deliveries).await;
        untold.insert(delivery.untold.clone());
        assert_eq!(delivery.first, round == 0 && harness.tells_first(), "round {round}");
        assert_eq!((delivery.message.id.as_str(), &delivery.message.body[..]), ("a", &b"body"[..]));
        match round {
            0 => delivery.release().await.unwrap(),
            1 => drop(delivery),
            _ => delivery.ack().await.unwrap(),
        }
    }
    assert_eq!(untold.len(), 1, "a message is known again, where first deliveries are not told: {untold:?}");
    assert!(is_quiet(&mut deliveries, harness.quiet()).await, "acknowledged at last");
}

pub(super) async fn gives_back_what_a_dropped_subscriber_held(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "gone").await;
    queue.publish(numbered(3)).await.unwrap();
    let mut gone = subscribe(&*queue, 3).await;
    let late = [next(&mut gone).await, next(&mut gone).await, next(&mut gone).await];
    drop(gone);
    // Whatever a verdict says that comes too late: the messages are the next subscriber's.
    let mut deliveries = subscribe(&*queue, 3).await;
    let mut got = BTreeSet::new();
    for _ in 0..3 {
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.first, "somebody had it before");
        got.insert(delivery.message.id.clone());
        delivery.ack().await.unwrap();
    }
    assert_eq!(got.len(), 3);
    drop(late);
    assert!(is_quiet(&mut deliveries, harness.quiet()).await, "a late verdict brings nothing back");
}

pub(super) async fn never_brings_back_what_was_acknowledged(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "acknowledged").await;
    queue.publish(numbered(10)).await.unwrap();
    let mut deliveries = subscribe(&*queue, 10).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(next(&mut deliveries).await);
    }
    for (n, delivery) in held.into_iter().enumerate() {
        if n % 2 == 0 { delivery.ack().await.unwrap() } else { delivery.release().await.unwrap() }
    }
    for _ in 0..5 {
        let delivery = next(&mut deliveries).await;
        assert!(!delivery.first, "only those come again that were released");
        delivery.ack().await.unwrap();
    }
    drop(deliveries);
    let mut another = subscribe(&*queue, 10).await;
    assert!(is_quiet(&mut another, harness.quiet()).await, "nothing is left");
}

pub(super) async fn holds_no_more_than_prefetch(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "prefetch").await;
    queue.publish(numbered(10)).await.unwrap();
    let mut deliveries = subscribe(&*queue, 3).await;
    let (one, two, three) = (next(&mut deliveries).await, next(&mut deliveries).await, next(&mut deliveries).await);
    assert!(is_quiet(&mut deliveries, harness.quiet()).await, "three are held, three is the bound");
    one.ack().await.unwrap();
    let four = next(&mut deliveries).await;
    assert!(is_quiet(&mut deliveries, harness.quiet()).await, "one verdict makes room for one");
    two.release().await.unwrap();
    let five = next(&mut deliveries).await;
    assert!(is_quiet(&mut deliveries, harness.quiet()).await, "a release makes room as well");
    drop(three);
    let six = next(&mut deliveries).await;
    for delivery in [four, five, six] {
        delivery.ack().await.unwrap();
    }
}

pub(super) async fn extends_what_is_held(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "extended").await;
    queue.publish(numbered(1)).await.unwrap();
    let mut deliveries = subscribe(&*queue, 2).await;
    let delivery = next(&mut deliveries).await;
    delivery.extend().await.unwrap();
    assert!(is_quiet(&mut deliveries, harness.quiet()).await, "still held");
    delivery.extend().await.unwrap();
    delivery.ack().await.unwrap();
    assert!(is_quiet(&mut deliveries, harness.quiet()).await);
}

pub(super) async fn delivers_once_while_all_acknowledge(harness: &mut dyn QueueHarness) {
    const PUBLISHERS: usize = 4;
    const EACH: usize = 150;
    let queue = declared(harness, "once").await;
    let mut work = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let queue = Arc::clone(&queue);
        work.spawn(async move {
            for batch in 0..EACH / 10 {
                let message = |n| Message::new(format!("{publisher}/{batch}/{n}"), vec![7; 300]);
                queue.publish((0..10).map(message).collect()).await.unwrap();
            }
            Vec::new()
        });
    }
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..4 {
        let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
        work.spawn(async move {
            let mut deliveries = subscribe(&*queue, 16).await;
            let mut got = Vec::new();
            while done.load(Ordering::SeqCst) < PUBLISHERS * EACH {
                tokio::select! {
                    delivery = deliveries.next() => {
                        let delivery = delivery.unwrap().expect("the queue is not shut down");
                        got.push(delivery.message.id.clone());
                        delivery.ack().await.unwrap();
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                    () = until("all are acknowledged", || async {
                        done.load(Ordering::SeqCst) >= PUBLISHERS * EACH
                    }) => {}
                }
            }
            got
        });
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for id in must_end("all messages", work.join_all()).await.into_iter().flatten() {
        *seen.entry(id).or_default() += 1;
    }
    assert_eq!(seen.len(), PUBLISHERS * EACH, "every message came");
    assert!(seen.values().all(|times| *times == 1), "and came once");
}

pub(super) async fn loses_nothing_to_cancelled_waits(harness: &mut dyn QueueHarness) {
    const COUNT: usize = 60;
    let queue = declared(harness, "cancelled").await;
    let mut deliveries = subscribe(&*queue, 4).await;
    let publisher = Arc::clone(&queue);
    let publishing = tokio::spawn(async move {
        for message in numbered(COUNT) {
            publisher.publish(vec![message]).await.unwrap();
        }
    });
    let mut got = BTreeSet::new();
    let mut turns = 0_usize;
    while got.len() < COUNT {
        turns += 1;
        // Each wait gets a different number of turns of the runtime before it is cut off; now and then one is let
        // through.
        let patience = turns % 17;
        let cut = async {
            for _ in 0..patience {
                tokio::task::yield_now().await;
            }
        };
        let delivery = tokio::select! {
            biased;
            delivery = deliveries.next() => delivery,
            () = cut, if patience != 0 => continue,
        };
        let delivery = delivery.unwrap().expect("the queue is not shut down");
        got.insert(delivery.message.id.clone());
        delivery.ack().await.unwrap();
    }
    publishing.await.unwrap();
    if harness.tells_depth() {
        settled_down(&*queue).await;
    } else {
        assert!(is_quiet(&mut deliveries, harness.quiet()).await, "nothing is left");
    }
}

/// Waits until nothing is left in the queue, held or not.
async fn settled_down(queue: &dyn Queue) {
    until("nothing is left", || async {
        let depth = queue.depth(SUB).await.unwrap();
        depth.ready == 0 && depth.held == 0
    })
    .await;
}

pub(super) async fn says_what_waits(harness: &mut dyn QueueHarness) {
    let queue = declared(harness, "depth").await;
    if !harness.tells_depth() {
        let refused = queue.depth(SUB).await.expect_err("nobody knows");
        assert_eq!(refused.kind, FaultKind::Refused, "{refused}");
        return;
    }
    let before = Timestamp::now();
    queue.publish(numbered(5)).await.unwrap();
    until("five wait", || async { queue.depth(SUB).await.unwrap().ready == 5 }).await;
    if let Some(oldest) = queue.depth(SUB).await.unwrap().oldest {
        // A broker's clock may be a little off.
        let skew = 60_000_000;
        assert!(oldest.0 + skew >= before.0 && oldest.0 <= Timestamp::now().0 + skew, "{oldest:?} against {before:?}");
    }
    let mut deliveries = subscribe(&*queue, 2).await;
    let held = [next(&mut deliveries).await, next(&mut deliveries).await];
    let two = if harness.knows_held() { 2 } else { 0 };
    until("all five are there", || async {
        let depth = queue.depth(SUB).await.unwrap();
        depth.ready == 3 && depth.held == two
    })
    .await;
    for delivery in held {
        delivery.ack().await.unwrap();
    }
    drop(deliveries);
    until("three are left", || async {
        let depth = queue.depth(SUB).await.unwrap();
        depth.ready == 3 && depth.held == 0
    })
    .await;
    let missing = queue.depth("never declared").await;
    assert!(missing.is_err(), "a subscription that was not declared");
}
