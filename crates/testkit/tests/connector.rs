//! The connector suite holds for a small sink behind HTTP that does everything right, and the front does what it says.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to stop")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::{Fault, FaultKind};
use stoq_testkit::connector::{ConnectorHarness, Promise, connector_suite, response};
use stoq_testkit::front::{Act, HttpFront};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const REFUSED: &str = "00000000-0000-0000-0000-000000000000";
const WAIT: Duration = Duration::from_secs(2);

type Documents = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Takes one document a request, under the name in its path.
async fn server(documents: Documents) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let documents = Arc::clone(&documents);
            tokio::spawn(async move {
                let service = service_fn(|request| take(request, &documents));
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
            });
        }
    });
    address
}

async fn take(request: Request<Incoming>, documents: &Documents) -> Result<Response<Full<Bytes>>, Infallible> {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let known = request.headers().get("authorization").is_some_and(|token| token == "good");
    let status = match (request.collect().await, known) {
        (_, false) => 401,
        (Ok(_), true) if name.is_empty() => 204,
        (Ok(_), true) if name == REFUSED => 422,
        (Ok(body), true) => {
            documents.lock().insert(name, body.to_bytes());
            201
        }
        (Err(_), true) => 400,
    };
    Ok(Response::builder().status(status).body(Full::new(Bytes::from_static(b"kept"))).unwrap())
}

struct Client {
    to: SocketAddr,
    token: &'static str,
}

impl Client {
    async fn put(&self, name: &str, body: Bytes) -> Result<(u16, Bytes), Fault> {
        let away = |e: &dyn std::error::Error| Fault::new(FaultKind::Unavailable, format!("the sink is away: {e}"));
        let asked = async {
            let stream = TokioIo::new(TcpStream::connect(self.to).await.map_err(|e| away(&e))?);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(|e| away(&e))?;
            let connection = tokio::spawn(connection);
            let request = Request::put(format!("/{name}")).header("authorization", self.token).header("host", "sink");
            let answer = sender.send_request(request.body(Full::new(body)).unwrap()).await.map_err(|e| away(&e))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|e| away(&e))?.to_bytes();
            connection.abort();
            Ok((head.status.as_u16(), body))
        };
        timeout(WAIT, asked).await.unwrap_or_else(|e| Err(away(&e)))
    }
}

#[async_trait]
impl Connector for Client {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let mut verdicts = Vec::new();
        for item in batch {
            verdicts.push(match self.put(&item.id, item.json.clone()).await? {
                (201, body) if &body[..] == b"kept" => Verdict::Delivered,
                (401 | 403, _) => return Err(Fault::new(FaultKind::Misconfigured, "wrong token")),
                (422, _) => Verdict::Rejected("refused".to_owned()),
                (status, _) => Verdict::Retry(format!("answered {status}")),
            });
        }
        Ok(verdicts)
    }

    async fn check(&self) -> Result<(), Fault> {
        match self.put("", Bytes::new()).await? {
            (204, _) => Ok(()),
            (401 | 403, _) => Err(Fault::new(FaultKind::Misconfigured, "wrong token")),
            (status, _) => Err(Fault::new(FaultKind::Unavailable, format!("answered {status}"))),
        }
    }
}

struct Harness {
    documents: Documents,
    front: HttpFront,
}

#[async_trait]
impl ConnectorHarness for Harness {
    fn promise(&self) -> Promise {
        Promise::Once
    }

    async fn connector(&mut self) -> Arc<dyn Connector> {
        Arc::new(Client { to: self.front.address(), token: "good" })
    }

    async fn documents(&mut self) -> BTreeMap<String, usize> {
        self.documents.lock().keys().map(|name| (name.clone(), 1)).collect()
    }

    fn refused(&self) -> Option<Item> {
        Some(Item { id: REFUSED.to_owned(), ..response() })
    }

    async fn unknown(&mut self) -> Option<Arc<dyn Connector>> {
        Some(Arc::new(Client { to: self.front.address(), token: "bad" }))
    }

    fn front(&self) -> Option<&HttpFront> {
        Some(&self.front)
    }

    fn own_faults(&self) -> Vec<Act> {
        vec![Act::edit(|_| Bytes::from_static(b"not kept")), Act::Late(Duration::from_millis(1))]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_behind_http_passes() {
    let documents = Documents::default();
    let front = HttpFront::start(Some(server(Arc::clone(&documents)).await)).await;
    front.count_only(|_, target| target.len() > 1);
    let mut harness = Harness { documents, front };
    connector_suite(&mut harness).await;
}
