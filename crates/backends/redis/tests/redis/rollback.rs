//! Workers that keep to the rules of settlement, on a server that falls back to an earlier state again and again: whatever
//! happens in whatever order, a scan that is called complete has the outcome of every payload.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use stoq_api::PayloadId;
use stoq_api::ledger::{Admission, Admitted, ChildRecord, Completeness, Ledger, Settled};
use stoq_testkit::services::Redis;

use crate::common::{Objects, ledger_over, options};
use crate::scan::Scan;

/// Scans that are tried.
const SCANS: u64 = 200;
/// What happens to each.
const STEPS: usize = 80;
/// Payloads of a scan.
const PAYLOADS: usize = 7;
/// Processes that work on it.
const PROCESSES: usize = 2;

/// Numbers that are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// One payload in a worker's hands.
struct Attempt {
    process: usize,
    payload: usize,
    admitted: bool,
    published: BTreeSet<usize>,
}

/// What the server held at one time.
type Past = Vec<(Vec<u8>, Vec<u8>)>;

struct World {
    scan: Scan,
    /// By payload: what is found in it.
    children: Vec<Vec<usize>>,
    records: Vec<ChildRecord>,
    lane: Vec<usize>,
    attempts: Vec<Attempt>,
    ledgers: Vec<Arc<dyn Ledger>>,
    complete: bool,
}

impl World {
    fn new(dice: &mut Dice, ledgers: Vec<Arc<dyn Ledger>>) -> Self {
        let scan = Scan::new();
        let mut children = vec![Vec::new(); PAYLOADS];
        for payload in 1..PAYLOADS {
            // Everything is found in something, and some in two places.
            for _ in 0..=dice.roll(2) {
                let parent = dice.roll(payload);
                children[parent].push(payload);
            }
        }
        children.iter_mut().for_each(|of| of.dedup());
        let records = (0..PAYLOADS).map(|n| scan.child(&n.to_string())).collect();
        Self { scan, children, records, lane: vec![0], attempts: Vec::new(), ledgers, complete: false }
    }

    fn id(&self, payload: usize) -> PayloadId {
        if payload == 0 { self.scan.root() } else { self.records[payload].id }
    }

    fn take(&mut self, n: usize, process: usize) {
        let payload = self.lane.swap_remove(n);
        self.attempts.push(Attempt { process, payload, admitted: false, published: BTreeSet::new() });
    }

    /// Takes an attempt one operation further; the delivery is acknowledged where it does not come back.
    async fn go_on(&mut self, n: usize) {
        let mut attempt = self.attempts.swap_remove(n);
        let ledger = Arc::clone(&self.ledgers[attempt.process]);
        let id = self.id(attempt.payload);
        let found = self.children[attempt.payload].clone();
        if !attempt.admitted && !found.is_empty() {
            let records: Vec<_> = found.iter().map(|child| self.records[*child].clone()).collect();
            match self.scan.try_admit(&*ledger, id, &records).await.unwrap() {
                Admitted::Unknown => self.lane.push(0),
                Admitted::Frozen | Admitted::Closed => self.finish(&*ledger).await,
                Admitted::Open(admissions) => {
                    let publish = |a: &Admission| matches!(a, Admission::New | Admission::Known { own: true });
                    let publish = found.iter().zip(&admissions).filter(|(_, a)| publish(a)).map(|(child, _)| *child);
                    attempt.published.extend(publish);
                    self.lane.extend(&attempt.published);
                    attempt.admitted = true;
                    self.attempts.push(attempt);
                }
            }
            return;
        }
        let children: Vec<_> = found.iter().map(|child| self.records[*child].id).collect();
        match self.scan.try_settle(&*ledger, id, &children).await.unwrap() {
            Settled::Unknown => self.lane.push(0),
            Settled::Frozen => self.finish(&*ledger).await,
            Settled::Closed => {}
            Settled::Open { unsettled } => {
                let missing = found.iter().filter(|child| unsettled.contains(&self.records[**child].id));
                self.lane.extend(missing.filter(|child| !attempt.published.contains(child)));
            }
        }
    }

    /// The promise.
    async fn finish(&mut self, ledger: &dyn Ledger) {
        let frozen = ledger.frozen(self.scan.id).await.unwrap().unwrap();
        assert_eq!(frozen.completeness, Completeness::Complete, "nobody sweeps here");
        let have: BTreeSet<PayloadId> = frozen.outcomes.iter().map(|outcome| outcome.payload_id()).collect();
        for payload in 0..PAYLOADS {
            assert!(have.contains(&self.id(payload)), "complete without {payload} of {:?}", self.children);
        }
        self.complete = true;
    }

    /// A process dies: what it had in hand is delivered again.
    fn crash(&mut self, process: usize, again: Arc<dyn Ledger>) {
        let (lost, kept) = std::mem::take(&mut self.attempts).into_iter().partition(|a| a.process == process);
        let lost: Vec<Attempt> = lost;
        self.attempts = kept;
        self.lane.extend(lost.iter().map(|attempt| attempt.payload));
        self.ledgers[process] = again;
    }
}

async fn remember(connection: &mut MultiplexedConnection) -> Past {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("{stoq:*").query_async(connection).await.unwrap();
    let mut past = Vec::new();
    for key in keys {
        let value = redis::cmd("DUMP").arg(&key).query_async(connection).await.unwrap();
        past.push((key, value));
    }
    past
}

async fn fall_back(connection: &mut MultiplexedConnection, past: &Past) {
    let mut commands = redis::pipe();
    commands.atomic().cmd("FLUSHALL").ignore();
    for (key, value) in past {
        commands.cmd("RESTORE").arg(key).arg(1_000_000_000).arg(value).ignore();
    }
    commands.exec_async(connection).await.unwrap();
}

#[tokio::test]
async fn nothing_is_complete_that_is_not() {
    let server = Redis::start().await;
    let options = options(&[server.address()]);
    let ledger = || ledger_over(&options, Arc::<Objects>::default());
    let client = redis::Client::open(server.address()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut complete = 0;
    for seed in 1..=SCANS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new(&mut dice, (0..PROCESSES).map(|_| ledger()).collect());
        let mut past = Past::new();
        for _ in 0..STEPS {
            match dice.roll(24) {
                0 => past = remember(&mut connection).await,
                1 => fall_back(&mut connection, &past).await,
                2 => world.crash(dice.roll(PROCESSES), ledger()),
                3..10 if !world.lane.is_empty() => {
                    let n = dice.roll(world.lane.len());
                    world.take(n, dice.roll(PROCESSES));
                }
                _ if !world.attempts.is_empty() => {
                    let n = dice.roll(world.attempts.len());
                    world.go_on(n).await;
                }
                _ => {}
            }
        }
        complete += u64::from(world.complete);
    }
    assert!(complete > SCANS / 10, "only {complete} scans came to an end at all");
}
