//! A node and its rests.

use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Url;
use tokio::time::Instant;

/// The first rest; each further one is twice as long.
const REST: Duration = Duration::from_secs(1);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// One address of a sink.
pub(super) struct Node {
    url: Url,
    /// The address for people: scheme, host and port.
    pub(super) place: String,
    rest: Mutex<Rest>,
}

#[derive(Default)]
struct Rest {
    until: Option<Instant>,
    next: Duration,
}

impl Node {
    pub(super) fn new(url: Url) -> Self {
        let place = url.origin().ascii_serialization();
        Self { url, place, rest: Mutex::default() }
    }

    /// The address of `target`, behind the node's own path.
    pub(super) fn url(&self, target: &str) -> Url {
        let mut url = self.url.clone();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let whole = format!("{}{path}", self.url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url.set_query(query);
        url
    }

    /// Whether it is resting.
    pub(super) fn rests(&self) -> bool {
        self.rest.lock().until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn answered(&self) {
        *self.rest.lock() = Rest::default();
    }

    pub(super) fn failed(&self) {
        let mut rest = self.rest.lock();
        let wait = rest.next.max(REST);
        *rest = Rest { until: Some(Instant::now() + wait), next: (wait * 2).min(LONGEST_REST) };
    }
}
