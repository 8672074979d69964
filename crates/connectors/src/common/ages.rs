//! How old what is held is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stoq_api::Timestamp;

/// The times of everything held.
#[derive(Clone, Default)]
pub(super) struct Ages(Arc<Mutex<BTreeMap<Timestamp, usize>>>);

/// One entry; it ends with this.
pub(super) struct Age {
    ages: Ages,
    at: Timestamp,
}

impl Ages {
    /// Something is held that was published at that time.
    pub(super) fn hold(&self, at: Timestamp) -> Age {
        *self.0.lock().entry(at).or_default() += 1;
        Age { ages: self.clone(), at }
    }

    /// The age of the oldest, if anything is held.
    pub(super) fn oldest(&self, now: Timestamp) -> Option<Duration> {
        let at = *self.0.lock().first_key_value()?.0;
        Some(Duration::from_micros(now.0.saturating_sub(at.0)))
    }
}

impl Drop for Age {
    fn drop(&mut self) {
        let mut ages = self.ages.0.lock();
        if let Some(count) = ages.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                ages.remove(&self.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_until_all_of_its_age_are_gone() {
        let ages = Ages::default();
        let (a, b, c) = (ages.hold(Timestamp(5)), ages.hold(Timestamp(5)), ages.hold(Timestamp(9)));
        let oldest = || ages.oldest(Timestamp(10)).map(|age| age.as_micros());
        drop(a);
        assert_eq!(oldest(), Some(5));
        drop(b);
        assert_eq!(oldest(), Some(1));
        drop(c);
        assert_eq!(oldest(), None);
    }
}
