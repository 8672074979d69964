//! Messages as Pub/Sub carries them: the body as data, headers as attributes, the id of our own messages as one more.

use google_cloud_pubsub::model;
use stoq_api::queue::Message;
use stoq_api::{Fault, FaultKind, Timestamp};

/// The attribute that holds [`Message::id`] on lanes. It is always there, since Pub/Sub refuses a message that has
/// neither data nor attributes.
pub(crate) const ID: &str = "stoq-id";

/// Limits of Pub/Sub: https://cloud.google.com/pubsub/quotas#resource_limits.
const MAX_REQUEST: usize = 10_000_000;
const MAX_ATTRIBUTES: usize = 100;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 1024;
/// What a request holds beside the message: the topic's name, times, lengths.
const REQUEST_OVERHEAD: usize = 1024;
/// The same for an attribute.
const ATTRIBUTE_OVERHEAD: usize = 16;

/// Whose messages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A lane's: our id travels with them.
    Ours,
    /// Somebody else's: what identifies them is what Pub/Sub says.
    Theirs,
}

/// As Pub/Sub takes it.
///
/// # Errors
/// `Refused`: it does not fit.
pub(crate) fn encode(message: Message, owner: Owner) -> Result<model::Message, Fault> {
    let id = message.id.clone();
    let refuse = |why: String| Fault::new(FaultKind::Refused, format!("message {id:?} cannot go to Pub/Sub: {why}"));
    let mut attributes = message.headers;
    if owner == Owner::Ours {
        attributes.push((ID.to_owned(), message.id));
    }
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(refuse(format!("{} headers, {MAX_ATTRIBUTES} at most", attributes.len())));
    }
    let mut size = message.body.len() + REQUEST_OVERHEAD;
    for (name, value) in &attributes {
        if name.is_empty() || name.len() > MAX_KEY || name.starts_with("goog") {
            let text = format!("{name:?} cannot be a header's name (1 to {MAX_KEY} bytes, not starting with \"goog\")");
            return Err(refuse(text));
        }
        if value.len() > MAX_VALUE {
            return Err(refuse(format!("header {name:?} has {} bytes, {MAX_VALUE} at most", value.len())));
        }
        size += name.len() + value.len() + ATTRIBUTE_OVERHEAD;
    }
    if size > MAX_REQUEST {
        let text = format!("it has {} bytes, and a request may have {MAX_REQUEST}", message.body.len());
        return Err(refuse(text));
    }
    if message.body.is_empty() && attributes.is_empty() {
        return Err(refuse("it has neither a body nor headers".to_owned()));
    }
    let count = attributes.len();
    let encoded = model::Message::new().set_data(message.body).set_attributes(attributes);
    if encoded.attributes.len() != count {
        return Err(refuse("two headers have the same name".to_owned()));
    }
    Ok(encoded)
}

/// As we know it, and when Pub/Sub took it. Attributes come without order, so they are sorted.
pub(crate) fn decode(mut message: model::Message, owner: Owner) -> (Message, Option<Timestamp>) {
    let id = match owner {
        Owner::Ours => message.attributes.remove(ID).unwrap_or_default(),
        Owner::Theirs => message.message_id,
    };
    let mut headers: Vec<(String, String)> = message.attributes.into_iter().collect();
    headers.sort_unstable();
    let published = message.publish_time.and_then(|at| {
        let seconds = u64::try_from(at.seconds()).ok()?.checked_mul(1_000_000)?;
        seconds.checked_add(u64::try_from(at.nanos()).ok()? / 1_000).map(Timestamp)
    });
    (Message { id, body: message.data, headers }, published)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: Message, owner: Owner) -> String {
        let fault = encode(message, owner).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Refused);
        fault.to_string()
    }

    fn with(headers: &[(&str, &str)]) -> Message {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Message { headers, ..Message::new("m", "x") }
    }

    #[test]
    fn comes_back_as_it_was() {
        for message in [Message::new("", ""), Message::new("id", vec![0, 255]), with(&[("a", ""), ("b", "ä")])] {
            let mut encoded = encode(message.clone(), Owner::Ours).unwrap();
            encoded.message_id = "17".to_owned();
            encoded.publish_time = Some(google_cloud_wkt::Timestamp::clamp(2, 3_999));
            assert_eq!(decode(encoded, Owner::Ours), (message, Some(Timestamp(2_000_003))));
        }
        let mut theirs = encode(with(&[("k", "v")]), Owner::Theirs).unwrap();
        theirs.message_id = "17".to_owned();
        assert_eq!(decode(theirs, Owner::Theirs).0, Message { id: "17".to_owned(), ..with(&[("k", "v")]) });
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(refused(Message::new("m", vec![0; MAX_REQUEST]), Owner::Ours).contains("10000000 bytes"));
        assert!(encode(Message::new("m", vec![0; MAX_REQUEST - 2 * REQUEST_OVERHEAD]), Owner::Ours).is_ok());
        assert!(refused(with(&[("a", "1"), ("a", "2")]), Owner::Ours).contains("the same name"));
        assert!(refused(with(&[(ID, "1")]), Owner::Ours).contains("the same name"));
        assert!(refused(with(&[("", "1")]), Owner::Ours).contains("name"));
        assert!(refused(with(&[("google", "1")]), Owner::Ours).contains("name"));
        assert!(refused(with(&[("a", &"x".repeat(MAX_VALUE + 1))]), Owner::Ours).contains("1025 bytes"));
        let many: Vec<_> = (0..MAX_ATTRIBUTES).map(|n| (n.to_string(), String::new())).collect();
        assert!(refused(Message { headers: many, ..Message::default() }, Owner::Ours).contains("101 headers"));
        assert!(refused(Message::new("m", ""), Owner::Theirs).contains("neither"));
    }
}
