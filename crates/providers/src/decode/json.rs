//! JSON from strangers: one object, without a name twice, within bounds.
//!
//! Two readers that differ over a repeated name would see two references in one message, so there is no such message.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use stoq_api::payload::MAX_NESTING;

use super::{MAX_NAME, MAX_VALUES, Refusal};

/// Names with this start mean something to `serde_json` itself, and would be read as something else on a lane.
const RESERVED: &str = "$serde_json::";

/// The members of the one object that `text` is.
pub(super) fn object(text: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let mut values = 0;
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let read = Bounded { depth: 0, values: &mut values }.deserialize(&mut deserializer);
    match read.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Refusal("it is JSON but not an object".to_owned())),
        Err(e) => Err(Refusal(format!("it is not JSON that can be read: {e}"))),
    }
}

struct Bounded<'a> {
    depth: usize,
    values: &'a mut usize,
}

impl Bounded<'_> {
    fn inner<E: Error>(&mut self) -> Result<Bounded<'_>, E> {
        *self.values += 1;
        if *self.values > MAX_VALUES {
            return Err(E::custom(format_args!("more than {MAX_VALUES} values")));
        }
        if self.depth >= MAX_NESTING {
            return Err(E::custom(format_args!("nested deeper than {MAX_NESTING} levels")));
        }
        Ok(Bounded { depth: self.depth + 1, values: self.values })
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.inner()?)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.len() > MAX_NAME {
                return Err(A::Error::custom(format_args!("a name is longer than {MAX_NAME} bytes")));
            }
            if name.starts_with(RESERVED) {
                return Err(A::Error::custom(format_args!("the name {name:?} is reserved")));
            }
            let value = map.next_value_seed(self.inner()?)?;
            match members.entry(name) {
                serde_json::map::Entry::Vacant(entry) => entry.insert(value),
                serde_json::map::Entry::Occupied(entry) => {
                    return Err(A::Error::custom(format_args!("{:?} is there twice", entry.key())));
                }
            };
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> String {
        object(text).unwrap_err().0
    }

    #[test]
    fn one_bounded_object_is_read() {
        let read = object(br#" {"b":[1,-2,3.5,null,true],"a":{"x":"\u00e4"}} "#).unwrap();
        assert_eq!(Value::Object(read).to_string(), "{\"b\":[1,-2,3.5,null,true],\"a\":{\"x\":\"\u{e4}\"}}");
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(object(nested(MAX_NESTING - 1).as_bytes()).is_ok());
        assert!(refused(nested(MAX_NESTING + 1).as_bytes()).contains("nested deeper than 64 levels"));
        assert!(refused(nested(100_000).as_bytes()).contains("nested deeper than 64 levels"));
    }

    #[test]
    fn what_readers_could_disagree_about_is_refused() {
        let many = format!("{{\"a\":[{}0]}}", "0,".repeat(MAX_VALUES));
        let long = format!("{{\"{}\":1}}", "n".repeat(MAX_NAME + 1));
        let cases: [(&[u8], &str); 14] = [
            (br#"{"a":1,"a":2}"#, "\"a\" is there twice"),
            (br#"{"a":1,"\u0061":2}"#, "\"a\" is there twice"),
            (br#"{"x":{"b":1,"b":1}}"#, "\"b\" is there twice"),
            (b"{\"a\":\"\xff\"}", "invalid unicode"),
            (br#"{"a":"\ud800"}"#, "unexpected end of hex escape"),
            (br#"{"a":NaN}"#, "expected value"),
            (br#"{"a":Infinity}"#, "expected value"),
            (br#"{"a":1e999}"#, "number out of range"),
            (br#"{"a":1} {"#, "trailing characters"),
            (b"\xef\xbb\xbf{}", "expected value"),
            (br#"{"$serde_json::private::RawValue":"[[[["}"#, "is reserved"),
            (b"", "EOF"),
            (many.as_bytes(), "more than 16384 values"),
            (long.as_bytes(), "a name is longer than 4096 bytes"),
        ];
        for (text, says) in cases {
            let why = refused(text);
            assert!(why.contains(says), "{}: {why}", String::from_utf8_lossy(&text[..text.len().min(60)]));
        }
        assert_eq!(refused(b"[1]"), "it is JSON but not an object");
        assert_eq!(refused(b"\"a\""), "it is JSON but not an object");
    }
}
