//! `stoq status`: what waits, what is open, what went wrong.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};
use stoq_api::ledger::{Ledger, Overdue};
use stoq_api::queue::{Depth, Queue};
use stoq_api::scanner::PluginKind;
use stoq_api::{Fault, FaultKind, Timestamp, fault};
use stoq_connectors::common::spill::{Spill, Spilled};
use stoq_engine::lanes::{DEAD, WORKERS};
use stoq_runtime::escape::visible;

use super::dead::open;
use crate::cli::StatusArgs;
use crate::exit::Exit;
use crate::wiring::holds::{self, Mark};

/// Open scans that are named.
const NAMED: usize = 5;
/// Later than the time of any scan ends.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(crate) async fn run(args: &StatusArgs, out: &mut dyn Write) -> Result<Exit> {
    let base = open(&args.place).await?;
    let lanes = &base.links.lanes;
    let connectors = base.loaded.settings.active(PluginKind::Connector);
    let mut rows = Vec::new();
    for (name, lane) in lanes.task_lanes() {
        rows.push(row(&name, &**lane, WORKERS).await);
    }
    for connector in &connectors {
        rows.push(row(&format!("results for {}", connector.name), &*lanes.results, &connector.name).await);
    }
    rows.push(row("dead", &*lanes.dead, DEAD).await);
    let open = Open::of(&*base.links.ledger).await;
    let mut spilled = Vec::new();
    for connector in &connectors {
        let count = Spill::new(&base.links.store, &connector.name).count().await;
        spilled.push((connector.name.clone(), count));
    }
    let paused = holds::marks(&*base.links.store).await;
    if args.json {
        as_json(&rows, &open, &spilled, &paused, out)?
    } else {
        as_table(&rows, &open, &spilled, out)?;
        paused_as_table(&paused, out)?;
    }
    base.close().await;
    let failed = rows.iter().filter_map(|(_, depth)| depth.as_ref().err()).filter(|fault| !not_told(fault));
    Ok(exit(failed.chain(open.as_ref().err())))
}

/// Scans that are open: how many, and those whose time ends first.
struct Open {
    count: u64,
    oldest: Vec<Overdue>,
}

impl Open {
    async fn of(ledger: &dyn Ledger) -> Result<Self, Fault> {
        let now = Timestamp::now();
        let (count, oldest) = (ledger.open_scans().await?, ledger.overdue(now.after(FAR), now, NAMED).await?);
        Ok(Self { count, oldest })
    }
}

fn scan_as_json(scan: &Overdue) -> Value {
    json!({ "scan_id": scan.scan_id, "due": scan.due.iso() + "Z", "frozen": scan.frozen })
}

/// What a service says is wrong with the configuration is the caller's to mend.
fn exit<'a>(failed: impl Iterator<Item = &'a Fault>) -> Exit {
    let of = |fault: &Fault| if fault.kind == FaultKind::Misconfigured { Exit::Usage } else { Exit::Failed };
    failed.map(of).min().unwrap_or(Exit::Clean)
}

/// What lies in the payload store for each connector.
type SpilledRow = (String, Result<Spilled, Fault>);

type Row = (String, Result<Depth, Fault>);

async fn row(name: &str, queue: &dyn Queue, subscription: &str) -> Row {
    (name.to_owned(), queue.depth(subscription).await)
}

/// The broker never says what waits; that is no failure.
fn not_told(fault: &Fault) -> bool {
    fault.kind == FaultKind::Refused
}

fn age(depth: &Depth) -> Option<u64> {
    depth.oldest.map(|oldest| Timestamp::now().0.saturating_sub(oldest.0) / 1_000_000)
}

fn as_json(
    rows: &[Row],
    open: &Result<Open, Fault>,
    spilled: &[SpilledRow],
    paused: &Result<Vec<Mark>, Fault>,
    out: &mut dyn Write,
) -> Result<()> {
    let lanes: Map<String, Value> = rows
        .iter()
        .map(|(name, depth)| {
            let value = match depth {
                Ok(depth) => json!({ "waiting": depth.ready, "held": depth.held, "oldest_seconds": age(depth) }),
                Err(fault) if not_told(fault) => json!({ "untold": fault::chain(fault) }),
                Err(fault) => json!({ "error": fault::chain(fault) }),
            };
            (name.clone(), value)
        })
        .collect();
    let oldest: Vec<Value> = open.iter().flat_map(|open| &open.oldest).map(scan_as_json).collect();
    let open = match open {
        Ok(open) => json!(open.count),
        Err(fault) => json!({ "error": fault::chain(fault) }),
    };
    let spilled: Map<String, Value> = spilled
        .iter()
        .map(|(name, count)| {
            let value = match count {
                Ok(Spilled { objects, messages }) => json!({ "objects": objects, "messages": messages }),
                Err(fault) => json!({ "error": fault::chain(fault) }),
            };
            (name.clone(), value)
        })
        .collect();
    let paused = match paused {
        Ok(marks) => marks.iter().map(mark_as_json).collect(),
        Err(fault) => json!({ "error": fault::chain(fault) }),
    };
    let all = json!({
        "lanes": lanes, "open_scans": open, "oldest_scans": oldest, "spilled": spilled, "paused": paused,
    });
    writeln!(out, "{all}")?;
    Ok(())
}

fn mark_as_json(mark: &Mark) -> Value {
    json!({ "kind": mark.role, "name": mark.name, "since": mark.since().iso() + "Z", "reason": mark.reason })
}

fn paused_as_table(paused: &Result<Vec<Mark>, Fault>, out: &mut dyn Write) -> Result<()> {
    match paused {
        Ok(marks) => {
            for mark in marks {
                let Mark { role, name, reason, .. } = mark;
                let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                writeln!(out, "{}", visible(&format!("{role} {name} paused since {}Z{why}", mark.since().iso())))?;
            }
        }
        Err(fault) => writeln!(out, "paused: {}", fault::chain(fault))?,
    }
    Ok(())
}

fn as_table(rows: &[Row], open: &Result<Open, Fault>, spilled: &[SpilledRow], out: &mut dyn Write) -> Result<()> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("open scans".len());
    writeln!(out, "{:width$}  {:>10}  {:>10}  {:>12}", "lane", "waiting", "held", "oldest")?;
    for (name, depth) in rows {
        match depth {
            Ok(depth) => {
                let oldest = age(depth).map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
                writeln!(out, "{name:width$}  {:>10}  {:>10}  {oldest:>12}", depth.ready, depth.held)?;
            }
            Err(fault) => writeln!(out, "{name:width$}  {}", fault::chain(fault))?,
        }
    }
    match open {
        Ok(Open { count, oldest }) => {
            writeln!(out, "{:width$}  {count:>10}", "open scans")?;
            for Overdue { scan_id, due, frozen } in oldest {
                let (state, until) = if *frozen { ("being finished", "lease") } else { ("open", "time") };
                writeln!(out, "scan {scan_id}: {state}, its {until} ends at {}Z", due.iso())?;
            }
        }
        Err(fault) => writeln!(out, "{:width$}  {}", "open scans", fault::chain(fault))?,
    }
    for (name, count) in spilled {
        match count {
            Ok(Spilled { objects: 0, .. }) => {}
            Ok(Spilled { objects, messages }) => {
                writeln!(out, "spilled for {name}: {messages} messages in {objects} objects of the payload store")?;
            }
            Err(fault) => writeln!(out, "spilled for {name}: {}", fault::chain(fault))?,
        }
    }
    Ok(())
}
