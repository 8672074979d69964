//! Names of topics and subscriptions.
//!
//! Ids have 3 to 255 characters out of letters, digits and `-_.~+%`, start with a letter and not with `goog`
//! (https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names). Whatever else a lane's or subscription's name
//! holds is written as `~` and two hexadecimal digits, so that two names never meet. Not as `%`, which the client library puts
//! into URLs as it is.

use std::fmt::Write as _;

use stoq_api::{Fault, FaultKind};

const MOST: usize = 255;
const LEAST: usize = 3;

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Topic,
    Subscription,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Subscription => "subscription",
        }
    }
}

/// The full name of a lane's topic.
pub(crate) fn lane_topic(project: &str, lane: &str) -> Result<String, Fault> {
    ours(project, Kind::Topic, &escaped(lane))
}

/// The full name of one of a lane's subscriptions.
pub(crate) fn lane_subscription(project: &str, lane: &str, name: &str) -> Result<String, Fault> {
    ours(project, Kind::Subscription, &format!("{}.{}", escaped(lane), escaped(name)))
}

fn ours(project: &str, kind: Kind, id: &str) -> Result<String, Fault> {
    if id.starts_with("goog") || !id.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let text = format!(
            "{id:?} cannot be the id of a {}: it has to start with a letter, but not with \"goog\"",
            kind.word()
        );
        return Err(Fault::new(FaultKind::Misconfigured, text));
    }
    full(project, kind, id)
}

/// The full name of somebody else's resource, given by id or by its full name.
pub(crate) fn foreign(project: &str, kind: Kind, name: &str) -> Result<String, Fault> {
    let Some(rest) = name.strip_prefix("projects/") else { return full(project, kind, name) };
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        [project, collection, id] if *collection == format!("{}s", kind.word()) => full(project, kind, id),
        _ => {
            let word = kind.word();
            let text = format!("{name:?} is not the name of a {word}: expected an id or projects/PROJECT/{word}s/ID");
            Err(Fault::new(FaultKind::Misconfigured, text))
        }
    }
}

fn full(project: &str, kind: Kind, id: &str) -> Result<String, Fault> {
    if (LEAST..=MOST).contains(&id.len()) && !id.contains('/') {
        return Ok(format!("projects/{project}/{}s/{id}", kind.word()));
    }
    let text = format!("{id:?} cannot be the id of a {}: Pub/Sub takes {LEAST} to {MOST} characters", kind.word());
    Err(Fault::new(FaultKind::Misconfigured, text))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "~{byte:02X}").ok();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_our_own() {
        assert_eq!(lane_topic("p", "stoq.roots").unwrap(), "projects/p/topics/stoq.roots");
        assert_eq!(lane_subscription("p", "a b/~", "täst").unwrap(), "projects/p/subscriptions/a~20b~2F~7E.t~C3~A4st");
        for wrong in [&"x".repeat(256), "", "ab", "1ab", "google", "ä"] {
            assert_eq!(lane_topic("p", wrong).unwrap_err().kind, FaultKind::Misconfigured, "{wrong}");
        }
    }

    #[test]
    fn of_others() {
        assert_eq!(foreign("p", Kind::Subscription, "abc").unwrap(), "projects/p/subscriptions/abc");
        assert_eq!(foreign("p", Kind::Topic, "projects/q/topics/abc").unwrap(), "projects/q/topics/abc");
        for wrong in ["projects/q/topics/abc", "projects/q/subscriptions/a/b", "projects/q", "a", "a/b/c"] {
            assert_eq!(foreign("p", Kind::Subscription, wrong).unwrap_err().kind, FaultKind::Misconfigured, "{wrong}");
        }
    }
}
