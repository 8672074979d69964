//! Tenants on a real fleet: each has its lanes, a worker may be bound to some, and one that floods does not hold up another.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use serde_json::Value;
use stoq_api::queue::{LaneOptions, Prefetch};
use stoq_api::results;

use crate::fleet::{Fleet, Kind, PREFIX, ROUTES, ends_well, stops_well};
use crate::support::{PATIENCE, files, responses_in, run, stoq, text, until};

/// Files of the tenant that floods: many more messages than a worker has places.
const FLOOD: usize = 2_000;
/// Files of the other one.
const FEW: usize = 40;
/// Files that a worker is bound to.
const BOUND: usize = 100;

/// The tenants, and an intake for each.
const TENANTS: &str = "[tenants.acme]\n[tenants.beta]\n[providers.acme.filedir]\ntenant = \"acme\"\n\
                       [providers.beta.filedir]\ntenant = \"beta\"\n";

/// Writes files for a tenant and has its provider take them.
async fn take(fleet: &mut Fleet, tenant: &str, folder: &str, count: usize) {
    let source = fleet.path(folder);
    std::fs::create_dir(&source).unwrap();
    for n in 0..count {
        let content = format!("{tenant} {folder} {n}\n").repeat(20);
        files::write(&source, &format!("{tenant}-{n:05}.txt"), content.as_bytes());
    }
    let option = format!("providers.{tenant}.filedir.source_dir={}", text(&source));
    ends_well("a provider", fleet.role("provider", &["-P", tenant, "--set", &option])).await;
}

fn tenant(response: &Value) -> &str {
    response["tenant"].as_str().unwrap_or_default()
}

fn count(responses: &[Value], of: &str) -> usize {
    responses.iter().filter(|response| tenant(response) == of).count()
}

fn waiting(fleet: &Fleet, lane: &str) -> u64 {
    let status = fleet.status();
    status["lanes"][lane]["waiting"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_tenant_does_not_hold_up_another() {
    // Nobody runs the second connector: its subscription is read here, which tells in which order responses came.
    let watch = "[connectors.watch.filedir]\nresults_dir = \"unused\"\n";
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| format!("{TENANTS}{watch}")).await;
    let made = fleet.command(&["setup"]).expect(0).out;
    for lane in ["roots", "children", "roots.acme", "children.acme", "roots.beta", "children.beta"] {
        assert!(made.contains(&format!("{PREFIX}.{lane}.workers")), "{lane}: {made}");
    }

    // What waits for others does not go to a worker that is bound.
    take(&mut fleet, "beta", "few", FEW).await;
    let few = waiting(&fleet, "roots.beta");
    assert!(few > 0);
    take(&mut fleet, "acme", "bound", BOUND).await;
    let connector = fleet.role("connector", &["-C", "out"]);
    let bound = fleet.role("worker", &["--slots", "1", "--tenant", "acme"]);
    until("the tenant's responses", || fleet.response_count() >= BOUND);
    stops_well("the bound worker", bound).await;
    assert_eq!((count(&fleet.responses(), "acme"), fleet.response_count()), (BOUND, BOUND));
    assert_eq!(waiting(&fleet, "roots.beta"), few, "it took what is not for it");

    // Both wait when the worker comes.
    take(&mut fleet, "acme", "flood", FLOOD).await;
    let worker = fleet.role("worker", &["--slots", "1"]);
    let all = BOUND + FLOOD + FEW;
    until("all responses", || fleet.response_count() >= all);
    until("nothing is left", || {
        let status = fleet.status();
        let lanes = status["lanes"].as_object().unwrap().iter().filter(|(name, _)| *name != "results for watch");
        lanes.into_iter().all(|(_, lane)| lane["waiting"] == 0) && status["open_scans"] == 0
    });
    stops_well("the worker", worker).await;
    stops_well("the connector", connector).await;
    let responses = fleet.responses();
    assert_eq!((count(&responses, "acme"), count(&responses, "beta")), (BOUND + FLOOD, FEW));

    let order = order(&fleet, all).await;
    let last = order.iter().rposition(|of| of == "beta").unwrap();
    let before = last + 1 - FEW - BOUND;
    // Of equal weight, they get as much of the slots each: as long as the flood takes, the other one is done before.
    assert!(before < FLOOD / 2, "{before} of the flood's {FLOOD} responses came before the last of the other's {FEW}");
}

/// Whose the responses are, in the order in which they were published.
async fn order(fleet: &Fleet, all: usize) -> Vec<String> {
    let lane = fleet.broker_client().lane("results", LaneOptions::default());
    let mut deliveries = lane.subscribe("watch", Prefetch { messages: 100 }).await.unwrap();
    let mut order = Vec::new();
    while order.len() < all {
        let next = tokio::time::timeout(PATIENCE, deliveries.next()).await.expect("responses are on their lane");
        let delivery = next.unwrap().unwrap();
        for item in results::unpack(&delivery.message).unwrap() {
            order.push(tenant(&serde_json::from_slice(&item.json).unwrap()).to_owned());
        }
        delivery.ack().await.unwrap();
    }
    order
}

/// Alone on one machine tenants have lanes of their own, too, and responses say whose they are.
#[test]
fn one_machine_keeps_tenants_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (configuration, out, data) = (dir.path().join("stoq.toml"), dir.path().join("out"), dir.path().join("data"));
    let mut providers = String::new();
    for (name, tenant) in [("acme", "acme"), ("beta", "beta"), ("plain", "default")] {
        let source = dir.path().join(name);
        std::fs::create_dir(&source).unwrap();
        for n in 0..20 {
            files::write(&source, &format!("{n}.txt"), format!("{name} {n}").as_bytes());
        }
        providers +=
            &format!("[providers.{name}.filedir]\nsource_dir = \"{}\"\ntenant = \"{tenant}\"\n", text(&source));
    }
    let content = format!(
        "{ROUTES}[tenants.acme]\nweight = 3\n[tenants.beta]\n{providers}[connectors.out.filedir]\nresults_dir = \"{}\"\n",
        text(&out)
    );
    std::fs::write(&configuration, content).unwrap();
    let run_it = || run(stoq(&["run", "-c", text(&configuration), "--data-dir", text(&data), "--slots", "1"]));
    run_it().expect(0);
    let responses = responses_in(&out);
    assert_eq!((count(&responses, "acme"), count(&responses, "beta"), count(&responses, "")), (20, 20, 20));
    let status = run(stoq(&["status", "-c", text(&configuration), "--data-dir", text(&data)])).expect(0).out;
    assert!(status.contains("roots.acme") && status.contains("children.beta"), "{status}");

    let bound = run(stoq(&["run", "-c", text(&configuration), "--data-dir", text(&data), "--set", "run.tenants=acme"]));
    bound.expect(2).says(&["run.tenants binds workers of a fleet"]);
    let unknown = run(stoq(&["check", "-c", text(&configuration), "--set", "providers.beta.filedir.tenant=bets"]));
    unknown.expect(2).says(&["there is no tenant `bets`", "did you mean `beta`?"]);
}
