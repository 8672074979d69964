//! The client against sockets that answer as they are told.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use stoq_runtime::secret::Secret;

/// Head and body of each request.
type Heard = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A node that gives one answer after the other, and then the last for ever.
struct Told {
    address: String,
    asked: Heard,
}

async fn told(answers: &[(u16, &str)]) -> Told {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answers: VecDeque<_> = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
    let (answers, asked) = (Arc::new(Mutex::new(answers)), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, Arc::clone(&answers), Arc::clone(&heard)));
        }
    });
    Told { address, asked }
}

async fn talk(mut stream: TcpStream, answers: Arc<Mutex<VecDeque<(u16, String)>>>, heard: Heard) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            // As servers answer a greeting in TLS.
            if bytes[0] == 0x16 {
                stream.write_all(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n").await.ok();
                return;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = bytes[end..end + length].to_vec();
        bytes.drain(..end + length);
        heard.lock().push((head, body));
        let (status, text) = {
            let mut answers = answers.lock();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap()
        };
        let location = if status == 302 { "location: http://192.0.2.1/\r\n" } else { "" };
        let answer = format!("HTTP/1.1 {status} X\r\n{location}content-length: {}\r\n\r\n{text}", text.len());
        stream.write_all(answer.as_bytes()).await.ok();
    }
}

fn settings(nodes: &[&str]) -> Settings {
    Settings { nodes: nodes.iter().map(|n| (*n).to_owned()).collect(), ..Settings::default() }
}

#[tokio::test]
async fn what_is_sent_is_compressed_and_says_who_we_are() {
    let node = told(&[(200, "ok")]).await;
    let password = SecretValue::Given(Secret::new("p:w"));
    let auth = Auth::Basic { user: "u".to_owned(), password };
    let nodes = Nodes::new(&Settings { auth, ..settings(&[&format!("{}/base/", node.address)]) }).unwrap();
    let body = "x".repeat(GZIP_FROM);
    let request = Request::new("POST", "/_bulk?a=b").with("application/json", body.clone()).header("x-more", "yes");
    let reply = nodes.send(&request).await.unwrap();
    assert_eq!((reply.status, &reply.body[..], reply.node), (200, &b"ok"[..], 0));
    let (head, packed) = node.asked.lock()[0].clone();
    for line in
        ["post /base/_bulk?a=b http/1.1", "authorization: basic dtpwonc=", "content-encoding: gzip", "x-more: yes"]
    {
        assert!(head.contains(line), "{line} in {head}");
    }
    #[expect(clippy::disallowed_types, reason = "it unpacks what the test packed")]
    let mut reader = flate2::read::GzDecoder::new(&packed[..]);
    let mut plain = String::new();
    reader.read_to_string(&mut plain).unwrap();
    assert_eq!(plain, body);
}

#[tokio::test]
async fn a_node_that_fails_rests_while_others_work() {
    // The port is taken, and nobody listens on it.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = format!("http://{}", held.local_addr().unwrap());
    let (busy, well) = (told(&[(503, "busy")]).await, told(&[(200, "ok")]).await);
    let nodes = Nodes::new(&settings(&[&nobody, &busy.address, &well.address])).unwrap();
    for _ in 0..6 {
        assert_eq!(nodes.send(&Request::new("GET", "/")).await.unwrap().node, 2);
    }
    // It was asked once and rested then.
    assert_eq!(busy.asked.lock().len(), 1);

    let nodes = Nodes::new(&settings(&[&nobody, &busy.address])).unwrap();
    let reply = nodes.send(&Request::new("GET", "/")).await;
    let kind = match reply {
        Ok(reply) => reply.fault("a question").kind,
        Err(fault) => fault.kind,
    };
    assert_eq!(kind, FaultKind::Unavailable);
    assert_eq!(nodes.send_to(1, &Request::new("GET", "/")).await.unwrap().status, 503);
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_answer_read_beyond_the_bound() {
    let node = told(&[(302, ""), (200, "12345"), (400, "12345"), (200, "1234")]).await;
    let nodes = Nodes::new(&Settings { max_reply: 4, ..settings(&[&node.address]) }).unwrap();
    let fault = nodes.send(&Request::new("GET", "/")).await.unwrap_err();
    assert!(fault.kind == FaultKind::Misconfigured && fault.to_string().contains("192.0.2.1"), "{fault}");
    let fault = nodes.send(&Request::new("GET", "/")).await.unwrap_err();
    assert!(fault.is_transient() && fault.to_string().contains("more than 4 bytes"), "{fault}");
    let reply = nodes.send(&Request::new("GET", "/")).await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (400, &b"1234"[..]));
    assert!(nodes.send(&Request::new("GET", "/")).await.unwrap().is_success());
}

#[tokio::test]
async fn a_secret_that_changed_in_its_file_is_used_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let node = told(&[(200, ""), (401, "no"), (200, ""), (401, "no")]).await;
    let auth = Auth::Scheme { scheme: "ApiKey", secret: SecretValue::File(file.clone()) };
    let nodes = Nodes::new(&Settings { auth, ..settings(&[&node.address]) }).unwrap();
    let request = Request::new("GET", "/");
    assert_eq!(nodes.send(&request).await.unwrap_err().kind, FaultKind::Misconfigured);
    std::fs::write(&file, "One\n").unwrap();
    assert_eq!(nodes.send(&request).await.unwrap().status, 200);
    std::fs::write(&file, "Two\n").unwrap();
    assert_eq!(nodes.send(&request).await.unwrap().status, 200);
    let reply = nodes.send(&request).await.unwrap();
    let fault = reply.fault("a question");
    assert!(fault.kind == FaultKind::Misconfigured && fault.to_string().ends_with("credentials: no"), "{fault}");
    let keys: Vec<bool> = node.asked.lock().iter().map(|(head, _)| head.contains("apikey one")).collect();
    assert_eq!(keys, [true, true, false, false]);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_needs_a_person() {
    let node = told(&[(200, "ok")]).await;
    let nodes = Nodes::new(&settings(&[&node.address.replace("http:", "https:")])).unwrap();
    let fault = nodes.send(&Request::new("GET", "/")).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured, "{fault}");
}

#[test]
fn addresses_that_cannot_work_stop_the_start() {
    for (address, word) in [
        ("http://u:hunter2@h", "use the options"),
        ("ftp://h", "neither"),
        ("h:9200", "neither"),
        ("http://h/?a=b", "behind the path"),
        ("http://", "URL"),
    ] {
        let error = Nodes::new(&settings(&[address])).err().unwrap().to_string();
        assert!(error.contains(word) && !error.contains("hunter2"), "{address}: {error}");
    }
    assert!(Nodes::new(&settings(&[])).is_err());
    let no_file = Settings { ca_file: "/nowhere/ca.pem".into(), ..settings(&["https://h"]) };
    assert!(Nodes::new(&no_file).err().unwrap().to_string().contains("/nowhere/ca.pem"));
    let given = (Secret::new("a"), std::path::Path::new("/b"));
    assert!(SecretValue::of("token", &given.0, given.1).unwrap_err().to_string().contains("not both"));
}
