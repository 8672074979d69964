//! A lane of roots that is full: providers wait for room, workers make it, and so must never wait for it.

use std::time::Duration;

use stoq_memory::MemoryQueue;
use stoq_testkit::fault::{FaultPlan, Trouble};

use crate::world::World;
use crate::{TREE, operations, settled};

/// Far above what holding on to something takes, in virtual time.
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);

/// One message waits or is held, and there is no room for a second.
async fn world() -> World {
    let mut world = World::with_roots(|name| MemoryQueue::bounded(name, 1)).await;
    world.concurrency = 1;
    world
}

async fn ends(world: &World, case: &str) {
    let plan = FaultPlan::calm();
    let work = world.live(&plan, 1, |_| ());
    assert!(tokio::time::timeout(FOR_EVER, work).await.is_ok(), "{case}: the worker waits for room");
    settled(world, case).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_taken_apart() {
    let mut apart = 0;
    for k in 0..operations(TREE, 1, 1).await {
        let world = world().await;
        world.take_together(&[TREE, b"other(a)", b"last"]).await;
        world.live(&FaultPlan::at(k, Trouble::CrashAfter), 1, |_| ()).await;
        apart += usize::from(world.waiting().await > 0);
        ends(&world, &format!("crash at {k}")).await;
        assert_eq!(world.documents().await.len(), 3, "crash at {k}");
    }
    assert!(apart > 0, "no crash left the message, so none was taken apart");
}

#[tokio::test(start_paused = true)]
async fn a_lost_scan_is_made_anew() {
    let mut anew = 0;
    for k in 0..operations(TREE, 1, 1).await {
        let mut world = world().await;
        world.take(TREE, 1).await;
        world.live(&FaultPlan::at(k, Trouble::CrashAfter), 1, |_| ()).await;
        let waiting = world.waiting().await;
        // Where the root waits itself, there is no room for another one, and no need of it.
        if waiting == 0 || world.roots_waiting().await > 0 {
            continue;
        }
        world.forget();
        world.take(b"other(a)", 1).await;
        ends(&world, &format!("crash at {k}")).await;
        assert_eq!(world.documents().await.len(), 2, "crash at {k}");
        anew += 1;
    }
    assert!(anew > 0, "no crash left children alone, so no scan was made anew");
}
