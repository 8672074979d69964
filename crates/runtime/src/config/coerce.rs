//! Values brought into the type that their key has.

use std::path::Path;

use serde_json::{Number, Value};
use stoq_api::scanner::OptionKind;

use super::tree::Leaf;
use crate::escape::shortened;
use crate::secret::mask_urls;
use crate::units::{ByteSize, Duration};

/// Characters of a wrong value that a message repeats.
const MAX_REPEATED: usize = 40;

/// The value of `leaf` as `kind`: sizes in bytes, durations in seconds, files and lists as arrays of text, paths joined to
/// `base`. The error says what was expected.
pub(super) fn value(kind: OptionKind, leaf: &Leaf, base: Option<&Path>) -> Result<Value, String> {
    let given = &leaf.value;
    match kind {
        OptionKind::Bool => boolean(given, leaf.text).ok_or_else(|| "expected true or false".to_owned()),
        OptionKind::Int => {
            integer(given, leaf.text).map(Value::from).ok_or_else(|| "expected a whole number".to_owned())
        }
        OptionKind::Float => float(given, leaf.text).ok_or_else(|| "expected a number".to_owned()),
        OptionKind::Text => text(given, leaf.text).map(Value::from).ok_or_else(|| "expected a text".to_owned()),
        OptionKind::List => list(given, leaf.text),
        OptionKind::Files => {
            let paths = list(given, leaf.text)?;
            Ok(paths.as_array().into_iter().flatten().map(|p| joined(base, p.as_str().unwrap_or_default())).collect())
        }
        OptionKind::Size => size(given),
        OptionKind::Duration => duration(given),
        OptionKind::Json if leaf.text => match given {
            Value::String(text) => serde_json::from_str(text).map_err(|e| format!("expected JSON: {e}")),
            other => Ok(other.clone()),
        },
        OptionKind::Json => Ok(given.clone()),
    }
}

/// A path relative to the folder of the file that named it; as it is where no file did.
pub(super) fn joined(base: Option<&Path>, path: &str) -> Value {
    match base {
        Some(base) if !path.is_empty() => base.join(path).to_string_lossy().into_owned().into(),
        _ => path.into(),
    }
}

pub(super) fn integer(given: &Value, text: bool) -> Option<i64> {
    match given {
        Value::Number(number) => number.as_i64(),
        Value::String(digits) if text => digits.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn text(given: &Value, text: bool) -> Option<String> {
    match given {
        Value::String(text) => Some(text.clone()),
        // `--plugin-opts` turns true and false into booleans whatever the option is.
        Value::Bool(_) | Value::Number(_) if text => Some(given.to_string()),
        _ => None,
    }
}

/// What is there instead, for a message.
pub(super) fn found(given: &Value) -> String {
    match given {
        Value::Null => "found nothing".to_owned(),
        Value::Array(_) => "found a list".to_owned(),
        Value::Object(_) => "found a table".to_owned(),
        Value::String(text) if text.is_empty() => "found an empty text".to_owned(),
        Value::String(text) => format!("found the text \"{}\"", shortened(&mask_urls(text), MAX_REPEATED)),
        other => format!("found {other}"),
    }
}

fn boolean(given: &Value, text: bool) -> Option<Value> {
    match given {
        Value::Bool(_) => Some(given.clone()),
        Value::String(word) if text => match word.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true.into()),
            "false" | "no" | "off" | "0" => Some(false.into()),
            _ => None,
        },
        _ => None,
    }
}

fn float(given: &Value, text: bool) -> Option<Value> {
    match given {
        Value::Number(_) => Some(given.clone()),
        Value::String(digits) if text => digits.trim().parse().ok().and_then(Number::from_f64).map(Value::Number),
        _ => None,
    }
}

fn list(given: &Value, text: bool) -> Result<Value, String> {
    match given {
        Value::Array(items) if items.iter().all(Value::is_string) => Ok(given.clone()),
        Value::Array(_) => Err("expected a list of texts".to_owned()),
        Value::String(items) if text => {
            Ok(items.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
        }
        // In TOML a text with commas is more likely a list written the old way than a name with commas in it.
        Value::String(item) if !item.contains(',') && !item.is_empty() => Ok(Value::Array(vec![given.clone()])),
        Value::String(_) => Err("expected a list such as [\"one\", \"two\"]".to_owned()),
        _ => Err("expected a list of texts".to_owned()),
    }
}

fn size(given: &Value) -> Result<Value, String> {
    let read = match given {
        Value::Number(n) if n.is_i64() => ByteSize::from_i64(n.as_i64().unwrap_or_default()),
        Value::String(text) => text.parse(),
        _ => Err(crate::units::SizeError::Malformed),
    };
    read.map(|size| size.get().into()).map_err(|e| e.to_string())
}

fn duration(given: &Value) -> Result<Value, String> {
    let read: Result<Duration, _> = match given {
        Value::Number(n) => Duration::from_secs_f64(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.parse(),
        _ => Err(crate::units::DurationError::Malformed),
    };
    let span = read.map_err(|e| e.to_string())?.get();
    Ok(if span.subsec_nanos() == 0 { span.as_secs().into() } else { span.as_secs_f64().into() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stoq_api::scanner::OptionKind::*;

    use super::*;

    fn read(kind: OptionKind, value: Value, text: bool) -> Result<Value, String> {
        super::value(kind, &Leaf { value, at: Default::default(), text }, Some(Path::new("/etc/stoq")))
    }

    #[test]
    fn taken() {
        for (kind, given, text, value) in [
            (Bool, json!(true), false, json!(true)),
            (Bool, json!("Yes"), true, json!(true)),
            (Bool, json!("0"), true, json!(false)),
            (Int, json!(-3), false, json!(-3)),
            (Int, json!(" 42 "), true, json!(42)),
            (Float, json!(2), false, json!(2)),
            (Float, json!("0.5"), true, json!(0.5)),
            (Text, json!("x"), false, json!("x")),
            (Text, json!(true), true, json!("true")),
            (List, json!(["a", "b"]), false, json!(["a", "b"])),
            (List, json!("a"), false, json!(["a"])),
            (List, json!(" a, b ,, c"), true, json!(["a", "b", "c"])),
            (List, json!(""), true, json!([])),
            (Size, json!("64 KiB"), false, json!(65_536)),
            (Size, json!(12), false, json!(12)),
            (Size, json!("50000000"), true, json!(50_000_000)),
            (Duration, json!("2 m"), false, json!(120)),
            (Duration, json!("250 ms"), true, json!(0.25)),
            (Duration, json!(1.5), false, json!(1.5)),
            (Files, json!(["rules", "/abs"]), false, json!(["/etc/stoq/rules", "/abs"])),
            (Files, json!("rules"), false, json!(["/etc/stoq/rules"])),
            (Json, json!({ "a": [1] }), false, json!({ "a": [1] })),
            (Json, json!("{\"a\": 1}"), true, json!({ "a": 1 })),
        ] {
            assert_eq!(read(kind, given.clone(), text), Ok(value), "{kind:?} {given}");
        }
    }

    #[test]
    fn refused() {
        for (kind, given, text, says) in [
            (Bool, json!("true"), false, "true or false"),
            (Bool, json!("maybe"), true, "true or false"),
            (Int, json!(1.5), false, "whole number"),
            (Int, json!("5"), false, "whole number"),
            (Int, json!("5x"), true, "whole number"),
            (Float, json!("inf"), true, "a number"),
            (Text, json!(5), false, "a text"),
            (List, json!([1]), false, "list of texts"),
            (List, json!("a, b"), false, "[\"one\", \"two\"]"),
            (List, json!(1), false, "list of texts"),
            (Size, json!(-1), false, "negative"),
            (Size, json!(1.5), false, "a size such as"),
            (Size, json!("5 M"), true, "two sizes"),
            (Duration, json!("5 parsecs"), false, "unit of time"),
            (Duration, json!([]), false, "a duration such as"),
            (Json, json!("{"), true, "expected JSON"),
        ] {
            let error = read(kind, given.clone(), text).expect_err(&given.to_string());
            assert!(error.contains(says), "{kind:?} {given}: {error}");
        }
    }
}
