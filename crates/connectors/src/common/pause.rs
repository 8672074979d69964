//! Waiting for an operator: a sink that needs one is asked ever more rarely, by all batches of a connector together; and
//! one that an operator holds back is not asked at all.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stoq_runtime::backoff::Backoff;
use stoq_runtime::hold::Hold;
use stoq_runtime::metrics;
use tokio::time::{Instant, sleep_until};

/// The shortest wait, whatever chance says: wrong passwords must not lock an account.
const LEAST: Duration = Duration::from_secs(5);
/// The first and the longest wait beyond that.
const WAIT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// One connector's pause.
#[derive(Clone)]
pub(super) struct Pause {
    inner: Arc<Mutex<Inner>>,
    /// An operator wants it so.
    hold: Hold,
    meter: metrics::Connector,
}

struct Inner {
    until: Option<Instant>,
    backoff: Backoff,
}

impl Pause {
    pub(super) fn new(connector: &str, hold: &Hold) -> Self {
        let inner = Inner { until: None, backoff: Backoff::new(WAIT.0, WAIT.1) };
        Self { inner: Arc::new(Mutex::new(inner)), hold: hold.clone(), meter: metrics::Connector::new(connector) }
    }

    /// Whether the sink waits for an operator, as far as known, or for one who holds it back.
    pub(super) fn is_on(&self) -> bool {
        self.hold.is_on() || self.inner.lock().until.is_some()
    }

    /// Whether the sink must not be asked now.
    pub(super) fn forbids(&self) -> bool {
        self.hold.is_on() || self.inner.lock().until.is_some_and(|until| until > Instant::now())
    }

    /// The sink needs an operator. Says `reason` once, loudly, and later ever more rarely.
    pub(super) fn begin(&self, connector: &str, reason: &str) {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        if inner.until.is_some_and(|until| until > now) {
            return;
        }
        let wait = LEAST + inner.backoff.next_wait();
        inner.until = Some(now + wait);
        let tries = inner.backoff.tries();
        drop(inner);
        self.meter.paused(true);
        if tries.is_power_of_two() {
            let again = wait.as_secs();
            tracing::error!(
                connector,
                reason,
                again,
                "PAUSED until somebody mends this; nothing is lost, others go on"
            );
        }
    }

    /// The sink took something.
    pub(super) fn end(&self, connector: &str) {
        let mut inner = self.inner.lock();
        if inner.until.take().is_some() {
            inner.backoff.reset();
            drop(inner);
            self.meter.paused(false);
            tracing::warn!(connector, "goes on after a pause");
        }
    }

    /// Waits until the sink may be asked again.
    pub(super) async fn over(&self) {
        while self.forbids() {
            self.hold.over().await;
            let until = self.inner.lock().until;
            if let Some(until) = until {
                sleep_until(until).await;
            }
        }
    }
}
