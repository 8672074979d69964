//! `GET` on the word of a reference.
//!
//! Names are looked up here and every address is checked before the connection is made to it, so what was checked is what
//! is connected to. Redirects are followed by hand, each as if a reference had named it. Proxies of the environment are
//! ignored, nothing is decompressed, nothing is said about us but that we are stoq.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, CONTENT_ENCODING, LOCATION};
use reqwest::{Client, Response, StatusCode, redirect, retry};
use stoq_api::fetch::{FetchedBytes, Fetching};
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};

use super::address;
use super::hosts::{Allowed, Hosts};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 32;
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Time without a byte.
const SILENCE: Duration = Duration::from_secs(30);
/// Time for the whole, whatever its size: a server must not hold a worker by sending slowly.
const WHOLE: Duration = Duration::from_secs(15 * 60);
/// What the C library says, in glibc's and musl's words, where a name is known not to exist. Anything else may pass.
const NO_NAME: [&str; 4] =
    ["Name or service not known", "No address associated with hostname", "Name does not resolve", "Name has no usable"];

/// Asks servers for one intake.
pub(crate) struct Web {
    hosts: Hosts,
    /// For hosts that must have public addresses.
    public: Client,
    /// For hosts that may have any.
    anywhere: Client,
}

impl Web {
    /// Asks only `hosts`, looked up by `resolver`.
    pub(crate) fn new(hosts: Hosts, resolver: Arc<dyn Resolve>) -> Result<Self, BuildError> {
        let public = client(Arc::new(Checked(Arc::clone(&resolver))))?;
        Ok(Self { hosts, public, anywhere: client(resolver)? })
    }

    /// Whether a reference may name `url`.
    pub(crate) fn check(&self, url: &str) -> Result<(), String> {
        self.hosts.check(url).map(drop)
    }

    /// Asks for `url`.
    pub(crate) async fn get(&self, url: &str) -> Result<Fetching, Fault> {
        let mut allowed = self.hosts.check(url).map_err(refused)?;
        for _ in 0..=MAX_REDIRECTS {
            let Allowed { url, anywhere } = allowed;
            let client = if anywhere { &self.anywhere } else { &self.public };
            let asked = client.get(url.clone()).header(ACCEPT, "*/*").send().await;
            let response = asked.map_err(|e| failed(&e))?;
            if !response.status().is_redirection() {
                return answer(response);
            }
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.ok_or_else(|| refused("a redirect says not where to".to_owned()))?;
            let next = url.join(to).map_err(|e| refused(format!("a redirect leads to what is not a URL: {e}")))?;
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(refused("a redirect leads from https to http".to_owned()));
            }
            allowed =
                self.hosts.check_parsed(next).map_err(|why| refused(format!("a redirect leads astray: {why}")))?;
        }
        Err(refused(format!("more than {MAX_REDIRECTS} redirects")))
    }
}

fn client(resolver: Arc<dyn Resolve>) -> Result<Client, BuildError> {
    let client = Client::builder()
        .dns_resolver(resolver)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        .user_agent("stoq")
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .timeout(WHOLE)
        .build();
    client.map_err(|e| BuildError(format!("no HTTP client can be made: {}", stoq_api::fault::chain(&e))))
}

fn answer(response: Response) -> Result<Fetching, Fault> {
    let status = response.status();
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let kind = match status {
        StatusCode::OK if response.headers().contains_key(CONTENT_ENCODING) => {
            return Err(refused(format!("{host} sends an encoded body, which was not asked for")));
        }
        StatusCode::OK => {
            let size = response.content_length();
            let bytes = response.bytes_stream().map_err(|e| failed(&e));
            return Ok(Fetching { bytes: FetchedBytes::Stream(Box::pin(bytes)), size, mismatch: None });
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => FaultKind::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => FaultKind::Unavailable,
        status if status.is_server_error() => FaultKind::Unavailable,
        _ => FaultKind::Refused,
    };
    Err(Fault::new(kind, format!("{host} answers {status}")))
}

fn refused(why: String) -> Fault {
    Fault::new(FaultKind::Refused, why)
}

/// What a failed exchange means. What is not known to be for good may pass.
fn failed(error: &reqwest::Error) -> Fault {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(at) = cause {
        if let Some(denied) = at.downcast_ref::<Denied>() {
            return Fault::new(denied.kind, denied.why.clone());
        }
        cause = at.source();
    }
    let kind = if error.is_builder() { FaultKind::Refused } else { FaultKind::Unavailable };
    // The error's own text would repeat the URL, which may hold a token.
    let cause = error.source().map(stoq_api::fault::chain).unwrap_or_default();
    let host = error.url().and_then(|url| url.host_str()).unwrap_or_default();
    let what = if error.is_timeout() { "takes too long" } else { "cannot be asked" };
    Fault::new(kind, format!("{host} {what}: {cause}"))
}

/// A name that must not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
struct Denied {
    kind: FaultKind,
    why: String,
}

/// Looks names up, and hands out addresses only if all of them may be connected to.
struct Checked(Arc<dyn Resolve>);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let resolving = self.0.resolve(name);
        Box::pin(async move {
            let found = resolving.await.map_err(|e| missing(&host, e))?;
            let addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
            // One bad address among good ones is an attempt to have both answers believed.
            match addresses.iter().find_map(|a| address::special(a.ip()).map(|what| (a.ip(), what))) {
                None => Ok(Box::new(addresses.into_iter()) as Addrs),
                Some((address, what)) => {
                    let why = format!("{host} has the address {address}, which is {what}, and is not in allow_private");
                    Err(Denied { kind: FaultKind::Refused, why }.into())
                }
            }
        })
    }
}

fn missing(host: &str, error: Box<dyn Error + Send + Sync>) -> Box<dyn Error + Send + Sync> {
    let text = error.to_string();
    if NO_NAME.iter().any(|sign| text.contains(sign)) {
        return Denied { kind: FaultKind::NotFound, why: format!("there is no host {host}") }.into();
    }
    error
}

/// The system's way to look names up.
pub(crate) struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is put in by whoever connects.
            let found: io::Result<Vec<SocketAddr>> =
                tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect);
            Ok(Box::new(found?.into_iter()) as Addrs)
        })
    }
}
