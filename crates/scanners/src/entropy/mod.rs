//! `entropy`: Shannon entropy of the payload in bits per byte, from 0 to 8.

use std::sync::Arc;

use serde_json::json;
use stoq_api::scanner::{
    Build, BuildError, Built, Context, Output, Payload, PluginInfo, PluginKind, Registration, ScanError, Scanner,
};

/// The plugin's entry in the registry.
pub(crate) fn registration() -> Registration {
    Registration {
        info: PluginInfo {
            name: "entropy",
            description: "Shannon entropy of a payload in bits per byte",
            kinds: &[PluginKind::Worker],
            options: &[],
            required_workers: &[],
        },
        build,
    }
}

fn build(_: &Build) -> Result<Built, BuildError> {
    Ok(Built { scanner: Some(Arc::new(Entropy)), ..Built::default() })
}

struct Entropy;

impl Scanner for Entropy {
    fn scan(&self, payload: &Payload<'_>, _: &mut Context<'_>) -> Result<Output, ScanError> {
        Ok(Output::of(json!({ "entropy": entropy(payload.content) })))
    }
}

/// Bits per byte; 0 where there is nothing, or nothing but one value.
///
/// Terms are summed in the order in which their bytes first occur: the last digits of a sum of doubles depend on its
/// order, and this is the order that gives stoQ's figures.
fn entropy(content: &[u8]) -> f64 {
    let counts = count(content);
    let distinct = counts.iter().filter(|n| **n > 0).count();
    let (mut seen, mut summed) = ([false; 256], 0);
    let (total, mut bits) = (content.len() as f64, 0.0);
    for byte in content {
        if summed == distinct {
            break;
        }
        if !std::mem::replace(&mut seen[usize::from(*byte)], true) {
            summed += 1;
            let p = counts[usize::from(*byte)] as f64 / total;
            bits -= p * (p.ln() / std::f64::consts::LN_2);
        }
    }
    bits
}

/// How often each byte occurs. Four tables, so that runs of one byte do not wait for the store of the one before.
fn count(content: &[u8]) -> [u64; 256] {
    let mut tables = [[0_u64; 256]; 4];
    let quads = content.chunks_exact(4);
    for byte in quads.remainder() {
        tables[0][usize::from(*byte)] += 1;
    }
    for quad in quads {
        for (table, byte) in tables.iter_mut().zip(quad) {
            table[usize::from(*byte)] += 1;
        }
    }
    let mut sum = [0; 256];
    for table in tables {
        for (total, n) in sum.iter_mut().zip(table) {
            *total += n;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "the figures of stoQ are to be met to the last digit")]
    fn known_answers() {
        assert_eq!(entropy(b""), 0.0);
        assert_eq!(entropy(&[7; 1000]), 0.0);
        assert_eq!(entropy(&b"abc".repeat(100)), 1.584_962_500_721_156);
        assert_eq!(entropy(&(0..=255).collect::<Vec<u8>>()), 8.0);
        assert_eq!(entropy(b"ab"), 1.0);
    }

    #[test]
    fn order_of_bytes_matters_in_the_last_digits_only() {
        let forward: Vec<u8> = (0..=255_u8).flat_map(|b| std::iter::repeat_n(b, usize::from(b) + 1)).collect();
        let backward: Vec<u8> = forward.iter().rev().copied().collect();
        assert!((entropy(&forward) - entropy(&backward)).abs() < 1e-12);
        assert!((0.0..=8.0).contains(&entropy(&forward)));
    }
}
