//! Where this process's spans go: to an OpenTelemetry collector, in builds that know how.

#[cfg(feature = "otlp")]
mod otlp;

use anyhow::Result;
use stoq_runtime::config::Settings;

#[cfg(feature = "otlp")]
pub(crate) use self::otlp::Tracing;
use crate::exit::UsageError;

/// Keeps spans and sends them, if an endpoint is configured.
///
/// # Errors
/// The endpoint or the ratio is not one, or this build cannot send spans.
#[cfg(feature = "otlp")]
pub(crate) fn start(settings: &Settings) -> Result<Option<Tracing>> {
    let Some(endpoint) = &settings.trace.endpoint else { return Ok(None) };
    let ratio = settings.trace.ratio;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(UsageError(format!("trace.ratio: {ratio} is not between 0 and 1")).into());
    }
    Tracing::start(endpoint, ratio).map(Some)
}

/// Nothing that could end.
#[cfg(not(feature = "otlp"))]
pub(crate) struct Tracing;

#[cfg(not(feature = "otlp"))]
impl Tracing {
    pub(crate) async fn end(self) {}
}

/// As above.
#[cfg(not(feature = "otlp"))]
pub(crate) fn start(settings: &Settings) -> Result<Option<Tracing>> {
    match settings.trace.endpoint {
        Some(_) => Err(UsageError("trace.endpoint: this build cannot send traces (feature otlp)".into()).into()),
        None => Ok(None),
    }
}
