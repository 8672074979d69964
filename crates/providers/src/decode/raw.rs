//! Format `raw`: the message's body is the payload, whatever it looks like.

use serde_json::Value;
use stoq_api::queue::Message;
use stoq_api::{PayloadMeta, RequestMeta};

use super::{Decoded, MAX_NAME, Meaning, Named, Place, Refusal, base_name};

/// The header that may name the payload.
const FILENAME: &str = "filename";

pub(super) fn decode(message: &Message) -> Result<Meaning, Refusal> {
    let name = message.header(FILENAME).filter(|name| name.len() <= MAX_NAME).and_then(base_name);
    let root = Named {
        place: Place::Content(message.body.clone()),
        meta: PayloadMeta::with(FILENAME, name.map_or(Value::Null, Value::from)),
    };
    Ok(Meaning::Reference(Decoded { roots: vec![root], request_meta: RequestMeta::default() }))
}
