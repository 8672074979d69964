//! Children on their way out: admitted within the budgets, large ones stored, their tasks published.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use stoq_api::ledger::{Admission as Verdict, Admitted, ChildRecord, MAX_ADMIT};
use stoq_api::payload::{MAX_ANCESTORS, MAX_NAME};
use stoq_api::store::StoreKey;
use stoq_api::{Ancestor, Content, Fault, FaultKind, Location, Outcome, PayloadId, Task, Timestamp};

use crate::examine::{Hints, report::budget_finding};
use crate::lanes;
use crate::surroundings::Surroundings;

/// Bytes of children that are admitted and published together, unless it is one child that has more.
const CHUNK_BYTES: u64 = 1 << 20;

/// What the ledger said of the children as a whole.
pub(super) enum Admission {
    Open,
    Frozen,
    Closed,
    Unknown,
}

/// The distinct children of one payload. Tasks are made of them a chunk at a time: a payload may have many more children
/// than are worth holding twice.
pub(super) struct Children<'a> {
    around: &'a Surroundings,
    parent: Task,
    line: Line,
    /// In the order of the outcome's edges; once they are admitted, without those that a budget refused.
    order: Vec<PayloadId>,
    /// The same children, as long as they are not published.
    waiting: Vec<Option<Child>>,
    inline_left: u64,
}

/// A child without task.
struct Child {
    /// Its first edge's place in the outcome; no payload has so many.
    edge: u32,
    way: Way,
    content: Content,
}

/// How a child's bytes travel. There may be very many children, so this is no [`Location`].
#[derive(Clone, Copy)]
enum Way {
    Undecided,
    Inline,
    Store,
}

impl<'a> Children<'a> {
    /// Takes in a payload's children. The payload itself is updated: a root that has children gets a location from which
    /// it can be published again.
    pub(super) async fn new(
        around: &'a Surroundings,
        task: &mut Task,
        outcome: &Outcome,
        contents: Vec<Content>,
        hints: &Hints,
    ) -> Result<Children<'a>, Fault> {
        if task.is_root() && !outcome.edges.is_empty() {
            know_root(task, outcome);
            keep_root(around, task).await?;
        }
        let mut order = Vec::with_capacity(contents.len());
        let mut waiting = Vec::with_capacity(contents.len());
        let mut seen: HashSet<PayloadId> = twins_of_roots(task);
        for ((edge, child), content) in (0..).zip(&outcome.edges).map(|(n, edge)| (n, edge.child)).zip(contents) {
            if seen.insert(child) {
                order.push(child);
                waiting.push(Some(Child { edge, way: Way::Undecided, content }));
            }
        }
        Ok(Children {
            around,
            parent: Task { inline: bytes::Bytes::new(), ..task.clone() },
            line: Line::to(task, outcome, hints),
            order,
            waiting,
            inline_left: around.settings.inline_total,
        })
    }

    /// Admits all children and publishes the tasks of those that are this payload's to publish. Children that a budget
    /// refuses are taken out of the outcome, with a finding.
    pub(super) async fn admit_and_publish(&mut self, outcome: &mut Outcome, first: bool) -> Result<Admission, Fault> {
        let mut refused = BTreeMap::new();
        let mut done = 0;
        while done < self.order.len() {
            let chunk = done..done + self.together(done..self.order.len());
            done = chunk.end;
            let ready = self.tasks(chunk, outcome).await?;
            let verdicts = match self.admit(&ready).await? {
                Admitted::Open(verdicts) => verdicts,
                Admitted::Unknown => return Ok(Admission::Unknown),
                Admitted::Frozen => return Ok(Admission::Frozen),
                Admitted::Closed => return Ok(Admission::Closed),
            };
            let mut publish = Vec::with_capacity(ready.len());
            for ((place, task), verdict) in ready.into_iter().zip(verdicts) {
                match verdict {
                    Verdict::New => publish.push((place, task)),
                    // This parent admitted it in an earlier attempt, which may have died before publishing.
                    Verdict::Known { own: true } if !first => publish.push((place, task)),
                    Verdict::Known { .. } | Verdict::Settled => {}
                    Verdict::Refused(kind) => {
                        refused.insert(task.payload_id, kind);
                    }
                }
            }
            self.publish(publish).await?;
        }
        if refused.is_empty() {
            return Ok(Admission::Open);
        }
        let kinds: BTreeSet<_> = refused.values().copied().collect();
        outcome.findings.extend(kinds.into_iter().map(|kind| budget_finding(kind, &self.parent)));
        outcome.edges.retain(|edge| !refused.contains_key(&edge.child));
        let all = std::mem::take(&mut self.order).into_iter().zip(std::mem::take(&mut self.waiting));
        (self.order, self.waiting) = all.filter(|(child, _)| !refused.contains_key(child)).unzip();
        Ok(Admission::Open)
    }

    /// The children that are admitted.
    pub(super) fn admitted(&self) -> &[PayloadId] {
        &self.order
    }

    /// Publishes children that the ledger says are outstanding and that this attempt has not published.
    pub(super) async fn publish_missing(&mut self, outcome: &Outcome, unsettled: &[PayloadId]) -> Result<(), Fault> {
        if self.waiting.iter().all(Option::is_none) {
            return Ok(());
        }
        let unsettled: HashSet<&PayloadId> = unsettled.iter().collect();
        let waiting = (0..).zip(&self.order).zip(&self.waiting).filter(|(_, child)| child.is_some());
        let missing = waiting.filter(|((_, id), _)| unsettled.contains(id)).map(|((place, _), _)| place);
        let missing: Vec<usize> = missing.collect();
        let mut rest = missing.as_slice();
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(self.together(rest.iter().copied()));
            rest = later;
            let tasks = self.tasks(chunk.iter().copied(), outcome).await?;
            self.publish(tasks).await?;
        }
        Ok(())
    }

    /// How many of the children at `places`, from the first on, are dealt with together: their bytes are in memory
    /// meanwhile.
    fn together(&self, places: impl Iterator<Item = usize>) -> usize {
        let mut bytes = 0_u64;
        let fits = |place: &usize| {
            let first = bytes == 0;
            let child = self.waiting.get(*place).and_then(Option::as_ref);
            bytes = bytes.saturating_add(child.map_or(0, |child| child.content.len()));
            first || bytes <= CHUNK_BYTES
        };
        places.take(MAX_ADMIT).take_while(fits).count()
    }

    async fn admit(&self, tasks: &[(usize, Task)]) -> Result<Admitted, Fault> {
        let records: Vec<ChildRecord> = tasks
            .iter()
            .filter_map(|(_, task)| {
                Some(ChildRecord { id: task.payload_id, sha256: task.sha256?, size: task.size, depth: task.depth })
            })
            .collect();
        let parent = &self.parent;
        let head = parent.is_root().then_some(&*parent.scan);
        let ledger = &self.around.ledger;
        self.around
            .patiently("admit children", || {
                ledger.admit(parent.scan_id, head, parent.payload_id, &records, Timestamp::now())
            })
            .await
    }

    /// The tasks of those children at `places` that are not published yet, each with its place.
    async fn tasks(
        &mut self,
        places: impl Iterator<Item = usize>,
        outcome: &Outcome,
    ) -> Result<Vec<(usize, Task)>, Fault> {
        let mut tasks = Vec::with_capacity(places.size_hint().0);
        for place in places {
            tasks.extend(self.task(place, outcome).await?.map(|task| (place, task)));
        }
        Ok(tasks)
    }

    /// The task of a child that is not published yet. Decides where its bytes travel: in the task while they are few, else
    /// in the store.
    async fn task(&mut self, place: usize, outcome: &Outcome) -> Result<Option<Task>, Fault> {
        let (Some(id), Some(Some(child))) = (self.order.get(place).copied(), self.waiting.get_mut(place)) else {
            return Ok(None);
        };
        // Edges that a budget refused are gone by the time when missing children are published.
        let edge = outcome.edges.get(child.edge as usize).filter(|edge| edge.child == id);
        let Some(edge) = edge.or_else(|| outcome.edges.iter().find(|edge| edge.child == id)) else { return Ok(None) };
        let (parent, size) = (&self.parent, child.content.len());
        let key = StoreKey { day: parent.scan.first_seen.day(), sha256: edge.sha256 };
        if let Way::Undecided = child.way {
            child.way = if size <= self.around.settings.inline_limit && size <= self.inline_left {
                self.inline_left -= size;
                Way::Inline
            } else {
                let (store, content) = (&self.around.store, &child.content);
                self.around.patiently("store a child", || store.put(&key, content)).await?;
                Way::Store
            };
        }
        let location = match child.way {
            Way::Store => Location::Store { day: key.day, sha256: key.sha256 },
            Way::Undecided | Way::Inline => Location::Inline,
        };
        let inline = match location {
            Location::Inline => child.content.to_bytes().map_err(|e| {
                Fault::because(FaultKind::Unavailable, "a child's bytes cannot be read from the spool", e)
            })?,
            _ => bytes::Bytes::new(),
        };
        Ok(Some(Task {
            scan_id: parent.scan_id,
            payload_id: id,
            scan: Arc::clone(&parent.scan),
            parent: Some(parent.payload_id),
            ancestors: self.line.through(&edge.plugin),
            depth: parent.depth.saturating_add(1),
            sha256: Some(edge.sha256),
            size: edge.size,
            location,
            payload_meta: edge.meta.get(),
            inline,
        }))
    }

    async fn publish(&mut self, tasks: Vec<(usize, Task)>) -> Result<(), Fault> {
        if tasks.is_empty() {
            return Ok(());
        }
        let (places, tasks): (Vec<usize>, Vec<Task>) = tasks.into_iter().unzip();
        let parcels = lanes::pack(tasks);
        let lane = &self.around.lanes.of(self.parent.scan.tenant.as_deref()).children;
        self.around.patiently("publish children", || lane.publish_parcels(parcels.clone())).await?;
        for place in places {
            self.waiting[place] = None;
        }
        Ok(())
    }
}

/// The digest of a root that was read is known from now on, for the tasks of its children.
fn know_root(task: &mut Task, outcome: &Outcome) {
    let id = task.payload_id;
    for root in Arc::make_mut(&mut task.scan).roots.iter_mut().filter(|root| root.id == id) {
        root.sha256 = outcome.sha256;
        root.size = outcome.size;
    }
}

/// Gives an inline root a place in the store, from which its task can be published again if the ledger loses the scan.
async fn keep_root(around: &Surroundings, task: &mut Task) -> Result<(), Fault> {
    let Some(sha256) = task.scan.roots.iter().find(|r| r.id == task.payload_id).and_then(|r| r.sha256) else {
        return Ok(());
    };
    if around.settings.coupled || task.location != Location::Inline {
        return Ok(());
    }
    let key = StoreKey { day: task.scan.first_seen.day(), sha256 };
    let content = Content::from(task.inline.clone());
    around.patiently("store a root", || around.store.put(&key, &content)).await?;
    let id = task.payload_id;
    for root in Arc::make_mut(&mut task.scan).roots.iter_mut().filter(|root| root.id == id) {
        root.location = Location::Store { day: key.day, sha256 };
    }
    Ok(())
}

/// Ids that children equal to a root would have: such a child is that root, at assembly.
fn twins_of_roots(task: &Task) -> HashSet<PayloadId> {
    let twin = |root: &stoq_api::RootRef| {
        let meta = &root.payload_meta;
        root.sha256.map(|sha256| PayloadId::child(task.scan_id, &sha256, meta.should_scan, &meta.dispatch_to))
    };
    task.scan.roots.iter().filter_map(twin).collect()
}

/// The ancestors of a payload's children: the root, and the nearest ones.
struct Line(Vec<Ancestor>);

impl Line {
    fn to(task: &Task, outcome: &Outcome, hints: &Hints) -> Self {
        let mut line = task.ancestors.clone();
        if let Some(sha256) = outcome.sha256 {
            line.push(Ancestor {
                id: task.payload_id,
                sha256,
                name: task.payload_meta.filename().map(|name| name.chars().take(MAX_NAME).collect()),
                mimetype: hints.mimetype.clone(),
                plugin: String::new(),
                passwords: passwords(task, hints),
            });
        }
        if line.len() > MAX_ANCESTORS {
            line.drain(1..line.len() - MAX_ANCESTORS + 1);
        }
        Self(line)
    }

    /// Those of a child that `plugin` extracted.
    fn through(&self, plugin: &str) -> Vec<Ancestor> {
        let mut line = self.0.clone();
        if let Some(last) = line.last_mut().filter(|last| last.plugin.is_empty()) {
            plugin.clone_into(&mut last.plugin);
        }
        line
    }
}

/// Passwords that opened the payload or travelled with it: they may open what lies inside.
fn passwords(task: &Task, hints: &Hints) -> Vec<String> {
    const MOST: usize = 20;
    const LONGEST: usize = 128;
    let listed = task.payload_meta.extra_data.get("passwords").and_then(serde_json::Value::as_array);
    let texts = listed.into_iter().flatten().filter_map(|p| p.as_str());
    let known = hints.password.iter().map(String::as_str).chain(texts);
    known.filter(|p| p.len() <= LONGEST).take(MOST).map(str::to_owned).collect()
}
