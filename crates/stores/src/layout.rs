//! What objects of a payload store are called, in a directory as in a bucket.

use object_store::path::Path;
use stoq_api::{Fault, FaultKind};

/// Where free names are kept.
const QUARANTINE: &str = "quarantine";

/// `20260102` as a day; nothing else is one.
pub(crate) fn day_of(name: &str) -> Option<u32> {
    let digits = name.len() == 8 && name.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten()
}

/// A path beneath [`QUARANTINE`], made of plain names only.
pub(crate) fn free_name(name: &str) -> Result<Path, Fault> {
    if name.split('/').all(is_plain) {
        return Ok(Path::from(format!("{QUARANTINE}/{name}")));
    }
    let text = format!("cannot keep content under {name:?}: use parts of letters, digits, '.', '_' and '-'");
    Err(Fault::new(FaultKind::Refused, text))
}

fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The path of an object or an area of the shelf: plain names, the first of which is no day and not [`QUARANTINE`].
pub(crate) fn on_shelf(name: &str) -> Result<Path, Fault> {
    let area = name.split('/').next().unwrap_or_default();
    if name.split('/').all(is_plain) && day_of(area).is_none() && area != QUARANTINE {
        return Ok(Path::from(name));
    }
    let text = format!("cannot put {name:?} on the shelf: use parts of letters, digits, '.', '_' and '-'");
    Err(Fault::new(FaultKind::Refused, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_names_stay_in_quarantine() {
        for good in ["a/0a-b.bin", "x", "20260102/a"] {
            assert_eq!(free_name(good).unwrap().as_ref(), format!("quarantine/{good}"));
        }
        for bad in ["", "/x", "a//b", "../x", "a/..", ".hidden", "a b", "ä", "a/\0"] {
            assert!(free_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_shelf_is_beside_days_and_quarantine() {
        assert_eq!(on_shelf("spill/siem/1.a").unwrap().as_ref(), "spill/siem/1.a");
        for bad in ["", "20260102/ab", "quarantine/x", "spill//x", "spill/../20260102", "spill/a b", "/spill"] {
            assert!(on_shelf(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn days_are_eight_digits() {
        assert_eq!(day_of("20260102"), Some(20260102));
        for other in ["quarantine", "2026010", "202601020", "2026-1-2", "+2026010", ""] {
            assert_eq!(day_of(other), None, "{other}");
        }
    }
}
