//! A fleet on real servers gives what one machine gives: reference, provider, three workers, connector.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use crate::fleet::{Fleet, Kind, ROUTES, ends_well, stops_well};
use crate::support::files::{self, Random};
use crate::support::{assert_same, by_name, fixture, run, stoq, text, until};

/// Files that are scanned.
const FILES: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_gives_what_one_machine_gives() {
    same_as_alone(Kind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_gives_what_one_machine_gives() {
    same_as_alone(Kind::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pubsub_gives_what_one_machine_gives() {
    same_as_alone(Kind::PubSub).await;
}

async fn same_as_alone(kind: Kind) {
    let mut fleet = Fleet::start(kind, |_| String::new()).await;
    let source = fleet.path("in");
    std::fs::create_dir(&source).unwrap();
    make(&source);
    let alone = fleet.path("alone.toml");
    std::fs::write(&alone, ROUTES).unwrap();
    let expected = run(stoq(&["scan", "--config-file", text(&alone), text(&source)])).expect(0);
    let expected = by_name(expected.responses());
    assert_eq!(expected.len(), FILES);

    let planned = fleet.command(&["setup", "--dry-run"]).expect(0);
    assert!(planned.out.contains("would make") && !planned.out.contains("is there"), "{}", planned.out);
    let made = fleet.command(&["setup"]).expect(0);
    assert_eq!(made.out, planned.out.replace("would make", "made      "));
    let again = fleet.command(&["setup"]).expect(0);
    assert_eq!(again.out, planned.out.replace("would make", "is there  "));

    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(fleet.role("worker", &["--slots", "1"]));
    }
    let connector = fleet.role("connector", &[]);
    let provider = format!("providers.in.filedir.source_dir={}", text(&source));
    ends_well("the provider", fleet.role("provider", &["--set", &provider])).await;
    until("all responses", || fleet.response_count() >= FILES);
    until("nothing is left", || fleet.is_idle());
    for worker in workers {
        stops_well("a worker", worker).await;
    }
    stops_well("the connector", connector).await;
    assert_same(&expected, &by_name(fleet.responses()), "a fleet");
    assert!(fleet.command(&["dead", "list", "--json"]).expect(0).out.is_empty());
}

/// Files of several kinds and sizes, some of them nested, some of them too large for a message.
fn make(dir: &std::path::Path) {
    let mut random = Random(300);
    let document = std::fs::read(fixture("sample_doc_with_pe.doc")).unwrap();
    for n in 0..FILES {
        let (kind, bytes) = match n % 6 {
            0 => ("zip", files::nested_zip(n)),
            1 => ("eml", files::mail(n, "nested.zip", &files::nested_zip(n))),
            2 => ("doc", [&document[..], format!("mark {n}").as_bytes()].concat()),
            3 => ("bin", random.bytes(if n % 60 == 3 { 300_000 } else { 5_000 })),
            4 => ("empty", Vec::new()),
            _ => ("txt", format!("text {n}\n").repeat(n).into_bytes()),
        };
        files::write(dir, &format!("{n:04}.{kind}"), &bytes);
    }
}
