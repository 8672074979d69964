//! One batch, from the first try until each of its deliveries is settled.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use stoq_api::plugin::{Item, Verdict};
use stoq_api::results::Stored;
use stoq_api::store::Store;
use stoq_api::{Fault, FaultKind, Sha256, fault};
use stoq_runtime::metrics::{Component, ErrorKind, InHand, Role};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::collect::{Batch, Pending};
use super::frame::{Frame, Turn, keeping, said_rarely, turn};

/// What a connector said of a batch, if it did not panic.
type Answer = Option<Result<Vec<Verdict>, Fault>>;

impl Frame {
    /// Delivers, buries and acknowledges until nothing is open; after `stop`, once.
    pub(super) async fn settle(
        &self,
        mut batch: Batch,
        mut first: Option<Turn>,
        tries: &Arc<Semaphore>,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let in_hand = Component::new(Role::Connector, &self.name).begin(batch.pending.len() as u64);
        let mut backoff = self.backoff();
        loop {
            let turn = match first.take() {
                Some(turn) => turn,
                None => keeping(&batch.held, self.settings.extend_every, turn(tries)).await,
            };
            let trouble = self.try_once(&mut batch, &in_hand).await?;
            self.acknowledge(&mut batch).await;
            drop(turn);
            let Some(trouble) = trouble else { return Ok(()) };
            let wait = backoff.next_wait();
            let failures = backoff.tries();
            said_rarely(failures, || {
                let (connector, open) = (&*self.name, batch.pending.len());
                tracing::warn!(connector, open, failures, reason = trouble, "not delivered; trying again");
            });
            let wait = keeping(&batch.held, self.settings.extend_every, sleep(wait));
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    give_back(batch).await;
                    return Ok(());
                }
                () = wait => {}
            }
        }
    }

    /// One try of all that is pending. Says why something is still pending afterwards.
    async fn try_once(&self, batch: &mut Batch, in_hand: &InHand) -> Result<Option<String>, Fault> {
        let mut trouble = keeping(&batch.held, self.settings.extend_every, self.read_stored(&mut batch.pending)).await;
        let (ready, waiting): (VecDeque<_>, VecDeque<_>) =
            batch.pending.drain(..).partition(|p| p.stored.is_none() || p.rejected.is_some());
        let (refused, open): (VecDeque<_>, VecDeque<_>) = ready.into_iter().partition(|p| p.rejected.is_some());
        batch.pending = refused;
        batch.pending.extend(waiting);
        if !open.is_empty() {
            let items: Arc<[Item]> = open.iter().map(|p| p.item.clone()).collect();
            match keeping(&batch.held, self.settings.extend_every, self.ask(items)).await {
                Ok(verdicts) => trouble = judge(batch, open, verdicts, in_hand).or(trouble),
                Err(e) => {
                    in_hand.failed(ErrorKind::Fault(e.kind), open.len() as u64);
                    if !e.is_transient() {
                        return Err(e);
                    }
                    trouble = Some(fault::chain(&e));
                    batch.pending.extend(open);
                }
            }
        }
        self.bury(batch, &mut trouble, in_hand).await;
        Ok(trouble)
    }

    /// Reads large responses from the store. What is not there, or is something else, is refused; says why others are to
    /// be tried again.
    async fn read_stored(&self, pending: &mut VecDeque<Pending>) -> Option<String> {
        let mut trouble = None;
        for pending in pending.iter_mut().filter(|pending| pending.rejected.is_none()) {
            let Some(stored) = pending.stored else { continue };
            match read(&*self.store, &stored).await {
                Ok(json) => {
                    pending.item.json = json;
                    pending.stored = None;
                }
                Err(e) if matches!(e.kind, FaultKind::Unavailable | FaultKind::Misconfigured) => {
                    trouble.get_or_insert(format!("the payload store is away: {}", fault::chain(&e)));
                }
                Err(e) => pending.rejected = Some(format!("its response is not in the store: {}", fault::chain(&e))),
            }
        }
        trouble
    }

    /// The connector's verdicts. An item over which it panics is refused; the others are not hurt.
    async fn ask(&self, items: Arc<[Item]>) -> Result<Vec<Verdict>, Fault> {
        if let Some(answer) = self.call(Arc::clone(&items)).await {
            return answer;
        }
        let mut verdicts = Vec::with_capacity(items.len());
        for item in items.iter() {
            match self.call(Arc::new([item.clone()])).await {
                Some(answer) => verdicts.extend(answer?.into_iter().next()),
                None => verdicts.push(Verdict::Rejected("the connector panicked over it".to_owned())),
            }
        }
        Ok(verdicts)
    }

    /// Calls the connector in a task of its own, so that a panic is seen here.
    async fn call(&self, items: Arc<[Item]>) -> Answer {
        let connector = Arc::clone(&self.connector);
        let task = tokio::spawn(async move { connector.deliver(&items).await });
        AbortOnDropHandle::new(task).await.ok()
    }

    /// Sends what is refused to the dead lane. What does not get there stays pending.
    async fn bury(&self, batch: &mut Batch, trouble: &mut Option<String>, in_hand: &InHand) {
        for pending in std::mem::take(&mut batch.pending) {
            let Some(reason) = &pending.rejected else {
                batch.pending.push_back(pending);
                continue;
            };
            tracing::error!(connector = &*self.name, id = pending.item.id, reason, "refused by the sink");
            let burial = self.dead.bury(&self.name, &pending.item, reason);
            match keeping(&batch.held, self.settings.extend_every, burial).await {
                Ok(()) => {
                    in_hand.failed(ErrorKind::Rejected, 1);
                    in_hand.done(1);
                }
                Err(e) => {
                    trouble.get_or_insert(format!("the dead lane is away: {}", fault::chain(&e)));
                    batch.pending.push_back(pending);
                }
            }
        }
    }

    /// Acknowledges each delivery of which nothing is pending.
    async fn acknowledge(&self, batch: &mut Batch) {
        let mut open = vec![false; batch.held.len()];
        for pending in &batch.pending {
            open[pending.delivery] = true;
        }
        let done = batch.held.iter_mut().zip(open).filter(|(_, open)| !open).filter_map(|(held, _)| held.take());
        // All at once: a queue that writes to a disk then needs one write for all of them.
        let acks = done.map(async |delivery| {
            let id = delivery.message.id.clone();
            if let Err(e) = delivery.ack().await {
                // It comes again, and delivering it again changes nothing.
                tracing::warn!(connector = &*self.name, id, error = fault::chain(&e), "not acknowledged");
            }
        });
        futures::future::join_all(acks).await;
    }
}

async fn read(store: &dyn Store, stored: &Stored) -> Result<Bytes, Fault> {
    let mut json = BytesMut::with_capacity(usize::try_from(stored.len).unwrap_or(0));
    let mut stream = store.get(&stored.key).await?;
    while let Some(chunk) = stream.next().await {
        json.extend_from_slice(&chunk?);
        if json.len() as u64 > stored.len {
            break;
        }
    }
    let json = json.freeze();
    if json.len() as u64 != stored.len || Sha256::of(&json) != stored.key.sha256 {
        return Err(Fault::new(FaultKind::Corrupt, format!("{} holds something else", stored.key.path())));
    }
    Ok(json)
}

/// Sorts a batch by its verdicts; says why something is to be tried again, if it is.
fn judge(batch: &mut Batch, open: VecDeque<Pending>, verdicts: Vec<Verdict>, in_hand: &InHand) -> Option<String> {
    let mut trouble = None;
    let missing = std::iter::repeat_with(|| Verdict::Retry("the connector gave no verdict".to_owned()));
    for (mut pending, verdict) in open.into_iter().zip(verdicts.into_iter().chain(missing)) {
        match verdict {
            Verdict::Delivered => in_hand.done(1),
            Verdict::Retry(reason) => {
                in_hand.failed(ErrorKind::Fault(FaultKind::Unavailable), 1);
                trouble.get_or_insert(reason);
                batch.pending.push_back(pending);
            }
            Verdict::Rejected(reason) => {
                if let Some(span) = &mut pending.span {
                    span.failed(&reason);
                }
                pending.rejected = Some(reason);
                batch.pending.push_back(pending);
            }
        }
    }
    trouble
}

async fn give_back(batch: Batch) {
    for delivery in batch.held.into_iter().flatten() {
        let id = delivery.message.id.clone();
        if let Err(e) = delivery.release().await {
            tracing::debug!(id, error = fault::chain(&e), "given back by being dropped");
        }
    }
}
