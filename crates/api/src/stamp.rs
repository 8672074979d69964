//! Points in time on the wire: microseconds since the Unix epoch, UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Microseconds since 1970-01-01T00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The wall clock now; the epoch if the clock stands before it.
    pub fn now() -> Self {
        Self(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// This point plus `by`, saturating.
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago this was at `now`; zero if it lies ahead.
    pub fn age(self, now: Self) -> Duration {
        Duration::from_micros(now.0.saturating_sub(self.0))
    }

    /// `2026-01-02T03:04:05.678901`: ISO 8601 without zone, always UTC, always six digits of microseconds.
    pub fn iso(self) -> String {
        let at = self.date_time();
        let (date, (hour, minute, second, micros)) = (at.date(), at.to_hms_micro());
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}")
    }

    /// `20260102`, the day under which the store keeps what belongs to a scan first seen at this time.
    pub fn day(self) -> u32 {
        let date = self.date_time().date();
        u32::try_from(date.year()).unwrap_or(0) * 10_000
            + u32::from(u8::from(date.month())) * 100
            + u32::from(date.day())
    }

    fn date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instant() {
        let t = Timestamp(1_767_323_045_678_901);
        assert_eq!(t.iso(), "2026-01-02T03:04:05.678901");
        assert_eq!(t.day(), 20_260_102);
        assert_eq!(Timestamp(u64::MAX).iso(), "1970-01-01T00:00:00.000000");
    }
}
