//! One batch: requests, answers, verdicts.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use stoq_api::plugin::{Item, Verdict};
use stoq_api::{Fault, fault};

use super::client::{self, Collector, Sent};
use super::config::Validated;
use super::encode::{Event, Packer};
use super::reply::Answer;
use crate::common::verdicts::Tally;

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

/// Delivers a batch.
pub(super) async fn batch(config: &Validated, collector: &Collector, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
    let mut tally = Tally::new(batch.len());
    let mut packer = Packer::new(config, batch);
    let mut going = FuturesUnordered::new();
    let mut trouble: Option<Fault> = None;
    loop {
        // Once something is wrong, nothing further is begun, and what is open is waited for.
        while trouble.is_none() && going.len() < config.requests {
            match packer.next(&mut tally) {
                events if events.is_empty() => break,
                events => going.push(settle(config, collector, events)),
            }
        }
        let Some(outcome) = going.next().await else { break };
        outcome.safe.into_iter().for_each(|item| tally.delivered(item));
        outcome.refused.into_iter().for_each(|(item, reason)| tally.rejected(item, reason));
        if let Some(fault) = outcome.trouble {
            outcome.open.into_iter().for_each(|item| tally.retry(item, || fault::chain(&fault)));
            // What a person has to mend is said first.
            if trouble.as_ref().is_none_or(Fault::is_transient) {
                trouble = Some(fault);
            }
        }
    }
    match trouble {
        None => Ok(tally.verdicts()),
        Some(fault) if fault.is_transient() => {
            packer.rest(&mut tally, &fault::chain(&fault));
            Ok(tally.verdicts())
        }
        Some(fault) => Err(fault),
    }
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
