//! The wire: requests with events, questions for acknowledgements, health.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use super::channel::{Channel, Channels};
use super::config::{Ack, Validated};
use super::encode::Event;
use super::reply::{self, Answer};
use crate::common::http::{Nodes, Reply, Request};

const EVENTS: &str = "/services/collector/event";
const ACK: &str = "/services/collector/ack";
const HEALTH: &str = "/services/collector/health";
const CHANNEL: &str = "x-splunk-request-channel";
/// The wait before the first question for an acknowledgement; it doubles with each, up to `ack_poll`.
const FIRST_QUESTION: Duration = Duration::from_millis(25);

/// Some collectors of one Splunk.
pub(super) struct Collector {
    nodes: Nodes,
    ack: Option<Ack>,
    channels: Channels,
    /// The channel on which readiness asks, and nothing is ever sent.
    asking: Uuid,
}

/// What became of a request, for good.
pub(super) enum Sent {
    /// Its events are safe, as far as Splunk says so.
    Safe,
    /// Refused, too large, not now, or to be mended; and where.
    Not(Answer, String),
}

impl Collector {
    pub(super) fn new(config: &Validated) -> Result<Self, BuildError> {
        let nodes = Nodes::new(&config.http)?;
        Ok(Self { nodes, ack: config.ack, channels: Channels::default(), asking: Uuid::new_v4() })
    }

    /// Sends events and waits until they are safe. Dropped in between, nothing is known of them.
    pub(super) async fn send(&self, events: &[Event]) -> Result<Sent, Fault> {
        let mut body = BytesMut::with_capacity(events.iter().map(|event| event.json.len()).sum());
        events.iter().for_each(|event| body.extend_from_slice(&event.json));
        let request = Request::new("POST", EVENTS).with("application/json", body.freeze());
        let Some(ack) = self.ack else {
            let reply = self.nodes.send(&request).await?;
            return Ok(judged(&reply, reply::answer(reply.status, &reply.body, false)));
        };
        // Only one that saw its every number acknowledged goes back; any way out of here but that one drops it.
        let mut channel = self.channels.take();
        let reply = self.nodes.send(&with_channel(request, &channel)).await?;
        channel.remember(&reply.cookies);
        match reply::answer(reply.status, &reply.body, true) {
            Answer::Taken(Some(number)) => {
                let waited = self.acknowledged(ack, &channel, &reply, number).await?;
                if matches!(waited, Sent::Safe) {
                    self.channels.give(channel);
                }
                Ok(waited)
            }
            other => Ok(judged(&reply, other)),
        }
    }

    /// Asks the node that took a request until it acknowledges it, or the time is over.
    async fn acknowledged(&self, ack: Ack, channel: &Channel, taken: &Reply, number: u64) -> Result<Sent, Fault> {
        let end = Instant::now() + ack.timeout;
        let request = with_channel(question(channel.id, number), channel);
        let mut pause = FIRST_QUESTION.min(ack.poll);
        let mut trouble = None;
        while Instant::now() < end {
            sleep_until(end.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(ack.poll);
            let Ok(answered) = timeout_at(end + ack.poll, self.nodes.send_to(taken.node, &request)).await else {
                break;
            };
            match answered {
                Ok(reply) if reply.is_success() && reply::is_acknowledged(&reply.body, number) => {
                    return Ok(Sent::Safe);
                }
                Ok(reply) if reply.is_success() => trouble = None,
                Ok(reply) => match reply::answer(reply.status, &reply.body, true) {
                    answer @ Answer::Mend(_) => return Ok(judged(&reply, answer)),
                    other => trouble = Some(format!("; to questions: {}", fault(&reply.place, other).context)),
                },
                Err(e) if e.is_transient() => trouble = Some(format!("; {}", stoq_api::fault::chain(&e))),
                Err(e) => return Err(e),
            }
        }
        let (seconds, trouble) = (ack.timeout.as_secs_f64(), trouble.unwrap_or_default());
        let why =
            format!("no acknowledgement of request {number} of channel {} within {seconds} s{trouble}", channel.id);
        Ok(Sent::Not(Answer::Wait(why), taken.place.clone()))
    }

    /// Whether events could be sent.
    pub(super) async fn check(&self) -> Result<(), Fault> {
        let reply = self.nodes.send(&Request::new("GET", HEALTH)).await?;
        if !reply.is_success() {
            return Err(fault(&reply.place, reply::answer(reply.status, &reply.body, false)));
        }
        if self.ack.is_none() {
            return Ok(());
        }
        // The health of a collector says nothing of the token. No such number was ever given: the answer is no.
        let request = question(self.asking, 0).header(CHANNEL, self.asking.to_string());
        let reply = self.nodes.send(&request).await?;
        if reply.is_success() {
            Ok(())
        } else {
            Err(fault(&reply.place, reply::answer(reply.status, &reply.body, true)))
        }
    }
}

fn question(channel: Uuid, number: u64) -> Request {
    let body = Bytes::from(format!("{{\"acks\":[{number}]}}"));
    Request::new("POST", format!("{ACK}?channel={channel}")).with("application/json", body)
}

fn with_channel(request: Request, channel: &Channel) -> Request {
    let request = request.header(CHANNEL, channel.id.to_string());
    if channel.cookies.is_empty() { request } else { request.header("cookie", channel.cookies.join("; ")) }
}

fn judged(reply: &Reply, answer: Answer) -> Sent {
    match answer {
        Answer::Taken(_) => Sent::Safe,
        other => Sent::Not(other, reply.place.clone()),
    }
}

/// What an answer that refuses everything means for the sink as a whole.
pub(super) fn fault(place: &str, answer: Answer) -> Fault {
    let (kind, why) = match answer {
        Answer::Mend(why) => (FaultKind::Misconfigured, why),
        Answer::Wait(why) => (FaultKind::Unavailable, why),
        Answer::Taken(_) => (FaultKind::Unavailable, "it took what was no event".to_owned()),
        Answer::Refused { reason, .. } => (FaultKind::Unavailable, reason),
        Answer::WrongIndex { .. } => (FaultKind::Misconfigured, "incorrect index (code 7)".to_owned()),
        Answer::TooLarge => (FaultKind::Misconfigured, "it takes no request at all (status 413)".to_owned()),
    };
    Fault::new(kind, format!("splunk at {place}: {why}"))
}
