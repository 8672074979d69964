//! `stoq dead`: what no one could process, for people to look at, do again or drop.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use serde_json::{Value, json};
use stoq_api::queue::{Deliveries, Delivery, Prefetch};
use stoq_api::scanner::PluginKind;
use stoq_api::{Fault, FaultKind, fault};
use stoq_engine::dead::DeadKind;
use stoq_engine::lanes::DEAD;
use stoq_engine::replay::{Letter, replay};
use stoq_runtime::escape::visible;

use crate::cli::{DeadCommand, DeadFilter, DeadListArgs, DeadPickArgs, DeadShowArgs, PlaceArgs};
use crate::exit::{Exit, UsageError};
use crate::wiring::base::Base;
use crate::wiring::config;

/// Letters that one command looks at; more are there for the next.
const MAX_LETTERS: usize = 10_000;
/// Bytes of letters that one command holds.
const MAX_BYTES: usize = 256 << 20;
/// How long nothing must come before the lane is taken to be empty: other readers may hold some of what it counts.
const QUIET: Duration = Duration::from_secs(3);
/// The same before the first letter, while the broker makes this one of its consumers.
const FIRST: Duration = Duration::from_secs(10);

pub(crate) async fn run(command: DeadCommand, out: &mut dyn Write) -> Result<Exit> {
    match command {
        DeadCommand::List(args) => list(&args, out).await,
        DeadCommand::Show(args) => show(&args, out).await,
        DeadCommand::Replay(args) => pick(&args, Deed::Replay, out).await,
        DeadCommand::Drop(args) => pick(&args, Deed::Drop, out).await,
    }
}

/// Opens what is configured, without starting anything or asking anybody.
pub(crate) fn opened(place: &PlaceArgs) -> Result<Base> {
    let loaded = config::read(&place.common, place.home.flags())?;
    crate::warn(&loaded.warnings);
    crate::start_logs(&loaded.settings)?;
    Base::configured(loaded)
}

/// The same, with brokers that can be used.
pub(crate) async fn open(place: &PlaceArgs) -> Result<Base> {
    let base = opened(place)?;
    for (name, broker) in base.brokers.opened() {
        broker.check().await.with_context(|| format!("broker {name}"))?;
    }
    Ok(base)
}

/// A letter with the right to take it off the lane.
struct Held {
    letter: Letter,
    delivery: Delivery,
}

/// All letters on the lane, held until this is dropped, which gives back those that were not taken off.
struct Letters {
    held: Vec<Held>,
    /// With it ends the right to take anything off.
    subscription: Option<Box<dyn Deliveries>>,
}

async fn letters(base: &Base) -> Result<Letters> {
    let lane = &base.links.lanes.dead;
    lane.declare(&[DEAD]).await?;
    let waiting = match lane.depth(DEAD).await {
        Ok(depth) => usize::try_from(depth.ready).unwrap_or(usize::MAX).min(MAX_LETTERS),
        // This broker never tells, so whatever comes before it is quiet is looked at.
        Err(fault) if fault.kind == FaultKind::Refused => MAX_LETTERS,
        Err(fault) => return Err(fault.into()),
    };
    let mut held = Vec::new();
    if waiting == 0 {
        return Ok(Letters { held, subscription: None });
    }
    let prefetch = Prefetch { messages: u32::try_from(waiting).unwrap_or(u32::MAX) };
    let mut deliveries = lane.subscribe(DEAD, prefetch).await?;
    let mut bytes = 0;
    while held.len() < waiting && bytes < MAX_BYTES {
        let quiet = if held.is_empty() { FIRST } else { QUIET };
        let Ok(next) = tokio::time::timeout(quiet, deliveries.next()).await else { break };
        let Some(mut delivery) = next? else { break };
        bytes += delivery.message.body.len();
        let letter = Letter::read(&delivery.message);
        delivery.message.body = Bytes::new();
        held.push(Held { letter, delivery });
    }
    if held.len() < waiting && bytes >= MAX_BYTES {
        tracing::warn!(looked_at = held.len(), waiting, "not all letters fit into memory; handle these first");
    }
    Ok(Letters { held, subscription: Some(deliveries) })
}

fn fits(letter: &Letter, filter: &DeadFilter) -> bool {
    filter.kind.as_deref().is_none_or(|kind| letter.kind.is_some_and(|k| k.name() == kind))
        && filter.from.as_ref().is_none_or(|from| letter.from == *from)
}

async fn list(args: &DeadListArgs, out: &mut dyn Write) -> Result<Exit> {
    let base = open(&args.place).await?;
    let letters = letters(&base).await?;
    for letter in letters.held.iter().map(|held| &held.letter).filter(|letter| fits(letter, &args.filter)) {
        if args.json {
            writeln!(out, "{}", as_json(letter))?;
        } else {
            writeln!(
                out,
                "{}  {}  {:9}  {:12}  {}",
                letter.name,
                letter.at.map_or_else(|| "-".to_owned(), |at| at.iso()),
                letter.kind.map_or("?", DeadKind::name),
                visible(&letter.from),
                visible(&letter.reason)
            )?;
        }
    }
    drop(letters);
    base.close().await;
    Ok(Exit::Clean)
}

fn as_json(letter: &Letter) -> Value {
    json!({
        "name": letter.name,
        "at": letter.at.map(|at| at.iso()),
        "kind": letter.kind.map(DeadKind::name),
        "from": letter.from,
        "reason": letter.reason,
        "id": letter.original.id,
        "bytes": letter.original.body.len(),
        "kept": letter.kept,
        "shelved": letter.shelved,
    })
}

async fn show(args: &DeadShowArgs, out: &mut dyn Write) -> Result<Exit> {
    let base = open(&args.place).await?;
    let letters = letters(&base).await?;
    let found = letters.held.iter().map(|held| &held.letter).find(|letter| letter.name == args.name);
    let letter = found.ok_or_else(|| no_letter(&args.name))?;
    if args.body {
        out.write_all(&letter.body(&base.links).await?)?;
    } else {
        let mut shown = as_json(letter);
        let headers: BTreeMap<_, _> = letter.original.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        shown["headers"] = json!(headers);
        if letter.kind == Some(DeadKind::Task) {
            shown["tasks"] = serde_json::to_value(letter.tasks())?;
        }
        // JSON text escapes control characters, but not those that turn the direction of writing.
        writeln!(out, "{}", visible_lines(&serde_json::to_string_pretty(&shown)?))?;
    }
    drop(letters);
    base.close().await;
    Ok(Exit::Clean)
}

fn visible_lines(text: &str) -> String {
    text.lines().map(|line| visible(line).into_owned()).collect::<Vec<_>>().join("\n")
}

fn no_letter(name: &str) -> anyhow::Error {
    UsageError(format!("no letter on the dead lane is called {name:?}; `stoq dead list` shows those there are")).into()
}

/// What is done with letters that were picked.
#[derive(Clone, Copy)]
enum Deed {
    Replay,
    Drop,
}

async fn pick(args: &DeadPickArgs, deed: Deed, out: &mut dyn Write) -> Result<Exit> {
    let base = open(&args.place).await?;
    let Letters { held, subscription } = letters(&base).await?;
    let (picked, rest): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| {
        let named = args.all || args.names.contains(&held.letter.name);
        named && fits(&held.letter, &args.filter)
    });
    for name in &args.names {
        if !picked.iter().any(|held| held.letter.name == *name) {
            return Err(no_letter(name));
        }
    }
    let (mut done, mut failed) = (0, 0);
    for Held { letter, delivery } in picked {
        let replayed = match deed {
            Deed::Replay => again(&base, &letter).await,
            Deed::Drop => Ok(()),
        };
        match replayed {
            Ok(()) => {
                delivery.ack().await.with_context(|| format!("letter {} was not taken off the lane", letter.name))?;
                if let Err(fault) = letter.let_go(&base.links).await {
                    let (letter, error) = (letter.name.as_str(), fault::chain(&fault));
                    tracing::warn!(letter, error, "what the store holds for it was left there");
                }
                done += 1;
            }
            Err(error) => {
                writeln!(out, "{}: {}", letter.name, visible(&format!("{error:#}")))?;
                failed += 1;
            }
        }
    }
    drop((rest, subscription));
    let deed = match deed {
        Deed::Replay => "replayed",
        Deed::Drop => "dropped",
    };
    writeln!(out, "{done} {deed}{}", if failed > 0 { format!(", {failed} left") } else { String::new() })?;
    base.close().await;
    Ok(if failed > 0 { Exit::Unscanned } else { Exit::Clean })
}

async fn again(base: &Base, letter: &Letter) -> Result<()> {
    let wrapped = |e: Fault| anyhow::anyhow!("{}", fault::chain(&e));
    if letter.kind != Some(DeadKind::Reference) {
        return replay(&base.links, letter).await.map_err(wrapped);
    }
    if let Some(kept) = &letter.kept {
        bail!("its bytes are kept in the store's quarantine as {kept}, because no message is that large");
    }
    let component = base.loaded.settings.component(PluginKind::Provider, &letter.from);
    let text = |option: &str| component.as_ref()?.options.0.get(option)?.as_str().map(str::to_owned);
    let (Some(broker), Some(queue)) = (text("broker"), text("queue")) else {
        bail!("provider {} takes nothing from a queue, so there is none to give it back to", letter.from);
    };
    let queue = base.brokers.open(&broker)?.foreign(&queue);
    queue.publish(vec![letter.original.clone()]).await.map_err(wrapped)
}
