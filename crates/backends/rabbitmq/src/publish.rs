//! Publishing: the messages of all callers of one queue, on one channel, with a window of confirms.
//!
//! A task owns the channel, so that callers who give up undo nothing, and messages of many calls share the window. It fails
//! calls, and never tries again by itself: what to do about a broker that is away is the caller's to decide.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Error};
use parking_lot::Mutex;
use stoq_api::queue::Message;
use stoq_api::stamp::Timestamp;
use stoq_api::{Fault, FaultKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, timeout};

use crate::broker::{Shared, blocked};
use crate::fault::{fault, is_missing, precondition};
use crate::link::{Live, silent};
use crate::message::{check, properties};

/// Calls that are under way at once; others wait with the messages in their own hands.
const CALLS: usize = 1_024;
/// Calls on their way to the task.
const QUEUED: usize = 16;
/// How many times within the confirm time-out calls are looked at.
const LOOKS: u32 = 20;
/// The shortest and the longest time between two looks.
const LOOK_PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(1);

/// Where messages go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Empty: the broker's default exchange, which leads to the queue of the key's name.
    pub(crate) exchange: ShortString,
    pub(crate) key: ShortString,
    /// It is somebody else's.
    pub(crate) theirs: bool,
}

impl Target {
    fn what(&self) -> &ShortString {
        if self.exchange.as_str().is_empty() { &self.key } else { &self.exchange }
    }
}

/// Publishes to one target.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    calls: Mutex<Option<mpsc::Sender<Call>>>,
}

struct Call {
    messages: Vec<Message>,
    reply: oneshot::Sender<Result<(), Fault>>,
}

impl Publisher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, calls: Mutex::new(None) }
    }

    /// Publishes all, and answers when each is confirmed.
    pub(crate) async fn publish(&self, target: Target, messages: Vec<Message>) -> Result<(), Fault> {
        messages.iter().try_for_each(|m| check(m, self.shared.settings.max_message))?;
        if messages.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let ended = || Fault::new(FaultKind::Unavailable, "publishing to rabbitmq has ended");
        self.task(target).send(Call { messages, reply }).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The way to the task, which is started by the first who publishes, and again should its runtime have gone.
    fn task(&self, target: Target) -> mpsc::Sender<Call> {
        let mut calls = self.calls.lock();
        match &*calls {
            Some(calls) if !calls.is_closed() => calls.clone(),
            _ => {
                let (sender, receiver) = mpsc::channel(QUEUED);
                tokio::spawn(run(Arc::clone(&self.shared), target, receiver));
                calls.insert(sender).clone()
            }
        }
    }
}

/// What the broker said of one message.
struct Answer {
    call: u64,
    bytes: usize,
    said: Result<Confirmation, Error>,
}

async fn send(channel: Arc<Channel>, target: Target, call: u64, message: Message) -> Answer {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = properties(&message, Timestamp::now());
    let sent = channel.basic_publish(target.exchange, target.key, options, &message.body, properties).await;
    let said = match sent {
        Ok(confirm) => confirm.await,
        Err(e) => Err(e),
    };
    Answer { call, bytes: message.body.len(), said }
}

async fn run(shared: Arc<Shared>, target: Target, mut calls: mpsc::Receiver<Call>) {
    let settings = &shared.settings;
    let mut table = Table::new(target.clone());
    let mut line: Option<(Arc<Channel>, Arc<Live>)> = None;
    let mut answers = FuturesUnordered::new();
    let pause = (settings.confirm_timeout / LOOKS).clamp(*LOOK_PAUSE.start(), *LOOK_PAUSE.end());
    let mut look = interval(pause);
    loop {
        while let Some((channel, _)) = &line
            && answers.len() < settings.confirm_window
            && (answers.is_empty() || table.bytes < settings.confirm_bytes)
            && let Some((call, message)) = table.next()
        {
            answers.push(send(Arc::clone(channel), target.clone(), call, message));
        }
        tokio::select! {
            Some(answer) = answers.next() => {
                // All that is known by now, before anybody is told: see `Table::returned`.
                let mut seen = HashSet::from([answer.call]);
                table.note(answer);
                while let Some(Some(answer)) = answers.next().now_or_never() {
                    seen.insert(answer.call);
                    table.note(answer);
                }
                table.reply(&seen);
            }
            call = calls.recv(), if table.calls.len() < CALLS => match call {
                None => return,
                Some(call) => match ready(&shared, &mut line).await {
                    Ok(()) => table.take(call),
                    // Nobody may be waiting for it any more.
                    Err(fault) => drop(call.reply.send(Err(fault))),
                },
            },
            _ = look.tick(), if !table.calls.is_empty() => {
                let late = table.late(settings.confirm_timeout);
                // A broker that has stopped reading confirms later; else something is wrong with this channel, and
                // whatever waits on it is better published on another.
                if late && !line.as_ref().is_some_and(|(_, live)| live.is_blocked()) {
                    table.fail_sent(&|| silent("publishing", settings.confirm_timeout));
                    answers = FuturesUnordered::new();
                    line = None;
                }
            }
        }
    }
}

/// Makes a channel if there is none, and refuses if the broker takes nothing anyway.
async fn ready(shared: &Shared, line: &mut Option<(Arc<Channel>, Arc<Live>)>) -> Result<(), Fault> {
    if !line.as_ref().is_some_and(|(channel, _)| channel.status().connected()) {
        *line = None;
        let (channel, live) = shared.publish.channel().await?;
        let limit = shared.settings.connect_timeout;
        let asked = timeout(limit, channel.confirm_select(ConfirmSelectOptions::default())).await;
        let doing = "cannot ask rabbitmq for confirms";
        asked.map_err(|_| silent(doing, limit))?.map_err(|e| fault(doing, &e))?;
        *line = Some((Arc::new(channel), live));
    }
    match line {
        Some((_, live)) if live.is_blocked() => Err(blocked()),
        _ => Ok(()),
    }
}

/// A call under way.
struct Open {
    messages: VecDeque<Message>,
    /// Sent, and not answered.
    sent: usize,
    failure: Option<Fault>,
    reply: oneshot::Sender<Result<(), Fault>>,
    /// When the broker last did something for it.
    since: Instant,
}

/// The calls under way, in order.
struct Table {
    target: Target,
    calls: HashMap<u64, Open>,
    /// Calls that have messages to send.
    unsent: VecDeque<u64>,
    next: u64,
    /// Bytes that were sent and not answered.
    bytes: usize,
    /// The largest message that the broker has said to take.
    largest: usize,
    /// Something could not be delivered to any queue.
    returned: bool,
}

impl Table {
    fn new(target: Target) -> Self {
        let (calls, unsent) = (HashMap::new(), VecDeque::new());
        Self { target, calls, unsent, next: 0, bytes: 0, largest: usize::MAX, returned: false }
    }

    fn take(&mut self, call: Call) {
        if let Err(fault) = call.messages.iter().try_for_each(|m| check(m, self.largest)) {
            return drop(call.reply.send(Err(fault)));
        }
        let open =
            Open { messages: call.messages.into(), sent: 0, failure: None, reply: call.reply, since: Instant::now() };
        self.calls.insert(self.next, open);
        self.unsent.push_back(self.next);
        self.next += 1;
    }

    /// The next message to send.
    fn next(&mut self) -> Option<(u64, Message)> {
        loop {
            let id = *self.unsent.front()?;
            if let Some(open) = self.calls.get_mut(&id)
                && let Some(message) = open.messages.pop_front()
            {
                open.sent += 1;
                self.bytes += message.body.len();
                return Some((id, message));
            }
            self.unsent.pop_front();
        }
    }

    /// Notes what was said of a message.
    fn note(&mut self, answer: Answer) {
        self.bytes -= answer.bytes;
        let failure = match answer.said {
            Ok(Confirmation::Ack(None)) => None,
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
                self.returned = true;
                Some(self.nobody())
            }
            Ok(Confirmation::Nack(None)) => {
                let text =
                    format!("{} is full: it has as many messages waiting as its bound allows", self.target.what());
                Some(Fault::new(FaultKind::Unavailable, text))
            }
            Ok(Confirmation::NotRequested) => {
                Some(Fault::new(FaultKind::Unavailable, "rabbitmq was not asked for confirms"))
            }
            Err(e) if is_missing(&e) => Some(self.nobody()),
            Err(e) => Some(self.broken(&e, answer.bytes)),
        };
        if let Some(open) = self.calls.get_mut(&answer.call) {
            open.sent -= 1;
            open.since = Instant::now();
            if failure.is_some() {
                open.messages.clear();
                // What is for good matters more than what passes.
                if open.failure.as_ref().is_none_or(Fault::is_transient) {
                    open.failure = failure;
                }
            }
        }
    }

    fn nobody(&self) -> Fault {
        // Whoever lets us write has to mend it, and no message of ours is to blame.
        let kind = if self.target.theirs { FaultKind::Misconfigured } else { FaultKind::Refused };
        Fault::new(kind, format!("nothing at rabbitmq subscribes to {}", self.target.what()))
    }

    /// The channel's end, which every message on it hears of; only one of them may have been the cause.
    fn broken(&mut self, error: &Error, bytes: usize) -> Fault {
        let mut said = fault(format!("cannot publish to {}", self.target.what()), error);
        if let Some(limit) = precondition(error).as_deref().and_then(size_limit) {
            self.largest = limit;
            said.kind = if bytes > limit { FaultKind::Refused } else { FaultKind::Unavailable };
        }
        said
    }

    /// Answers those of the calls `seen` that are complete.
    ///
    /// The library hands a message that the broker returned to whichever confirm comes next, which may be another's when
    /// the broker confirms several at once. So a return fails all that were under way: all of them had no subscriber, or
    /// one came or went at this moment.
    fn reply(&mut self, seen: &HashSet<u64>) {
        if std::mem::take(&mut self.returned) {
            let nobody = self.nobody();
            let failed = |id: &u64, open: &Open| seen.contains(id) || open.sent > 0;
            for (_, open) in self.calls.iter_mut().filter(|(id, open)| failed(id, open)) {
                open.messages.clear();
                open.failure = Some(Fault::new(nobody.kind, nobody.context.clone()));
            }
        }
        for id in seen {
            if self.calls.get(id).is_some_and(|open| open.sent == 0 && open.messages.is_empty())
                && let Some(open) = self.calls.remove(id)
            {
                // Nobody may be waiting for it any more.
                drop(open.reply.send(open.failure.map_or(Ok(()), Err)));
            }
        }
    }

    /// Fails the calls for which nothing has happened for so long. Whether there were any that had something sent.
    fn late(&mut self, limit: Duration) -> bool {
        let late: Vec<u64> = self.calls.iter().filter(|(_, o)| o.since.elapsed() >= limit).map(|(id, _)| *id).collect();
        let mut sent = false;
        for open in late.iter().filter_map(|id| self.calls.remove(id)) {
            sent |= open.sent > 0;
            drop(open.reply.send(Err(silent(&format!("publishing to {}", self.target.what()), limit))));
        }
        sent
    }

    /// Fails the calls that have something sent: its answer is not waited for any more.
    fn fail_sent(&mut self, fault: &dyn Fn() -> Fault) {
        self.bytes = 0;
        let sent: Vec<u64> = self.calls.iter().filter(|(_, o)| o.sent > 0).map(|(id, _)| *id).collect();
        for open in sent.iter().filter_map(|id| self.calls.remove(id)) {
            drop(open.reply.send(Err(fault())));
        }
    }
}

/// The size that the broker names when it refuses a larger message.
fn size_limit(said: &str) -> Option<usize> {
    let after =
        said.split_once("larger than configured max size ").or_else(|| said.split_once("larger than the max size "))?.1;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
