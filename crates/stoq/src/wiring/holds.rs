//! What operators paused: marks on the shelf of the payload store, which every process of a fleet looks at.
//!
//! A mark is `holds/<role>/<name>` and says since when and why. It outlives processes, so what is paused stays so over
//! restarts and for new pods. While the store is away nothing changes: what was paused stays paused, the rest goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stoq_api::store::Store;
use stoq_api::{Content, Fault, FaultKind, Timestamp};
use stoq_connectors::common::spill::escaped;
use stoq_runtime::hold::Hold;
use stoq_runtime::metrics::{self, Role};

/// The area of the shelf.
const AREA: &str = "holds";
/// Marks that are looked at; far more than a configuration has providers and connectors.
const MAX_MARKS: usize = 10_000;
/// Bytes of one mark that are read.
const MAX_MARK: usize = 64 << 10;
/// What can be paused.
pub(crate) const ROLES: [Role; 3] = [Role::Provider, Role::Connector, Role::Plugin];

/// One thing that is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// `provider`, `connector` or `plugin`.
    pub(crate) role: String,
    /// As the configuration calls it.
    pub(crate) name: String,
    /// Microseconds since 1970.
    since: u64,
    /// What whoever paused it said.
    pub(crate) reason: String,
}

impl Mark {
    pub(crate) fn since(&self) -> Timestamp {
        Timestamp(self.since)
    }
}

fn path(role: Role, name: &str) -> String {
    format!("{AREA}/{}/{}", role.label(), escaped(name))
}

/// Pauses; what is paused already gets the new reason.
pub(crate) async fn pause(store: &dyn Store, role: Role, name: &str, reason: &str) -> Result<(), Fault> {
    let (role_name, since) = (role.label().to_owned(), Timestamp::now().0);
    let mark = Mark { role: role_name, name: name.to_owned(), since, reason: reason.to_owned() };
    let mark = serde_json::to_vec(&mark).map_err(|e| Fault::because(FaultKind::Corrupt, "a mark", e))?;
    store.shelve(&path(role, name), &Content::Bytes(mark.into())).await
}

/// Lets it go on.
pub(crate) async fn resume(store: &dyn Store, role: Role, name: &str) -> Result<(), Fault> {
    store.unshelve(&path(role, name)).await
}

/// Everything that is paused, whether it is configured here or not. A mark that cannot be read still says what it is of.
pub(crate) async fn marks(store: &dyn Store) -> Result<Vec<Mark>, Fault> {
    let mut marks = Vec::new();
    for name in names(store).await? {
        match read(store, &name).await {
            Ok(mark) => marks.push(mark),
            Err(fault) if fault.kind == FaultKind::NotFound => {}
            Err(fault) if fault.kind == FaultKind::Corrupt => {
                let mut parts = name.split('/').skip(1).map(str::to_owned);
                let (role, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                marks.push(Mark { role, name, since: 0, reason: fault.to_string() });
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(marks)
}

async fn read(store: &dyn Store, name: &str) -> Result<Mark, Fault> {
    let (mut bytes, mut stream) = (Vec::new(), store.shelved(name).await?);
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > MAX_MARK {
            break;
        }
    }
    let unreadable = |e| Fault::because(FaultKind::Corrupt, "its mark in the payload store cannot be read", e);
    serde_json::from_slice(&bytes).map_err(unreadable)
}

/// Names of all marks. A store without a shelf has none.
async fn names(store: &dyn Store) -> Result<Vec<String>, Fault> {
    match store.shelf(AREA, MAX_MARKS).await {
        Err(fault) if fault.kind == FaultKind::Refused => Ok(Vec::new()),
        names => names,
    }
}

/// What of this process can be paused. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Holds(Arc<Mutex<BTreeMap<(Role, String), Hold>>>);

impl Holds {
    /// That of one component, which is looked after from now on.
    pub(crate) fn of(&self, role: Role, name: &str) -> Hold {
        self.0.lock().entry((role, name.to_owned())).or_default().clone()
    }

    /// Looks at the marks. Says what of this process is paused.
    ///
    /// # Errors
    /// The store is away; nothing has changed.
    pub(crate) async fn look(&self, store: &dyn Store) -> Result<Option<String>, Fault> {
        if self.0.lock().is_empty() {
            return Ok(None);
        }
        let marked = names(store).await?;
        let mut paused = Vec::new();
        for ((role, name), hold) in &*self.0.lock() {
            let held = marked.contains(&path(*role, name));
            let (role, name) = (*role, name.as_str());
            metrics::paused(role, name, held);
            match (hold.set(held), held) {
                (true, true) => {
                    tracing::warn!(role = role.label(), name, "paused by an operator: `stoq resume` ends it")
                }
                (true, false) => tracing::warn!(role = role.label(), name, "goes on: an operator has resumed it"),
                _ => {}
            }
            if held {
                paused.push(format!("{} {name}", role.label()));
            }
        }
        Ok((!paused.is_empty()).then(|| format!("paused by an operator: {}", paused.join(", "))))
    }
}
