//! Dead letters as people see them, and their way back: what a letter held is done again.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use stoq_api::queue::{Message, ONLY};
use stoq_api::results::{MAX_STORED, Stored};
use stoq_api::{Fault, FaultKind, Location, PayloadId, RootRef, ScanId, Sha256, Task, Timestamp, envelope};

use crate::dead::{AT, DeadKind, FROM, KEPT, KIND, REASON, SHELVED};
use crate::lanes;
use crate::links::Links;

/// Digits of a letter's name.
const NAME_DIGITS: usize = 12;

/// One letter of the dead lane.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Names the letter among those of the lane: digits of a digest over all of it.
    pub name: String,
    /// What it was; `None` where a foreign hand wrote it.
    pub kind: Option<DeadKind>,
    /// The intake, role or connector that gave it up.
    pub from: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Option<Timestamp>,
    /// The message as it was before.
    pub original: Message,
    /// Under which name the store keeps its body, where the lane did not take it.
    pub kept: Option<String>,
    /// Under which name its body lies on the store's shelf, where the lane did not take it.
    pub shelved: Option<String>,
}

impl Letter {
    /// Reads a message of the dead lane.
    pub fn read(message: &Message) -> Self {
        let header = |name| message.header(name).map(str::to_owned);
        let mut original = message.clone();
        original.headers.retain(|(name, _)| ![KIND, FROM, REASON, AT, KEPT, SHELVED].contains(&name.as_str()));
        Self {
            name: name_of(message),
            kind: message.header(KIND).and_then(DeadKind::of_name),
            from: header(FROM).unwrap_or_default(),
            reason: header(REASON).unwrap_or_default(),
            at: message.header(AT).and_then(|at| at.parse().ok()).map(Timestamp),
            original,
            kept: header(KEPT),
            shelved: header(SHELVED),
        }
    }

    /// The body as it was before, wherever it lies.
    ///
    /// # Errors
    /// The store is away or does not have it.
    pub async fn body(&self, links: &Links) -> Result<Bytes, Fault> {
        let Some(name) = &self.shelved else { return Ok(self.original.body.clone()) };
        let mut bytes = BytesMut::new();
        let mut stream = links.store.shelved(name).await?;
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() as u64 > MAX_STORED {
                return Err(Fault::new(FaultKind::Corrupt, format!("{name} is larger than any response")));
            }
        }
        Ok(bytes.freeze())
    }

    /// Lets go of what the store holds for this letter, once it was replayed or dropped and is off the lane.
    ///
    /// # Errors
    /// The store is away; what it holds stays.
    pub async fn let_go(&self, links: &Links) -> Result<(), Fault> {
        match &self.shelved {
            Some(name) => links.store.unshelve(name).await,
            None => Ok(()),
        }
    }

    /// The tasks in a letter of kind [`DeadKind::Task`], as far as this build reads them.
    pub fn tasks(&self) -> Vec<Task> {
        let frames = envelope::decode(&self.original.body).unwrap_or_default();
        frames.into_iter().filter_map(|frame| frame.task.ok()).map(|task| *task).collect()
    }
}

fn name_of(message: &Message) -> String {
    let mut text = Vec::new();
    let headers = message.headers.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    for part in [message.id.as_bytes()].into_iter().chain(headers).chain([message.body.as_ref()]) {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part);
    }
    let mut name = Sha256::of(&text).to_string();
    name.truncate(NAME_DIGITS);
    name
}

/// Does again what a letter held: a payload is scanned anew in a scan of its own, a response goes to the connector that
/// could not deliver it. The scan of a letter has the same ids however often it is replayed.
///
/// # Errors
/// [`FaultKind::Refused`] if there is nothing in it that can be done again, references included: those go back to the queue
/// that they came from. Others if a lane is away.
pub async fn replay(links: &Links, letter: &Letter) -> Result<(), Fault> {
    match letter.kind {
        Some(DeadKind::Task) => {
            let tasks: Vec<Task> = letter.tasks().into_iter().map(|task| anew(task, &letter.name)).collect();
            if tasks.is_empty() {
                let text = "this letter holds no task that this build can read";
                return Err(Fault::new(FaultKind::Refused, text));
            }
            // A message holds tasks of one tenant, unless a foreign hand wrote it.
            for tasks in tasks.chunk_by(|a, b| a.scan.tenant == b.scan.tenant) {
                let lane = &links.lanes.of(tasks[0].scan.tenant.as_deref()).roots;
                let parcels = lanes::pack(tasks.to_vec());
                links.patiently("publish a replay", || lane.publish_parcels(parcels.clone())).await?;
            }
            Ok(())
        }
        Some(DeadKind::Result) => {
            let mut message = letter.original.clone();
            if letter.shelved.is_some() {
                // Where those lie that wait on the lane: the shelf's copy goes with the letter.
                let (stored, content) = Stored::place(&letter.body(links).await?, Timestamp::now());
                links.patiently("store a replay", || links.store.put(&stored.key, &content)).await?;
                message = stored.message(&message.id);
            }
            message.headers.push((ONLY.to_owned(), letter.from.clone()));
            links.patiently("publish a replay", || links.lanes.results.publish(vec![message.clone()])).await
        }
        Some(DeadKind::Reference) => Err(Fault::new(FaultKind::Refused, "a reference goes back to its own queue")),
        None => Err(Fault::new(FaultKind::Refused, "this letter does not say what it was")),
    }
}

/// The task's payload as the only root of a new scan.
fn anew(mut task: Task, letter: &str) -> Task {
    let of = task.scan_id;
    let digest = task.sha256.unwrap_or_else(|| Sha256::of(&task.inline));
    let identity = format!("replay {letter} {of} {}", task.payload_id);
    let scan_id = ScanId::derive(&task.scan.source, identity.as_bytes(), &digest);
    let id = PayloadId::root(scan_id, 0);
    let scan = Arc::make_mut(&mut task.scan);
    scan.first_seen = Timestamp::now();
    scan.replay_of = Some(of);
    scan.roots = vec![RootRef {
        id,
        sha256: task.sha256,
        size: task.size,
        location: task.location.clone(),
        payload_meta: task.payload_meta.clone(),
    }];
    if task.location != Location::Inline {
        task.inline = Bytes::new();
    }
    Task { scan_id, payload_id: id, parent: None, ancestors: Vec::new(), depth: 0, ..task }
}

#[cfg(test)]
mod tests {
    use stoq_api::plugin::Item;
    use stoq_api::queue::Prefetch;

    use super::*;
    use crate::dead::{bury_response, letter};

    #[test]
    fn a_letter_reads_as_it_was_written() {
        let original = Message { headers: vec![("a".into(), "b".into())], ..Message::new("m", "body") };
        let message = letter(DeadKind::Reference, "eve", "not JSON", &original);
        let read = Letter::read(&message);
        assert_eq!(
            (read.kind, read.from.as_str(), read.reason.as_str()),
            (Some(DeadKind::Reference), "eve", "not JSON")
        );
        assert!(read.original == original && read.at.is_some());
        assert_eq!(read.name, Letter::read(&message).name);
        assert_ne!(read.name, Letter::read(&letter(DeadKind::Task, "eve", "not JSON", &original)).name);
    }

    #[tokio::test]
    async fn a_large_response_outlives_the_days_of_the_store_and_goes_with_its_letter() {
        let queue = |name| -> Arc<dyn stoq_api::queue::Queue> { Arc::new(stoq_memory::MemoryQueue::new(name)) };
        let plain = lanes::TenantLanes::plain(queue("children"), queue("roots"));
        let lanes = lanes::Lanes::new(plain, [], queue("results"), queue("dead"));
        lanes.declare(&["siem"]).await.unwrap();
        let store = Arc::new(stoq_memory::MemoryStore::new());
        let ledger = Arc::new(stoq_memory::MemoryLedger::new());
        let links = Links::new(lanes, ledger, store, crate::Settings::default());
        let item = Item { id: "scan".to_owned(), json: vec![b'7'; 100_000].into() };
        let prefetch = Prefetch { messages: 10 };
        let mut dead = links.lanes.dead.subscribe(lanes::DEAD, prefetch).await.unwrap();
        // Two letters of the same response: what goes with one must leave the other whole.
        let mut letters = Vec::new();
        for _ in 0..2 {
            bury_response(&links, "siem", "refused", &item).await.unwrap();
            let delivery = dead.next().await.unwrap().unwrap();
            assert!(delivery.message.body.is_empty());
            letters.push(Letter::read(&delivery.message));
            delivery.ack().await.unwrap();
        }
        for day in links.store.days().await.unwrap() {
            links.store.drop_day(day).await.unwrap();
        }
        letters[0].let_go(&links).await.unwrap();
        assert!(letters[0].body(&links).await.is_err());
        assert_eq!(letters[1].body(&links).await.unwrap(), item.json);
        replay(&links, &letters[1]).await.unwrap();
        letters[1].let_go(&links).await.unwrap();
        let mut results = links.lanes.results.subscribe("siem", prefetch).await.unwrap();
        let message = results.next().await.unwrap().unwrap().message.clone();
        assert_eq!((message.id.as_str(), message.header(ONLY)), ("scan", Some("siem")));
        let stored = Stored::of(&message).unwrap().unwrap();
        let pieces: Vec<_> = links.store.get(&stored.key).await.unwrap().map(|piece| piece.unwrap()).collect().await;
        assert_eq!(pieces.concat(), item.json);
    }
}
