//! Permits: how many things may be held at a time, and how many bytes they may have together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this size, so that a large budget fits into what a semaphore can count.
const UNIT: u64 = 4 << 10;

/// A budget of items and bytes. Clones share it.
///
/// Whoever waits is served in order, so that a large request is not starved by small ones.
#[derive(Clone, Debug)]
pub struct Permits {
    items: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_items: usize,
    max_units: u32,
}

/// The right to hold one item of some size; given back when dropped.
#[derive(Debug)]
#[must_use = "the permit is given back as soon as it is dropped"]
pub struct Permit {
    _item: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Permits {
    /// Permits for `items` things of together `bytes`, at least one of each.
    pub fn new(items: usize, bytes: u64) -> Self {
        let max_items = items.clamp(1, Semaphore::MAX_PERMITS);
        let most = u64::from(u32::MAX).min(Semaphore::MAX_PERMITS as u64);
        let max_units = u32::try_from(bytes.div_ceil(UNIT).clamp(1, most)).unwrap_or(u32::MAX);
        Self {
            items: Arc::new(Semaphore::new(max_items)),
            bytes: Arc::new(Semaphore::new(max_units as usize)),
            max_items,
            max_units,
        }
    }

    /// Waits until one item of `bytes` may be held. One that is larger than the whole budget takes all of it: it is held,
    /// alone. Safe to cancel, which gives up the place in the queue.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        // Items first: whoever waits for bytes holds an item, and bytes are only held by those that have both, so that
        // what is held always comes back.
        let item = owned(Arc::clone(&self.items), 1).await;
        let bytes = owned(Arc::clone(&self.bytes), self.units(bytes)).await;
        Permit { _item: item, _bytes: bytes }
    }

    /// A permit for one item of `bytes`, if it is to be had now.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let item = Arc::clone(&self.items).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(Permit { _item: item, _bytes: bytes })
    }

    /// Items held now.
    pub fn held(&self) -> usize {
        self.max_items - self.items.available_permits()
    }

    /// Waits until nothing is held.
    pub async fn idle(&self) {
        let all = u32::try_from(self.max_items).unwrap_or(u32::MAX);
        drop(owned(Arc::clone(&self.items), all).await);
    }

    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.max_units)
    }
}

async fn owned(semaphore: Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    match semaphore.acquire_many_owned(count).await {
        Ok(permit) => permit,
        // Closed: nobody has the means to close these.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    /// Whether `future` is ready at once.
    async fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn items_are_bounded() {
        let permits = Permits::new(2, 1 << 20);
        let (one, _two) = (permits.acquire(1).await, permits.acquire(1).await);
        assert!(ready(permits.acquire(1)).await.is_none());
        assert_eq!(permits.held(), 2);
        drop(one);
        assert!(ready(permits.acquire(1)).await.is_some());
    }

    #[tokio::test]
    async fn bytes_are_bounded() {
        let permits = Permits::new(100, 1 << 20);
        let half = permits.acquire(512 << 10).await;
        assert!(permits.try_acquire((512 << 10) + 1).is_none());
        assert!(permits.try_acquire(512 << 10).is_some());
        drop(half);
        assert!(permits.try_acquire(1 << 20).is_some());
        assert_eq!(permits.held(), 0, "a try that failed holds nothing");
    }

    #[tokio::test]
    async fn one_too_large_takes_all_and_runs_alone() {
        let permits = Permits::new(100, 1 << 20);
        let small = permits.acquire(1).await;
        assert!(ready(permits.acquire(u64::MAX)).await.is_none());
        drop(small);
        let large = permits.acquire(u64::MAX).await;
        assert!(permits.try_acquire(0).is_none());
        drop(large);
        assert!(permits.try_acquire(0).is_some());
    }

    #[tokio::test]
    async fn a_large_one_is_not_starved() {
        let permits = Permits::new(100, 8 << 10);
        let first = permits.acquire(4 << 10).await;
        let mut large = pin!(permits.acquire(8 << 10));
        assert!(ready(large.as_mut()).await.is_none());
        assert!(ready(permits.acquire(1)).await.is_none(), "who comes later waits behind");
        drop(first);
        assert!(ready(large).await.is_some());
    }

    #[tokio::test]
    async fn idle_waits_for_the_last() {
        let permits = Permits::new(3, 10);
        let one = permits.acquire(1).await;
        assert!(ready(permits.idle()).await.is_none());
        drop(one);
        assert!(ready(permits.idle()).await.is_some());
        assert_eq!(Permits::new(0, 0).held(), 0);
        assert!(Permits::new(0, 0).try_acquire(5).is_some());
    }
}
