//! The ledger's options.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use stoq_api::backend::Options;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};
use stoq_runtime::secret::Secret;

/// Port of a URL that names none.
const PORT: u16 = 6379;
/// Most connections that one process opens to a server.
const MAX_CONNECTIONS: u64 = 256;
/// Longest time that an option may say, in seconds: ten years.
const MAX_SECONDS: f64 = 10.0 * 365.0 * 86_400.0;

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

pub(crate) const OPTIONS: &[OptionInfo] = &[
    option(
        "urls",
        OptionKind::List,
        "[\"redis://localhost:6379\"]",
        "servers, `redis://host:port` or `rediss://host:port` for TLS; of several, the one that is primary is used",
    ),
    option("cluster", OptionKind::Bool, "false", "the servers are nodes of a Redis Cluster"),
    option("user", OptionKind::Text, "", "user (ACL); without one the server's default user"),
    option("password", OptionKind::Text, "", "its password"),
    option("password_file", OptionKind::Text, "", "a file with the password, read at each connection"),
    option("db", OptionKind::Int, "0", "number of the database; a cluster has only 0"),
    option("tls_ca_file", OptionKind::Text, "", "certificates that are trusted, instead of the system's (PEM)"),
    option("prefix", OptionKind::Text, "\"stoq\"", "what all keys begin with; one a fleet"),
    option("connections", OptionKind::Int, "4", "connections a process opens; each carries many operations at once"),
    option("connect_timeout", OptionKind::Duration, "\"5 s\"", "how long a connection may take to be made"),
    option("response_timeout", OptionKind::Duration, "\"10 s\"", "how long an answer may take"),
    option("outcome_inline", OptionKind::Size, "\"64 KiB\"", "larger outcomes are kept in the payload store"),
    option(
        "keep",
        OptionKind::Duration,
        "\"30 d\"",
        "how long a scan that nobody works on is kept after its time is over",
    ),
];

/// A server of the `urls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

/// The options as they are given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(default = "default_urls")]
    urls: Vec<String>,
    #[serde(default)]
    cluster: bool,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    db: i64,
    #[serde(default)]
    tls_ca_file: Option<PathBuf>,
    #[serde(default = "default_prefix")]
    prefix: String,
    #[serde(default = "default_connections")]
    connections: u64,
    #[serde(default = "default_connect_timeout")]
    connect_timeout: f64,
    #[serde(default = "default_response_timeout")]
    response_timeout: f64,
    #[serde(default = "default_outcome_inline")]
    outcome_inline: u64,
    #[serde(default = "default_keep")]
    keep: f64,
}

fn default_urls() -> Vec<String> {
    vec!["redis://localhost:6379".to_owned()]
}

fn default_prefix() -> String {
    "stoq".to_owned()
}

fn default_connections() -> u64 {
    4
}

fn default_connect_timeout() -> f64 {
    5.0
}

fn default_response_timeout() -> f64 {
    10.0
}

fn default_outcome_inline() -> u64 {
    64 << 10
}

fn default_keep() -> f64 {
    30.0 * 86_400.0
}

/// Where the password comes from.
#[derive(Clone, Debug)]
pub(crate) enum Password {
    None,
    Given(Secret),
    File(PathBuf),
}

/// The options once they are checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) servers: Vec<Server>,
    pub(crate) cluster: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Password,
    pub(crate) db: i64,
    pub(crate) tls_ca_file: Option<PathBuf>,
    pub(crate) prefix: String,
    pub(crate) connections: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) outcome_inline: usize,
    pub(crate) keep: Duration,
}

impl Config {
    /// Checks what the types of options do not say.
    pub(crate) fn read(options: &Options) -> Result<Self, BuildError> {
        let given: Given = serde_json::from_value(serde_json::Value::Object(options.clone()))
            .map_err(|e| BuildError(e.to_string()))?;
        let servers = given.urls.iter().map(|url| server(url)).collect::<Result<Vec<_>, _>>()?;
        let wrong = |text: &str| Err(BuildError(text.to_owned()));
        if servers.is_empty() {
            return wrong("urls names no server");
        }
        if servers.iter().any(|s| s.tls != servers[0].tls) {
            return wrong("urls mixes redis:// and rediss://; either all servers use TLS or none does");
        }
        if given.tls_ca_file.is_some() && !servers[0].tls {
            return wrong("tls_ca_file is given, but no URL begins with rediss://");
        }
        if given.cluster && given.db != 0 {
            return wrong("a Redis Cluster has only database 0: remove db");
        }
        if !(0..=i64::from(u16::MAX)).contains(&given.db) {
            return wrong("db is the number of a database, from 0");
        }
        if given.prefix.is_empty() || !given.prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return wrong("prefix may have letters, digits and - _ . and must have one");
        }
        if !(1..=MAX_CONNECTIONS).contains(&given.connections) {
            return Err(BuildError(format!("connections must be from 1 to {MAX_CONNECTIONS}")));
        }
        let password = match (given.password, given.password_file) {
            (Some(_), Some(_)) => return wrong("give password or password_file, not both"),
            (Some(password), None) => Password::Given(password),
            (None, Some(file)) => Password::File(file),
            (None, None) => Password::None,
        };
        if given.user.is_some() && matches!(password, Password::None) {
            return wrong("user is given without password or password_file");
        }
        Ok(Self {
            servers,
            cluster: given.cluster,
            user: given.user,
            password,
            db: given.db,
            tls_ca_file: given.tls_ca_file,
            prefix: given.prefix,
            connections: usize::try_from(given.connections).unwrap_or(1),
            connect_timeout: time("connect_timeout", given.connect_timeout)?,
            response_timeout: time("response_timeout", given.response_timeout)?,
            outcome_inline: usize::try_from(given.outcome_inline).unwrap_or(usize::MAX),
            keep: time("keep", given.keep)?,
        })
    }

    /// The servers, for messages.
    pub(crate) fn place(&self) -> String {
        self.servers.iter().map(|s| format!("{}:{}", s.host, s.port)).collect::<Vec<_>>().join(", ")
    }
}

fn time(option: &str, seconds: f64) -> Result<Duration, BuildError> {
    if seconds > 0.0 && seconds <= MAX_SECONDS {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(BuildError(format!("{option} must be above zero and at most ten years")))
}

fn server(url: &str) -> Result<Server, BuildError> {
    // The URL is not shown before it is known to hold no password.
    let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
    if rest.contains('@') {
        let text = "urls holds a user or password: use the options user and password or password_file instead";
        return Err(BuildError(text.to_owned()));
    }
    let wrong = |text: &str| BuildError(format!("urls: {url:?} {text}"));
    let tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(wrong("begins with neither redis:// nor rediss://")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(wrong("has something behind the port: set db and other settings by their options"));
    }
    let (host, port) = match rest.rsplit_once(':') {
        // An IPv6 address has colons of its own, and stands in brackets.
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| wrong("has a port that is no number up to 65535"))?)
        }
        _ => (rest, PORT),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(wrong("names no host"));
    }
    Ok(Server { host: host.to_owned(), port, tls })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: serde_json::Value) -> Result<Config, String> {
        let serde_json::Value::Object(options) = options else { panic!("an object") };
        Config::read(&options).map_err(|e| e.0)
    }

    #[test]
    fn urls() {
        let server = |url: &str| server(url).map(|s| (s.host, s.port, s.tls)).map_err(|e| e.0);
        assert_eq!(server("redis://a:1"), Ok(("a".to_owned(), 1, false)));
        assert_eq!(server("a"), Ok(("a".to_owned(), PORT, false)));
        assert_eq!(server("rediss://[::1]:7/"), Ok(("::1".to_owned(), 7, true)));
        assert_eq!(server("redis://[::1]"), Ok(("::1".to_owned(), PORT, false)));
        for (url, says) in [
            ("http://a", "neither"),
            ("redis://a/3", "db"),
            ("redis://a:99999", "65535"),
            ("redis://:1", "no host"),
            ("redis://:hunter2@a", "password_file"),
        ] {
            let text = server(url).expect_err(url);
            assert!(text.contains(says) && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = read(json!({})).unwrap();
        assert_eq!((config.place(), config.connections), ("localhost:6379".to_owned(), 4));
        assert_eq!((config.outcome_inline, config.keep), (64 << 10, Duration::from_secs(30 * 86_400)));
        assert_eq!(config.prefix, "stoq");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (options, says) in [
            (json!({ "urls": [] }), "no server"),
            (json!({ "urls": ["redis://a", "rediss://b"] }), "mixes"),
            (json!({ "tls_ca_file": "/ca.pem" }), "rediss"),
            (json!({ "cluster": true, "db": 1 }), "only database 0"),
            (json!({ "db": -1 }), "from 0"),
            (json!({ "prefix": "a{b}" }), "letters"),
            (json!({ "connections": 0 }), "from 1"),
            (json!({ "password": "a", "password_file": "/b" }), "not both"),
            (json!({ "user": "a" }), "without password"),
            (json!({ "response_timeout": 0 }), "above zero"),
        ] {
            let text = read(options.clone()).expect_err(&options.to_string());
            assert!(text.contains(says), "{text}");
        }
    }
}
