//! Random sequences of operations, compared step by step with the model.

use std::time::Duration;

use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use stoq_api::ledger::{ChildRecord, Ledger, Settled};
use stoq_api::task::ScanHead;
use stoq_api::{Budgets, PayloadId, ScanId, Timestamp};

use super::model::Model;
use super::sorted;
use crate::samples::{child, fresh_scan, head, outcome};

/// Sequences that are tried.
const CASES: usize = 150;
/// Payloads that a sequence talks about; the first ones are roots.
const PAYLOADS: usize = 8;

#[derive(Clone, Debug)]
enum Operation {
    Open,
    Admit { with_head: bool, parent: usize, children: Vec<usize> },
    Settle { with_head: bool, payload: usize, mark: u64, children: Vec<usize> },
    Begin { payload: usize },
    Survived { payload: usize },
    Freeze { lease: u64 },
    Close { keep: u64 },
    Overdue { horizon: u64 },
    Pass { seconds: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let payload = || 0..PAYLOADS;
    prop_oneof![
        1 => Just(Operation::Open),
        6 => (any::<bool>(), payload(), proptest::collection::vec(payload(), 0..4))
            .prop_map(|(with_head, parent, children)| Operation::Admit { with_head, parent, children }),
        12 => (any::<bool>(), payload(), 0_u64..3, proptest::collection::vec(payload(), 0..2))
            .prop_map(|(with_head, payload, mark, children)| Operation::Settle { with_head, payload, mark, children }),
        2 => payload().prop_map(|payload| Operation::Begin { payload }),
        1 => payload().prop_map(|payload| Operation::Survived { payload }),
        1 => (0_u64..90).prop_map(|lease| Operation::Freeze { lease }),
        1 => (0_u64..90).prop_map(|keep| Operation::Close { keep }),
        1 => (0_u64..200).prop_map(|horizon| Operation::Overdue { horizon }),
        1 => (1_u64..60).prop_map(|seconds| Operation::Pass { seconds }),
    ]
}

#[derive(Clone, Debug)]
struct Sequence {
    roots: usize,
    max_payloads: u64,
    max_bytes: u64,
    operations: Vec<Operation>,
}

fn sequence() -> impl Strategy<Value = Sequence> {
    (1_usize..3, 1_u64..8, 10_u64..200, proptest::collection::vec(operation(), 1..40)).prop_map(
        |(roots, max_payloads, max_bytes, operations)| Sequence { roots, max_payloads, max_bytes, operations },
    )
}

pub(super) async fn agrees_with_the_model(ledger: &dyn Ledger) {
    let mut runner = TestRunner::deterministic();
    for _ in 0..CASES {
        let mut tree = sequence().new_tree(&mut runner).expect("the strategy refuses nothing");
        let Err(mut difference) = Run::new(ledger, &tree.current()).run(tree.current()).await else { continue };
        let mut least = tree.current();
        // proptest shrinks by itself only what runs without a runtime of its own.
        let mut more = tree.simplify();
        while more {
            match Run::new(ledger, &tree.current()).run(tree.current()).await {
                Err(text) => {
                    (difference, least) = (text, tree.current());
                    more = tree.simplify();
                }
                Ok(()) => more = tree.complicate(),
            }
        }
        panic!("{difference}\nafter the last operation of {least:#?}");
    }
}

struct Run<'a> {
    ledger: &'a dyn Ledger,
    model: Model,
    scan: ScanId,
    head: ScanHead,
    payloads: Vec<ChildRecord>,
    start: Timestamp,
    now: Timestamp,
}

/// Ends the sequence with both answers where they differ.
fn same<T: PartialEq + std::fmt::Debug>(got: T, expected: T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("the ledger says {got:?}, the model {expected:?}")) }
}

impl<'a> Run<'a> {
    fn new(ledger: &'a dyn Ledger, sequence: &Sequence) -> Self {
        let scan = fresh_scan();
        let budgets = Budgets {
            max_payloads: sequence.max_payloads,
            max_bytes: sequence.max_bytes,
            max_expansion: 5,
            expansion_floor: 30,
            max_seconds: 50,
            ..Budgets::default()
        };
        let payload = |n: usize| {
            let record = child(scan, &n.to_string(), 3 * n as u64);
            let root = u32::try_from(n).ok().filter(|_| n < sequence.roots);
            root.map_or(record.clone(), |ordinal| ChildRecord { id: PayloadId::root(scan, ordinal), ..record })
        };
        let start = Timestamp(1_767_500_000_000_000);
        Self {
            ledger,
            model: Model::default(),
            scan,
            head: head(scan, &vec![10; sequence.roots], budgets),
            payloads: (0..PAYLOADS).map(payload).collect(),
            start,
            now: start,
        }
    }

    async fn run(mut self, sequence: Sequence) -> Result<(), String> {
        for operation in sequence.operations {
            self.step(operation).await?;
            let frozen = self.ledger.frozen(self.scan).await.unwrap();
            let frozen = frozen.map(|frozen| frozen.read().unwrap());
            same(frozen.map(sorted), self.model.frozen(self.scan).map(sorted))?;
            same(self.ledger.spent(self.scan).await.unwrap(), self.model.spent())?;
        }
        Ok(())
    }

    async fn step(&mut self, operation: Operation) -> Result<(), String> {
        let (ledger, scan, now) = (self.ledger, self.scan, self.now);
        let head = self.head.clone();
        match operation {
            Operation::Open => {
                ledger.open(scan, &head, now).await.unwrap();
                self.model.open(Some(&head), now);
                Ok(())
            }
            Operation::Admit { with_head, parent, children } => {
                let head = with_head.then_some(&head);
                let parent = self.payloads[parent].id;
                let children: Vec<_> = children.into_iter().map(|n| self.payloads[n].clone()).collect();
                let got = ledger.admit(scan, head, parent, &children, now).await.unwrap();
                same(got, self.model.admit(head, parent, &children, now))
            }
            Operation::Settle { with_head, payload, mark, children } => {
                let head = with_head.then_some(&head);
                let outcome = outcome(self.payloads[payload].id, mark);
                let children: Vec<_> = children.into_iter().map(|n| self.payloads[n].id).collect();
                let got = ledger.settle(scan, head, &outcome, &children, now).await.unwrap();
                same(in_order(got), in_order(self.model.settle(head, &outcome, &children, now)))
            }
            Operation::Begin { payload } => {
                let payload = self.payloads[payload].id;
                same(ledger.begin(scan, payload, now).await.unwrap(), self.model.begin(payload, now))
            }
            Operation::Survived { payload } => {
                let payload = self.payloads[payload].id;
                ledger.survived(scan, payload).await.unwrap();
                self.model.survived(payload);
                Ok(())
            }
            Operation::Freeze { lease } => {
                let lease = Duration::from_secs(lease);
                same(ledger.freeze(scan, lease, now).await.unwrap(), self.model.freeze(lease, now))
            }
            Operation::Close { keep } => {
                let keep = Duration::from_secs(keep);
                ledger.close(scan, keep, now).await.unwrap();
                self.model.close(keep, now);
                Ok(())
            }
            Operation::Overdue { horizon } => {
                let horizon = self.start.after(Duration::from_secs(horizon));
                let all = ledger.overdue(horizon, now, 100_000).await.unwrap();
                let ours = all.into_iter().find(|o| o.scan_id == scan);
                same(ours.map(|o| (o.due, o.frozen)), self.model.overdue(horizon, now))
            }
            Operation::Pass { seconds } => {
                self.now = now.after(Duration::from_secs(seconds));
                Ok(())
            }
        }
    }
}

fn in_order(settled: Settled) -> Settled {
    match settled {
        Settled::Open { mut unsettled } => {
            unsettled.sort();
            Settled::Open { unsettled }
        }
        other => other,
    }
}
