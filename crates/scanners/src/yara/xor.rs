//! Keys with which a matching rule's strings are XORed, so that `xordecode` can undo it.
//!
//! A rule that finds encoded text says in its metadata what the text would be: `xor_plaintext_for_string_<id>` (or, as in
//! stoQ's own rule, `xor_plaintext_<id>`) for the string `$<id>`. The plain text and the match give the key. Strings with
//! YARA's own `xor` modifier need no such metadata.

use super::engine::{Hit, MetaValue, RuleMatch};

/// Greatest key in bytes.
const MAX_KEY: usize = 64;
/// Keys that are derived from the matches of one rule.
const MAX_KEYS: usize = 1_000;

/// A key and the match that gave it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct XorKey<'a> {
    /// Offset of the match.
    pub offset: u64,
    /// The string's identifier.
    pub id: &'a str,
    /// The key, turned so that its first byte belongs to the first byte of the payload.
    pub key: Vec<u8>,
}

/// The keys that the matches of `rule` give, in the order of its strings.
pub(super) fn keys(rule: &RuleMatch) -> impl Iterator<Item = XorKey<'_>> {
    let all = rule.strings.iter().flat_map(move |string| {
        let plain = plaintext(rule, string.id.trim_start_matches('$'));
        string.hits.iter().filter_map(move |hit| {
            let key = key_of(plain, hit)?;
            Some(XorKey { offset: hit.offset, id: &string.id, key })
        })
    });
    all.take(MAX_KEYS)
}

fn plaintext<'a>(rule: &'a RuleMatch, id: &str) -> Option<&'a [u8]> {
    ["xor_plaintext_for_string_", "xor_plaintext_"].iter().find_map(|prefix| {
        rule.meta.iter().rev().find_map(|(name, value)| match value {
            MetaValue::Bytes(text) if name.strip_prefix(prefix) == Some(id) => Some(text.as_slice()),
            _ => None,
        })
    })
}

fn key_of(plain: Option<&[u8]>, hit: &Hit) -> Option<Vec<u8>> {
    let key = plain.and_then(|plain| derive(plain, &hit.data));
    let mut key = key.or_else(|| hit.xor_key.map(|k| vec![k]))?;
    if key.iter().all(|b| *b == 0) {
        return None;
    }
    // The key as derived starts at the match; whoever decodes starts at the payload's first byte.
    let phase = usize::try_from(hit.offset % key.len() as u64).ok()?;
    key.rotate_right(phase);
    Some(key)
}

/// The shortest key, shorter than the text, whose repetition turns `plain` into `encoded`.
fn derive(plain: &[u8], encoded: &[u8]) -> Option<Vec<u8>> {
    if plain.len() != encoded.len() {
        return None;
    }
    let stream: Vec<u8> = plain.iter().zip(encoded).map(|(p, e)| p ^ e).collect();
    let most = MAX_KEY.min(stream.len().saturating_sub(1));
    let length = (1..=most).find(|n| stream.iter().zip(&stream[*n..]).all(|(a, b)| a == b))?;
    Some(stream[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::engine::{RuleSet, StringHits};
    use super::*;

    fn encode(plain: &[u8], key: &[u8]) -> Vec<u8> {
        plain.iter().zip(key.iter().cycle()).map(|(p, k)| p ^ k).collect()
    }

    fn rule(meta: &[(&str, &str)], id: &str, hits: Vec<Hit>) -> RuleMatch {
        RuleMatch {
            set: RuleSet::Dispatch,
            name: "r".into(),
            tags: Vec::new(),
            meta: meta.iter().map(|(k, v)| ((*k).to_owned(), MetaValue::Bytes(v.as_bytes().to_vec()))).collect(),
            strings: vec![StringHits { id: id.into(), hits }],
        }
    }

    fn hit(offset: u64, data: &[u8], xor_key: Option<u8>) -> Hit {
        Hit { offset, data: data.to_vec(), xor_key }
    }

    #[test]
    fn shortest_repeating_prefix() {
        assert_eq!(derive(b"This program", &encode(b"This program", &[21])), Some(vec![21]));
        assert_eq!(derive(b"This program", &encode(b"This program", &[1, 2, 3])), Some(vec![1, 2, 3]));
        assert_eq!(derive(b"abcd", &encode(b"abcd", &[1, 2, 3, 4])), None, "as long as the text");
        assert_eq!(derive(b"abcd", b"abc"), None);
        assert_eq!(derive(b"", b""), None);
        assert_eq!(derive(b"a", b"b"), None);
    }

    #[test]
    fn both_spellings_of_the_metadata_and_the_modifier() {
        let data = encode(b"This program", &[21]);
        let found = |rule: &RuleMatch| keys(rule).map(|k| k.key).collect::<Vec<_>>();
        let hits = || vec![hit(4, &data, None)];
        assert_eq!(found(&rule(&[("xor_plaintext_for_string_a", "This program")], "$a", hits())), [[21]]);
        assert_eq!(found(&rule(&[("xor_plaintext_this_prog", "This program")], "$this_prog", hits())), [[21]]);
        assert!(found(&rule(&[("xor_plaintext_b", "This program")], "$a", hits())).is_empty());
        assert_eq!(found(&rule(&[], "$a", vec![hit(0, &data, Some(21))])), [[21]]);
        assert!(found(&rule(&[], "$a", vec![hit(0, b"plain", Some(0))])).is_empty(), "not encoded at all");
        assert!(found(&rule(&[("xor_plaintext_a", "same")], "$a", vec![hit(0, b"same", None)])).is_empty());
    }

    proptest! {
        /// Decoding the payload from its first byte with the key found at `offset` gives the plain text at `offset`.
        #[test]
        fn key_decodes_from_the_start(offset in 0_usize..40, key in proptest::collection::vec(1_u8.., 1..6)) {
            let plain = b"This program cannot be run";
            let content = encode(&[&vec![0; offset][..], plain].concat(), &key);
            let rule = rule(
                &[("xor_plaintext_a", "This program cannot be run")],
                "$a",
                vec![hit(offset as u64, &content[offset..], None)],
            );
            let found = keys(&rule).next().unwrap().key;
            prop_assert_eq!(&encode(&content, &found)[offset..], &plain[..]);
        }
    }
}
