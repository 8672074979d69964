//! What can be set, and what of it fits together.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use stoq_api::backend::Options;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

pub(crate) const OPTIONS: &[OptionInfo] = &[
    option("project", OptionKind::Text, "", "the project's id; $GOOGLE_CLOUD_PROJECT if not given"),
    option(
        "endpoint",
        OptionKind::Text,
        "",
        "a regional or private endpoint: https://europe-west1-pubsub.googleapis.com",
    ),
    option(
        "emulator_host",
        OptionKind::Text,
        "",
        "host:port of an emulator; $PUBSUB_EMULATOR_HOST if nothing else is given",
    ),
    option("prefix", OptionKind::Text, "\"stoq\"", "what the names of lanes begin with; one a fleet"),
    option("credentials_file", OptionKind::Text, "", "a JSON credentials file; else what the environment offers"),
    option("ack_deadline", OptionKind::Duration, "\"60 s\"", "how long after a reader's death its messages come again"),
    option("retention", OptionKind::Duration, "\"7 d\"", "how long a message waits before Pub/Sub drops it"),
    option("max_outstanding_bytes", OptionKind::Size, "\"256 MiB\"", "bytes that one reader holds without a verdict"),
    option(
        "exactly_once",
        OptionKind::Bool,
        "false",
        "make lanes with exactly-once delivery: acknowledgements are confirmed",
    ),
    option(
        "max_lease",
        OptionKind::Duration,
        "\"1 d\"",
        "how long a live reader may keep one message without a verdict",
    ),
    option("timeout", OptionKind::Duration, "\"30 s\"", "how long a request is tried before Pub/Sub counts as away"),
];

/// Bounds that Pub/Sub itself sets: https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions.
const ACK_DEADLINE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
const RETENTION: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(31 * 86_400));
/// Below it one message of the largest kind would not fit.
const LEAST_OUTSTANDING: u64 = 16 << 20;
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// The options as they come, of their types.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    project: String,
    prefix: String,
    endpoint: String,
    emulator_host: String,
    credentials_file: String,
    ack_deadline: f64,
    retention: f64,
    max_outstanding_bytes: u64,
    exactly_once: bool,
    max_lease: f64,
    timeout: f64,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            project: String::new(),
            prefix: "stoq".to_owned(),
            endpoint: String::new(),
            emulator_host: String::new(),
            credentials_file: String::new(),
            ack_deadline: 60.0,
            retention: 7.0 * 86_400.0,
            max_outstanding_bytes: 256 << 20,
            exactly_once: false,
            max_lease: 86_400.0,
            timeout: 30.0,
        }
    }
}

/// Where Pub/Sub is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// At Google, or at an address that leads there. `None` means the usual endpoint, and the environment's credentials.
    Google { endpoint: Option<String>, credentials: Option<PathBuf> },
    /// An emulator: no TLS, no credentials.
    Emulator(String),
}

/// Options that fit together.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) project: String,
    /// What the names of lanes begin with.
    pub(crate) prefix: String,
    pub(crate) target: Target,
    pub(crate) ack_deadline: Duration,
    pub(crate) retention: Duration,
    pub(crate) max_outstanding_bytes: i64,
    pub(crate) exactly_once: bool,
    pub(crate) max_lease: Duration,
    pub(crate) timeout: Duration,
}

impl Config {
    /// Checks the options.
    pub(crate) fn read(options: &Options) -> Result<Self, BuildError> {
        Self::read_in(options, &|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    }

    /// The same with the environment given.
    fn read_in(options: &Options, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, BuildError> {
        let raw: Raw = serde_json::from_value(Value::Object(options.clone())).map_err(|e| BuildError(e.to_string()))?;
        let project = Some(raw.project.clone()).filter(|p| !p.is_empty()).or_else(|| env("GOOGLE_CLOUD_PROJECT"));
        let Some(project) = project else {
            return Err(BuildError("project: which one? Neither the option nor GOOGLE_CLOUD_PROJECT says".to_owned()));
        };
        if project.contains('/') {
            return Err(BuildError(format!("project: {project:?} is not a project's id")));
        }
        if raw.max_outstanding_bytes < LEAST_OUTSTANDING {
            let text = format!("max_outstanding_bytes: at least {LEAST_OUTSTANDING}, so that every message fits");
            return Err(BuildError(text));
        }
        Ok(Self {
            project,
            prefix: raw.prefix.clone(),
            target: target(&raw, env)?,
            ack_deadline: whole_seconds("ack_deadline", raw.ack_deadline, ACK_DEADLINE)?,
            retention: whole_seconds("retention", raw.retention, RETENTION)?,
            max_outstanding_bytes: i64::try_from(raw.max_outstanding_bytes).unwrap_or(i64::MAX),
            exactly_once: raw.exactly_once,
            max_lease: whole_seconds("max_lease", raw.max_lease, (ACK_DEADLINE.0, Duration::MAX))?,
            timeout: whole_seconds("timeout", raw.timeout, TIMEOUT)?,
        })
    }

    /// Where this leads, for messages.
    pub(crate) fn place(&self) -> &str {
        match &self.target {
            Target::Google { endpoint, .. } => endpoint.as_deref().unwrap_or("pubsub.googleapis.com"),
            Target::Emulator(host) => host,
        }
    }
}

fn target(raw: &Raw, env: &dyn Fn(&str) -> Option<String>) -> Result<Target, BuildError> {
    let given = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    let (endpoint, credentials) = (given(&raw.endpoint), given(&raw.credentials_file));
    if let Some(host) = given(&raw.emulator_host) {
        if endpoint.is_some() || credentials.is_some() {
            let text =
                "emulator_host: an emulator takes neither endpoint nor credentials_file; remove the one or the others";
            return Err(BuildError(text.to_owned()));
        }
        return emulator(host);
    }
    if endpoint.is_none()
        && credentials.is_none()
        && let Some(host) = env("PUBSUB_EMULATOR_HOST")
    {
        tracing::warn!(%host, "PUBSUB_EMULATOR_HOST is set: using that emulator, which keeps nothing");
        return emulator(host);
    }
    if let Some(url) = &endpoint {
        check_endpoint(url)?;
    }
    Ok(Target::Google { endpoint, credentials: credentials.map(PathBuf::from) })
}

fn emulator(host: String) -> Result<Target, BuildError> {
    if host.contains("://") || host.contains('@') || host.contains('/') {
        return Err(BuildError(format!("emulator_host: expected host:port, not {:?}", hide(&host))));
    }
    Ok(Target::Emulator(host))
}

/// Tokens go to the endpoint with every request, so they must not travel in clear to another machine.
fn check_endpoint(url: &str) -> Result<(), BuildError> {
    let shown = hide(url);
    if url.contains('@') {
        let text = format!("endpoint: {shown}: no credentials here; credentials_file names the file that holds them");
        return Err(BuildError(text));
    }
    if url.starts_with("https://") {
        return Ok(());
    }
    let host = url.strip_prefix("http://").unwrap_or_default();
    if ["127.0.0.1", "localhost", "[::1]"].iter().any(|h| host.split(['/', '?']).next().is_some_and(|a| is_host(a, h)))
    {
        return Ok(());
    }
    Err(BuildError(format!("endpoint: {shown}: must start with https://; for an emulator use emulator_host")))
}

/// Whether `authority` is `host`, with a port or without.
fn is_host(authority: &str, host: &str) -> bool {
    authority.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn hide(url: &str) -> String {
    stoq_runtime::secret::mask_urls(url)
}

fn whole_seconds(name: &str, seconds: f64, (least, most): (Duration, Duration)) -> Result<Duration, BuildError> {
    let span = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    if span < least || span > most {
        let most = if most == Duration::MAX { String::new() } else { format!(", at most {} s", most.as_secs()) };
        return Err(BuildError(format!("{name}: at least {} s{most}", least.as_secs())));
    }
    Ok(Duration::from_secs(span.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: Value, environment: &[(&str, &str)]) -> Result<Config, String> {
        let Value::Object(options) = options else { panic!("an object") };
        let env = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Config::read_in(&options, &env).map_err(|e| e.0)
    }

    #[test]
    fn finds_project_and_emulator_in_the_environment_unless_told() {
        let env = [("GOOGLE_CLOUD_PROJECT", "p"), ("PUBSUB_EMULATOR_HOST", "localhost:8085")];
        let config = read(serde_json::json!({}), &env).unwrap();
        assert_eq!((config.project.as_str(), config.target), ("p", Target::Emulator("localhost:8085".into())));
        let told = serde_json::json!({"project": "q", "endpoint": "https://europe-west1-pubsub.googleapis.com"});
        let config = read(told, &env).unwrap();
        assert_eq!(config.project, "q");
        assert!(matches!(config.target, Target::Google { endpoint: Some(_), credentials: None }));
    }

    #[test]
    fn says_what_does_not_fit() {
        for (options, says) in [
            (serde_json::json!({}), "project: which one?"),
            (serde_json::json!({"project": "projects/p"}), "project:"),
            (serde_json::json!({"project": "p", "ack_deadline": 5.0}), "ack_deadline: at least 10 s, at most 600 s"),
            (serde_json::json!({"project": "p", "retention": 60.0}), "retention: at least 600 s"),
            (serde_json::json!({"project": "p", "max_outstanding_bytes": 1}), "max_outstanding_bytes:"),
            (serde_json::json!({"project": "p", "endpoint": "http://pubsub.example"}), "must start with https://"),
            (serde_json::json!({"project": "p", "endpoint": "http://127.0.0.1.example"}), "must start with https://"),
            (serde_json::json!({"project": "p", "emulator_host": "http://x:1"}), "expected host:port"),
            (serde_json::json!({"project": "p", "emulator_host": "x:1", "endpoint": "https://y"}), "takes neither"),
        ] {
            let error = read(options.clone(), &[]).unwrap_err();
            assert!(error.contains(says), "{options}: {error}");
        }
        let error = read(serde_json::json!({"project": "p", "endpoint": "https://u:hunter2@y"}), &[]).unwrap_err();
        assert!(error.contains("credentials_file") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn defaults_are_those_that_are_documented() {
        let config = read(serde_json::json!({"project": "p"}), &[]).unwrap();
        assert_eq!(config.ack_deadline.as_secs(), 60);
        assert_eq!(config.retention.as_secs(), 7 * 86_400);
        assert_eq!(config.max_lease.as_secs(), 86_400);
        assert_eq!((config.timeout.as_secs(), config.max_outstanding_bytes), (30, 256 << 20));
        assert!(!config.exactly_once);
    }
}
