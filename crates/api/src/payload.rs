//! Payload and request metadata, as stoQ v3 defines and serialises them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::digest::Sha256;
use crate::id::PayloadId;
use crate::json::Json;

/// How a payload is to be treated and what is known of it. Key order is part of the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PayloadMeta {
    /// Destination archivers may keep the payload.
    pub should_archive: bool,
    /// Dispatchers, always-dispatch and `dispatch_to` apply to the payload.
    pub should_scan: bool,
    /// What the provider or the extracting plugin knows: file name, offset, password, ...
    pub extra_data: Map<String, Value>,
    /// Workers to run on the payload, beside those that dispatchers choose.
    pub dispatch_to: Vec<String>,
}

impl Default for PayloadMeta {
    fn default() -> Self {
        Self { should_archive: true, should_scan: true, extra_data: Map::new(), dispatch_to: Vec::new() }
    }
}

impl PayloadMeta {
    /// Metadata with one member in `extra_data`.
    pub fn with(key: &str, value: impl Into<Value>) -> Self {
        let mut meta = Self::default();
        meta.extra_data.insert(key.to_owned(), value.into());
        meta
    }

    /// `extra_data.filename`, where it is text.
    pub fn filename(&self) -> Option<&str> {
        self.extra_data.get("filename").and_then(Value::as_str)
    }
}

/// Metadata as its JSON text: a fraction of the memory of [`PayloadMeta`], for what is held of many payloads at once. On
/// the wire both are the same.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedMeta(Packed);

#[derive(Clone, Debug, PartialEq)]
enum Packed {
    /// `extra_data` alone, an object; the rest is as it is by default, which it nearly always is.
    Extra(Json),
    /// All of it.
    Whole(Json),
}

/// What is looked at of metadata before it is packed. Everything but `extra_data` is small. What has more members, of a later
/// version, is kept whole.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Parts<'a> {
    should_archive: bool,
    should_scan: bool,
    #[serde(borrow)]
    extra_data: Option<&'a RawValue>,
    dispatch_to: Vec<String>,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        let PayloadMeta { should_archive, should_scan, dispatch_to, .. } = PayloadMeta::default();
        Self { should_archive, should_scan, extra_data: None, dispatch_to }
    }
}

impl PackedMeta {
    /// The metadata. Text that is none, which only damage can have left here, is read as no metadata.
    pub fn get(&self) -> PayloadMeta {
        match &self.0 {
            Packed::Extra(extra) => serde_json::from_str(extra.get())
                .map(|extra_data| PayloadMeta { extra_data, ..PayloadMeta::default() })
                .unwrap_or_default(),
            Packed::Whole(json) => serde_json::from_str(json.get()).unwrap_or_default(),
        }
    }
}

impl From<&PayloadMeta> for PackedMeta {
    fn from(meta: &PayloadMeta) -> Self {
        let PayloadMeta { should_archive, should_scan, extra_data, dispatch_to } = meta;
        let plain = *should_archive && *should_scan && dispatch_to.is_empty();
        Self(if plain { Packed::Extra(Json::of(extra_data)) } else { Packed::Whole(Json::of(meta)) })
    }
}

impl Serialize for PackedMeta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Packed::Extra(extra) => Parts { extra_data: Some(extra.raw()), ..Parts::default() }.serialize(serializer),
            Packed::Whole(json) => json.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for PackedMeta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        let extra = match serde_json::from_str(json.get()) {
            Ok(Parts { should_archive: true, should_scan: true, extra_data: Some(extra), dispatch_to })
                if dispatch_to.is_empty() && extra.get().starts_with('{') =>
            {
                Some(extra.to_owned().into())
            }
            _ => None,
        };
        Ok(Self(extra.map_or(Packed::Whole(json), Packed::Extra)))
    }
}

/// What is known of a request as a whole. Key order is part of the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestMeta {
    /// Destination archivers run for this request.
    pub archive_payloads: bool,
    /// Where the request came from, as the operator names it.
    pub source: Option<String>,
    /// Anything else: network context of the reference, values given on the command line.
    pub extra_data: Map<String, Value>,
}

impl Default for RequestMeta {
    fn default() -> Self {
        Self { archive_payloads: true, source: None, extra_data: Map::new() }
    }
}

/// What a payload's task says of the payloads above it, nearest last. At most [`MAX_ANCESTORS`] are carried: the root and
/// the nearest ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Its id.
    pub id: PayloadId,
    /// Its content.
    pub sha256: Sha256,
    /// Its name, if it had one, cut to [`MAX_NAME`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its media type, if a plugin told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mimetype: Option<String>,
    /// The plugin that extracted the next one below from it.
    pub plugin: String,
    /// Passwords that its plugins found and that may open what lies below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passwords: Vec<String>,
}

/// Whether values are nested deeper than [`MAX_NESTING`]. The limit of the JSON reader alone does not do: it is higher,
/// counts what metadata is wrapped in, and starts anew in a value that is given as raw text.
pub fn nests_too_deep(members: &Map<String, Value>) -> bool {
    fn deeper(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(items) => left == 0 || items.iter().any(|v| deeper(v, left - 1)),
            Value::Object(members) => left == 0 || members.values().any(|v| deeper(v, left - 1)),
            _ => false,
        }
    }
    members.values().any(|value| deeper(value, MAX_NESTING))
}

/// Levels of arrays and objects inside the value of one member of metadata.
pub const MAX_NESTING: usize = 64;
/// Ancestors that a task carries.
pub const MAX_ANCESTORS: usize = 16;
/// Characters of a name in an ancestor's summary.
pub const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        for (levels, too_deep) in [(0, false), (MAX_NESTING, false), (MAX_NESTING + 1, true)] {
            let text = if levels == 0 { "{}".to_owned() } else { nested(levels) };
            assert_eq!(nests_too_deep(&serde_json::from_str(&text).unwrap()), too_deep, "{levels}");
        }
    }

    #[test]
    fn packed_metadata_is_the_same_on_the_wire() {
        let plain = PayloadMeta::with("filename", "a \"b\"\u{7f}.exe");
        let treated = [
            plain.clone(),
            PayloadMeta::default(),
            PayloadMeta { should_archive: false, ..plain.clone() },
            PayloadMeta { should_scan: false, ..plain.clone() },
            PayloadMeta { dispatch_to: vec!["yara".to_owned()], ..plain },
        ];
        for meta in treated {
            let text = serde_json::to_string(&meta).unwrap();
            let packed = PackedMeta::from(&meta);
            assert_eq!(packed.get(), meta);
            assert_eq!(serde_json::to_string(&packed).unwrap(), text);
            let read: PackedMeta = serde_json::from_str(&text).unwrap();
            assert_eq!(read, packed);
            let read: PackedMeta = serde_json::from_reader(text.as_bytes()).unwrap();
            assert_eq!(read, packed);
        }
        let damaged = ["5", "null", "[]", r#"{"extra_data":[]}"#, r#"{"extra_data":null}"#, r#"{"should_scan":1}"#];
        let later = r#"{"extra_data":{},"of_a_later_version":1}"#;
        for other in damaged.into_iter().chain([later]) {
            let read: PackedMeta = serde_json::from_str(other).unwrap();
            assert_eq!(read.get(), PayloadMeta::default(), "{other}");
            assert_eq!(serde_json::to_string(&read).unwrap(), other);
        }
    }

    #[test]
    fn schema_of_stoq_v3() {
        assert_eq!(
            serde_json::to_string(&PayloadMeta::with("filename", "a.exe")).unwrap(),
            r#"{"should_archive":true,"should_scan":true,"extra_data":{"filename":"a.exe"},"dispatch_to":[]}"#
        );
        assert_eq!(
            serde_json::to_string(&RequestMeta::default()).unwrap(),
            r#"{"archive_payloads":true,"source":null,"extra_data":{}}"#
        );
        let packed = PackedMeta::from(&PayloadMeta::with("filename", "a.exe"));
        assert_eq!(packed.get(), PayloadMeta::with("filename", "a.exe"));
        assert_eq!(serde_json::to_string(&packed).unwrap(), serde_json::to_string(&packed.get()).unwrap());
        let lacking = serde_json::from_str::<PackedMeta>("{}").unwrap();
        assert_eq!(lacking.get(), PayloadMeta::default());
        let partial: PayloadMeta = serde_json::from_str(r#"{"should_scan":false}"#).unwrap();
        assert!(partial.should_archive && !partial.should_scan);
    }
}
