//! Settlement: how a payload's outcome becomes safe before its delivery is acknowledged.
//!
//! The order is fixed: children are admitted within the budgets, their tasks published and confirmed, the outcome settled,
//! tasks that may never have been published are; and whoever learns that the scan is frozen assembles, publishes and
//! closes it. A crash between any two steps is repaired by redelivery: every step is idempotent, and the first outcome
//! wins.

mod children;

use stoq_api::ledger::{Completeness, FrozenScan, Settled};
use stoq_api::queue::Message;
use stoq_api::{Fault, Json, Location, Outcome, Response, ScanId, Task, Timestamp};

use self::children::Children;
use crate::assemble::assemble;
use crate::examine::Examined;
use crate::lanes;
use crate::surroundings::Surroundings;

/// The response of a scan that never needs the ledger: one root, no children, known to be delivered for the first time,
/// and nothing was stopped on it. Anything else may have left traces that only the ledger can tell.
pub fn leaf(task: &Task, examined: &Examined, first: bool) -> Option<FrozenScan> {
    let alone = task.is_root() && task.scan.roots.len() == 1;
    (alone && first && examined.clean && examined.outcome.edges.is_empty()).then(|| FrozenScan {
        scan_id: task.scan_id,
        head: task.scan.clone(),
        completeness: Completeness::Complete,
        outcomes: vec![examined.outcome.clone()],
        missing: Vec::new(),
    })
}

/// Settles one payload. When this returns, its delivery may be acknowledged.
///
/// # Errors
/// The surroundings failed for longer than a worker waits: the delivery has to be given back.
pub async fn settle(around: &Surroundings, mut task: Task, examined: Examined, first: bool) -> Result<(), Fault> {
    let Examined { mut outcome, children, hints, .. } = examined;
    let mut offspring = Children::new(around, &mut task, &outcome, children, &hints).await?;
    match offspring.admit_and_publish(&mut outcome, first).await? {
        children::Admission::Open => {}
        children::Admission::Frozen => return finish(around, task.scan_id).await,
        children::Admission::Closed => return Ok(()),
        children::Admission::Unknown => return make_anew(around, &task).await,
    }
    let head = task.is_root().then_some(&task.scan);
    let settled = around
        .patiently("settle a payload", || around.ledger.settle(task.scan_id, head, &outcome, Timestamp::now()))
        .await?;
    match settled {
        Settled::Open { unsettled } => offspring.publish_missing(&unsettled).await,
        Settled::Frozen => finish(around, task.scan_id).await,
        Settled::Closed => Ok(()),
        Settled::Unknown => make_anew(around, &task).await,
    }
}

/// Settles an outcome without children: a payload that could not be fetched, or was given up.
///
/// # Errors
/// As for [`settle`].
pub async fn settle_barren(around: &Surroundings, task: Task, outcome: Outcome) -> Result<(), Fault> {
    let examined = Examined { outcome, children: Vec::new(), clean: false, hints: Default::default() };
    settle(around, task, examined, false).await
}

/// Assembles, publishes and closes a frozen scan. Harmless to repeat.
///
/// # Errors
/// As for [`settle`].
pub async fn finish(around: &Surroundings, scan: ScanId) -> Result<(), Fault> {
    let frozen = around.patiently("load a finished scan", || around.ledger.frozen(scan)).await?;
    // `None`: somebody else closed it in between.
    let Some(frozen) = frozen else { return Ok(()) };
    let message = respond(around, &frozen).await?;
    publish_results(around, vec![message]).await?;
    let keep = around.settings.tombstone;
    around.patiently("close a scan", || around.ledger.close(scan, keep, Timestamp::now())).await
}

/// The message that carries a frozen scan's response.
///
/// # Errors
/// The response cannot be written as JSON.
pub async fn respond(around: &Surroundings, frozen: &FrozenScan) -> Result<Message, Fault> {
    let mut response = assemble(frozen, &around.engine);
    decorate(around, &mut response).await;
    lanes::result(&response)
}

/// Publishes responses, confirmed.
///
/// # Errors
/// As for [`settle`].
pub async fn publish_results(around: &Surroundings, messages: Vec<Message>) -> Result<(), Fault> {
    around.patiently("publish responses", || around.lanes.results.publish(messages.clone())).await
}

async fn decorate(around: &Surroundings, response: &mut Response) {
    for (name, decorator) in &around.decorators {
        match decorator.decorate(response).await {
            Ok(Some(value)) => response.decorators.push(name, Json::of(&value)),
            Ok(None) => {}
            Err(text) => response.errors.push(stoq_api::ErrorEntry {
                error: format!("decorator: {text}"),
                plugin_name: Some(name.clone()),
                payload_id: None,
            }),
        }
    }
}

/// The ledger lost the scan of this child: its roots are published again under the same scan, which makes it anew.
async fn make_anew(around: &Surroundings, task: &Task) -> Result<(), Fault> {
    if around.settings.coupled {
        // Lanes and ledger cannot disagree: what the ledger does not know any more was closed long ago.
        return Ok(());
    }
    tracing::warn!(scan = %task.scan_id, "the ledger does not know this scan; its roots are published again");
    let roots: Vec<Task> = task
        .scan
        .roots
        .iter()
        .filter(|r| r.location != Location::Inline)
        .map(|root| Task {
            payload_id: root.id,
            parent: None,
            ancestors: Vec::new(),
            depth: 0,
            sha256: root.sha256,
            size: root.size,
            location: root.location.clone(),
            payload_meta: root.payload_meta.clone(),
            inline: bytes::Bytes::new(),
            ..task.clone()
        })
        .collect();
    if task.scan.roots.len() > 1 {
        around.patiently("open a scan", || around.ledger.open(task.scan_id, &task.scan, Timestamp::now())).await?;
    }
    let messages = lanes::take_apart(&roots)?;
    around.patiently("publish roots again", || around.lanes.roots.publish(messages.clone())).await
}
