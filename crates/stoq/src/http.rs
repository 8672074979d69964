//! Metrics and probes over HTTP: `/metrics`, `/livez`, `/readyz`. Answers come from what is known already: no request
//! makes the process ask a service, and none can hold it up.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use stoq_runtime::health::{self, Health};
use stoq_runtime::metrics;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::exit::UsageError;

/// Connections at a time; others wait to be accepted.
const CONNECTIONS: usize = 32;
/// How long a client may take to send its request's head.
const HEAD: Duration = Duration::from_secs(5);
/// How long one connection may last.
const CONNECTION: Duration = Duration::from_secs(20);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// Header fields of a request.
const FIELDS: usize = 64;
/// Pause after a connection could not be accepted, as when no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(200);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// The text form of Prometheus.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A server that ends when this is dropped.
#[must_use = "the server ends when this is dropped"]
pub(crate) struct Server {
    _task: AbortOnDropHandle<()>,
}

/// Serves on `listen`.
///
/// # Errors
/// It is no address, or something else listens there.
pub(crate) async fn serve(listen: &str, health: Health) -> Result<Server> {
    let address: SocketAddr = listen.parse().map_err(|_| {
        UsageError(format!("http.listen: {listen:?} is not an address with a port, such as 127.0.0.1:9090"))
    })?;
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (http.listen); several roles on one machine need a port each")
    })?;
    tracing::info!(address = %listener.local_addr()?, "serving metrics and probes");
    Ok(Server { _task: AbortOnDropHandle::new(tokio::spawn(accept(listener, health))) })
}

async fn accept(listener: TcpListener, health: Health) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.clone();
                tokio::spawn(async move {
                    tokio::time::timeout(CONNECTION, connection(stream, health)).await.ok();
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, health: Health) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &health);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn answer(request: &Request<Incoming>, health: &Health) -> Response<Full<Bytes>> {
    let (status, kind, text) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, METRICS, metrics::render()),
        "/livez" => probe(health.alive()),
        "/readyz" => probe(health.ready()),
        _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /livez and /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    if request.method() != Method::GET && request.method() != Method::HEAD {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        *response.body_mut() = Full::default();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn probe(answer: health::Answer) -> (StatusCode, HeaderValue, String) {
    let status = if answer.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, TEXT, answer.text)
}
