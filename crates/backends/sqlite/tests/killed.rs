//! A process that is killed at random moments loses nothing that it was told is safe.
#![expect(clippy::unwrap_used, reason = "helper functions are test code, though they are not marked as such")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use stoq_api::ledger::{Admitted, Ledger as _, Settled};
use stoq_api::queue::{Message, Prefetch, Queue as _};
use stoq_api::{Budgets, PayloadId, ScanId, Timestamp};
use stoq_sqlite::{Sqlite, SqliteOptions};
use stoq_testkit::samples::{child, head, outcome};
use stoq_testkit::wait::must_end;
use uuid::Uuid;

/// Tells this test, run again as a child, where to work and what to call its messages.
const CHILD: &str = "STOQ_TEST_KILLED_CHILD";
const KILLS: usize = 20;
/// What a child says at most before it is killed.
const LINES: usize = 120;
const NOW: Timestamp = Timestamp(1_767_400_000_000_000);

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{line}").unwrap();
    out.flush().unwrap();
}

/// Publishes, acknowledges and settles for ever, and says of each what is confirmed.
async fn work(directory: &Path, life: &str) {
    let sqlite = Sqlite::open(directory, SqliteOptions::default()).unwrap();
    let queue = Arc::new(sqlite.queue("q"));
    queue.declare(&["s"]).await.unwrap();
    let publish = async {
        for n in 0_u64.. {
            let ids: Vec<_> = (0..=n % 3).map(|part| format!("{life}-{n}-{part}")).collect();
            let body = vec![7; usize::try_from(n % 40).unwrap() * 500];
            queue.publish(ids.iter().map(|id| Message::new(id, body.clone())).collect()).await.unwrap();
            ids.iter().for_each(|id| say(&format!("published {id}")));
        }
    };
    let consume = async {
        let mut deliveries = queue.subscribe("s", Prefetch { messages: 4 }).await.unwrap();
        for n in 0_u64.. {
            let delivery = deliveries.next().await.unwrap().unwrap();
            let id = delivery.message.id.clone();
            say(&format!("delivered {} {id}", delivery.first));
            if n % 5 == 0 {
                drop(delivery);
            } else {
                delivery.ack().await.unwrap();
                say(&format!("acknowledged {id}"));
            }
        }
    };
    let settle = async {
        let ledger = sqlite.ledger();
        for n in 0_u128.. {
            let scan = ScanId(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{life} {n}").as_bytes()));
            let (head, root, below) =
                (head(scan, &[10], Budgets::default()), PayloadId::root(scan, 0), child(scan, "c", 1));
            ledger.admit(scan, Some(&head), root, std::slice::from_ref(&below), NOW).await.unwrap();
            say(&format!("admitted {}", scan.0));
            ledger.settle(scan, Some(&head), &outcome(root, 1), &[], NOW).await.unwrap();
            ledger.settle(scan, None, &outcome(below.id, 2), &[], NOW).await.unwrap();
            say(&format!("frozen {}", scan.0));
        }
    };
    tokio::join!(publish, consume, settle);
}

/// What all lives so far were told.
#[derive(Default)]
struct Told {
    published: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
    delivered: BTreeSet<String>,
    admitted: BTreeSet<ScanId>,
    frozen: BTreeSet<ScanId>,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (what, last) = (words.next().unwrap(), words.next_back().unwrap().to_owned());
        let scan = || ScanId(last.parse().unwrap());
        match what {
            "published" => drop(self.published.insert(last)),
            "acknowledged" => drop(self.acknowledged.insert(last)),
            "delivered" => {
                assert!(!self.acknowledged.contains(&last), "{last} came again after its acknowledgement");
                let first = line.contains(" true ");
                assert!(self.delivered.insert(last.clone()) || !first, "{last} came twice as the first time");
            }
            "admitted" => drop(self.admitted.insert(scan())),
            "frozen" => drop(self.frozen.insert(scan())),
            other => panic!("a child says {other}"),
        }
    }

    /// Opens what the child left and compares.
    async fn compare(&self, directory: &Path) {
        let sqlite = Sqlite::open(directory, SqliteOptions::default()).unwrap();
        let (queue, ledger) = (sqlite.queue("q"), sqlite.ledger());
        queue.declare(&["s"]).await.unwrap();
        let depth = queue.depth("s").await.unwrap();
        let mut deliveries = queue.subscribe("s", Prefetch { messages: u32::MAX }).await.unwrap();
        let mut there = BTreeMap::new();
        for _ in 0..depth.ready {
            let delivery = must_end("as many messages as were counted", deliveries.next()).await.unwrap().unwrap();
            let id = delivery.message.id.clone();
            assert!(!(delivery.first && self.delivered.contains(&id)), "{id} was delivered before");
            assert!(there.insert(id.clone(), delivery).is_none(), "{id} is there twice");
        }
        let lost: Vec<_> =
            self.published.iter().filter(|id| !self.acknowledged.contains(*id) && !there.contains_key(*id)).collect();
        // An acknowledgement that was done but not heard of takes a message away for good; there is one consumer, which
        // waits for each, so that there can be one such message in each life.
        assert!(lost.len() <= self.lives(), "{lost:?} are lost");
        assert!(lost.iter().all(|id| self.delivered.contains(*id)), "{lost:?}: nobody ever had them");
        let returned: Vec<_> = self.acknowledged.iter().filter(|id| there.contains_key(*id)).collect();
        assert!(returned.is_empty(), "{returned:?} were acknowledged");
        for scan in &self.frozen {
            let frozen = ledger.frozen(*scan).await.unwrap().unwrap();
            assert_eq!(frozen.outcomes.len(), 2);
        }
        for scan in self.admitted.difference(&self.frozen) {
            let head = head(*scan, &[10], Budgets::default());
            let root = PayloadId::root(*scan, 0);
            let again = ledger.admit(*scan, None, root, &[child(*scan, "c", 1)], NOW).await.unwrap();
            assert!(matches!(again, Admitted::Open(_) | Admitted::Frozen), "{again:?}");
            ledger.settle(*scan, Some(&head), &outcome(root, 1), &[], NOW).await.unwrap();
            let settled = ledger.settle(*scan, None, &outcome(child(*scan, "c", 1).id, 2), &[], NOW).await.unwrap();
            assert_eq!(settled, Settled::Frozen, "what was admitted can be finished");
        }
        drop((deliveries, there));
        sqlite.close().await;
    }

    fn lives(&self) -> usize {
        self.published.iter().filter_map(|id| id.split('-').next()).collect::<BTreeSet<_>>().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_nothing() {
    if let Some(arguments) = env::var_os(CHILD) {
        let arguments = arguments.into_string().unwrap();
        let (life, directory) = arguments.split_once(' ').unwrap();
        work(Path::new(directory), life).await;
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let mut runner = TestRunner::deterministic();
    for life in 0..KILLS {
        let lines = (1..LINES).new_tree(&mut runner).unwrap().current();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "twenty_kills_lose_nothing", "--nocapture"])
            .env(CHILD, format!("l{life} {}", directory.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        // The harness of the child prints lines of its own.
        let mut ours = || said.by_ref().find_map(|line| line.ok()?.split_once('@').map(|(_, line)| line.to_owned()));
        for _ in 0..lines {
            told.hear(&ours().expect("a child works until it is killed"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between the decision and its death.
        while let Some(line) = ours() {
            told.hear(&line);
        }
        told.compare(directory.path()).await;
    }
    assert!(!told.acknowledged.is_empty() && !told.frozen.is_empty(), "the children did something");
}
