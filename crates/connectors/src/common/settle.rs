//! One batch, from the first try until each of its deliveries is settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use stoq_api::plugin::{Item, Verdict};
use stoq_api::queue::Delivery;
use stoq_api::results::Stored;
use stoq_api::store::Store;
use stoq_api::{Fault, FaultKind, Sha256, fault};
use stoq_runtime::metrics::{self, Component, ErrorKind, InHand, Role};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::collect::{Batch, Held, Pending};
use super::frame::{Frame, Run, Turn, keeping, said_rarely, turn};
use super::spill::Spill;
use super::when::Decision;
use crate::stdout::ReaderGone;

/// What a connector said of a batch, if it did not panic.
type Answer = Option<Result<Vec<Verdict>, Fault>>;

/// What is to be done with a batch.
enum Next {
    /// Try it, as it is its turn.
    Try(Turn),
    /// Put it into the store.
    Spill,
    /// Give it back: the end was asked for.
    End,
}

impl Frame {
    /// Delivers, buries and acknowledges until nothing is open; after `stop`, once.
    pub(super) async fn settle(&self, mut batch: Batch, mut first: Option<Turn>, run: &Run) -> Result<(), Fault> {
        let in_hand = Component::new(Role::Connector, &self.name).begin(batch.pending.len() as u64);
        let mut backoff = self.backoff();
        let mut wait = None;
        loop {
            let next = match first.take() {
                Some(turn) => Next::Try(turn),
                None => self.next(&batch, wait.take(), run).await,
            };
            let trouble = match next {
                Next::End => {
                    give_back(batch).await;
                    return Ok(());
                }
                Next::Spill => {
                    match keeping(&batch.held, self.settings.extend_every, self.put_aside(&batch, run)).await {
                        Ok(()) => {
                            batch.pending.clear();
                            None
                        }
                        Err(e) => Some(format!("the payload store is away: {}", fault::chain(&e))),
                    }
                }
                Next::Try(_turn) => self.try_once(&mut batch, &in_hand, run).await?,
            };
            self.acknowledge(&mut batch).await;
            let Some(trouble) = trouble else { return Ok(()) };
            wait = Some(backoff.next_wait());
            let failures = backoff.tries();
            said_rarely(failures, || {
                let (connector, open) = (&*self.name, batch.pending.len());
                tracing::warn!(connector, open, failures, reason = trouble, "not delivered; trying again");
            });
        }
    }

    /// Waits until a batch can be tried, or must not be any more. One that was never tried waits for its turn even after
    /// `stop`, unless the sink needs an operator.
    async fn next(&self, batch: &Batch, wait: Option<Duration>, run: &Run) -> Next {
        let again = wait.is_some() || run.pause.is_on();
        let pause = async {
            if let Some(wait) = wait {
                sleep(wait).await;
            }
            run.pause.over().await;
        };
        // A store that is away, too, is asked as rarely as the sink.
        let spill = async {
            if let Some(wait) = wait.filter(|_| *run.spilling.borrow()) {
                sleep(wait).await;
            }
            run.spill().await;
        };
        tokio::pin!(spill);
        tokio::select! {
            biased;
            () = run.stop.cancelled(), if again => return Next::End,
            () = &mut spill => return Next::Spill,
            () = keeping(&batch.held, self.settings.extend_every, pause) => {}
        }
        loop {
            let turn = tokio::select! {
                biased;
                () = &mut spill => return Next::Spill,
                turn = keeping(&batch.held, self.settings.extend_every, turn(&run.tries)) => turn,
            };
            if !run.pause.forbids() {
                return Next::Try(turn);
            }
            // It began while this one waited for its turn, which is another's meanwhile.
            drop(turn);
            tokio::select! {
                biased;
                () = run.stop.cancelled() => return Next::End,
                () = &mut spill => return Next::Spill,
                () = keeping(&batch.held, self.settings.extend_every, run.pause.over()) => {}
            }
        }
    }

    /// Puts a batch's messages into the store, whole: some of their items may be delivered already.
    async fn put_aside(&self, batch: &Batch, run: &Run) -> Result<(), Fault> {
        let _room = turn(&run.aside).await;
        let held: Vec<&Delivery> = batch.held.iter().flatten().map(|held| &held.delivery).collect();
        Spill::new(&self.store, &self.name).put(&held).await
    }

    /// One try of all that is pending. Says why something is still pending afterwards.
    async fn try_once(&self, batch: &mut Batch, in_hand: &InHand, run: &Run) -> Result<Option<String>, Fault> {
        let mut trouble = keeping(&batch.held, self.settings.extend_every, self.read_stored(&mut batch.pending)).await;
        let (ready, waiting): (VecDeque<_>, VecDeque<_>) =
            batch.pending.drain(..).partition(|p| p.stored.is_none() || p.rejected.is_some());
        let (refused, open): (VecDeque<_>, VecDeque<_>) = ready.into_iter().partition(|p| p.rejected.is_some());
        batch.pending = refused;
        batch.pending.extend(waiting);
        let open = self.choose(open, in_hand).await;
        if !open.is_empty() {
            let items: Arc<[Item]> = open.iter().map(|p| p.item.clone()).collect();
            match keeping(&batch.held, self.settings.extend_every, self.ask(items)).await {
                Ok(verdicts) => {
                    run.pause.end(&self.name);
                    trouble = judge(batch, open, verdicts, in_hand).or(trouble);
                }
                Err(e) => {
                    in_hand.failed(ErrorKind::Fault(e.kind), open.len() as u64);
                    if ReaderGone::is(&e) || !(e.is_transient() || self.settings.pauses) {
                        return Err(e);
                    }
                    let reason = fault::chain(&e);
                    if !e.is_transient() {
                        run.pause.begin(&self.name, &reason);
                    }
                    trouble = Some(reason);
                    batch.pending.extend(open);
                }
            }
        }
        self.bury(batch, &mut trouble, in_hand).await;
        Ok(trouble)
    }

    /// Lets go of what the connector's conditions do not take. Where there are none, nothing is looked at.
    async fn choose(&self, open: VecDeque<Pending>, in_hand: &InHand) -> VecDeque<Pending> {
        if self.route.takes_all() || open.iter().all(|pending| pending.chosen) {
            return open;
        }
        let route = Arc::clone(&self.route);
        let items: Vec<Item> = open.iter().filter(|p| !p.chosen).map(|p| p.item.clone()).collect();
        // Reading many responses, or a large one, must not hold up others.
        let decided =
            tokio::task::spawn_blocking(move || items.iter().map(|item| route.decide(item)).collect::<Vec<_>>());
        // What could not be decided passes: no response is lost for it.
        let mut decisions = decided.await.unwrap_or_default().into_iter();
        let (mut left, mut counts) = (VecDeque::new(), [0; 3]);
        for mut pending in open {
            if !pending.chosen {
                match decisions.next().unwrap_or(Decision::Passed) {
                    Decision::Passed => counts[0] += 1,
                    Decision::Sampled => counts[1] += 1,
                    Decision::Skipped => {
                        counts[2] += 1;
                        in_hand.done(1);
                        continue;
                    }
                }
                pending.chosen = true;
            }
            left.push_back(pending);
        }
        let [passed, sampled, skipped] = counts;
        metrics::Connector::new(&self.name).routed(passed, sampled, skipped);
        left
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
        metrics::Connector::new(&self.name).offered(items.len());
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
        let acks = done.map(async |Held { delivery, .. }| {
            let id = delivery.message.id.clone();
            if let Err(e) = delivery.ack().await {
                // It comes again, and delivering it again changes nothing.
                tracing::warn!(connector = &*self.name, id, error = fault::chain(&e), "not acknowledged");
            }
        });
        futures::future::join_all(acks).await;
    }
}

/// The response that lies at a place of the store.
pub(super) async fn read(store: &dyn Store, stored: &Stored) -> Result<Bytes, Fault> {
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
    for Held { delivery, .. } in batch.held.into_iter().flatten() {
        let id = delivery.message.id.clone();
        if let Err(e) = delivery.release().await {
            tracing::debug!(id, error = fault::chain(&e), "given back by being dropped");
        }
    }
}
