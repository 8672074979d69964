//! The server, asked by hand, as its documentation has it.

use flate2::Compression;
use serde_json::{Value, json};
use std::io::Write as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

const CHANNEL: &str = "FE0ECFAD-13D5-401B-847D-77833BD77131";
const OTHER: &str = "0b3a5c9e-4a6e-4a0b-8f3e-8a1d9f5a2c11";

/// Sends one request; the status, the head and the body, or how the connection ended.
async fn raw(
    server: &HecServer,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
) -> io::Result<(u16, String, Vec<u8>)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).await?;
    let len = body.len();
    let head =
        format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head[9..12].parse().unwrap();
    Ok((status, head, answer.split_off(end + 4)))
}

async fn post(server: &HecServer, target: &str, headers: &str, body: &str) -> (u16, Value) {
    let (status, _, body) = raw(server, "POST", target, headers, body.as_bytes()).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn tokens() -> Options {
    let mut some = Token::new("some", false);
    some.indexes = vec!["main".into(), "malware".into()];
    let mut off = Token::new("off", false);
    off.disabled = true;
    Options::new(vec![some, off, Token::new("acks", true)])
}

const EVENT: &str = "/services/collector/event";
const SOME: &str = "Authorization: Splunk some\r\n";

fn acks(channel: &str) -> String {
    format!("Authorization: Splunk acks\r\nX-Splunk-Request-Channel: {channel}\r\n")
}

#[tokio::test]
async fn who_may_send() {
    let server = HecServer::start(tokens()).await;
    for (headers, status, code) in [
        (SOME, 200, 0),
        ("Authorization: Basic eDpzb21l\r\n", 200, 0),
        ("Authorization: Splunk off\r\n", 403, 1),
        ("", 401, 2),
        ("Authorization: some\r\n", 401, 3),
        ("Authorization: Bearer some\r\n", 401, 3),
        ("Authorization: Splunk other\r\n", 403, 4),
        ("Authorization: Splunk acks\r\n", 400, 10),
        ("Authorization: Splunk acks\r\nX-Splunk-Request-Channel: 7\r\n", 400, 11),
    ] {
        let (got, reply) = post(&server, EVENT, headers, r#"{"event":"a"}"#).await;
        assert_eq!((got, &reply["code"]), (status, &json!(code)), "{headers:?}");
    }
    assert_eq!(post(&server, "/services/collector/event?token=some", "", r#"{"event":"a"}"#).await.1["code"], 16);
    assert_eq!(server.count(), 2);
    let server = HecServer::start(Options { query_string_auth: true, ..tokens() }).await;
    assert_eq!(post(&server, "/services/collector/event?token=some", "", r#"{"event":"a"}"#).await.1["code"], 0);
}

#[tokio::test]
async fn what_is_an_event() {
    let server = HecServer::start(tokens()).await;
    for (body, code, number) in [
        ("", 5, None),
        (" \n ", 5, None),
        ("[]", 6, Some(0)),
        (r#"[{"event":"a"}]"#, 6, Some(0)),
        (r#"{"event":"a"}{"event":"#, 6, Some(1)),
        (r#"{"event":"a"},{"event":"b"}"#, 6, Some(1)),
        (r#"{"event":"a","evnt":1}"#, 6, Some(0)),
        (r#"{"event":"a","index":7}"#, 6, Some(0)),
        (r#"{"event":"a"} {"event":"b","index":"main"} {"event":"c","index":"secret"}"#, 7, Some(2)),
        (r#"{"event":"a"}{"time":1}"#, 12, Some(1)),
        (r#"{"event":""}"#, 13, Some(0)),
        (r#"{"event":null}"#, 13, Some(0)),
        (r#"{"event":"a","fields":{"b":{"c":1}}}"#, 15, Some(0)),
        (r#"{"event":"a","fields":["b"]}"#, 15, Some(0)),
        (r#"{"event":"a","time":1.7e9}"#, 15, Some(0)),
        (r#"{"event":"a","time":"now"}"#, 15, Some(0)),
    ] {
        let (status, reply) = post(&server, EVENT, SOME, body).await;
        assert_eq!(
            (status, &reply["code"], reply["invalid-event-number"].as_u64()),
            (400, &json!(code), number),
            "{body}"
        );
    }
    assert_eq!(server.count(), 0, "nothing of a request with a mistake is taken");

    let body = r#"{"time":1433188255.500,"host":"h","source":"s","sourcetype":"t","index":"malware","event":{"a":[1]},"fields":{"k":["v"]}}
        {"event":7}{"event":"text"}"#;
    assert_eq!(
        post(&server, "/services/collector/event/1.0?source=q", SOME, body).await,
        (200, json!({ "text": "Success", "code": 0 }))
    );
    let events = server.indexed();
    let first = Event {
        time: Some("1433188255.500".into()),
        index: "malware".into(),
        host: Some("h".into()),
        source: Some("s".into()),
        sourcetype: Some("t".into()),
        event: json!({ "a": [1] }),
        fields: json!({ "k": ["v"] }).as_object().unwrap().clone(),
    };
    assert_eq!(events[0], first);
    assert_eq!((&*events[1].index, events[1].source.as_deref(), &events[2].event), ("main", Some("q"), &json!("text")));
}

#[tokio::test]
async fn each_acknowledgement_once_and_per_channel() {
    let mut server = HecServer::start(tokens()).await;
    server.hold(true);
    for number in 0..3 {
        let (status, reply) = post(&server, EVENT, &acks(CHANNEL), r#"{"event":"a"}"#).await;
        assert_eq!((status, reply), (200, json!({ "text": "Success", "code": 0, "ackId": number })));
    }
    let ask = async |server: &HecServer, channel: &str, body: &str| {
        post(server, &format!("/services/collector/ack?channel={channel}"), "Authorization: Splunk acks\r\n", body)
            .await
            .1
    };
    let no = json!({ "acks": { "0": false, "2": false, "9": false } });
    assert_eq!(ask(&server, CHANNEL, r#"{"acks":[0,2,9]}"#).await, no);
    server.index();
    assert_eq!(server.count(), 3);
    assert_eq!(ask(&server, OTHER, r#"{"acks":[0,2,9]}"#).await, no, "another channel's numbers are its own");
    server.withhold(true);
    assert_eq!(ask(&server, CHANNEL, r#"{"acks":[0,2,9]}"#).await, no);
    server.withhold(false);
    let yes = json!({ "acks": { "0": true, "2": true, "9": false } });
    assert_eq!(ask(&server, CHANNEL, r#"{"acks":[0,2,9]}"#).await, yes);
    assert_eq!(ask(&server, CHANNEL, r#"{"acks":[0,2,9]}"#).await, no);

    assert_eq!(ask(&server, CHANNEL, "").await["code"], 5);
    assert_eq!(ask(&server, CHANNEL, "[0]").await["code"], 6);
    assert_eq!(ask(&server, "1", r#"{"acks":[0]}"#).await["code"], 11);
    assert_eq!(post(&server, "/services/collector/ack", "Authorization: Splunk acks\r\n", "{}").await.1["code"], 10);
    assert_eq!(post(&server, "/services/collector/ack", SOME, "{}").await.1["code"], 14);

    // What was taken and not indexed is lost, and numbers start again.
    post(&server, EVENT, &acks(CHANNEL), r#"{"event":"lost"}"#).await;
    assert_eq!(server.waiting(), 1);
    server.crash().await;
    assert_eq!((server.count(), server.waiting()), (3, 0));
    assert_eq!(ask(&server, CHANNEL, r#"{"acks":[3]}"#).await, json!({ "acks": { "3": false } }));
    assert_eq!(post(&server, EVENT, &acks(CHANNEL), r#"{"event":"a"}"#).await.1["ackId"], 0);
}

#[tokio::test]
async fn limits_of_a_channel_and_of_a_request() {
    let server = HecServer::start(Options { max_pending: 1, max_content_length: 100, ..tokens() }).await;
    assert_eq!(post(&server, EVENT, &acks(CHANNEL), r#"{"event":"a"}"#).await.0, 200);
    let (status, reply) = post(&server, EVENT, &acks(CHANNEL), r#"{"event":"a"}"#).await;
    assert_eq!((status, &reply["code"]), (429, &json!(27)));
    assert_eq!(post(&server, EVENT, SOME, &format!(r#"{{"event":"{}"}}"#, "a".repeat(100))).await.0, 413);

    let pack = |text: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let gzip = format!("{SOME}Content-Encoding: gzip\r\n");
    let large = pack(&format!(r#"{{"event":"{}"}}"#, "a".repeat(100)));
    assert_eq!(raw(&server, "POST", EVENT, &gzip, &large).await.unwrap().0, 413, "bytes count unpacked");
    let small = pack(r#"{"event":"packed"}"#);
    assert_eq!(raw(&server, "POST", EVENT, &gzip, &small).await.unwrap().0, 200);
    assert_eq!(raw(&server, "POST", EVENT, &gzip, &small[..small.len() - 4]).await.unwrap().0, 400);
    assert_eq!(server.indexed()[1].event, "packed");
}

#[tokio::test]
async fn raw_lines_and_other_endpoints() {
    let server = HecServer::start(tokens()).await;
    let target = format!("/services/collector/raw?channel={CHANNEL}&sourcetype=t");
    assert_eq!(post(&server, &target, SOME, "one\n\ntwo\n").await.0, 200);
    assert_eq!(post(&server, "/services/collector/raw", SOME, "one").await.1["code"], 10);
    let events = server.indexed();
    assert_eq!((&events[1].event, events[1].sourcetype.as_deref()), (&json!("two"), Some("t")));

    let health = async |headers: &str| {
        let (status, _, body) = raw(&server, "GET", "/services/collector/health/1.0", headers, b"").await.unwrap();
        (status, serde_json::from_slice::<Value>(&body).unwrap()["code"].as_u64().unwrap())
    };
    assert_eq!(health("").await, (200, 17));
    assert_eq!(health(SOME).await, (200, 17));
    assert_eq!(health("Authorization: Splunk off\r\n").await, (400, 22));
    assert_eq!(health("Authorization: Splunk none\r\n").await, (400, 21));
    server.healthy(false);
    assert_eq!(health("").await, (503, 18));
    assert_eq!(post(&server, "/services/collector/health", "", "").await.0, 405);
    assert_eq!(post(&server, "/services/collectr", SOME, "{}").await.0, 404);
    assert_eq!(raw(&server, "GET", EVENT, SOME, b"").await.unwrap().0, 405);
}

#[tokio::test]
async fn faults_happen_once_and_say_what_they_take() {
    let server = HecServer::start(Options { keeps_earlier: true, ..tokens() }).await;
    let send = async || raw(&server, "POST", EVENT, SOME, br#"{"event":"a"}"#).await;
    for (fault, taken) in [
        (Fault::Code(9), 0),
        (Fault::Status(502, "bad gateway"), 0),
        (Fault::Redirect("http://elsewhere/".into()), 0),
        (Fault::Reset, 0),
        (Fault::ResetAfter, 1),
        (Fault::Truncated, 1),
        (Fault::Slow(Duration::from_millis(1)), 1),
    ] {
        server.clear();
        server.fail_events(1, fault.clone());
        let failed = match send().await {
            Ok((status, head, body)) => {
                let promised = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                status != 200 || promised.is_some_and(|len| len.parse::<usize>().unwrap() > body.len())
            }
            Err(_) => true,
        };
        assert_eq!(failed, !matches!(fault, Fault::Slow(_)), "{fault:?}");
        assert_eq!(server.count(), taken, "{fault:?}");
        assert_eq!(send().await.unwrap().0, 200, "after {fault:?}");
    }
    server.clear();
    assert_eq!(post(&server, EVENT, SOME, r#"{"event":"kept"}{"event":""}"#).await.1["invalid-event-number"], 1);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_balancer_keeps_who_brings_its_cookie() {
    let server = HecServer::start(Options { indexers: 2, ..tokens() }).await;
    let send = async |cookie: &str| {
        let headers = format!("{}{cookie}", acks(CHANNEL));
        let (_, head, _) = raw(&server, "POST", EVENT, &headers, br#"{"event":"a"}"#).await.unwrap();
        head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap().split(';').next().unwrap().to_owned()
    };
    let first = send("").await;
    assert_ne!(send("").await, first);
    for _ in 0..3 {
        assert_eq!(send(&format!("Cookie: a=b; {first}\r\n")).await, first);
    }
}
