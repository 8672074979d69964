//! Format `stoq_task`: stoQ v3's task, `{"<archiver>": {…}, …}`, each member a payload that the archiver brings back.
//!
//! stoQ merges what the archiver said, the payload's `extra_data` and `request_meta` into the inner object; so the object
//! becomes the payload's `extra_data` again, and a `request_meta` in it, or beside the archivers, the request's metadata.

use serde_json::{Map, Value};
use stoq_api::{PayloadMeta, RequestMeta, task};

use super::members::{Members, request_meta};
use super::{Decoded, Meaning, Named, Place, Refusal};

/// The member that is no archiver.
const REQUEST_META: &str = "request_meta";

pub(super) fn decode(members: Map<String, Value>) -> Result<Meaning, Refusal> {
    let mut members = Members::new("stoQ task", members);
    let mut meta = members.object(REQUEST_META)?.map(request_meta).transpose()?;
    let mut roots = Vec::new();
    for (archiver, asked) in members.rest() {
        let Value::Object(mut asked) = asked else {
            return Err(Refusal(format!("stoQ task: what {archiver:?} is asked for is not an object")));
        };
        if let Some(inner) = take_request_meta(&mut asked)? {
            meta.get_or_insert(inner);
        }
        roots.push(Named {
            meta: PayloadMeta { extra_data: asked.clone(), ..PayloadMeta::default() },
            place: Place::Remote { place: task::Place::Archive { archiver, task: asked }, size: None },
        });
    }
    Ok(Meaning::Reference(Decoded { roots, request_meta: meta.unwrap_or_default() }))
}

fn take_request_meta(asked: &mut Map<String, Value>) -> Result<Option<RequestMeta>, Refusal> {
    match asked.shift_remove(REQUEST_META) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(members)) => request_meta(members).map(Some),
        Some(_) => Err(Refusal("stoQ task: request_meta is not an object".to_owned())),
    }
}
