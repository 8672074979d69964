//! What an operator holds back: a provider that takes nothing, a connector that delivers nothing, until let go.

use std::sync::Arc;

use tokio::sync::watch;

/// Whether one component is held back. Clones are the same.
#[derive(Clone, Debug)]
pub struct Hold(Arc<watch::Sender<bool>>);

impl Default for Hold {
    /// Not held.
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Hold {
    /// Holds it, or lets it go. Says whether that was new.
    pub fn set(&self, held: bool) -> bool {
        self.0.send_if_modified(|was| std::mem::replace(was, held) != held)
    }

    /// Whether it is held.
    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is held.
    pub async fn on(&self) {
        // The sender lives as long as this does.
        self.0.subscribe().wait_for(|held| *held).await.ok();
    }

    /// Waits until it is not held.
    pub async fn over(&self) {
        self.0.subscribe().wait_for(|held| !held).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_ready(wait: impl Future<Output = ()>) -> bool {
        pin!(wait).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn clones_are_the_same() {
        let (hold, other) = (Hold::default(), Hold::default());
        let clone = hold.clone();
        assert!(!hold.is_on() && is_ready(clone.over()) && !is_ready(clone.on()));
        assert!(hold.set(true) && !hold.set(true));
        assert!(clone.is_on() && !is_ready(clone.over()) && is_ready(clone.on()));
        assert!(!other.is_on());
        assert!(clone.set(false) && !hold.is_on());
    }
}
