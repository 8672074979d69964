//! Settlement: how a payload's outcome becomes safe before its delivery is acknowledged.
//!
//! The order is fixed: children are admitted within the budgets, their tasks published and confirmed, the outcome settled,
//! tasks that may never have been published are; and whoever learns that the scan is frozen assembles, publishes and
//! closes it. A crash between any two steps is repaired by redelivery: every step is idempotent, and the first outcome
//! wins.

mod children;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use stoq_api::ledger::{Completeness, FrozenScan, Settled};
use stoq_api::plugin::Item;
use stoq_api::queue::Message;
use stoq_api::results::Stored;
use stoq_api::task::ScanHead;
use stoq_api::{Fault, FaultKind, Json, Location, Outcome, PayloadId, Response, ScanId, Task, Timestamp, results};
use stoq_jail::memfd::Unnamed;
use stoq_runtime::metrics::{ErrorKind, Role};
use stoq_runtime::trace::TRACEPARENT;

use self::children::Children;
use crate::assemble::{self, Assembly};
use crate::examine::Examined;
use crate::lanes;
use crate::surroundings::Surroundings;

/// Room for a usual response; larger ones grow.
const RESPONSE_BYTES: usize = 2 << 10;

/// About the longest response that is kept in memory.
const IN_MEMORY: usize = 2 << 20;

/// Payloads whose response is assembled without handing it to another thread.
const ASSEMBLED_AT_ONCE: usize = 32;

/// After a payload with so many children, or a scan of so many payloads, what they held is given back to the system: it was
/// in many small pieces, of which the allocator by itself keeps most.
const TRIMMED: usize = 2_000;

/// Traces named in one message: with more its header would be longer than some brokers take.
const MAX_TRACED: usize = 16;

/// A response on its way to the result lane, and what is counted and told of it there.
pub struct Ready {
    item: Item,
    head: Arc<ScanHead>,
    complete: bool,
}

/// Whether a scan never needs the ledger: one root, no children, known to be delivered for the first time, and nothing
/// was stopped on it. Anything else may have left traces that only the ledger can tell.
pub fn is_leaf(task: &Task, examined: &Examined, first: bool) -> bool {
    let alone = task.is_root() && task.scan.roots.len() == 1;
    alone && first && examined.clean && examined.outcome.edges.is_empty()
}

/// The response of a scan for which [`is_leaf`] holds.
///
/// # Errors
/// It cannot be written as JSON.
pub async fn leaf(around: &Surroundings, task: Task, examined: Examined) -> Result<Ready, Fault> {
    let frozen = FrozenScan {
        scan_id: task.scan_id,
        head: task.scan,
        completeness: Completeness::Complete,
        outcomes: vec![examined.outcome.into()],
        missing: Vec::new(),
    };
    respond(around, frozen).await
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
    let described = task.is_root().then_some(&*task.scan);
    // Its provider has opened a scan of several roots. To describe all of them with each is for a ledger that has lost it.
    let mut head = described.filter(|head| head.roots.len() == 1);
    let settled = loop {
        let settled = around
            .patiently("settle a payload", || {
                around.ledger.settle(task.scan_id, head, &outcome, offspring.admitted(), Timestamp::now())
            })
            .await?;
        match settled {
            Settled::Unknown if head.is_none() && described.is_some() => head = described,
            known => break known,
        }
    };
    match settled {
        Settled::Open { unsettled } => {
            offspring.publish_missing(&outcome, &unsettled).await?;
            let many = outcome.edges.len() >= TRIMMED;
            drop((offspring, outcome, unsettled));
            if many {
                // Whether it was done makes no difference to the payload.
                tokio::task::spawn_blocking(stoq_jail::trim_memory).await.ok();
            }
            Ok(())
        }
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

/// Settles a payload whose task cannot be read, so that nothing is known of it but its ids.
///
/// # Errors
/// As for [`settle`].
pub async fn unreadable(around: &Surroundings, scan: ScanId, outcome: &Outcome) -> Result<(), Fault> {
    let settled = around
        .patiently("settle an unreadable task", || around.ledger.settle(scan, None, outcome, &[], Timestamp::now()))
        .await?;
    if settled == Settled::Frozen { finish(around, scan).await } else { Ok(()) }
}

/// Assembles, publishes and closes a frozen scan. Harmless to repeat.
///
/// # Errors
/// As for [`settle`]; [`FaultKind::Unavailable`] also if the scan is frozen no more, nor closed: the ledger came back
/// without its last operations. Whoever holds a delivery of it has to give it back, so that its payload is scanned again:
/// it may be the last one that knows of the scan.
pub async fn finish(around: &Surroundings, scan: ScanId) -> Result<(), Fault> {
    let frozen = around.patiently("load a finished scan", || around.ledger.frozen(scan)).await?;
    let Some(frozen) = frozen else { return closed(around, scan).await };
    let response = respond(around, frozen).await?;
    publish_results(around, vec![response]).await?;
    let keep = around.settings.tombstone;
    around.patiently("close a scan", || around.ledger.close(scan, keep, Timestamp::now())).await
}

/// Makes sure that somebody else closed a scan. Counting an attempt tells, and is taken back.
async fn closed(around: &Surroundings, scan: ScanId) -> Result<(), Fault> {
    let any = PayloadId::root(scan, 0);
    if around.patiently("look at a scan", || around.ledger.begin(scan, any, Timestamp::now())).await? == 0 {
        return Ok(());
    }
    around.ledger.survived(scan, any).await?;
    Err(Fault::new(FaultKind::Unavailable, format!("the ledger has forgotten that {scan} is finished")))
}

/// A frozen scan's response.
///
/// # Errors
/// It cannot be written as JSON.
async fn respond(around: &Surroundings, frozen: FrozenScan) -> Result<Ready, Fault> {
    let id = frozen.scan_id.to_string();
    let head = Arc::clone(&frozen.head);
    let complete = frozen.completeness == Completeness::Complete;
    let json = if around.decorators.is_empty() {
        let spool_dir = around.spool_dir.clone();
        beside(around, frozen, move |assembly| written(assembly, &spool_dir)).await?
    } else {
        // Decorators see the response as a whole.
        let mut response = beside(around, frozen, Assembly::response).await?;
        decorate(around, &mut response).await;
        serde_json::to_vec(&response).map_err(assemble::unwritable)?.into()
    };
    Ok(Ready { item: Item { id, json }, head, complete })
}

/// The text of a response; that of a large one lies in a file.
fn written(assembly: Assembly, spool_dir: &Path) -> Result<Bytes, Fault> {
    if assembly.bytes() <= IN_MEMORY {
        let mut json = Vec::with_capacity(assembly.bytes().max(RESPONSE_BYTES));
        return assembly.write(&mut json).map(|()| json.into());
    }
    let mut file = Unnamed::new(spool_dir).map_err(assemble::unwritten)?;
    assembly.write(&mut file)?;
    file.finish().map_err(assemble::unwritten)
}

/// Assembles a scan, on a thread of its own if it has more than a few payloads.
async fn beside<T: Send + 'static>(
    around: &Surroundings,
    frozen: FrozenScan,
    work: impl FnOnce(Assembly) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    if frozen.outcomes.len() <= ASSEMBLED_AT_ONCE {
        return work(Assembly::new(frozen, &around.engine)?);
    }
    let engine = Arc::clone(&around.engine);
    let many = frozen.outcomes.len() >= TRIMMED;
    let assemble = move || {
        let done = work(Assembly::new(frozen, &engine)?);
        if many {
            stoq_jail::trim_memory();
        }
        done
    };
    let assembled = tokio::task::spawn_blocking(assemble).await;
    assembled.map_err(|e| Fault::because(FaultKind::Unavailable, "assembling a response stopped", e))?
}

/// Publishes responses, confirmed: several small ones in one message, large ones by their place in the store.
///
/// # Errors
/// As for [`settle`].
pub async fn publish_results(around: &Surroundings, responses: Vec<Ready>) -> Result<(), Fault> {
    let settings = &around.settings;
    let is_large = |item: &Item| !settings.coupled && item.json.len() as u64 > settings.inline_limit;
    let (large, small): (Vec<_>, Vec<_>) = responses.iter().partition(|response| is_large(&response.item));
    let items: Vec<Item> = small.iter().map(|response| response.item.clone()).collect();
    let mut messages = results::pack(&items);
    let mut rest = small.iter();
    for message in &mut messages {
        let count = message.header(results::BATCH_HEADER).and_then(|n| n.parse().ok()).unwrap_or(1);
        trace(message, rest.by_ref().take(count));
    }
    for response in &large {
        let (stored, content) = Stored::place(&response.item.json, Timestamp::now());
        around.patiently("store a response", || around.store.put(&stored.key, &content)).await?;
        let mut message = stored.message(&response.item.id);
        trace(&mut message, std::iter::once(response));
        messages.push(message);
    }
    around.patiently("publish responses", || around.lanes.results.publish(messages.clone())).await?;
    for response in &responses {
        around.meters.answered(&response.head.source, response.complete);
    }
    Ok(())
}

/// Names in a message the traces of the responses that it carries.
fn trace<'a>(message: &mut Message, responses: impl Iterator<Item = &'a &'a Ready>) {
    let traced: Vec<&str> = responses.filter_map(|response| response.head.trace.as_deref()).take(MAX_TRACED).collect();
    if !traced.is_empty() {
        message.headers.push((TRACEPARENT.to_owned(), traced.join(",")));
    }
}

async fn decorate(around: &Surroundings, response: &mut Response) {
    for (name, decorator) in &around.decorators {
        let in_hand = around.meters.begin(Role::Decorator, name);
        let said = decorator.decorate(response).await;
        match &said {
            Ok(_) => in_hand.done(1),
            Err(_) => in_hand.failed(ErrorKind::Failed, 1),
        }
        match said {
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
    let messages = lanes::make_anew(&roots)?;
    let lane = &around.lanes.of(task.scan.tenant.as_deref()).children;
    around.patiently("publish roots again", || lane.publish(messages.clone())).await
}
