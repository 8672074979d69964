//! Spans of time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration as Std;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of time: a number of seconds, or a number with `ns`, `us`, `ms`, `s`, `m`, `h` or `d`. Written back with the
/// largest unit that says it exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(Std);

/// Why a text is not a span of time; the text says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// Not a number with an optional unit.
    #[error("expected a duration such as \"45 s\", \"250 ms\", \"2 m\" or a number of seconds")]
    Malformed,
    /// Some other unit.
    #[error("unknown unit of time: use ns, us, ms, s, m, h or d")]
    Unit,
    /// Longer than makes sense.
    #[error("too long: at most {MAX_DAYS} d")]
    TooLong,
    /// Below zero.
    #[error("a duration cannot be negative")]
    Negative,
}

/// The longest span, in days. A hundred years outlast any timer and fit into 64 bits of nanoseconds.
const MAX_DAYS: u64 = 36_525;
const DAY: u64 = 86_400_000_000_000;
const MAX_NANOS: u64 = MAX_DAYS * DAY;

/// Largest first, in nanoseconds. The first name of a scale is the one that is written.
const UNITS: [(&str, u64); 11] = [
    ("d", DAY),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("sec", 1_000_000_000),
    ("seconds", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];

impl Duration {
    /// So many seconds, at most a hundred years.
    pub const fn seconds(seconds: u64) -> Self {
        let most = MAX_NANOS / 1_000_000_000;
        Self(Std::from_secs(if seconds > most { most } else { seconds }))
    }

    /// As the standard library's type.
    pub const fn get(self) -> Std {
        self.0
    }

    /// No time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// From a number of seconds.
    ///
    /// # Errors
    /// It is negative, not a number, or too long.
    pub fn from_secs_f64(seconds: f64) -> Result<Self, DurationError> {
        if seconds.is_nan() {
            return Err(DurationError::Malformed);
        }
        if seconds < 0.0 {
            return Err(DurationError::Negative);
        }
        match Std::try_from_secs_f64(seconds) {
            Ok(span) if span.as_nanos() <= u128::from(MAX_NANOS) => Ok(Self(span)),
            _ => Err(DurationError::TooLong),
        }
    }
}

impl From<Duration> for Std {
    fn from(span: Duration) -> Self {
        span.0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text.trim_start().starts_with('-') {
            return Err(DurationError::Negative);
        }
        let (whole, fraction, unit) = super::split(text).ok_or(DurationError::Malformed)?;
        let unit = if unit.is_empty() { "s" } else { unit.trim_end() };
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Unit)?;
        match super::scaled(whole, fraction, *scale) {
            Some(nanos) if nanos <= MAX_NANOS => Ok(Self(Std::from_nanos(nanos))),
            _ => Err(DurationError::TooLong),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (unit, scale) =
            UNITS.iter().find(|(_, scale)| nanos != 0 && nanos.is_multiple_of(u128::from(*scale))).unwrap_or(&("s", 1));
        write!(f, "{} {unit}", nanos / u128::from(*scale))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"45 s\", \"250 ms\" or a number of seconds")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
                if seconds > MAX_NANOS / 1_000_000_000 {
                    return Err(E::custom(DurationError::TooLong));
                }
                Ok(Duration::seconds(seconds))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
                u64::try_from(seconds).map_err(|_| E::custom(DurationError::Negative)).and_then(|s| self.visit_u64(s))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
                Duration::from_secs_f64(seconds).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn read() {
        for (text, millis) in [
            ("45 s", 45_000),
            ("45", 45_000),
            ("250 ms", 250),
            ("2 m", 120_000),
            ("2min", 120_000),
            ("1h", 3_600_000),
            ("1.5 s", 1_500),
            ("0", 0),
            ("1 d", 86_400_000),
        ] {
            assert_eq!(text.parse(), Ok(Duration(Std::from_millis(millis))), "{text}");
        }
    }

    #[test]
    fn refused() {
        use DurationError::*;
        for (text, error) in [
            ("", Malformed),
            ("soon", Malformed),
            ("1. s", Malformed),
            ("-5 s", Negative),
            ("5 M", Unit),
            ("5 weeks", Unit),
            ("36526 d", TooLong),
            ("99999999999999999999", Malformed),
        ] {
            assert_eq!(text.parse::<Duration>(), Err(error), "{text}");
        }
        assert_eq!(Duration::from_secs_f64(-0.5), Err(Negative));
        assert_eq!(Duration::from_secs_f64(f64::NAN), Err(Malformed));
        assert_eq!(Duration::from_secs_f64(f64::INFINITY), Err(TooLong));
    }

    #[test]
    fn written() {
        for (millis, text) in [(0, "0 s"), (1_500, "1500 ms"), (60_000, "1 m"), (90_000, "90 s"), (86_400_000, "1 d")] {
            assert_eq!(Duration(Std::from_millis(millis)).to_string(), text);
        }
    }

    #[test]
    fn serde_takes_numbers_and_text() {
        assert_eq!(serde_json::from_str::<Duration>("1.5").unwrap().get(), Std::from_millis(1_500));
        assert_eq!(serde_json::from_str::<Duration>("\"2 m\"").unwrap(), Duration::seconds(120));
        assert!(serde_json::from_str::<Duration>("-1").is_err());
    }

    proptest! {
        #[test]
        fn written_durations_read_back(nanos in 0..=MAX_NANOS) {
            let span = Duration(Std::from_nanos(nanos));
            prop_assert_eq!(span.to_string().parse::<Duration>().unwrap(), span);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            text.parse::<Duration>().ok();
        }
    }
}
