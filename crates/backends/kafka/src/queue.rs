//! A lane, or somebody else's topic.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::Offset;
use rdkafka::producer::Producer as _;
use stoq_api::queue::{Deliveries, Depth, LaneOptions, Message, Part, Prefetch, Queue};
use stoq_api::{Fault, FaultKind};
use tokio::sync::Mutex;

use crate::group::{Group, Plan, Receiver};
use crate::link::Link;
use crate::publish::publish;
use crate::record::Identity;
use crate::topic::{self, Offsets};
use crate::{names, topic::Topic};

/// How long a bound is trusted to be kept after a look at what waits.
const LAG_AGE: Duration = Duration::from_secs(1);

/// One topic.
pub(crate) struct KafkaQueue {
    link: Arc<Link>,
    topic: String,
    kind: Kind,
    /// Somebody would get what is published.
    usable: AtomicBool,
    /// When the bound was looked at last, and what waited in the fullest subscription then.
    lag: Mutex<Option<(Instant, u64)>>,
}

enum Kind {
    Lane(LaneOptions),
    Foreign { group: String },
}

impl KafkaQueue {
    pub(crate) fn lane(link: Arc<Link>, name: &str, options: LaneOptions) -> Self {
        let topic = names::topic(&link.settings.prefix, name);
        Self::new(link, topic, Kind::Lane(options))
    }

    pub(crate) fn foreign(link: Arc<Link>, name: &str) -> Self {
        let group = names::topic(&link.settings.prefix, name);
        Self::new(link, name.to_owned(), Kind::Foreign { group })
    }

    fn new(link: Arc<Link>, topic: String, kind: Kind) -> Self {
        Self { link, topic, kind, usable: AtomicBool::new(false), lag: Mutex::default() }
    }

    fn group(&self, subscription: &str) -> String {
        match &self.kind {
            Kind::Lane(_) => names::group(&self.topic, subscription),
            Kind::Foreign { group } => group.clone(),
        }
    }

    fn groups(&self, subscriptions: &[&str]) -> Vec<String> {
        subscriptions.iter().map(|s| self.group(s)).collect()
    }

    /// Makes sure that what is published goes somewhere. The broker would take it all the same, and might even make the
    /// topic, in its own way.
    async fn must_be_usable(&self) -> Result<(), Fault> {
        if self.usable.load(Ordering::Relaxed) {
            return Ok(());
        }
        let topic = self.topic.clone();
        let lane = matches!(self.kind, Kind::Lane(_));
        self.link
            .ask(move |link| {
                if !lane {
                    return topic::must_find(link, &topic).map(drop);
                }
                let nobody = |why: &str| {
                    let text = format!("nothing subscribes to topic {topic}: {why}");
                    Err(Fault::new(FaultKind::Refused, text))
                };
                if topic::find(link, &topic)?.is_none() {
                    return nobody("it does not exist; declare the lane first");
                }
                if topic::subscriptions(link, &topic)?.is_empty() {
                    return nobody("there is no consumer group for it, or this user may not DESCRIBE it");
                }
                Ok(())
            })
            .await?;
        self.usable.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Fails while the fullest subscription is at the bound.
    async fn must_have_room(&self) -> Result<(), Fault> {
        let Kind::Lane(LaneOptions { bound: Some(bound) }) = self.kind else { return Ok(()) };
        let mut lag = self.lag.lock().await;
        let waiting = match *lag {
            Some((at, waiting)) if at.elapsed() < LAG_AGE => waiting,
            _ => {
                let topic = self.topic.clone();
                let waiting = self.link.ask(move |link| fullest(link, &topic)).await?;
                *lag = Some((Instant::now(), waiting));
                waiting
            }
        };
        if waiting < bound {
            return Ok(());
        }
        let text = format!("topic {} is full: {waiting} messages wait, {bound} may", self.topic);
        Err(Fault::new(FaultKind::Unavailable, text))
    }

    /// Joins the consumer that this process has for `group`, or starts one.
    fn join(&self, group: &str, identity: Identity) -> Result<Receiver, Fault> {
        let key = (self.topic.clone(), group.to_owned());
        let mut groups = self.link.groups();
        let all = groups.entry(key).or_default();
        if let Some(receiver) = all.iter().filter_map(Weak::upgrade).find_map(|group| group.join()) {
            return Ok(receiver);
        }
        let settings = &self.link.settings;
        let unmade = |why| Fault::new(FaultKind::Misconfigured, format!("a kafka client cannot be made: {why}"));
        let (group, receiver) = Group::start(Plan {
            config: settings.consumer(group).map_err(unmade)?,
            topic: self.topic.clone(),
            group: group.to_owned(),
            identity,
            window: settings.window,
            timeout: settings.timeout,
            session_timeout: settings.session_timeout,
            health: Arc::clone(&self.link.health),
        })?;
        all.push(Arc::downgrade(&group));
        Ok(receiver)
    }

    /// What this process's own consumer of `group` holds, and where it stands.
    fn standing(&self, group: &str) -> (u64, BTreeMap<i32, (i64, u64)>) {
        let key = (self.topic.clone(), group.to_owned());
        let groups: Vec<Arc<Group>> =
            self.link.groups().get(&key).into_iter().flatten().filter_map(Weak::upgrade).collect();
        let mut held = 0;
        let mut standing = BTreeMap::new();
        for group in groups {
            let (holds, stands) = group.standing();
            held += holds;
            standing.extend(stands.into_iter().map(|(id, position, open)| (id, (position, open))));
        }
        (held, standing)
    }
}

#[async_trait]
impl Queue for KafkaQueue {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        let topic = self.topic.clone();
        if let Kind::Foreign { .. } = self.kind {
            return self.link.ask(move |link| topic::must_find(link, &topic).map(drop)).await;
        }
        let groups = self.groups(subscriptions);
        let subscribed = !groups.is_empty();
        self.link.ask(move |link| topic::declare(link, &topic, &groups)).await?;
        if subscribed {
            self.usable.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault> {
        let topic = self.topic.clone();
        if let Kind::Foreign { .. } = self.kind {
            return self.link.ask(move |link| foreign_parts(link, &topic)).await;
        }
        let groups = self.groups(subscriptions);
        self.link.ask(move |link| topic::inspect(link, &topic, &groups)).await
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        if messages.is_empty() {
            return Ok(());
        }
        self.must_be_usable().await?;
        self.must_have_room().await?;
        let identity = match self.kind {
            Kind::Lane(_) => Identity::Header,
            // What is published to somebody else's topic carries no name of ours.
            Kind::Foreign { .. } => Identity::Place(String::new()),
        };
        let published = publish(&self.link, &self.topic, &identity, &messages).await;
        if published.as_ref().is_err_and(|fault| fault.kind == FaultKind::Misconfigured) {
            // Whoever mends it may have made everything anew.
            self.usable.store(false, Ordering::Relaxed);
        }
        published
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        let group = self.group(subscription);
        let (topic, asked) = (self.topic.clone(), group.clone());
        let lane = matches!(self.kind, Kind::Lane(_));
        let identity = self
            .link
            .ask(move |link| {
                let found = topic::must_find(link, &topic)?;
                if !lane {
                    return cluster(link).map(Identity::Place);
                }
                must_be_declared(&topic::committed(link, &topic, &found, &asked)?, &asked)?;
                Ok(Identity::Header)
            })
            .await?;
        Ok(Box::new(self.join(&group, identity)?.with_prefetch(prefetch.messages)))
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        let group = self.group(subscription);
        let lane = matches!(self.kind, Kind::Lane(_));
        let (topic, asked) = (self.topic.clone(), group.clone());
        let (waiting, standing) = {
            let lags = self.link.ask(move |link| lags(link, &topic, &asked, lane)).await?;
            (lags, self.standing(&group))
        };
        let (held, standing) = standing;
        let mut total = 0;
        for (partition, lag) in &waiting {
            total += match standing.get(partition) {
                Some((position, open)) => u64::try_from(lag.end - position).unwrap_or_default() + open,
                None => lag.waiting(),
            };
        }
        let first: Offsets = waiting.iter().filter(|(_, l)| l.waiting() > 0).map(|(p, l)| (*p, l.from)).collect();
        let oldest = if total == 0 || first.is_empty() {
            None
        } else {
            let topic = self.topic.clone();
            self.link.ask(move |link| topic::oldest(link, &topic, &group, &first)).await?
        };
        Ok(Depth { ready: total.saturating_sub(held), held, oldest })
    }
}

/// What one partition has for a group.
struct Lag {
    /// The first record that is not finished, or what is left of it.
    from: i64,
    end: i64,
}

impl Lag {
    fn waiting(&self) -> u64 {
        u64::try_from(self.end - self.from).unwrap_or_default()
    }
}

fn lags(link: &Link, topic: &str, group: &str, declared: bool) -> Result<BTreeMap<i32, Lag>, Fault> {
    let found = topic::must_find(link, topic)?;
    let committed = topic::committed(link, topic, &found, group)?;
    if declared {
        must_be_declared(&committed, group)?;
    }
    lags_from(link, topic, &found, &committed)
}

fn lags_from(
    link: &Link,
    topic: &str,
    found: &Topic,
    committed: &BTreeMap<i32, Option<i64>>,
) -> Result<BTreeMap<i32, Lag>, Fault> {
    let starts = topic::edges(link, topic, found, Offset::Beginning)?;
    let ends = topic::edges(link, topic, found, Offset::End)?;
    let lag = |partition: &i32, end: &i64| {
        let start = starts.get(partition).copied().unwrap_or_default();
        let from = committed.get(partition).copied().flatten().unwrap_or(start).max(start);
        (*partition, Lag { from, end: *end })
    };
    Ok(ends.iter().map(|(partition, end)| lag(partition, end)).collect())
}

/// Messages that wait in the subscription of a lane that has most of them.
fn fullest(link: &Link, topic: &str) -> Result<u64, Fault> {
    let found = topic::must_find(link, topic)?;
    let mut most = 0;
    for group in topic::subscriptions(link, topic)? {
        let committed = topic::committed(link, topic, &found, &group)?;
        if committed.values().all(Option::is_none) {
            // The subscription of another lane, whose name begins like this one's.
            continue;
        }
        let lags = lags_from(link, topic, &found, &committed)?;
        most = most.max(lags.values().map(Lag::waiting).sum());
    }
    Ok(most)
}

fn must_be_declared(committed: &BTreeMap<i32, Option<i64>>, group: &str) -> Result<(), Fault> {
    if committed.values().any(Option::is_some) {
        return Ok(());
    }
    let text = format!("consumer group {group} has no offsets: declare the subscription first");
    Err(Fault::new(FaultKind::Misconfigured, text))
}

fn foreign_parts(link: &Link, topic: &str) -> Result<Vec<Part>, Fault> {
    use stoq_api::queue::PartState::{Missing, Present};
    let state = if topic::find(link, topic)?.is_some() { Present } else { Missing };
    Ok(vec![Part { what: format!("topic {topic}"), state }])
}

/// The cluster's own name.
fn cluster(link: &Link) -> Result<String, Fault> {
    let producer = link.producer()?;
    producer.client().fetch_cluster_id(link.settings.timeout).ok_or_else(|| {
        Fault::new(FaultKind::Unavailable, "the broker did not say which cluster it belongs to; ids rest on that")
    })
}
