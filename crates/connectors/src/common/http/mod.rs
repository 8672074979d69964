//! An HTTP client for sinks of several nodes.
//!
//! A node that fails rests, longer each time, while others are asked; it is asked again before its rest is over only if
//! all others fail, too. Redirects are not followed: credentials go where the configuration says. Proxy variables of the
//! environment are ignored unless the configuration wants them. Sinks answer little; what is too much is not read.

mod auth;
mod config;
mod fault;
mod nodes;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, SET_COOKIE};
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};

pub use auth::{Auth, SecretValue};
pub use config::Settings;
use nodes::Node;

/// Bodies below this many bytes are not worth compressing.
const GZIP_FROM: usize = 1 << 10;
/// Fast, and for JSON hardly larger than the default.
const GZIP_LEVEL: u32 = 1;
/// Cookies of one answer.
const MAX_COOKIES: usize = 8;
/// Bytes of one of them.
const MAX_COOKIE: usize = 4 << 10;
/// What a node answers that is not itself able to.
const GATEWAY: [u16; 3] = [502, 503, 504];

/// The nodes of one sink.
pub struct Nodes {
    client: reqwest::Client,
    nodes: Vec<Node>,
    next: AtomicUsize,
    auth: auth::Current,
    gzip: bool,
    max_reply: usize,
}

/// One request. It may reach several nodes, and one node twice: sinks need what they get to have an identity.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, `PUT`, `HEAD`, `DELETE`.
    pub method: &'static str,
    /// Path and query, from `/` on, behind the node's own path.
    pub target: String,
    /// Of the body.
    pub content_type: &'static str,
    /// The body; none if empty.
    pub body: Bytes,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Request {
    /// A request without body.
    pub fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), content_type: "", body: Bytes::new(), headers: Vec::new() }
    }

    /// The same with a body.
    pub fn with(self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { content_type, body: body.into(), ..self }
    }

    /// The same with one more header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// What a node answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body; of answers other than 2xx no more than the beginning.
    pub body: Bytes,
    /// Which node.
    pub node: usize,
    /// Cookies that it sets, as `name=value`.
    pub cookies: Vec<String>,
    /// The node's address, for people.
    pub place: String,
}

impl Nodes {
    /// Prepares to ask; connects to nothing.
    ///
    /// # Errors
    /// An address, a file or an option that cannot work.
    pub fn new(settings: &Settings) -> Result<Self, BuildError> {
        Ok(Self {
            nodes: settings.addresses()?.into_iter().map(Node::new).collect(),
            client: settings.client()?,
            next: AtomicUsize::new(0),
            auth: auth::Current::new(settings.auth.clone()),
            gzip: settings.gzip,
            max_reply: settings.max_reply,
        })
    }

    /// Asks one node after the other until one answers for itself. The answer may be a refusal: [`Reply::fault`].
    ///
    /// # Errors
    /// No node can be asked: [`FaultKind::Unavailable`] if waiting may mend one, else [`FaultKind::Misconfigured`].
    pub async fn send(&self, request: &Request) -> Result<Reply, Fault> {
        let body = self.encoded(&request.body).await?;
        let mut failed: Option<Result<Reply, Fault>> = None;
        for place in self.order() {
            let answer = self.ask(place, request, &body).await;
            match &answer {
                Ok(reply) if !GATEWAY.contains(&reply.status) => return answer,
                _ => {}
            }
            // What may pass by itself is the better word for what is wrong with all of them.
            let passes = |a: &Result<Reply, Fault>| a.as_ref().map_or_else(Fault::is_transient, |_| true);
            if failed.as_ref().is_none_or(|before| passes(&answer) && !passes(before)) {
                failed = Some(answer);
            }
        }
        failed.unwrap_or_else(|| Err(Fault::new(FaultKind::Misconfigured, "no node is configured")))
    }

    /// Asks one certain node, as what belongs to an earlier answer of it needs.
    ///
    /// # Errors
    /// It cannot be asked: [`FaultKind::Unavailable`] or [`FaultKind::Misconfigured`].
    pub async fn send_to(&self, node: usize, request: &Request) -> Result<Reply, Fault> {
        let body = self.encoded(&request.body).await?;
        self.ask(node % self.nodes.len().max(1), request, &body).await
    }

    /// All nodes: those that do not rest, in turn, and then those that do.
    fn order(&self) -> Vec<usize> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<usize> = (0..self.nodes.len()).map(|n| (first + n) % self.nodes.len()).collect();
        order.sort_by_key(|place| self.nodes[*place].rests());
        order
    }

    /// The body as it is sent.
    async fn encoded(&self, body: &Bytes) -> Result<Body, Fault> {
        if !self.gzip || body.len() < GZIP_FROM {
            return Ok(Body { bytes: body.clone(), gzip: false });
        }
        let plain = body.clone();
        let packed = tokio::task::spawn_blocking(move || {
            let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::new(GZIP_LEVEL));
            encoder.write_all(&plain)?;
            encoder.finish()
        });
        let broken = |e: Box<dyn std::error::Error + Send + Sync>| {
            Fault::because(FaultKind::Corrupt, "a request cannot be compressed", e)
        };
        let packed = packed.await.map_err(|e| broken(e.into()))?.map_err(|e| broken(e.into()))?;
        Ok(Body { bytes: packed.into(), gzip: true })
    }

    /// One node; once more where a secret in a file turns out to be another one now.
    async fn ask(&self, place: usize, request: &Request, body: &Body) -> Result<Reply, Fault> {
        let node = &self.nodes[place];
        let mut answer = self.exchange(place, request, body).await;
        if answer.as_ref().is_ok_and(|reply| matches!(reply.status, 401 | 403)) && self.auth.changed().await? {
            answer = self.exchange(place, request, body).await;
        }
        match &answer {
            Ok(reply) if !GATEWAY.contains(&reply.status) => node.answered(),
            _ => node.failed(),
        }
        answer
    }

    async fn exchange(&self, place: usize, request: &Request, body: &Body) -> Result<Reply, Fault> {
        let node = &self.nodes[place];
        let method = request.method.parse().unwrap_or(reqwest::Method::GET);
        let mut asked = self.client.request(method, node.url(&request.target));
        if let Some(value) = self.auth.header().await? {
            asked = asked.header(AUTHORIZATION, value);
        }
        if !request.body.is_empty() {
            asked = asked.header(CONTENT_TYPE, request.content_type);
            if body.gzip {
                asked = asked.header(CONTENT_ENCODING, "gzip");
            }
            asked = asked.body(body.bytes.clone());
        }
        for (name, value) in &request.headers {
            asked = asked.header(*name, value);
        }
        let mut response = asked.send().await.map_err(|e| fault::of(&node.place, &e))?;
        let status = response.status().as_u16();
        if response.status().is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            let text =
                format!("{} redirects to {to:.200?}, which is not followed: name the address itself", node.place);
            return Err(Fault::new(FaultKind::Misconfigured, text));
        }
        let whole = response.status().is_success();
        let cookies = cookies(&response);
        let body = self.read(&mut response, whole, &node.place).await?;
        Ok(Reply { status, body, node: place, cookies, place: node.place.clone() })
    }

    async fn read(&self, response: &mut reqwest::Response, whole: bool, place: &str) -> Result<Bytes, Fault> {
        let most = if whole { self.max_reply } else { self.max_reply.min(fault::MAX_WORDS) };
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| fault::of(place, &e))? {
            let room = most - body.len();
            if chunk.len() > room {
                body.extend_from_slice(&chunk[..room]);
                if whole {
                    let text = format!("{place} answers with more than {most} bytes");
                    return Err(Fault::new(FaultKind::Unavailable, text));
                }
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// What balancers set to find the same server again. Where and how long cookies hold is not looked at: they go back to
/// the node that set them, for as long as whoever asks sees fit.
fn cookies(response: &reqwest::Response) -> Vec<String> {
    let set = response.headers().get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = set.map(|value| value.split(';').next().unwrap_or(value).trim().to_owned());
    pairs.filter(|pair| pair.contains('=') && pair.len() <= MAX_COOKIE).take(MAX_COOKIES).collect()
}

/// A body as it is sent.
struct Body {
    bytes: Bytes,
    gzip: bool,
}

#[cfg(test)]
mod tests;
