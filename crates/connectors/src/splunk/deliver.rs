//! One batch: requests, answers, verdicts.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use stoq_api::plugin::{Item, Verdict};
use stoq_api::{Fault, FaultKind, fault};
use tokio::sync::mpsc;

use super::client::{self, Collector, Sent};
use super::config::Validated;
use super::encode::{Event, Made, encode};
use super::reply::Answer;
use crate::common::verdicts::Tally;

/// Requests that are made before one is free to be sent.
const AHEAD: usize = 1;

/// What became of the events of one request.
#[derive(Default)]
struct Outcome {
    /// Items of events that are safe.
    safe: Vec<usize>,
    /// Items of events that are refused for good, with the reason.
    refused: Vec<(usize, String)>,
    /// Items of events to send again.
    open: Vec<usize>,
    /// Why.
    trouble: Option<Fault>,
}

/// Delivers a batch. Events are made on a thread of their own while earlier ones are on their way.
pub(super) async fn batch(
    config: &Arc<Validated>,
    collector: &Collector,
    batch: &[Item],
) -> Result<Vec<Verdict>, Fault> {
    let mut tally = Tally::new(batch.len());
    let (sender, mut made) = mpsc::channel(AHEAD);
    let (encoding_config, items) = (Arc::clone(config), batch.to_vec());
    let encoding = tokio::task::spawn_blocking(move || encode(&encoding_config, &items, &sender));
    let mut going = FuturesUnordered::new();
    let mut trouble: Option<Fault> = None;
    let mut more = true;
    // Items before this one have been made whole.
    let mut next = 0;
    loop {
        tokio::select! {
            // Once something is wrong, nothing further is begun, and what is open is waited for.
            one = made.recv(), if more && trouble.is_none() && going.len() < config.requests => match one {
                Some(Made::Refused { item, reason }) => {
                    tally.made(item);
                    tally.rejected(item, reason);
                }
                Some(Made::Request { events, whole }) => {
                    events.iter().for_each(|event| tally.made(event.item));
                    next = whole;
                    going.push(settle(config, collector, events));
                }
                None => more = false,
            },
            Some(outcome) = going.next() => {
                if let Some(fault) = take(outcome, &mut tally)
                    // What a person has to mend is said first.
                    && trouble.as_ref().is_none_or(Fault::is_transient)
                {
                    trouble = Some(fault);
                }
            }
            else => break,
        }
    }
    match trouble {
        None => {
            // A panic while reading one response must not look like the end of the batch.
            encoding.await.map_err(|e| Fault::because(FaultKind::Corrupt, "events cannot be made", e))?;
            Ok(tally.verdicts())
        }
        Some(fault) if fault.is_transient() => {
            // What was not made yet keeps its item from being delivered.
            for item in next..batch.len() {
                tally.made(item);
                tally.retry(item, || fault::chain(&fault));
            }
            Ok(tally.verdicts())
        }
        Some(fault) => Err(fault),
    }
}

/// Counts what became of a request; gives what was wrong with it.
fn take(outcome: Outcome, tally: &mut Tally) -> Option<Fault> {
    outcome.safe.into_iter().for_each(|item| tally.delivered(item));
    outcome.refused.into_iter().for_each(|(item, reason)| tally.rejected(item, reason));
    let fault = outcome.trouble?;
    outcome.open.into_iter().for_each(|item| tally.retry(item, || fault::chain(&fault)));
    Some(fault)
}

/// Sends events until each is safe, refused, or waits for another try. A refusal of one takes nothing of the others, so
/// they are sent again without it; there are at most twice as many requests as events.
async fn settle(config: &Validated, collector: &Collector, events: Vec<Event>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut parts = vec![events];
    while let Some(mut part) = parts.pop() {
        let sent = if part.is_empty() { Ok(Sent::Safe) } else { collector.send(&part).await };
        let (answer, place) = match sent {
            Ok(Sent::Safe) => {
                outcome.safe.extend(part.iter().map(|event| event.item));
                continue;
            }
            Ok(Sent::Not(answer, place)) => (answer, place),
            Err(fault) => return given_up(outcome, fault, part, parts),
        };
        let refused = match answer {
            Answer::Refused { event, reason } => Some((event, reason)),
            Answer::WrongIndex { event } => match wrong_index(config, &part, event) {
                Ok(reason) => Some((event, reason)),
                Err(reason) => return given_up(outcome, client::fault(&place, Answer::Mend(reason)), part, parts),
            },
            Answer::TooLarge => Some((None, "it is larger than a request may be (max_content_length)".to_owned())),
            other => return given_up(outcome, client::fault(&place, other), part, parts),
        };
        let Some((event, reason)) = refused else { continue };
        let at = if part.len() == 1 { Some(0) } else { event.filter(|at| *at < part.len()) };
        match at {
            Some(at) => {
                let event = part.remove(at);
                outcome.refused.push((event.item, format!("splunk refuses document {}: {reason}", event.id)));
            }
            // Which one is not told: the halves will tell.
            None => parts.push(part.split_off(part.len() / 2)),
        }
        parts.push(part);
    }
    outcome
}

/// Nothing more is sent; what is left waits.
fn given_up(mut outcome: Outcome, trouble: Fault, part: Vec<Event>, parts: Vec<Vec<Event>>) -> Outcome {
    outcome.open.extend(part.iter().chain(parts.iter().flatten()).map(|event| event.item));
    outcome.trouble = Some(trouble);
    outcome
}

/// An index that the token may not write to. If it depends on the document, the document is refused: other tenants'
/// are not to wait for it. If it is the same for all, nothing can be delivered, and a person has to mend it.
fn wrong_index(config: &Validated, part: &[Event], event: Option<usize>) -> Result<String, String> {
    let named = event.and_then(|at| part.get(at)).or(part.first()).and_then(|event| event.index.as_deref());
    let index = named.map_or("the token's own index".to_owned(), |name| format!("index {name}"));
    let text = format!("the token may not write to {index}, or there is none; look at the token's allowed indexes");
    match &config.index {
        Some(template) if !template.is_fixed() => Ok(text),
        _ => Err(text),
    }
}
