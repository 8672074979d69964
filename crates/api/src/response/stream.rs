//! Reading a response one payload at a time: it may hold very many.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{PayloadResults, Response};

/// Reads a response. Each payload goes to `keep`, in order, and what that gives back is in the response.
///
/// # Errors
/// The text is not a response.
pub fn read(
    json: &[u8],
    mut keep: impl FnMut(PayloadResults) -> Option<PayloadResults>,
) -> serde_json::Result<Response> {
    let mut text = serde_json::Deserializer::from_slice(json);
    let response = text.deserialize_map(Whole(&mut keep))?;
    text.end()?;
    Ok(response)
}

type Keep<'a> = &'a mut dyn FnMut(PayloadResults) -> Option<PayloadResults>;

/// The response as a whole.
struct Whole<'a>(Keep<'a>);

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = Response;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a response")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Response, A::Error> {
        const RESULTS: &str = "results";
        let mut results = None;
        let mut others = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if name == RESULTS {
                if results.is_some() {
                    return Err(A::Error::duplicate_field(RESULTS));
                }
                results = Some(members.next_value_seed(Payloads(&mut *self.0))?);
            } else {
                others.insert(name, members.next_value()?);
            }
        }
        let results = results.ok_or_else(|| A::Error::missing_field(RESULTS))?;
        others.insert(RESULTS.to_owned(), Value::Array(Vec::new()));
        let frame = Response::deserialize(Value::Object(others)).map_err(A::Error::custom)?;
        Ok(Response { results, ..frame })
    }
}

/// The list of its payloads.
struct Payloads<'a>(Keep<'a>);

impl<'de> DeserializeSeed<'de> for Payloads<'_> {
    type Value = Vec<PayloadResults>;

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<Self::Value, D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Payloads<'_> {
    type Value = Vec<PayloadResults>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of payloads")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(payload) = list.next_element()? {
            kept.extend((self.0)(payload));
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(results: Value) -> String {
        let rest = r#""request_meta":{},"errors":[{"error":"e","plugin_name":null,"payload_id":null}],"time":"t","decorators":{"d":{"b":1,"a":2}},"scan_id":"00000000-0000-0000-0000-000000000001","complete":true,"engine":{"version":"1","rulesets":{}},"unknown":[1]"#;
        format!("{{\"results\":{results},{rest}}}")
    }

    fn payloads() -> Value {
        let payload = |n: usize| {
            json!({ "size": n, "payload_id": "00000000-0000-0000-0000-000000000002", "payload_meta": {},
                "plugins_run": { "workers": ["a"], "archivers": [] }, "extracted_from": [], "extracted_by": [],
                "workers": { "a": { "n": n } }, "archivers": {}, "sha256": null, "depth": 0, "runs": [], "not_run": [],
                "findings": [] })
        };
        (0..3).map(payload).collect()
    }

    #[test]
    fn it_reads_what_reading_at_once_reads() {
        let text = text(payloads());
        let whole: Response = serde_json::from_str(&text).unwrap();
        assert_eq!(read(text.as_bytes(), Some).unwrap(), whole);
        let mut sizes = Vec::new();
        let frame = read(text.as_bytes(), |payload| {
            sizes.push(payload.size);
            None
        });
        assert_eq!((sizes, frame.unwrap()), (vec![0, 1, 2], Response { results: Vec::new(), ..whole }));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let good = text(payloads());
        let twice = good.replacen("\"unknown\"", "\"results\"", 1);
        for bad in
            ["", "[]", "{}", &good[..good.len() - 1], &format!("{good}x"), &text(json!([{}])), &text(json!({})), &twice]
        {
            assert!(read(bad.as_bytes(), Some).is_err(), "{bad}");
        }
    }
}
