//! The members of a JSON object as text: names borrowed where they have no escapes, values as they stand.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Members of an object, in order. What models read of each payload, so nothing of it is copied.
#[derive(Debug, Default)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The member of that name.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// The member at that place.
    pub(super) fn at(&self, place: usize) -> Option<(&str, &'a RawValue)> {
        self.0.get(place).map(|(name, value)| (&**name, *value))
    }

    /// All in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }
}

/// A name. Only with this attribute `serde` borrows it.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_borrowed_unless_they_are_escaped() {
        let json = r#"{ "plain": 1.50, "wi\u0074h": {"a": [2]}, "": null }"#;
        let members: Members<'_> = serde_json::from_str(json).unwrap();
        let all: Vec<_> = members.iter().map(|(name, value)| (name, value.get())).collect();
        assert_eq!(all, [("plain", "1.50"), ("with", r#"{"a": [2]}"#), ("", "null")]);
        assert_eq!(members.get("with").unwrap().get(), r#"{"a": [2]}"#);
        assert!(members.get("none").is_none() && members.at(3).is_none());
        assert_eq!(members.at(0).unwrap().0, "plain");
        assert!(matches!(members.0[0].0, Cow::Borrowed(_)) && matches!(members.0[1].0, Cow::Owned(_)));
        assert!(serde_json::from_str::<Members<'_>>("[]").is_err());
    }
}
