//! Tenants in a small world: whose lanes are worked on when, and that a backlog of roots does not fill the ledger.

use std::time::Duration;

use stoq_api::Timestamp;
use stoq_api::ledger::Ledger;
use stoq_engine::sweep;
use stoq_testkit::fault::{FaultPlan, Trouble};

use super::settled;
use super::world::{TENANT, World};

/// Puts so many roots of a tenant, each with children, on their lane.
async fn backlog(world: &mut World, tenant: Option<&'static str>, roots: usize) {
    world.tenant = tenant;
    for n in 0..roots {
        world.take(format!("{n}{tenant:?}(a{n})(b{n}(c{n}))").as_bytes(), 1).await;
    }
}

/// At any moment each open scan has a payload in some worker's hand: a worker begins with a root only when no child waits.
/// So what the ledger holds is bounded by the places of the workers, however many roots wait. (What is on its way between
/// a broker and a worker comes on top; in memory that takes no time.)
#[tokio::test(start_paused = true)]
async fn the_ledger_stays_flat_under_a_backlog_of_roots() {
    for (concurrency, tenants) in [(1, [300, 0]), (4, [300, 0]), (16, [300, 0]), (4, [150, 150])] {
        let mut world = World::new().await;
        world.concurrency = concurrency;
        backlog(&mut world, None, tenants[0]).await;
        backlog(&mut world, Some(TENANT), tenants[1]).await;
        world.live(&FaultPlan::calm(), 1, |_| ()).await;
        assert_eq!(world.documents().await.len(), 300);
        settled(&world, "backlog").await;
        // Those for all, and one that each tenant has of its own, or a quarter of all.
        let places = (concurrency + 2.max(concurrency / 4)) as u64;
        let peak = world.peak();
        assert!((1..=places).contains(&peak), "{peak} scans were open with {concurrency} places for all");
    }
}

#[tokio::test(start_paused = true)]
async fn one_tenants_flood_does_not_hold_up_another() {
    let mut world = World::new().await;
    world.concurrency = 4;
    backlog(&mut world, None, 200).await;
    backlog(&mut world, Some(TENANT), 20).await;
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    let order = world.order().await;
    assert_eq!(order.len(), 220);
    let last = order.iter().rposition(|tenant| tenant.as_deref() == Some(TENANT)).unwrap();
    let others = last + 1 - 20;
    assert!(
        others <= 20 + 2 * world.concurrency,
        "{others} of the flood came before the last of the others: {order:?}"
    );
    assert!(order[..20].iter().any(Option::is_none), "nor does the other hold up the flood");
}

#[tokio::test(start_paused = true)]
async fn a_worker_takes_what_it_is_bound_to_and_nothing_else() {
    let mut world = World::new().await;
    backlog(&mut world, None, 3).await;
    backlog(&mut world, Some(TENANT), 3).await;
    world.takes = [false, true];
    let bound = async {
        while world.waiting_of(1).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    world.live_until(&FaultPlan::calm(), 2, |_| (), bound).await;
    assert_eq!(world.waiting_of(0).await, 3, "what is not for it waits");
    assert_eq!(world.order().await, vec![Some(TENANT.to_owned()); 3]);
    world.takes = [true, true];
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    assert_eq!(world.order().await, vec![None; 3]);
    settled(&world, "all").await;
}

/// What is left of a tenant that was taken out of the configuration is answered all the same, in its name.
#[tokio::test(start_paused = true)]
async fn a_tenant_that_is_gone_loses_nothing() {
    let mut world = World::new().await;
    backlog(&mut world, Some("gone"), 2).await;
    world.live(&FaultPlan::calm(), 1, |_| ()).await;
    assert_eq!(world.order().await, vec![Some("gone".to_owned()); 2]);
    settled(&world, "gone").await;
}

/// A scan's clock stands still while older tasks of its own tenant wait, not while others' do.
#[tokio::test(start_paused = true)]
async fn overdue_scans_wait_for_their_own_tenant_only() {
    for (left, swept) in [(None, 1), (Some(TENANT), 0)] {
        let mut world = World::new().await;
        backlog(&mut world, Some(TENANT), 1).await;
        let crash = FaultPlan::at(6, Trouble::CrashAfter);
        world.live(&crash, 1, |_| ()).await;
        world.live(&FaultPlan::calm(), 1, |parts| parts.clear()).await;
        assert_eq!(world.ledger.open_scans().await.unwrap(), 1, "a retry that found nothing leaves a scan open");
        backlog(&mut world, left, 1).await;
        let around = world.around(&FaultPlan::calm(), |_| ());
        let later = Timestamp::now().after(Duration::from_secs(120));
        assert_eq!(sweep::once(&around, later).await.unwrap(), swept, "while a task of {left:?} waits");
    }
}

/// A scan that the ledger lost is made anew by way of its own tenant's lanes.
#[tokio::test(start_paused = true)]
async fn lost_scans_are_made_anew_in_their_own_lanes() {
    let mut world = World::new().await;
    backlog(&mut world, Some(TENANT), 1).await;
    world.live(&FaultPlan::at(7, Trouble::CrashAfter), 1, |_| ()).await;
    assert!(world.waiting_of(1).await > 0, "nothing is left to do");
    world.forget();
    world.takes = [false, true];
    let own = async {
        while world.waiting_of(1).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    world.live_until(&FaultPlan::calm(), 1, |_| (), own).await;
    assert_eq!(world.order().await, [Some(TENANT.to_owned())]);
    settled(&world, "made anew").await;
}
