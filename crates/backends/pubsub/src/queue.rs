//! One lane or one intake.
//!
//! What waits in a subscription Pub/Sub tells only through Cloud Monitoring, minutes late. So [`Queue::depth`] is
//! `Refused` here, and a lane's bound is not kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::try_join_all;
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::paginator::ItemPaginator as _;
use google_cloud_pubsub::client::Publisher;
use google_cloud_pubsub::model::Subscription;
use parking_lot::Mutex;
use stoq_api::queue::{Deliveries, Depth, Message, Part, PartState, Prefetch, Queue};
use stoq_api::{Fault, FaultKind};
use tokio::sync::OnceCell;

use crate::broker::Shared;
use crate::deliveries::{Reader, ReaderOptions};
use crate::names::Kind;
use crate::wire::Owner;
use crate::{fault, names, settings, wire};

/// How long a batch waits for more. A batch of one caller that is full goes at once.
const LINGER: Duration = Duration::from_millis(2);
/// Most messages of a request; Pub/Sub takes 1000.
const BATCH: u32 = 500;
/// How long it is believed that somebody still subscribes.
const BELIEVED: Duration = Duration::from_secs(60);

const VIEWER: &str = "roles/pubsub.viewer";
const EDITOR: &str = "roles/pubsub.editor";
const PUBLISHER: &str = "roles/pubsub.publisher";
const SUBSCRIBER: &str = "roles/pubsub.subscriber";

/// A topic with its subscriptions.
pub(crate) struct PubSubQueue {
    shared: Arc<Shared>,
    name: String,
    owner: Owner,
    publisher: OnceCell<Publisher>,
    /// When a subscription of the topic was last seen.
    subscribed: Mutex<Option<Instant>>,
}

impl PubSubQueue {
    pub(crate) fn lane(shared: Arc<Shared>, name: &str) -> Self {
        Self::new(shared, name, Owner::Ours)
    }

    pub(crate) fn foreign(shared: Arc<Shared>, name: &str) -> Self {
        Self::new(shared, name, Owner::Theirs)
    }

    fn new(shared: Arc<Shared>, name: &str, owner: Owner) -> Self {
        Self { shared, name: name.to_owned(), owner, publisher: OnceCell::new(), subscribed: Mutex::new(None) }
    }

    fn topic(&self) -> Result<String, Fault> {
        let config = &self.shared.config;
        match self.owner {
            Owner::Ours => names::lane_topic(&config.project, &self.name),
            Owner::Theirs => names::foreign(&config.project, Kind::Topic, &self.name),
        }
    }

    /// Somebody else's subscription is the intake itself, whatever it is called here.
    fn subscription(&self, name: &str) -> Result<String, Fault> {
        let config = &self.shared.config;
        match self.owner {
            Owner::Ours => names::lane_subscription(&config.project, &self.name, name),
            Owner::Theirs => names::foreign(&config.project, Kind::Subscription, &self.name),
        }
    }

    async fn find_topic(&self, name: &str) -> Result<PartState, Fault> {
        let clients = self.shared.clients().await?;
        match clients.topics.get_topic().set_topic(name).send().await {
            Ok(found) if self.owner == Owner::Ours => Ok(state(&settings::topic_differs(&found))),
            Ok(_) => Ok(PartState::Present),
            Err(e) if fault::code(&e) == Some(Code::NotFound) => Ok(PartState::Missing),
            Err(e) => Err(fault::of(&format!("look at {}", self.shared.at(name)), VIEWER, e)),
        }
    }

    async fn get_subscription(&self, name: &str) -> Result<Option<Subscription>, Fault> {
        let clients = self.shared.clients().await?;
        match clients.subscriptions.get_subscription().set_subscription(name).send().await {
            Ok(found) => Ok(Some(found)),
            Err(e) if fault::code(&e) == Some(Code::NotFound) => Ok(None),
            Err(e) => Err(fault::of(&format!("look at {}", self.shared.at(name)), VIEWER, e)),
        }
    }

    async fn find_subscription(&self, name: &str, topic: &str) -> Result<PartState, Fault> {
        let Some(found) = self.get_subscription(name).await? else { return Ok(PartState::Missing) };
        let differs = match self.owner {
            Owner::Ours => settings::subscription_differs(&settings::wanted(&self.shared.config, name, topic), &found),
            Owner::Theirs => settings::unusable(&found),
        };
        Ok(state(&differs))
    }

    /// What there is to look at: the topic and the subscriptions of a lane; of others, the one that `subscriptions`
    /// says is read, or else the topic that is written to.
    fn parts(&self, subscriptions: &[&str]) -> Result<Vec<(Kind, String)>, Fault> {
        let mut parts = Vec::new();
        if self.owner == Owner::Ours || subscriptions.is_empty() {
            parts.push((Kind::Topic, self.topic()?));
        }
        for subscription in subscriptions {
            let part = (Kind::Subscription, self.subscription(subscription)?);
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        Ok(parts)
    }

    async fn find(&self, kind: Kind, name: &str) -> Result<PartState, Fault> {
        match (kind, self.owner) {
            (Kind::Topic, _) => self.find_topic(name).await,
            (Kind::Subscription, Owner::Ours) => self.find_subscription(name, &self.topic()?).await,
            (Kind::Subscription, Owner::Theirs) => self.find_subscription(name, "").await,
        }
    }

    /// Makes what is missing; somebody else may have made it meanwhile.
    async fn make(&self, kind: Kind, name: &str) -> Result<(), Fault> {
        let clients = self.shared.clients().await?;
        let made = match kind {
            Kind::Topic => clients.topics.create_topic().set_name(name).send().await.map(|_| ()),
            Kind::Subscription => {
                let wanted = settings::wanted(&self.shared.config, name, &self.topic()?);
                clients.subscriptions.create_subscription().with_request(wanted).send().await.map(|_| ())
            }
        };
        match made {
            Err(e) if fault::code(&e) != Some(Code::AlreadyExists) => {
                Err(fault::of(&format!("make {} {}", kind.word(), self.shared.at(name)), EDITOR, e))
            }
            _ => Ok(()),
        }
    }

    /// A topic without subscriptions takes messages and drops them, so nothing is published unless one was seen.
    async fn ensure_subscribed(&self, topic: &str) -> Result<(), Fault> {
        if self.subscribed.lock().is_some_and(|at| at.elapsed() < BELIEVED) {
            return Ok(());
        }
        let clients = self.shared.clients().await?;
        let first = clients.topics.list_topic_subscriptions().set_topic(topic).set_page_size(1).by_item().next().await;
        match first {
            Some(Ok(_)) => {}
            // Emulators answer this, too, of a topic that is not there.
            None if self.find_topic(topic).await? == PartState::Missing => {
                let text = format!("cannot publish to {}: it does not exist", self.shared.at(topic));
                return Err(Fault::new(FaultKind::Misconfigured, text));
            }
            None => {
                let text = format!("nothing subscribes to {}: its messages would be lost", self.shared.at(topic));
                let kind = if self.owner == Owner::Theirs { FaultKind::Misconfigured } else { FaultKind::Refused };
                return Err(Fault::new(kind, text));
            }
            // Whoever lets us write to a topic of theirs need not let us look at it.
            Some(Err(e)) if self.owner == Owner::Theirs && fault::code(&e) == Some(Code::PermissionDenied) => {}
            Some(Err(e)) => {
                let doing = format!("see who subscribes to {}", self.shared.at(topic));
                return Err(fault::of(&doing, VIEWER, e));
            }
        }
        *self.subscribed.lock() = Some(Instant::now());
        Ok(())
    }

    async fn publisher(&self, topic: &str) -> Result<&Publisher, Fault> {
        let base = &self.shared.clients().await?.publisher;
        let make =
            || async { base.publisher(topic).set_message_count_threshold(BATCH).set_delay_threshold(LINGER).build() };
        Ok(self.publisher.get_or_init(make).await)
    }
}

fn state(differs: &[String]) -> PartState {
    if differs.is_empty() { PartState::Present } else { PartState::Different(differs.join("; ")) }
}

#[async_trait]
impl Queue for PubSubQueue {
    async fn declare(&self, subscriptions: &[&str]) -> Result<(), Fault> {
        for (kind, name) in self.parts(subscriptions)? {
            let mut found = self.find(kind, &name).await?;
            if found == PartState::Missing && self.owner == Owner::Ours {
                self.make(kind, &name).await?;
                found = self.find(kind, &name).await?;
            }
            let what = format!("{} {}", kind.word(), self.shared.at(&name));
            match found {
                PartState::Present => {}
                PartState::Missing => {
                    return Err(Fault::new(FaultKind::Misconfigured, format!("{what} does not exist")));
                }
                PartState::Different(how) => {
                    return Err(Fault::new(FaultKind::Misconfigured, format!("{what} cannot be used: {how}")));
                }
            }
        }
        Ok(())
    }

    async fn inspect(&self, subscriptions: &[&str]) -> Result<Vec<Part>, Fault> {
        let mut parts = Vec::new();
        for (kind, name) in self.parts(subscriptions)? {
            let state = self.find(kind, &name).await?;
            parts.push(Part { what: format!("{} {name}", kind.word()), state });
        }
        Ok(parts)
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), Fault> {
        if messages.is_empty() {
            return Ok(());
        }
        let encoded: Vec<_> =
            messages.into_iter().map(|message| wire::encode(message, self.owner)).collect::<Result<_, _>>()?;
        let topic = self.topic()?;
        self.ensure_subscribed(&topic).await?;
        let publisher = self.publisher(&topic).await?;
        let confirmed = try_join_all(encoded.into_iter().map(|message| publisher.publish(message)));
        let doing = format!("publish to {}", self.shared.at(&topic));
        match tokio::time::timeout(self.shared.config.timeout, confirmed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                *self.subscribed.lock() = None;
                Err(fault::of_publish(&doing, PUBLISHER, error))
            }
            Err(_) => {
                let text = format!("cannot {doing}: no answer within {:?}", self.shared.config.timeout);
                Err(Fault::new(FaultKind::Unavailable, text))
            }
        }
    }

    async fn subscribe(&self, subscription: &str, prefetch: Prefetch) -> Result<Box<dyn Deliveries>, Fault> {
        let name = self.subscription(subscription)?;
        match self.get_subscription(&name).await {
            Ok(Some(found)) => {
                let reasons = settings::unusable(&found);
                if !reasons.is_empty() {
                    let text = format!("cannot read {}: {}", self.shared.at(&name), reasons.join("; "));
                    return Err(Fault::new(FaultKind::Misconfigured, text));
                }
            }
            Ok(None) => {
                let text = format!("cannot read {}: it does not exist", self.shared.at(&name));
                return Err(Fault::new(FaultKind::Misconfigured, text));
            }
            // The right to read a subscription holds no right to look at it.
            Err(f) if f.kind == FaultKind::Misconfigured => tracing::debug!(%name, "reading without looking: {f}"),
            Err(f) => return Err(f),
        }
        let clients = self.shared.clients().await?;
        let options = ReaderOptions {
            doing: format!("read {}", self.shared.at(&name)),
            role: SUBSCRIBER,
            name,
            owner: self.owner,
            prefetch: prefetch.messages.max(1),
        };
        Ok(Box::new(Reader::start(&self.shared, clients.subscriber.clone(), options)))
    }

    async fn depth(&self, subscription: &str) -> Result<Depth, Fault> {
        let text = format!(
            "Pub/Sub does not tell what waits in {}; Cloud Monitoring does, as num_undelivered_messages",
            self.subscription(subscription)?
        );
        Err(Fault::new(FaultKind::Refused, text))
    }
}
