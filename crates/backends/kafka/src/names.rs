//! How lanes and subscriptions are called at the broker.

use std::fmt::Write as _;

/// The longest name that Kafka allows for a topic.
pub(crate) const LONGEST: usize = 249;

/// The topic of a lane.
pub(crate) fn topic(prefix: &str, lane: &str) -> String {
    let mut name = prefix.to_owned();
    name.push('.');
    escape(&mut name, lane);
    name
}

/// The consumer group of a subscription. Group ids may hold anything, but tools and access rules are easier with the
/// letters of topics.
pub(crate) fn group(topic: &str, subscription: &str) -> String {
    let mut name = topic.to_owned();
    name.push('.');
    escape(&mut name, subscription);
    name
}

/// Writes what Kafka takes in a topic's name as it is, and everything else as `_xHH`, so that no two names become one.
fn escape(out: &mut String, name: &str) {
    let bytes = name.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let ours = *byte == b'_' && bytes.get(at + 1) == Some(&b'x');
        if !ours && (byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            out.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            write!(out, "_x{byte:02x}").ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_and_distinct() {
        assert_eq!(topic("stoq", "roots"), "stoq.roots");
        assert_eq!(group("stoq.roots", "workers"), "stoq.roots.workers");
        assert_eq!(topic("stoq", "a b"), "stoq.a_x20b");
        assert_eq!(topic("stoq", "a_x20b"), "stoq.a_x5fx20b");
        assert_eq!(topic("stoq", "a_b"), "stoq.a_b");
    }
}
