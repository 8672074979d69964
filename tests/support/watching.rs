//! What tests of observability share: a client of probes and metrics, and a collector of traces.
#![allow(dead_code, reason = "each test is a program of its own and uses a part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;

use crate::support::PATIENCE;

/// An answer's status and body.
pub(crate) fn get(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let answer = ask(address, method, path).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The metrics of a process that may be gone by now.
pub(crate) fn metrics(address: SocketAddr) -> Option<String> {
    let answer = ask(address, "GET", "/metrics").ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn ask(address: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: stoq\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The sum of all series of a family that have all of `labels`.
pub(crate) fn sum(metrics: &str, family: &str, labels: &[&str]) -> f64 {
    let of_family = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = metrics.lines().filter(of_family).filter(|line| labels.iter().all(|label| line.contains(label)));
    values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// The address that a log names.
pub(crate) fn address(log: &str) -> Option<SocketAddr> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.into_iter().find_map(|event| event["address"].as_str()?.parse().ok())
}

/// A collector of traces on a port of its own.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    spans: Arc<Mutex<Vec<(i64, Span)>>>,
}

impl Collector {
    /// Listens from now on, until the test ends.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans: Arc<Mutex<Vec<(i64, Span)>>> = Arc::default();
        let kept = Arc::clone(&spans);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, kept) = (stream.unwrap(), Arc::clone(&kept));
                std::thread::spawn(move || collect(stream, &kept));
            }
        });
        Self { endpoint, spans }
    }

    /// The spans so far, each with the id of the process that sent it.
    pub(crate) fn spans(&self) -> Vec<(i64, Span)> {
        self.spans.lock().unwrap().clone()
    }
}

/// Takes one request of a connection after the other.
fn collect(stream: TcpStream, spans: &Mutex<Vec<(i64, Span)>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut line = String::new();
        while stream.read_line(&mut line).unwrap_or(0) > 2 {
            if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
            line.clear();
        }
        if length == 0 {
            return;
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        for of_process in ExportTraceServiceRequest::decode(body.as_slice()).unwrap().resource_spans {
            let attributes = of_process.resource.unwrap().attributes;
            let pid = attributes.into_iter().find(|a| a.key == "process.pid").unwrap().value.unwrap().value;
            let Some(AnyValue::IntValue(pid)) = pid else { panic!("{pid:?}") };
            let found = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.lock().unwrap().extend(found.map(|span| (pid, span)));
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
    }
}
