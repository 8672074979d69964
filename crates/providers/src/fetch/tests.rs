//! URLs against servers on this machine, with names looked up in a table.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use stoq_api::fetch::{FetchedBytes, Fetching};
use stoq_api::{Fault, FaultKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Hosts, Web};

/// Names of this test's Internet.
struct Table(BTreeMap<&'static str, Vec<IpAddr>>);

impl Resolve for Table {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.0.get(name.as_str()).cloned();
        Box::pin(async move {
            match found {
                Some(found) => Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs),
                None => Err("failed to lookup address information: Name or service not known".into()),
            }
        })
    }
}

/// A server that answers each path with what `answers` has for it, and counts connections.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

async fn server(answers: impl Fn(u16) -> Vec<(&'static str, String)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: BTreeMap<&'static str, String> = answers(port).into_iter().collect();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).await.is_err() {
                    break;
                }
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            assert!(!request.to_ascii_lowercase().contains("authorization"), "{request}");
            let path = request.split(' ').nth(1).unwrap_or_default();
            let none = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
            let answer = answers.get(path).unwrap_or(&none);
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    Server { port, connections }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

fn status(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

fn web(server: &Server) -> Web {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let here = ip("127.0.0.1");
    let table = Table(
        [
            ("files.test", vec![here]),
            ("loop.test", vec![here]),
            ("two.test", vec![ip("1.1.1.1"), here]),
            ("mapped.test", vec![ip("::ffff:127.0.0.1")]),
            ("meta.test", vec![ip("169.254.169.254")]),
            ("secret.test", vec![here]),
        ]
        .into_iter()
        .collect(),
    );
    let own = |names: &[&str]| names.iter().map(|name| format!("{name}:{}", server.port)).collect::<Vec<_>>();
    let public = own(&["loop.test", "two.test", "mapped.test", "meta.test", "gone.test"]);
    Web::new(Hosts::read(&public, &own(&["files.test"])).unwrap(), Arc::new(table)).unwrap()
}

async fn bytes(fetching: Fetching) -> Result<Vec<u8>, Fault> {
    let FetchedBytes::Stream(mut stream) = fetching.bytes else { panic!("not a stream") };
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

async fn refused(web: &Web, url: String) -> Fault {
    web.get(&url).await.err().unwrap_or_else(|| panic!("{url} was fetched"))
}

#[tokio::test]
async fn a_body_is_streamed_as_it_is() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let server = server(|port| {
        vec![
            ("/a", ok("hello")),
            ("/chunked", chunked.to_owned()),
            ("/there", to("/a")),
            ("/far", to(&format!("http://files.test:{port}/there"))),
        ]
    })
    .await;
    let web = web(&server);
    for (path, size, body) in [
        ("a", Some(5), &b"hello"[..]),
        ("chunked", None, b"abcde"),
        ("there", Some(5), b"hello"),
        ("far", Some(5), b"hello"),
    ] {
        let fetching = web.get(&format!("http://files.test:{}/{path}", server.port)).await.unwrap();
        assert_eq!(fetching.size, size, "{path}");
        assert_eq!(bytes(fetching).await.unwrap(), body, "{path}");
    }
}

#[tokio::test]
async fn names_with_any_address_of_ours_are_never_connected_to() {
    let server = server(|_| vec![("/", ok("secret"))]).await;
    let web = web(&server);
    for (host, says) in [
        ("loop.test", "127.0.0.1, which is loopback"),
        ("two.test", "127.0.0.1, which is loopback"),
        ("mapped.test", "an IPv4 address in the form of IPv6"),
        ("meta.test", "169.254.169.254, which is link-local"),
    ] {
        let fault = refused(&web, format!("http://{host}:{}/", server.port)).await;
        assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
        assert!(fault.to_string().contains(says), "{host}: {fault}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
    let fault = refused(&web, format!("http://gone.test:{}/", server.port)).await;
    assert_eq!((fault.kind, fault.to_string().as_str()), (FaultKind::NotFound, "there is no host gone.test"));
}

#[tokio::test]
async fn each_hop_of_a_redirect_is_checked() {
    let server = server(|port| {
        vec![
            ("/unlisted", to(&format!("http://secret.test:{port}/"))),
            ("/address", to(&format!("http://127.0.0.1:{port}/"))),
            ("/octal", to(&format!("http://0177.0.0.1:{port}/"))),
            ("/name", to(&format!("http://loop.test:{port}/"))),
            ("/file", to("file:///etc/passwd")),
            ("/user", to(&format!("http://a:b@files.test:{port}/"))),
            ("/round", to("/round")),
            ("/nowhere", "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()),
        ]
    })
    .await;
    let web = web(&server);
    for (path, says) in [
        ("unlisted", "a redirect leads astray: the host \"secret.test"),
        ("address", "a redirect leads astray: the host \"127.0.0.1"),
        ("octal", "a redirect leads astray: the host \"127.0.0.1"),
        ("name", "loop.test has the address 127.0.0.1, which is loopback"),
        ("file", "a redirect leads astray: the scheme \"file\""),
        ("user", "a redirect leads astray: the URL holds credentials"),
        ("round", "more than 5 redirects"),
        ("nowhere", "a redirect says not where to"),
    ] {
        let fault = refused(&web, format!("http://files.test:{}/{path}", server.port)).await;
        assert_eq!(fault.kind, FaultKind::Refused, "{path}: {fault}");
        assert!(fault.to_string().contains(says), "{path}: {fault}");
    }
}

#[tokio::test]
async fn an_answer_says_whether_asking_again_helps() {
    let server = server(|_| {
        vec![
            ("/403", status("403 Forbidden")),
            ("/410", status("410 Gone")),
            ("/429", status("429 Too Many Requests")),
            ("/500", status("500 Internal Server Error")),
            ("/206", status("206 Partial Content")),
            ("/zip", "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx".to_owned()),
            ("/short", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort".to_owned()),
            ("/odd", "what?\r\n\r\n".to_owned()),
        ]
    })
    .await;
    let web = web(&server);
    for (path, kind) in [
        ("none", FaultKind::NotFound),
        ("403", FaultKind::Refused),
        ("410", FaultKind::NotFound),
        ("429", FaultKind::Unavailable),
        ("500", FaultKind::Unavailable),
        ("206", FaultKind::Refused),
        ("zip", FaultKind::Refused),
        ("odd", FaultKind::Unavailable),
    ] {
        let fault = refused(&web, format!("http://files.test:{}/{path}?token=hunter2", server.port)).await;
        // The query makes another path of it.
        let fault = if path == "none" {
            fault
        } else {
            refused(&web, format!("http://files.test:{}/{path}", server.port)).await
        };
        assert_eq!(fault.kind, kind, "{path}: {fault}");
        assert!(!stoq_api::fault::chain(&fault).contains("hunter2"));
    }
    let short = web.get(&format!("http://files.test:{}/short", server.port)).await.unwrap();
    assert_eq!(bytes(short).await.unwrap_err().kind, FaultKind::Unavailable, "half a body is not the whole");
}
