//! OTLP over HTTP, protobuf. Sending fails without harm to the work: spans are lost, counted, and the log says so rarely.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use stoq_runtime::metrics;
use stoq_runtime::trace::{self, Finished, Kind};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::UsageError;

/// Spans sent at a time.
const BATCH: usize = 512;
/// How long spans wait for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the last spans may take at the end of the process.
const END: Duration = Duration::from_secs(15);
/// Where collectors take traces, if the endpoint names no path.
const PATH: &str = "/v1/traces";

/// Sends this process's spans while it lives.
pub(crate) struct Tracing {
    stop: CancellationToken,
    sending: JoinHandle<()>,
}

impl Tracing {
    /// Sends to `endpoint`, an address such as `http://127.0.0.1:4318`.
    pub(crate) fn start(endpoint: &str, ratio: f64) -> Result<Self> {
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(url(endpoint)?)
            .with_timeout(ANSWER)
            .build()
            .map_err(|e| UsageError(format!("trace.endpoint: {e}")))?;
        let resource = Resource::builder()
            .with_service_name("stoq")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
            .build();
        exporter.set_resource(&resource);
        let spans = trace::start(ratio).context("spans are taken by something else")?;
        let stop = CancellationToken::new();
        let sending = tokio::spawn(send(exporter, spans, stop.clone()));
        Ok(Self { stop, sending })
    }

    /// Sends what is left.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        if tokio::time::timeout(END, self.sending).await.is_err() {
            tracing::warn!("the last spans were not sent in time");
        }
    }
}

fn url(endpoint: &str) -> Result<String> {
    let wrong = |why: &str| UsageError(format!("trace.endpoint: {why}"));
    let (scheme, rest) = endpoint.split_once("://").unwrap_or_default();
    if !matches!(scheme, "http" | "https") {
        return Err(wrong("it has to begin with http:// or https://").into());
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(wrong("credentials do not belong into it").into());
    }
    Ok(if path.is_empty() { format!("{scheme}://{authority}{PATH}") } else { endpoint.to_owned() })
}

async fn send(exporter: SpanExporter, mut spans: Receiver<Finished>, stop: CancellationToken) {
    let scope = InstrumentationScope::builder("stoq").with_version(env!("CARGO_PKG_VERSION")).build();
    let mut failures: u32 = 0;
    loop {
        let last = tokio::select! {
            biased;
            () = stop.cancelled() => true,
            () = tokio::time::sleep(LINGER) => false,
        };
        loop {
            let mut batch = Vec::new();
            while let (true, Ok(span)) = (batch.len() < BATCH, spans.try_recv()) {
                batch.push(data(span, &scope));
            }
            let count = batch.len();
            if count == 0 {
                break;
            }
            match exporter.export(batch).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    metrics::spans_dropped(count as u64);
                    if failures.is_power_of_two() {
                        tracing::warn!(%error, failures, "spans were not sent and are lost");
                    }
                    // What is ready waits for its turn, so that a collector that is away is not asked all the time.
                    break;
                }
            }
        }
        if last {
            return;
        }
    }
}

fn data(span: Finished, scope: &InstrumentationScope) -> SpanData {
    let context = SpanContext::new(
        TraceId::from_bytes(span.trace),
        SpanId::from_bytes(span.id),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: match span.kind {
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: Cow::Borrowed(span.name),
        start_time: span.start,
        end_time: span.end,
        attributes: span.attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(url("http://127.0.0.1:4318").unwrap(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(url("https://collector/").unwrap(), "https://collector/v1/traces");
        assert_eq!(url("http://collector/otlp/traces").unwrap(), "http://collector/otlp/traces");
        for wrong in ["127.0.0.1:4318", "grpc://collector", "http://me:secret@collector"] {
            let error = url(wrong).unwrap_err();
            assert!(error.is::<UsageError>() && !error.to_string().contains("secret"), "{wrong}");
        }
    }
}
