//! How long to wait before a try.

use std::time::Duration;

/// The wait before try `attempt` (from 1): anything up to a bound that doubles with each, from `first` to `most`. `random`
/// is from 0 to 1. Spreading over the whole range keeps many connectors from coming back to a sink in step.
pub(crate) fn wait(attempt: u32, first: Duration, most: Duration, random: f64) -> Duration {
    let bound = first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1))).min(most);
    bound.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_doubles_up_to_the_most() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        for (attempt, bound) in [(1, 100), (2, 200), (4, 800), (5, 1_000), (100, 1_000)] {
            assert_eq!(wait(attempt, first, most, 1.0), Duration::from_millis(bound));
            assert_eq!(wait(attempt, first, most, 0.5), Duration::from_millis(bound) / 2);
        }
    }
}
