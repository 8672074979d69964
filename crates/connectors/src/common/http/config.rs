//! What a client is made of.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Client, Url, redirect, retry};
use stoq_api::fault;
use stoq_api::scanner::BuildError;

use super::auth::Auth;

/// Nodes of one sink.
const MAX_NODES: usize = 64;
/// Longest time-out: an hour.
const LONGEST: Duration = Duration::from_secs(3_600);
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(60);

/// How a sink is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://` or `https://` addresses with host, port and maybe a path; at least one.
    pub nodes: Vec<String>,
    /// PEM file of the authorities that may have signed the nodes' certificates; empty: the system's.
    pub ca_file: PathBuf,
    /// Who we are.
    pub auth: Auth,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long one request may take, from the first byte to the last of its answer.
    pub timeout: Duration,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// Whether the environment's proxy variables count.
    pub use_proxy: bool,
    /// Most bytes of an answer.
    pub max_reply: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            ca_file: PathBuf::new(),
            auth: Auth::None,
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            gzip: true,
            use_proxy: false,
            max_reply: 16 << 20,
        }
    }
}

impl Settings {
    /// The nodes' addresses.
    pub(super) fn addresses(&self) -> Result<Vec<Url>, BuildError> {
        if !(1..=MAX_NODES).contains(&self.nodes.len()) {
            return Err(BuildError(format!("name at least one node and at most {MAX_NODES}")));
        }
        self.nodes.iter().map(|text| address(text)).collect()
    }

    pub(super) fn client(&self) -> Result<Client, BuildError> {
        if self.timeout.is_zero() || self.connect_timeout.is_zero() || self.timeout > LONGEST {
            return Err(BuildError("time-outs must be above zero and at most an hour".to_owned()));
        }
        let mut client = Client::builder()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .http1_only()
            .user_agent(concat!("stoq/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .timeout(self.timeout)
            .pool_idle_timeout(IDLE);
        if !self.use_proxy {
            client = client.no_proxy();
        }
        if !self.ca_file.as_os_str().is_empty() {
            client = client.tls_certs_only(self.authorities()?);
        }
        client.build().map_err(|e| BuildError(format!("no HTTP client can be made: {}", fault::chain(&e))))
    }

    fn authorities(&self) -> Result<Vec<Certificate>, BuildError> {
        let wrong = |why: String| BuildError(format!("ca_file {}: {why}", self.ca_file.display()));
        let pem = std::fs::read(&self.ca_file).map_err(|e| wrong(e.to_string()))?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if certificates.is_empty() => Err(wrong("no certificate is in it".to_owned())),
            Ok(certificates) => Ok(certificates),
            Err(e) => Err(wrong(fault::chain(&e))),
        }
    }
}

fn address(text: &str) -> Result<Url, BuildError> {
    // Not shown before it is known to hold no password.
    if text.contains('@') {
        let text = "an address holds a user or password: use the options for them or for a token, or their _file";
        return Err(BuildError(text.to_owned()));
    }
    let wrong = |why: &str| BuildError(format!("address {text:?} {why}"));
    let url = Url::parse(text).map_err(|e| wrong(&format!("is no URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("begins with neither http:// nor https://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("names no host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has something behind the path"));
    }
    Ok(url)
}
