//! Waiting for conditions instead of for time.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long a suite waits for what must come before it gives up. Far above what any implementation needs on a loaded
/// machine; nothing is slower for it unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`, which must end.
///
/// # Panics
/// It did not within [`PATIENCE`].
pub async fn must_end<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing came within {PATIENCE:?}"),
    }
}

/// Asks until the answer is yes.
///
/// # Panics
/// It was not within [`PATIENCE`].
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let end = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(2)).await;
    }
}
