//! Failures at chosen moments: wrappers round any queue, ledger and store that share one [`FaultPlan`].
//!
//! A test runs its subject once with a plan that does nothing, to learn how many operations there are, and then once
//! for each operation and each kind of [`Trouble`]: what must hold, must hold after every one of them.

mod ledger;
mod queue;
mod store;

use std::future::{Future, pending};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use stoq_api::{Fault, FaultKind};
use tokio::sync::Notify;

pub use ledger::FaultyLedger;
pub use queue::FaultyQueue;
pub use store::FaultyStore;

/// What befalls an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails as unavailable and is not done.
    Before,
    /// It is done and fails as unavailable all the same: its answer is lost.
    After,
    /// The process dies before it is done.
    CrashBefore,
    /// The process dies after it is done and before its answer is heard.
    CrashAfter,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Before, Self::After, Self::CrashBefore, Self::CrashAfter];
}

/// When what goes wrong, for all wrappers that share it. One plan is one life of a process: after a crash no operation
/// of the plan ends any more, and whoever waits for one is to be dropped and started again with another plan.
#[derive(Clone)]
pub struct FaultPlan(Arc<Plan>);

struct Plan {
    when: Range<u64>,
    trouble: Trouble,
    count: AtomicU64,
    crashed: AtomicBool,
    crash: Notify,
    log: Mutex<Vec<&'static str>>,
}

impl FaultPlan {
    /// Nothing goes wrong; operations are counted.
    pub fn calm() -> Self {
        Self::during(0..0, Trouble::Before)
    }

    /// `trouble` befalls the `k`-th operation, counted from 0.
    pub fn at(k: u64, trouble: Trouble) -> Self {
        Self::during(k..k.saturating_add(1), trouble)
    }

    /// `trouble` befalls each of these operations, as in an outage.
    pub fn during(when: Range<u64>, trouble: Trouble) -> Self {
        Self(Arc::new(Plan {
            when,
            trouble,
            count: AtomicU64::new(0),
            crashed: AtomicBool::new(false),
            crash: Notify::new(),
            log: Mutex::default(),
        }))
    }

    /// Operations so far. A `next` counts when it has a delivery; a verdict by drop does not count.
    pub fn operations(&self) -> u64 {
        self.0.count.load(Ordering::SeqCst)
    }

    /// The names of the operations so far, in the order in which they began.
    pub fn log(&self) -> Vec<&'static str> {
        self.0.log.lock().clone()
    }

    /// Whether the process has died.
    pub fn is_crashed(&self) -> bool {
        self.0.crashed.load(Ordering::SeqCst)
    }

    /// Waits until the process has died.
    pub async fn crashed(&self) {
        let crash = self.0.crash.notified();
        tokio::pin!(crash);
        crash.as_mut().enable();
        if !self.is_crashed() {
            crash.await;
        }
    }

    /// Runs one operation under the plan.
    async fn run<T>(&self, name: &'static str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let trouble = self.begin(name).await;
        match trouble {
            Some(Trouble::Before) => return Err(unavailable(name, "not done")),
            Some(Trouble::CrashBefore) => return self.die().await,
            Some(Trouble::After | Trouble::CrashAfter) | None => {}
        }
        let done = work.await;
        if self.is_crashed() {
            // Another operation ended the process while this one was under way.
            return pending().await;
        }
        match trouble {
            Some(Trouble::After) => Err(unavailable(name, "done, answer lost")),
            Some(Trouble::CrashAfter) => self.die().await,
            Some(Trouble::Before | Trouble::CrashBefore) | None => done,
        }
    }

    /// Counts an operation and says what befalls it; never ends once the process has died.
    async fn begin(&self, name: &'static str) -> Option<Trouble> {
        if self.is_crashed() {
            return pending().await;
        }
        self.0.log.lock().push(name);
        let number = self.0.count.fetch_add(1, Ordering::SeqCst);
        self.0.when.contains(&number).then_some(self.0.trouble)
    }

    async fn die<T>(&self) -> T {
        self.0.crashed.store(true, Ordering::SeqCst);
        self.0.crash.notify_waiters();
        pending().await
    }
}

fn unavailable(name: &str, how: &str) -> Fault {
    Fault::new(FaultKind::Unavailable, format!("{name} fails by plan ({how})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_trouble_does_what_it_says() {
        for (trouble, done) in [
            (Trouble::Before, false),
            (Trouble::After, true),
            (Trouble::CrashBefore, false),
            (Trouble::CrashAfter, true),
        ] {
            let plan = FaultPlan::at(1, trouble);
            let did = AtomicU64::new(0);
            let work = async || plan.run("work", async { Ok(did.fetch_add(1, Ordering::SeqCst)) }).await;
            work().await.unwrap();
            let dies = matches!(trouble, Trouble::CrashBefore | Trouble::CrashAfter);
            tokio::select! {
                biased;
                ended = work() => assert!(!dies && ended.is_err(), "{trouble:?}"),
                () = plan.crashed() => assert!(dies, "{trouble:?}"),
            }
            assert_eq!(did.load(Ordering::SeqCst), 1 + u64::from(done), "{trouble:?}");
            assert_eq!((plan.is_crashed(), plan.operations()), (dies, 2));
            if !dies {
                work().await.unwrap();
                continue;
            }
            tokio::select! {
                biased;
                _ = work() => panic!("nothing ends after a crash"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
}
