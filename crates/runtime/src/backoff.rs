//! Waiting before another try: exponential, capped, with full jitter.
//!
//! Full jitter (any wait up to the bound) keeps many workers that failed together from coming back together; see "Exponential
//! Backoff And Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long to wait before each try. A fresh one for each series of tries, or [`Backoff::reset`] after a success.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// The first wait is at most `first`; the bound doubles with every try up to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, tries: 0, random: fastrand::Rng::new() }
    }

    /// The same with waits that are determined by `seed`.
    pub fn seeded(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), ..Self::new(first, cap) }
    }

    /// Tries since the start or the last [`Backoff::reset`].
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The last try succeeded: the next wait is a short one again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.tries);
        let most = self.first.checked_mul(factor).unwrap_or(self.cap).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        most.mul_f64(self.random.f64())
    }

    /// Waits, unless `token` is cancelled first: then the answer is `false`, and there should be no other try.
    pub async fn wait(&mut self, token: &CancellationToken) -> bool {
        let wait = self.next_wait();
        token.run_until_cancelled(tokio::time::sleep(wait)).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(10);

    #[test]
    fn grows_to_the_cap() {
        // The greatest of many waits after `tries` tries comes close to the bound and never passes it.
        for (tries, bound) in [(0, 100), (1, 200), (3, 800), (6, 6_400), (7, 10_000), (40, 10_000)] {
            let bound = Duration::from_millis(bound);
            let longest = (0..500).map(|seed| {
                let mut backoff = Backoff::seeded(FIRST, CAP, seed);
                for _ in 0..tries {
                    backoff.next_wait();
                }
                backoff.next_wait()
            });
            let longest = longest.max().unwrap();
            assert!(longest <= bound && longest > bound.mul_f64(0.9), "{tries}: {longest:?} of {bound:?}");
        }
    }

    #[test]
    fn starts_anew_after_a_success() {
        let mut backoff = Backoff::seeded(FIRST, CAP, 1);
        for _ in 0..9 {
            backoff.next_wait();
        }
        assert_eq!(backoff.tries(), 9);
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_ends_at_once() {
        let token = CancellationToken::new();
        let mut backoff = Backoff::new(FIRST, CAP);
        assert!(backoff.wait(&token).await);
        token.cancel();
        assert!(!backoff.wait(&token).await);
    }

    proptest! {
        #[test]
        fn bounded_and_repeatable(seed: u64, tries in 0_usize..100, first in 0_u64..u64::MAX, cap in 0_u64..u64::MAX) {
            let (first, cap) = (Duration::from_nanos(first), Duration::from_nanos(cap));
            let (mut one, mut two) = (Backoff::seeded(first, cap, seed), Backoff::seeded(first, cap, seed));
            for _ in 0..tries {
                let wait = one.next_wait();
                prop_assert!(wait <= cap);
                prop_assert_eq!(wait, two.next_wait());
            }
        }
    }
}
