//! Outages and backlogs that last longer than anything is held, and longer than a scan may take: what they hold up is late,
//! and never partial, given up or lost.
//!
//! Times are scaled down by configuration. `OUTAGE_SECONDS=300 OUTAGE_ROOTS=6000 cargo test -p stoq --test outages` takes the
//! store away for the five minutes that it may well be away; work is held for a third of that.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stoq_api::queue::{Message, Queue};
use stoq_testkit::services::Process;

use crate::fleet::{Bucket, Fleet, Kind, ends_well, intake_of, stops_well};
use crate::support::files::{self, Random};
use crate::support::{name_of, text, until};

/// How long the store is away, in seconds.
const OUTAGE_SECONDS: u64 = 60;
/// The outage is so many times as long as work is held.
const HOLDS: u64 = 3;
/// References that come before, during and after the outage.
const OUTAGE_ROOTS: u64 = 600;
/// One root of so many is too large to travel in its task.
const LARGE: usize = 10;
const LARGE_BYTES: usize = 90_000;
/// How long the fleet may take for what the outage held up.
const CATCH_UP: Duration = Duration::from_secs(1_200);

/// Roots of the backlog: enough that a worker is still at them when they are looked at.
const BACKLOG: usize = 120;
/// Until a scan of the backlog is given up.
const MAX_TIME: Duration = Duration::from_secs(4);
/// How long a worker of the backlog may hold work. Whoever works longer than this behind another is taken to have lost it.
const HOLD: Duration = Duration::from_secs(20);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text:?}: {e}")))
}

/// A payload within payloads, each of which is extracted from the one around it.
fn deep(n: usize) -> Vec<u8> {
    let inner = files::zip(&[("packed.gz".to_owned(), files::gz(&files::nested_zip(n)))]);
    files::zip(&[
        ("mail.eml".to_owned(), files::mail(n, "inner.zip", &inner)),
        ("text".to_owned(), n.to_string().into()),
    ])
}

fn reference(n: usize) -> Message {
    let mut members = vec![("nested.zip".to_owned(), files::nested_zip(n))];
    if n.is_multiple_of(LARGE) {
        members.push(("large.bin".to_owned(), Random(n as u64).bytes(LARGE_BYTES)));
    }
    let body = json!({ "payload": { "base64": STANDARD.encode(files::zip(&members)), "filename": n.to_string() } });
    Message::new(format!("reference-{n}"), serde_json::to_vec(&body).unwrap())
}

/// Publishes `roots` references, one after the other, spread over `time`.
async fn feed(intake: Arc<dyn Queue>, roots: usize, time: Duration) {
    let begun = tokio::time::Instant::now();
    for n in 0..roots {
        tokio::time::sleep_until(begun + time.mul_f64(n as f64 / roots as f64)).await;
        intake.publish(vec![reference(n)]).await.unwrap();
    }
}

/// All roots are answered once, completely, without anything that says that something went wrong.
fn all_well(fleet: &Fleet, roots: usize) {
    let responses = fleet.responses();
    assert_eq!(responses.iter().map(name_of).collect::<BTreeSet<_>>().len(), roots, "each has its response");
    assert_eq!(responses.len(), roots, "and no other");
    for response in &responses {
        assert_eq!((&response["complete"], &response["errors"]), (&json!(true), &json!([])), "{response:#}");
        let payloads = response["results"].as_array().unwrap();
        assert!(payloads.iter().all(|payload| payload["findings"] == json!([])), "{response:#}");
    }
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty(), "nothing was given up");
}

/// The store answers 503 for several times as long as work is held, and references keep coming.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_makes_everything_late_and_nothing_partial() {
    let outage = setting("OUTAGE_SECONDS", OUTAGE_SECONDS);
    let roots = usize::try_from(setting("OUTAGE_ROOTS", OUTAGE_ROOTS)).unwrap();
    // A scan's time is over long before the store is back.
    let (hold, max_time) = (format!("fleet.hold_max={} s", outage / HOLDS), outage / HOLDS);
    let mut fleet = Fleet::start_over(Kind::RabbitMq, Some(Bucket::start().await), |broker, _| {
        let queue = broker.name_of_intake("other", "intake");
        format!(
            "[providers.in.queue]\nbroker = \"main\"\nqueue = \"{queue}\"\nformat = \"native\"\n[budgets]\nmax_time = \
             \"{max_time} s\"\n"
        )
    })
    .await;
    fleet.command(&["setup"]).expect(0);
    let outage = Duration::from_secs(outage);
    let intake = intake_of(&fleet, "other", "intake").await;
    let feeding = tokio::spawn(feed(intake, roots, outage + outage / 2));
    let held = ["--set", hold.as_str()];
    let provider = fleet.role("provider", &held);
    let worker = |fleet: &mut Fleet| fleet.role("worker", &["--slots", "1", "--set", hold.as_str()]);
    let workers = [worker(&mut fleet), worker(&mut fleet)];
    let connector = fleet.role("connector", &held);
    until("the first roots are answered", || fleet.response_count() >= roots / 20);

    let line = &fleet.bucket.as_ref().unwrap().line;
    line.busy();
    tokio::time::sleep(outage).await;
    let gave_back = |process: &Process| process.log().contains("given back");
    until("somebody has held on for as long as he may", || workers.iter().any(gave_back));
    line.heal();
    feeding.await.unwrap();
    let begun = Instant::now();
    while fleet.response_count() < roots || !fleet.is_idle() {
        let status = fleet.command(&["status"]).out;
        assert!(begun.elapsed() < CATCH_UP, "{} of {roots} answered; {status}", fleet.response_count());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for worker in workers {
        stops_well("a worker", worker).await;
    }
    stops_well("the provider", provider).await;
    stops_well("the connector", connector).await;
    all_well(&fleet, roots);
    let kept = fleet.bucket.as_ref().unwrap().objects().join("quarantine");
    assert!(!kept.exists(), "something lies in quarantine");
}

/// Tasks of scans that were open wait until the time of those scans is over, and more.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_is_older_than_the_deadline_is_worked_off_completely() {
    let budgets = format!("[budgets]\nmax_time = \"{} s\"\n", MAX_TIME.as_secs());
    let mut fleet = Fleet::start(Kind::RabbitMq, |_| budgets).await;
    fleet.command(&["setup"]).expect(0);
    let source = fleet.path("in");
    std::fs::create_dir(&source).unwrap();
    for n in 0..BACKLOG {
        files::write(&source, &n.to_string(), &deep(n));
    }
    let provider = format!("providers.in.filedir.source_dir={}", text(&source));
    ends_well("the provider", fleet.role("provider", &["--set", &provider])).await;
    let hold = format!("fleet.hold_max={} s", HOLD.as_secs());
    let worker = |fleet: &mut Fleet| fleet.role("worker", &["--slots", "1", "--set", &hold]);
    let mut first = worker(&mut fleet);
    let status = |fleet: &Fleet| fleet.status();
    // While it stands still nothing changes between the look and the kill.
    until("scans are open", || {
        first.freeze();
        let open = status(&fleet)["open_scans"].as_u64().unwrap() > 0;
        if !open {
            first.thaw();
        }
        open
    });
    first.kill();
    let left = status(&fleet);
    assert!(left["open_scans"].as_u64().unwrap() > 0, "{left}");

    // Nobody works until all that is open is overdue.
    tokio::time::sleep(3 * MAX_TIME).await;
    let workers = [worker(&mut fleet), worker(&mut fleet)];
    let connector = fleet.role("connector", &[]);
    until("all are answered", || fleet.response_count() >= BACKLOG && fleet.is_idle());
    for worker in workers {
        stops_well("a worker", worker).await;
    }
    stops_well("the connector", connector).await;
    all_well(&fleet, BACKLOG);
}
