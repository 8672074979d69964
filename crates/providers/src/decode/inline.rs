//! Format `stoq_payload`: stoQ v3's payload inside JSON, as its Kafka archiver writes it.
//!
//! `{"_is_payload": true, "_content": "<base64>", "_payload_meta": {…}, "_request_meta": {…}}`, where `_payload_meta` is the
//! payload's `extra_data` alone.

use serde_json::{Map, Value};
use stoq_api::PayloadMeta;

use super::members::{Members, request_meta};
use super::{Decoded, Meaning, Named, Place, Refusal, base64};

pub(super) fn decode(members: Map<String, Value>) -> Result<Meaning, Refusal> {
    let mut members = Members::new("stoQ payload", members);
    if members.flag("_is_payload")? != Some(true) {
        return Err(members.refuse("_is_payload is not true"));
    }
    let Some(content) = members.text("_content", usize::MAX)? else {
        return Err(members.refuse("_content is missing"));
    };
    let extra_data = members.object("_payload_meta")?.unwrap_or_default();
    let request_meta = members.object("_request_meta")?.map(request_meta).transpose()?.unwrap_or_default();
    members.done()?;
    let meta = PayloadMeta { extra_data, ..PayloadMeta::default() };
    let root = Named { place: Place::Content(base64::content(&content)?), meta };
    Ok(Meaning::Reference(Decoded { roots: vec![root], request_meta }))
}
