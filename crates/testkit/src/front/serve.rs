//! Connections of the front.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use super::script::{Act, Script, Seen};
use crate::services::Identity;

type Answer = Response<BoxBody<Bytes, io::Error>>;

pub(super) fn acceptor(identity: &Identity) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(&identity.certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()))
}

pub(super) async fn run(
    listener: TcpListener,
    upstream: Option<SocketAddr>,
    tls: Option<TlsAcceptor>,
    script: Arc<Mutex<Script>>,
) {
    let mut connections = JoinSet::new();
    let shut = script.lock().shut.subscribe();
    while let Ok((stream, _)) = listener.accept().await {
        if *shut.borrow() {
            continue;
        }
        let (tls, script, mut shut) = (tls.clone(), Arc::clone(&script), shut.clone());
        connections.spawn(async move {
            tokio::select! {
                () = talk(stream, tls, upstream, &script) => {}
                _ = shut.wait_for(|shut| *shut) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn talk(stream: TcpStream, tls: Option<TlsAcceptor>, upstream: Option<SocketAddr>, script: &Mutex<Script>) {
    match tls {
        None => http(stream, upstream, script).await,
        // A client that does not trust the certificate ends the handshake, as it should.
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                http(stream, upstream, script).await;
            }
        }
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin, upstream: Option<SocketAddr>, script: &Mutex<Script>) {
    let service = service_fn(|request| answer(request, upstream, script));
    // An error of the service is the end of the connection, and meant.
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn answer(
    request: Request<Incoming>,
    upstream: Option<SocketAddr>,
    script: &Mutex<Script>,
) -> Result<Answer, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let headers = head.headers.iter();
    let seen = Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect(),
        body: body.clone(),
    };
    let act = script.lock().take(seen);
    let forward = async || forward(Request::from_parts(head, Full::new(body)), upstream).await;
    match act {
        Act::Pass => Ok(whole(forward().await?)),
        Act::Reset => Err(io::ErrorKind::ConnectionReset.into()),
        Act::Lose => {
            forward().await?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Act::CutShort => Ok(cut(forward().await?)),
        Act::Late(by) => {
            let answer = forward().await?;
            tokio::time::sleep(by).await;
            Ok(whole(answer))
        }
        Act::Hang => std::future::pending().await,
        Act::Answer { status, headers, body } => {
            let mut answer = Response::builder().status(status);
            for (name, value) in headers {
                answer = answer.header(name, value);
            }
            Ok(whole(answer.body(body).map_err(io::Error::other)?))
        }
        Act::Edit(edit) => Ok(whole(forward().await?.map(|body| edit(body)))),
    }
}

/// The server's answer, read to its end.
async fn forward(
    mut request: Request<Full<Bytes>>,
    upstream: Option<SocketAddr>,
) -> Result<Response<Bytes>, io::Error> {
    let Some(upstream) = upstream else {
        return Response::builder().status(StatusCode::BAD_GATEWAY).body(Bytes::new()).map_err(io::Error::other);
    };
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(HOST, upstream.to_string().parse().map_err(io::Error::other)?);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).parse();
    *request.uri_mut() = target.map_err(io::Error::other)?;
    let stream = TokioIo::new(TcpStream::connect(upstream).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let answered = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok::<_, hyper::Error>(Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    let answered = answered.await;
    connection.abort();
    answered.map_err(io::Error::other)
}

fn whole(answer: Response<Bytes>) -> Answer {
    let (mut head, body) = answer.into_parts();
    head.headers.remove(TRANSFER_ENCODING);
    // An edited body has another length; hyper writes the right one.
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Full::new(body).map_err(|never| match never {}).boxed())
}

/// The first half of the body, and then the end of the connection.
fn cut(answer: Response<Bytes>) -> Answer {
    let (mut head, body) = answer.into_parts();
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.insert(CONTENT_LENGTH, (body.len() + 1).into());
    let half = body.slice(..body.len() / 2);
    let frames = [Ok(Frame::data(half)), Err(io::ErrorKind::ConnectionReset.into())];
    Response::from_parts(head, BodyExt::boxed(StreamBody::new(stream::iter(frames))))
}
