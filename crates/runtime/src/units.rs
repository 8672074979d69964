//! Sizes and durations as people write them: `50 MB`, `64 KiB`, `45 s`, `250 ms`.

mod duration;
mod size;

pub use duration::{Duration, DurationError};
pub use size::{ByteSize, SizeError};

/// A non-negative decimal number and the unit behind it: `1.5 GiB` is (`1`, `5`, `GiB`).
fn split(text: &str) -> Option<(u64, &str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // More digits than a nanosecond or a tebibyte can need are a mistake, not a figure.
    if fraction.len() > 12
        || !fraction.bytes().all(|b| b.is_ascii_digit())
        || (number.contains('.') && fraction.is_empty())
    {
        return None;
    }
    if whole.is_empty() || whole.starts_with('_') || whole.ends_with('_') {
        return None;
    }
    let whole = whole
        .bytes()
        .filter(|b| *b != b'_')
        .try_fold(0_u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b.checked_sub(b'0')?)))?;
    Some((whole, fraction, unit.trim_start()))
}

/// `whole.fraction` units of `scale` each, rounded down; `None` beyond `u64`.
fn scaled(whole: u64, fraction: &str, scale: u64) -> Option<u64> {
    let mut part = 0_u128;
    let mut divisor = 1_u128;
    for digit in fraction.bytes() {
        part = part * 10 + u128::from(digit - b'0');
        divisor *= 10;
    }
    let part = u64::try_from(part * u128::from(scale) / divisor).ok()?;
    whole.checked_mul(scale)?.checked_add(part)
}
