//! Matches in the shape that stoQ gives them.

use serde_json::{Map, Value, json};

use super::engine::{MetaValue, RuleMatch};
use super::xor::keys;
use crate::text::decode_fragment;

/// The name space that stoQ reports for rules of a single file, which all of its rules are.
const NAMESPACE: &str = "default";

/// `{tags, namespace, rule, meta, strings: [[offset, "$id", text], …]}`, with at most `limit` strings.
pub(super) fn match_value(rule: &RuleMatch, limit: usize) -> Map<String, Value> {
    let places = rule.strings.iter().flat_map(|string| string.hits.iter().map(move |hit| (hit, &string.id)));
    let strings: Vec<Value> =
        places.take(limit).map(|(hit, id)| json!([hit.offset, id, decode_fragment(&hit.data)])).collect();
    let meta: Map<String, Value> = rule.meta.iter().map(|(name, value)| (name.clone(), meta_value(value))).collect();
    let mut object = Map::new();
    object.insert("tags".into(), json!(rule.tags));
    object.insert("namespace".into(), NAMESPACE.into());
    object.insert("rule".into(), rule.name.as_str().into());
    object.insert("meta".into(), meta.into());
    object.insert("strings".into(), strings.into());
    object
}

fn meta_value(value: &MetaValue) -> Value {
    match value {
        MetaValue::Bytes(text) => decode_fragment(text).into(),
        MetaValue::Int(number) => (*number).into(),
        MetaValue::Bool(truth) => (*truth).into(),
    }
}

/// Adds what `xordecode` needs to the metadata of a match: `xorkey`, the first key as a list of numbers, or `xor_info`,
/// all of them as `[offset, "$id", key]`.
pub(super) fn add_xor_keys(object: &mut Map<String, Value>, rule: &RuleMatch, first_only: bool) {
    let mut keys = keys(rule).peekable();
    let (Some(first), Some(Value::Object(meta))) = (keys.peek(), object.get_mut("meta")) else { return };
    if first_only {
        meta.insert("xorkey".into(), json!(first.key));
    } else {
        let all: Vec<Value> = keys.map(|k| json!([k.offset, k.id, k.key])).collect();
        meta.insert("xor_info".into(), all.into());
    }
}
