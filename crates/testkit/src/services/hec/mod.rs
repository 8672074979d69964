//! Splunk's HTTP Event Collector, as strict as its documentation, in memory.
//!
//! No Splunk can be had where tests run, and the receivers that others wrote check no token and acknowledge at once, which
//! hides what a sender forgets. What is here follows Splunk's *Getting Data In*:
//! [format of events](https://help.splunk.com/splunk-enterprise/get-data-in/collect-http-event-data/format-events-for-http-event-collector),
//! [endpoints](https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data/http-event-collector-rest-api-endpoints),
//! [acknowledgement](https://help.splunk.com/splunk-enterprise/get-data-in/collect-http-event-data/about-http-event-collector-indexer-acknowledgment),
//! [codes](https://help.splunk.com/en/splunk-enterprise/get-data-in/collect-http-event-data/troubleshoot-http-event-collector).
//! Where they leave something open, it refuses: a key of an envelope that is none of theirs, events in an array.
//!
//! An [`HecServer`] *takes* events, and *indexes* them at once or when told. What it took and did not index is gone after a
//! [`HecServer::crash`], and so are all channels with their acknowledgements: numbers start at 0 again.

mod batch;
mod codes;
mod indexer;
mod request;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use self::codes::Reply;
pub use self::indexer::Event;
use self::indexer::Indexer;
use self::request::Asked;
use super::{Identity, Port};

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    /// What clients send.
    pub value: String,
    /// Switched off.
    pub disabled: bool,
    /// Indexes that events may name; all, if there are none.
    pub indexes: Vec<String>,
    /// Where events go that name none.
    pub default_index: String,
    /// `useACK`: with indexer acknowledgement.
    pub acknowledge: bool,
}

impl Token {
    /// One that may write everywhere.
    pub fn new(value: &str, acknowledge: bool) -> Self {
        let (value, default_index) = (value.to_owned(), "main".to_owned());
        Self { value, disabled: false, indexes: Vec::new(), default_index, acknowledge }
    }
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may send.
    pub tokens: Vec<Token>,
    /// `max_content_length`: bytes of a request, unpacked.
    pub max_content_length: usize,
    /// `allowQueryStringAuth`: whether a token may stand in the address.
    pub query_string_auth: bool,
    /// `max_number_of_acked_requests_pending_query_per_ack_channel`.
    pub max_pending: usize,
    /// Whether events before an invalid one of the same request are taken. The documentation does not say.
    pub keeps_earlier: bool,
    /// Indexers behind a balancer that sends requests around, those with its cookie to the same one.
    pub indexers: usize,
    /// Speaks TLS with that certificate.
    pub tls: Option<Identity>,
}

impl Options {
    /// One indexer, in the clear, with Splunk's own limits.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self {
            tokens,
            max_content_length: 838_860_800,
            query_string_auth: false,
            max_pending: 1_000_000,
            keeps_earlier: false,
            indexers: 1,
            tls: None,
        }
    }
}

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is taken; the reply has that code.
    Code(u16),
    /// Nothing is taken; the reply has that status and text, as from something that stands before Splunk.
    Status(u16, &'static str),
    /// Nothing is taken; the client is sent elsewhere.
    Redirect(String),
    /// Nothing is taken, and the connection is closed.
    Reset,
    /// Everything is taken, and the connection is closed instead of a reply.
    ResetAfter,
    /// Everything is taken, and the reply breaks off.
    Truncated,
    /// Everything is taken, and there is no reply.
    Stall,
    /// Everything is taken, and the reply takes that long.
    Slow(Duration),
}

/// A server on a port of the loopback address. It ends when it is dropped.
pub struct HecServer {
    port: Port,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    server: Option<tokio::task::JoinHandle<()>>,
}

struct Shared {
    options: Options,
    state: Mutex<State>,
}

/// What changes while a server runs.
struct State {
    indexers: Vec<Indexer>,
    turn: usize,
    healthy: bool,
    event_faults: VecDeque<Fault>,
    ack_faults: VecDeque<Fault>,
    /// Requests with events, and questions for acknowledgements, that came whole.
    posts: usize,
    questions: usize,
}

impl HecServer {
    /// Starts one.
    ///
    /// # Panics
    /// There is no free port, or the certificate cannot be read.
    pub async fn start(options: Options) -> Self {
        let tls = options.tls.as_ref().map(acceptor);
        let state = State {
            indexers: (0..options.indexers.max(1)).map(|_| Indexer::default()).collect(),
            turn: 0,
            healthy: true,
            event_faults: VecDeque::new(),
            ack_faults: VecDeque::new(),
            posts: 0,
            questions: 0,
        };
        let shared = Arc::new(Shared { options, state: Mutex::new(state) });
        let mut server = Self { port: Port::claim(), shared, tls, server: None };
        server.up().await;
        server
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port.number())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Closes everything and forgets what was not indexed, with all channels; then starts again.
    pub async fn crash(&mut self) {
        self.down().await;
        self.up().await;
    }

    /// Ends as if killed.
    pub async fn down(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // Its port is free once it is gone.
            let _aborted = server.await;
        }
        for indexer in &mut self.shared.state.lock().indexers {
            indexer.forget();
        }
    }

    /// Listens again.
    ///
    /// # Panics
    /// The port is taken.
    pub async fn up(&mut self) {
        let address = (Ipv4Addr::LOCALHOST, self.port.number());
        let listener = TcpListener::bind(address).await.unwrap();
        self.server = Some(tokio::spawn(serve(listener, Arc::clone(&self.shared), self.tls.clone())));
    }

    /// What can be searched.
    pub fn indexed(&self) -> Vec<Event> {
        self.shared.state.lock().indexers.iter().flat_map(|i| i.indexed.iter().cloned()).collect()
    }

    /// How many events can be searched.
    pub fn count(&self) -> usize {
        self.shared.state.lock().indexers.iter().map(|i| i.indexed.len()).sum()
    }

    /// How many events were taken and wait for being indexed.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().indexers.iter().map(Indexer::waiting).sum()
    }

    /// Empties the indexes, so that long runs do not fill the memory. Gives how many events there were.
    pub fn clear(&self) -> usize {
        self.shared.state.lock().indexers.iter_mut().map(|i| std::mem::take(&mut i.indexed).len()).sum()
    }

    /// Channels that are known.
    pub fn channels(&self) -> usize {
        self.shared.state.lock().indexers.iter().map(Indexer::channels).sum()
    }

    /// Requests with events so far, whatever became of them.
    pub fn posts(&self) -> usize {
        self.shared.state.lock().posts
    }

    /// Questions for acknowledgements so far.
    pub fn questions(&self) -> usize {
        self.shared.state.lock().questions
    }

    /// Whether what is taken waits for [`HecServer::index`] instead of being indexed at once.
    pub fn hold(&self, hold: bool) {
        self.shared.state.lock().indexers.iter_mut().for_each(|i| i.holds = hold);
    }

    /// Indexes what waits.
    pub fn index(&self) {
        self.shared.state.lock().indexers.iter_mut().for_each(Indexer::index);
    }

    /// Whether questions are answered as if nothing were indexed.
    pub fn withhold(&self, withhold: bool) {
        self.shared.state.lock().indexers.iter_mut().for_each(|i| i.withholds = withhold);
    }

    /// Whether the queues have room, which the health endpoint tells.
    pub fn healthy(&self, healthy: bool) {
        self.shared.state.lock().healthy = healthy;
    }

    /// Makes the next `times` requests with events go wrong, after those that are to go wrong already.
    pub fn fail_events(&self, times: usize, fault: Fault) {
        self.shared.state.lock().event_faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Makes the next `times` questions for acknowledgements go wrong.
    pub fn fail_acks(&self, times: usize, fault: Fault) {
        self.shared.state.lock().ack_faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Forgets the faults that did not happen yet.
    pub fn mend(&self) {
        let mut state = self.shared.state.lock();
        state.event_faults.clear();
        state.ack_faults.clear();
    }
}

impl Drop for HecServer {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

fn acceptor(identity: &Identity) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(&fs::read(&identity.certificate).unwrap()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&fs::read(&identity.key).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()))
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let _closed_already = stream.set_nodelay(true);
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            match tls {
                None => speak(stream, shared).await,
                // A client that does not like the certificate goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        speak(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, &shared));
    // A client that closes early, and one that we close on, is none of the test's business.
    let _closed = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

type Body = BoxBody<Bytes, io::Error>;

/// Ends the connection.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
struct Close;

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Body>, Close> {
    let (head, body) = request.into_parts();
    // Packed bytes are at most a little more than what they hold.
    let limit = shared.options.max_content_length.saturating_add(64 << 10);
    let Ok(body) = Limited::new(body, limit).collect().await else {
        return Ok(whole(413, "text/html", "<html><body>Content-Length too large</body></html>".into()));
    };
    let asked = Asked::read(&head, body.to_bytes());
    let fault = shared.state.lock().fault(&asked);
    match &fault {
        Some(Fault::Code(code)) => return Ok(replied(&Reply::code(*code))),
        Some(Fault::Status(status, text)) => {
            return Ok(whole(*status, "text/html", Bytes::from_static(text.as_bytes())));
        }
        Some(Fault::Redirect(to)) => {
            let answer = Response::builder().status(307).header("location", to);
            return Ok(answer.body(full(Bytes::new())).unwrap());
        }
        Some(Fault::Reset) => return Err(Close),
        _ => {}
    }
    let reply = request::reply(&shared.options, &mut shared.state.lock(), &asked);
    match fault {
        Some(Fault::ResetAfter) => Err(Close),
        Some(Fault::Truncated) => Ok(broken(&reply)),
        Some(Fault::Stall) => std::future::pending().await,
        Some(Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            Ok(replied(&reply))
        }
        _ => Ok(replied(&reply)),
    }
}

impl State {
    /// Counts the request; the fault that it meets, if any.
    fn fault(&mut self, asked: &Asked) -> Option<Fault> {
        if asked.is_events() {
            self.posts += 1;
            self.event_faults.pop_front()
        } else if asked.is_ack() {
            self.questions += 1;
            self.ack_faults.pop_front()
        } else {
            None
        }
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn whole(status: u16, kind: &str, text: Bytes) -> Response<Body> {
    Response::builder().status(status).header("content-type", kind).body(full(text)).unwrap()
}

fn replied(reply: &Reply) -> Response<Body> {
    let mut answer = whole(reply.status, "application/json; charset=UTF-8", reply.json().into());
    if let Some(indexer) = reply.indexer {
        let cookie = format!("{}={indexer}; Path=/; HttpOnly", request::COOKIE);
        answer.headers_mut().insert("set-cookie", cookie.parse().unwrap());
    }
    answer
}

/// Promises all of a reply and ends in its middle.
fn broken(reply: &Reply) -> Response<Body> {
    let json = Bytes::from(reply.json());
    let half = Frame::data(json.slice(..json.len() / 2));
    let frames = stream::iter([Ok(half), Err(io::Error::other("the reply breaks off"))]);
    let answer = Response::builder().status(reply.status).header("content-length", json.len());
    answer.body(StreamBody::new(frames).boxed()).unwrap()
}
