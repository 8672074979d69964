//! Amounts of bytes.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of bytes: a plain number, or a number with `kB`, `MB`, `GB`, `TB` (thousands) or `KiB`, `MiB`, `GiB`, `TiB`
/// (1024s). Written back with the largest unit that says it exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Why a text is not an amount of bytes; the text says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// Not a number with an optional unit.
    #[error("expected a size such as \"50 MB\", \"64 KiB\" or a number of bytes")]
    Malformed,
    /// `K`, `M`, `G`, `T`: thousands or 1024s?
    #[error("the unit \"{0}\" can mean two sizes: write {0}B (powers of 1000) or {0}iB (powers of 1024)")]
    Ambiguous(char),
    /// Some other unit.
    #[error("unknown unit of size: use B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)")]
    Unit,
    /// More than can be counted.
    #[error("too large: at most {} bytes", i64::MAX)]
    TooLarge,
    /// Below zero.
    #[error("a size cannot be negative")]
    Negative,
}

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// So many bytes; more than `i64::MAX`, which no file format here can write, becomes `i64::MAX`.
    pub const fn bytes(bytes: u64) -> Self {
        Self(if bytes > i64::MAX as u64 { i64::MAX as u64 } else { bytes })
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes, as much as this machine can address.
    pub fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// From a number of any sign.
    ///
    /// # Errors
    /// It is negative.
    pub fn from_i64(bytes: i64) -> Result<Self, SizeError> {
        u64::try_from(bytes).map(Self).map_err(|_| SizeError::Negative)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        if text.trim_start().starts_with('-') {
            return Err(SizeError::Negative);
        }
        let (whole, fraction, unit) = super::split(text).ok_or(SizeError::Malformed)?;
        let scale = if unit.is_empty() {
            1
        } else if let Some((_, scale)) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            *scale
        } else {
            let letter = unit.chars().next().unwrap_or(' ').to_ascii_uppercase();
            return Err(match (unit.len(), letter) {
                (1, 'K' | 'M' | 'G' | 'T') => SizeError::Ambiguous(letter),
                _ => SizeError::Unit,
            });
        };
        match super::scaled(whole, fraction, scale) {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Self(bytes)),
            _ => Err(SizeError::TooLarge),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the units that divide, the one with the smallest figure: 365 TB, not 356445312500 KiB.
        let exact = UNITS.iter().filter(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale));
        let (unit, scale) = exact.max_by_key(|(_, scale)| *scale).unwrap_or(&("B", 1));
        write!(f, "{} {unit}", self.0 / scale)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"50 MB\", \"64 KiB\" or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                i64::try_from(bytes).map_err(|_| E::custom(SizeError::TooLarge)).map(|_| ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                ByteSize::from_i64(bytes).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
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
        for (text, bytes) in [
            ("0", 0),
            ("50000000", 50_000_000),
            ("50_000", 50_000),
            ("50 MB", 50_000_000),
            ("50mb", 50_000_000),
            ("64 KiB", 65_536),
            ("  1.5 GiB ", 1_610_612_736),
            ("0.0005 kB", 0),
            ("7 B", 7),
            ("1 TiB", 1 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn refused() {
        use SizeError::*;
        for (text, error) in [
            ("", Malformed),
            ("MB", Malformed),
            ("1.MB", Malformed),
            ("1.2.3 MB", Malformed),
            ("_1", Malformed),
            ("-1", Negative),
            ("5 M", Ambiguous('M')),
            ("5k", Ambiguous('K')),
            ("5 parsecs", Unit),
            ("5 MB/s", Unit),
            ("9223372036854775808", TooLarge),
            ("99999999 TiB", TooLarge),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(error), "{text}");
        }
    }

    #[test]
    fn serde_takes_numbers_and_text() {
        assert_eq!(serde_json::from_str::<ByteSize>("12").unwrap(), ByteSize(12));
        assert_eq!(serde_json::from_str::<ByteSize>("\"2 MiB\"").unwrap(), ByteSize(2 << 20));
        assert_eq!(serde_json::to_string(&ByteSize(50_000_000)).unwrap(), "\"50 MB\"");
        let error = serde_json::from_str::<ByteSize>("true").unwrap_err().to_string();
        assert!(error.contains("a size such as"), "{error}");
    }

    proptest! {
        #[test]
        fn written_sizes_read_back(bytes in 0..=i64::MAX as u64) {
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }

        #[test]
        fn round_figures_are_written_short(count in 1_u64..1000, unit in 0_usize..9) {
            let size = ByteSize(count * UNITS[unit].1);
            prop_assert!(size.to_string().len() <= 8, "{}", size);
            prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            text.parse::<ByteSize>().ok();
        }
    }
}
