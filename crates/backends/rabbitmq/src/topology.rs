//! What lanes are made of at the broker, and how it is made, compared and asked.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Error, ExchangeKind};
use stoq_api::queue::{LaneOptions, Part, PartState};
use stoq_api::{Fault, FaultKind};
use tokio::time::timeout;

use crate::broker::Shared;
use crate::config::{QueueType, Settings};
use crate::fault::{fault, is_forbidden, is_missing, precondition};
use crate::link::silent;

/// How often a quorum queue may deliver a message before it drops it: more often than ever happens, since our own code
/// counts, on every broker alike. There is no word for "without limit" that all versions understand: 4.0 and later take
/// -1 as that and have a limit of 20 if nothing is said; before, -1 drops whatever is given back once.
const DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// A queue of a lane.
#[derive(Clone, Debug)]
pub(crate) struct LaneQueue {
    pub(crate) name: ShortString,
    queue_type: QueueType,
    replicas: Option<u32>,
    bound: Option<u64>,
}

impl LaneQueue {
    pub(crate) fn new(name: ShortString, settings: &Settings, options: LaneOptions) -> Self {
        Self { name, queue_type: settings.queue_type, replicas: settings.replicas, bound: options.bound }
    }

    pub(crate) fn what(&self) -> String {
        format!("{} queue {}", self.queue_type.name(), self.name)
    }

    /// The arguments it is declared with.
    fn arguments(&self) -> FieldTable {
        let mut table = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| {
            table.insert(name.into(), value);
        };
        set("x-queue-type", text(self.queue_type.name()));
        if self.queue_type == QueueType::Quorum {
            set("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT));
            if let Some(nodes) = self.replicas {
                set("x-quorum-initial-group-size", AMQPValue::LongLongInt(nodes.into()));
            }
        }
        if let Some(bound) = self.bound {
            set("x-max-length", AMQPValue::LongLongInt(i64::try_from(bound).unwrap_or(i64::MAX)));
            set("x-overflow", text("reject-publish"));
        }
        table
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// Makes a lane's exchange.
pub(crate) async fn declare_exchange(shared: &Shared, name: &ShortString) -> Result<(), Fault> {
    let declared = exchange(shared, name, false).await?;
    declared.map_err(|e| different(&format!("fanout exchange {name}"), &e))
}

/// Makes a lane's queue and binds it to the lane's exchange.
pub(crate) async fn declare_queue(shared: &Shared, exchange: &ShortString, queue: &LaneQueue) -> Result<(), Fault> {
    declare(shared, queue).await?.map_err(|e| different(&queue.what(), &e))?;
    let doing = format!("cannot bind queue {} to exchange {exchange}", queue.name);
    let (channel, _live) = shared.publish.channel().await?;
    let bound = channel.queue_bind(
        queue.name.clone(),
        exchange.clone(),
        ShortString::default(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    in_time(shared, &doing, bound).await?.map_err(|e| fault(doing, &e))
}

/// How a lane's exchange is found.
pub(crate) async fn inspect_exchange(shared: &Shared, name: &ShortString) -> Result<Part, Fault> {
    let what = format!("fanout exchange {name}");
    let state = match exchange(shared, name, true).await? {
        Ok(()) => found(&what, exchange(shared, name, false).await?)?,
        Err(e) if is_missing(&e) => PartState::Missing,
        Err(e) => return Err(fault(format!("cannot look at {what}"), &e)),
    };
    Ok(Part { what, state })
}

/// How a lane's queue is found. Its settings are compared by declaring it once more, which changes nothing about a queue
/// that exists.
pub(crate) async fn inspect_queue(shared: &Shared, queue: &LaneQueue) -> Result<Part, Fault> {
    let what = queue.what();
    let state = match ready(shared, &queue.name).await? {
        Ok(_) => found(&what, declare(shared, queue).await?)?,
        Err(e) if is_missing(&e) => PartState::Missing,
        Err(e) => return Err(fault(format!("cannot look at {what}"), &e)),
    };
    Ok(Part { what, state })
}

/// How something of somebody else's is found: there, or not.
pub(crate) fn foreign(what: String, exists: Result<(), Error>) -> Result<Part, Fault> {
    match exists {
        Ok(()) => Ok(Part { what, state: PartState::Present }),
        Err(e) if is_missing(&e) => Ok(Part { what, state: PartState::Missing }),
        Err(e) => Err(fault(format!("cannot look at {what}"), &e)),
    }
}

/// How many messages of a queue nobody holds, if it exists.
pub(crate) async fn ready(shared: &Shared, name: &ShortString) -> Result<Result<u64, Error>, Fault> {
    let (channel, _live) = shared.publish.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(name.clone(), options, FieldTable::default());
    let asked = in_time(shared, &format!("looking at queue {name}"), asked).await?;
    Ok(asked.map(|queue| queue.message_count().into()))
}

/// Declares an exchange, or asks whether it exists.
pub(crate) async fn exchange(shared: &Shared, name: &ShortString, passive: bool) -> Result<Result<(), Error>, Fault> {
    let (channel, _live) = shared.publish.channel().await?;
    let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.clone(), ExchangeKind::Fanout, options, FieldTable::default());
    in_time(shared, &format!("looking at exchange {name}"), declared).await
}

/// Declares a queue.
async fn declare(shared: &Shared, queue: &LaneQueue) -> Result<Result<(), Error>, Fault> {
    let (channel, _live) = shared.publish.channel().await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.name.clone(), options, queue.arguments());
    Ok(in_time(shared, &format!("declaring {}", queue.what()), declared).await?.map(|_| ()))
}

/// What an attempt to declare says of something that exists.
fn found(what: &str, declared: Result<(), Error>) -> Result<PartState, Fault> {
    match declared {
        Ok(()) => Ok(PartState::Present),
        // Whoever may only use it cannot compare it.
        Err(e) if is_forbidden(&e) => Ok(PartState::Present),
        Err(e) => match different(what, &e) {
            fault if fault.kind == FaultKind::Misconfigured => Ok(PartState::Different(fault.context)),
            fault => Err(fault),
        },
    }
}

/// Why something could not be declared; if it exists with other settings, what to do about that.
fn different(what: &str, error: &Error) -> Fault {
    let doing = format!("cannot declare {what}");
    match precondition(error) {
        Some(text) => {
            let advice = "configure what it was made with, or drain and delete it so that it is made anew";
            Fault::new(FaultKind::Misconfigured, format!("{doing}: it exists with other settings ({text}); {advice}"))
        }
        None => fault(doing, error),
    }
}

async fn in_time<T>(
    shared: &Shared,
    doing: &str,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<Result<T, Error>, Fault> {
    let limit = shared.settings.connect_timeout;
    timeout(limit, answer).await.map_err(|_| silent(doing, limit))
}
