//! Names of keys. All keys of a scan have one hash tag, so that a script finds them on one node of a cluster.

use stoq_api::ScanId;

/// The last of the buckets that scans are spread over, each with its own sets of open and frozen scans. Another number
/// would hide scans that are open.
pub(crate) const LAST_BUCKET: u8 = u8::MAX;

/// The names that begin with one prefix.
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The keys of a scan, in the order in which scripts expect them.
    pub(crate) fn of(&self, scan: ScanId) -> [String; 8] {
        let [first, ..] = *scan.0.as_bytes();
        let key = |kind: &str| format!("{{{}:{first}}}:{kind}:{scan}", self.prefix);
        let [due, lease] = self.sets(first);
        [key("s"), key("p"), key("c"), key("o"), key("a"), key("t"), due, lease]
    }

    /// The hash that says how a scan stands.
    pub(crate) fn state(&self, scan: ScanId) -> String {
        let [state, ..] = self.of(scan);
        state
    }

    /// The hash with a scan's outcomes.
    pub(crate) fn outcomes(&self, scan: ScanId) -> String {
        let [_, _, _, outcomes, ..] = self.of(scan);
        outcomes
    }

    /// A bucket's open scans by the end of their time, and frozen ones by the end of their lease.
    pub(crate) fn sets(&self, bucket: u8) -> [String; 2] {
        ["due", "lease"].map(|kind| format!("{{{}:{bucket}}}:{kind}", self.prefix))
    }

    /// Keys that only a look at permissions touches.
    pub(crate) fn probe(&self) -> [String; 8] {
        ["s", "p", "c", "o", "a", "t", "due", "lease"].map(|kind| format!("{{{}:0}}:probe:{kind}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use stoq_api::Sha256;

    use super::*;

    #[test]
    fn one_hash_tag_a_scan() {
        let scan = ScanId::derive("a", b"b", &Sha256::of(b"c"));
        let keys = Keys::new("stoq").of(scan);
        let tag = format!("{{stoq:{}}}:", scan.0.as_bytes()[0]);
        assert!(keys.iter().all(|key| key.starts_with(&tag)), "{keys:?}");
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
        assert_eq!(keys[6..], Keys::new("stoq").sets(scan.0.as_bytes()[0]));
    }
}
