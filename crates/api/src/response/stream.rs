//! Reading a response one payload at a time, and one error: it may hold very many.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{PayloadResults, Response};
use crate::outcome::ErrorEntry;

/// Reads a response. Each payload goes to `payload` and each error to `error`, in order, and what these give back is in the
/// response.
///
/// # Errors
/// The text is not a response.
pub fn read(
    json: &[u8],
    payload: impl FnMut(PayloadResults) -> Option<PayloadResults>,
    error: impl FnMut(ErrorEntry) -> Option<ErrorEntry>,
) -> serde_json::Result<Response> {
    let mut text = serde_json::Deserializer::from_slice(json);
    let response = text.deserialize_map(Whole { payload, error })?;
    text.end()?;
    Ok(response)
}

/// The response as a whole.
struct Whole<P, E> {
    payload: P,
    error: E,
}

impl<'de, P, E> Visitor<'de> for Whole<P, E>
where
    P: FnMut(PayloadResults) -> Option<PayloadResults>,
    E: FnMut(ErrorEntry) -> Option<ErrorEntry>,
{
    type Value = Response;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a response")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Response, A::Error> {
        const RESULTS: &str = "results";
        const ERRORS: &str = "errors";
        let (mut results, mut errors) = (None, None);
        let mut others = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                RESULTS if results.is_some() => return Err(A::Error::duplicate_field(RESULTS)),
                RESULTS => results = Some(members.next_value_seed(List::of(&mut self.payload))?),
                ERRORS if errors.is_some() => return Err(A::Error::duplicate_field(ERRORS)),
                ERRORS => errors = Some(members.next_value_seed(List::of(&mut self.error))?),
                _ => {
                    others.insert(name, members.next_value()?);
                }
            }
        }
        let results = results.ok_or_else(|| A::Error::missing_field(RESULTS))?;
        let errors = errors.ok_or_else(|| A::Error::missing_field(ERRORS))?;
        for name in [RESULTS, ERRORS] {
            others.insert(name.to_owned(), Value::Array(Vec::new()));
        }
        let frame = Response::deserialize(Value::Object(others)).map_err(A::Error::custom)?;
        Ok(Response { results, errors, ..frame })
    }
}

/// A list of which no more is held than `keep` gives back.
struct List<'a, T, K> {
    keep: &'a mut K,
    of: PhantomData<T>,
}

impl<'a, T, K: FnMut(T) -> Option<T>> List<'a, T, K> {
    fn of(keep: &'a mut K) -> Self {
        Self { keep, of: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>, K: FnMut(T) -> Option<T>> DeserializeSeed<'de> for List<'_, T, K> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<Self::Value, D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, K: FnMut(T) -> Option<T>> Visitor<'de> for List<'_, T, K> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while let Some(item) = list.next_element()? {
            kept.extend((self.keep)(item));
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
        assert_eq!(read(text.as_bytes(), Some, Some).unwrap(), whole);
        let (mut sizes, mut errors) = (Vec::new(), Vec::new());
        let keep = |payload: PayloadResults| {
            sizes.push(payload.size);
            None
        };
        let frame = read(text.as_bytes(), keep, |error| {
            errors.push(error);
            None
        });
        assert_eq!((sizes, &errors), (vec![0, 1, 2], &whole.errors));
        assert_eq!(frame.unwrap(), Response { results: Vec::new(), errors: Vec::new(), ..whole });
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let good = text(payloads());
        let twice = good.replacen("\"unknown\"", "\"results\"", 1);
        let errors_twice = good.replacen("\"unknown\":[1]", "\"errors\":[]", 1);
        let without = good.replacen("\"errors\"", "\"others\"", 1);
        for bad in [
            "",
            "[]",
            "{}",
            &good[..good.len() - 1],
            &format!("{good}x"),
            &text(json!([{}])),
            &text(json!({})),
            &twice,
            &errors_twice,
            &without,
        ] {
            assert!(read(bad.as_bytes(), Some, Some).is_err(), "{bad}");
        }
    }
}
