//! Children on their way out: admitted within the budgets, large ones stored, their tasks published.

use std::collections::{BTreeMap, BTreeSet};

use stoq_api::ledger::{Admission as Verdict, Admitted, ChildRecord, MAX_ADMIT};
use stoq_api::payload::{MAX_ANCESTORS, MAX_NAME};
use stoq_api::store::StoreKey;
use stoq_api::{Ancestor, Content, Fault, FaultKind, Location, Outcome, PayloadId, Task, Timestamp};

use crate::examine::{Hints, report::budget_finding};
use crate::lanes;
use crate::surroundings::Surroundings;

/// What the ledger said of the children as a whole.
pub(super) enum Admission {
    Open,
    Frozen,
    Closed,
    Unknown,
}

/// The distinct children of one payload.
pub(super) struct Children<'a> {
    around: &'a Surroundings,
    parent: Task,
    order: Vec<PayloadId>,
    tasks: BTreeMap<PayloadId, (Task, Content)>,
    published: BTreeSet<PayloadId>,
    inline_left: u64,
}

impl<'a> Children<'a> {
    /// Makes the tasks of a payload's children. The payload itself is updated: a root that has children gets a location
    /// from which it can be published again.
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
        let mut children = Children {
            around,
            parent: Task { inline: bytes::Bytes::new(), ..task.clone() },
            order: Vec::new(),
            tasks: BTreeMap::new(),
            published: BTreeSet::new(),
            inline_left: around.settings.inline_total,
        };
        let twins = twins_of_roots(task);
        for (edge, content) in outcome.edges.iter().zip(contents) {
            if twins.contains(&edge.child) || children.tasks.contains_key(&edge.child) {
                continue;
            }
            let ancestors = line(task, outcome, &edge.plugin, hints);
            let child = Task {
                scan_id: task.scan_id,
                payload_id: edge.child,
                scan: task.scan.clone(),
                parent: Some(task.payload_id),
                ancestors,
                depth: task.depth.saturating_add(1),
                sha256: Some(edge.sha256),
                size: edge.size,
                location: Location::Inline,
                payload_meta: edge.meta.clone(),
                inline: bytes::Bytes::new(),
            };
            children.order.push(edge.child);
            children.tasks.insert(edge.child, (child, content));
        }
        Ok(children)
    }

    /// Admits all children and publishes the tasks of those that are this payload's to publish. Children that a budget
    /// refuses are taken out of the outcome, with a finding.
    pub(super) async fn admit_and_publish(&mut self, outcome: &mut Outcome, first: bool) -> Result<Admission, Fault> {
        let order = self.order.clone();
        let mut refused = BTreeMap::new();
        for chunk in order.chunks(MAX_ADMIT) {
            for id in chunk {
                self.place(id).await?;
            }
            let verdicts = match self.admit(chunk).await? {
                Admitted::Open(verdicts) => verdicts,
                Admitted::Unknown => return Ok(Admission::Unknown),
                Admitted::Frozen => return Ok(Admission::Frozen),
                Admitted::Closed => return Ok(Admission::Closed),
            };
            let mut publish = Vec::new();
            for (id, verdict) in chunk.iter().zip(verdicts) {
                match verdict {
                    Verdict::New => publish.push(*id),
                    // This parent admitted it in an earlier attempt, which may have died before publishing.
                    Verdict::Known { own: true } if !first => publish.push(*id),
                    Verdict::Known { .. } | Verdict::Settled => {}
                    Verdict::Refused(kind) => {
                        refused.insert(*id, kind);
                    }
                }
            }
            self.publish(&publish).await?;
        }
        let kinds: BTreeSet<_> = refused.values().copied().collect();
        outcome.findings.extend(kinds.into_iter().map(|kind| budget_finding(kind, &self.parent)));
        outcome.edges.retain(|edge| !refused.contains_key(&edge.child));
        Ok(Admission::Open)
    }

    /// Publishes children that the ledger says are outstanding and that this attempt has not published.
    pub(super) async fn publish_missing(&mut self, unsettled: &[PayloadId]) -> Result<(), Fault> {
        let missing: Vec<PayloadId> = unsettled
            .iter()
            .filter(|id| !self.published.contains(id) && self.tasks.contains_key(id))
            .copied()
            .collect();
        self.publish(&missing).await
    }

    async fn admit(&self, chunk: &[PayloadId]) -> Result<Admitted, Fault> {
        let records: Vec<ChildRecord> = chunk
            .iter()
            .filter_map(|id| self.tasks.get(id))
            .filter_map(|(task, _)| {
                Some(ChildRecord { id: task.payload_id, sha256: task.sha256?, size: task.size, depth: task.depth })
            })
            .collect();
        let parent = &self.parent;
        let head = parent.is_root().then_some(&parent.scan);
        let ledger = &self.around.ledger;
        self.around
            .patiently("admit children", || {
                ledger.admit(parent.scan_id, head, parent.payload_id, &records, Timestamp::now())
            })
            .await
    }

    /// Decides where a child's bytes travel: in its task while they are few, else in the store.
    async fn place(&mut self, id: &PayloadId) -> Result<(), Fault> {
        let Some((task, content)) = self.tasks.get_mut(id) else { return Ok(()) };
        let size = content.len();
        if size <= self.around.settings.inline_limit && size <= self.inline_left {
            self.inline_left -= size;
            task.inline = content.to_bytes().map_err(|e| {
                Fault::because(FaultKind::Unavailable, "a child's bytes cannot be read from the spool", e)
            })?;
            return Ok(());
        }
        let Some(sha256) = task.sha256 else { return Ok(()) };
        let key = StoreKey { day: task.scan.first_seen.day(), sha256 };
        let (store, content) = (&self.around.store, &*content);
        self.around.patiently("store a child", || store.put(&key, content)).await?;
        task.location = Location::Store { day: key.day, sha256 };
        Ok(())
    }

    async fn publish(&mut self, ids: &[PayloadId]) -> Result<(), Fault> {
        if ids.is_empty() {
            return Ok(());
        }
        let tasks: Vec<Task> = ids.iter().filter_map(|id| self.tasks.get(id)).map(|(task, _)| task.clone()).collect();
        let messages = lanes::pack(&tasks)?;
        let lane = &self.around.lanes.children;
        self.around.patiently("publish children", || lane.publish(messages.clone())).await?;
        self.published.extend(ids);
        Ok(())
    }
}

/// The digest of a root that was read is known from now on, for the tasks of its children.
fn know_root(task: &mut Task, outcome: &Outcome) {
    let id = task.payload_id;
    for root in task.scan.roots.iter_mut().filter(|root| root.id == id) {
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
    for root in task.scan.roots.iter_mut().filter(|root| root.id == id) {
        root.location = Location::Store { day: key.day, sha256 };
    }
    Ok(())
}

/// Ids that children equal to a root would have: such a child is that root, at assembly.
fn twins_of_roots(task: &Task) -> BTreeSet<PayloadId> {
    let twin = |root: &stoq_api::RootRef| {
        let meta = &root.payload_meta;
        root.sha256.map(|sha256| PayloadId::child(task.scan_id, &sha256, meta.should_scan, &meta.dispatch_to))
    };
    task.scan.roots.iter().filter_map(twin).collect()
}

/// The ancestors of a child of `task`: the root, and the nearest ones.
fn line(task: &Task, outcome: &Outcome, plugin: &str, hints: &Hints) -> Vec<Ancestor> {
    let mut line = task.ancestors.clone();
    if let Some(sha256) = outcome.sha256 {
        line.push(Ancestor {
            id: task.payload_id,
            sha256,
            name: task.payload_meta.filename().map(|name| name.chars().take(MAX_NAME).collect()),
            mimetype: hints.mimetype.clone(),
            plugin: plugin.to_owned(),
            passwords: passwords(task, hints),
        });
    }
    if line.len() > MAX_ANCESTORS {
        line.drain(1..line.len() - MAX_ANCESTORS + 1);
    }
    line
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
