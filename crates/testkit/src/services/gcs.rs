//! Google Cloud Storage's XML interface, as strict as its documentation, in memory.
//!
//! No emulator that can be had speaks the part that clients of buckets use: uploads in parts, conditions on generations,
//! listing by delimiter. What is here follows <https://cloud.google.com/storage/docs/xml-api/reference-methods> and
//! <https://cloud.google.com/storage/docs/multipart-uploads>; what is not there is answered with 501.

mod bucket;
mod request;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::bucket::Buckets;
use self::request::{Asked, Denied};

/// A server on a port of the loopback address. It ends when it is dropped.
pub struct GcsServer {
    address: SocketAddr,
    buckets: Arc<Mutex<Buckets>>,
    server: tokio::task::JoinHandle<()>,
}

impl GcsServer {
    /// Starts a server with one bucket. If there is a `token`, only requests that bear it are let in.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start(bucket: &str, token: Option<&str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let buckets = Arc::new(Mutex::new(Buckets::with(bucket)));
        let server = tokio::spawn(serve(listener, Arc::clone(&buckets), token.map(str::to_owned)));
        Self { address, buckets, server }
    }

    /// Where it answers.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An object, if it is there.
    pub fn object(&self, bucket: &str, name: &str) -> Option<Vec<u8>> {
        self.buckets.lock().object(bucket, name).map(|object| object.bytes.to_vec())
    }

    /// The generation of an object, if it is there: a number that no other object has.
    pub fn generation(&self, bucket: &str, name: &str) -> Option<u64> {
        self.buckets.lock().object(bucket, name).map(|object| object.generation)
    }

    /// Uploads that were begun and neither completed nor aborted.
    pub fn unfinished(&self) -> usize {
        self.buckets.lock().unfinished()
    }
}

impl Drop for GcsServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, buckets: Arc<Mutex<Buckets>>, token: Option<String>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (buckets, token) = (Arc::clone(&buckets), token.clone());
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &buckets, token.as_deref()));
            // A client that closes early is none of the test's business.
            let _closed = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    buckets: &Mutex<Buckets>,
    token: Option<&str>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    // Nothing of a request that breaks off in its middle counts.
    let body = body.collect().await?.to_bytes();
    let asked = Asked::read(&head, body);
    let answered = asked.and_then(|asked| {
        asked.authorize(token)?;
        buckets.lock().answer(&asked)
    });
    Ok(answered.unwrap_or_else(|Denied { status, code }| {
        let text = format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>");
        let body = if head.method == hyper::Method::HEAD { Bytes::new() } else { text.into() };
        Response::builder().status(status).body(Full::new(body)).unwrap()
    }))
}
