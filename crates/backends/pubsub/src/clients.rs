//! The client library's clients, made at first use. Publishing, reading and asking use connections of their own.

use std::path::Path;
use std::time::Duration;

use google_cloud_auth::credentials::{
    Builder, Credentials, anonymous, external_account, impersonated, service_account, user_account,
};
use google_cloud_gax::exponential_backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use google_cloud_gax::retry_policy::{RetryPolicy, RetryPolicyExt};
use google_cloud_pubsub::client::{BasePublisher, Subscriber, SubscriptionAdmin, TopicAdmin};
use google_cloud_pubsub::retry_policy::RetryableErrors;
use serde_json::Value;
use stoq_api::{Fault, FaultKind};
use tokio::sync::OnceCell;

use crate::config::{Config, Target};

/// More than any credentials file has.
const MAX_CREDENTIALS: u64 = 1 << 20;
/// Waits between tries of a request.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// All of them.
pub(crate) struct Clients {
    pub(crate) topics: TopicAdmin,
    pub(crate) subscriptions: SubscriptionAdmin,
    pub(crate) publisher: BasePublisher,
    pub(crate) subscriber: Subscriber,
}

/// The clients once somebody needs them.
#[derive(Default)]
pub(crate) struct Lazy(OnceCell<Clients>);

impl Lazy {
    /// Makes them if need be. Connects to nothing yet.
    ///
    /// # Errors
    /// `Misconfigured`: the credentials cannot be used. They are looked for again the next time.
    pub(crate) async fn get(&self, config: &Config) -> Result<&Clients, Fault> {
        self.0.get_or_try_init(|| build(config)).await
    }
}

async fn build(config: &Config) -> Result<Clients, Fault> {
    let (endpoint, credentials) = match &config.target {
        Target::Emulator(host) => (Some(format!("http://{host}")), anonymous::Builder::new().build()),
        Target::Google { endpoint, credentials: None } => (endpoint.clone(), ambient()?),
        Target::Google { endpoint, credentials: Some(file) } => (endpoint.clone(), from_file(file).await?),
    };
    let made = async {
        let mut topics =
            TopicAdmin::builder().with_credentials(credentials.clone()).with_retry_policy(retries(config.timeout));
        let mut subscriptions = SubscriptionAdmin::builder()
            .with_credentials(credentials.clone())
            .with_retry_policy(retries(config.timeout));
        let mut publisher =
            BasePublisher::builder().with_credentials(credentials.clone()).with_retry_policy(retries(config.timeout));
        let mut subscriber = Subscriber::builder().with_credentials(credentials);
        (topics, subscriptions) = (topics.with_backoff_policy(waits()), subscriptions.with_backoff_policy(waits()));
        publisher = publisher.with_backoff_policy(waits());
        if let Some(endpoint) = endpoint {
            topics = topics.with_endpoint(&endpoint);
            subscriptions = subscriptions.with_endpoint(&endpoint);
            publisher = publisher.with_endpoint(&endpoint);
            subscriber = subscriber.with_endpoint(&endpoint);
        }
        Ok(Clients {
            topics: topics.build().await?,
            subscriptions: subscriptions.build().await?,
            publisher: publisher.build().await?,
            subscriber: subscriber.build().await?,
        })
    };
    made.await.map_err(|e: google_cloud_gax::client_builder::Error| {
        Fault::because(FaultKind::Misconfigured, format!("cannot use Pub/Sub at {}", config.place()), e)
    })
}

/// What passes by itself is tried again for a while; the limit bounds every try as well.
fn retries(limit: Duration) -> impl RetryPolicy {
    RetryableErrors.with_time_limit(limit)
}

fn waits() -> ExponentialBackoff {
    ExponentialBackoffBuilder::new().with_initial_delay(FIRST_WAIT).with_maximum_delay(LONGEST_WAIT).clamp()
}

fn ambient() -> Result<Credentials, Fault> {
    Builder::default().build().map_err(|e| {
        let text =
            "no usable credentials in the environment; set credentials_file, or see Application Default Credentials";
        Fault::because(FaultKind::Misconfigured, text, e)
    })
}

async fn from_file(file: &Path) -> Result<Credentials, Fault> {
    let name = file.display();
    let wrong = |what: String| Fault::new(FaultKind::Misconfigured, format!("credentials_file {name}: {what}"));
    let size = tokio::fs::metadata(file).await.map_err(|e| wrong(e.to_string()))?.len();
    if size > MAX_CREDENTIALS {
        return Err(wrong("too large for credentials".to_owned()));
    }
    let text = tokio::fs::read(file).await.map_err(|e| wrong(e.to_string()))?;
    // What is wrong is not shown: it would show a part of the key.
    let json: Value = serde_json::from_slice(&text).map_err(|_| wrong("not JSON".to_owned()))?;
    let kind = json.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let built = match kind.as_str() {
        "service_account" => service_account::Builder::new(json).build(),
        "authorized_user" => user_account::Builder::new(json).build(),
        "external_account" => external_account::Builder::new(json).build(),
        "impersonated_service_account" => impersonated::Builder::new(json).build(),
        _ => {
            let text = "its \"type\" is none of service_account, authorized_user, external_account, \
                        impersonated_service_account";
            return Err(wrong(text.to_owned()));
        }
    };
    built.map_err(|e| wrong(format!("cannot be used as {kind}: {e}")))
}
