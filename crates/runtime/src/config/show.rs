//! `stoq config show`: what is in effect, and where each value comes from.

use serde_json::Value;
use stoq_api::scanner::OptionKind;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value as Toml};

use super::settings::Settings;
use super::tree::{Origins, join};
use crate::escape::{acts, visible};
use crate::secret::{MASK, is_secret, mask_urls};
use crate::units::{ByteSize, Duration};

/// The settings as TOML, a comment with the origin behind each value, secrets masked.
pub fn effective(settings: &Settings, origins: &Origins) -> String {
    // Settings are plain data with text keys, which always have a JSON form.
    let mut value = serde_json::to_value(settings).unwrap_or_default();
    with_units(settings, &mut value);
    let mut document = DocumentMut::new();
    *document.as_table_mut() = table("", &value, origins);
    // Names and patterns may hold what acts on a terminal; TOML's own escapes keep the document the same.
    let text = document.to_string();
    text.chars()
        .map(|c| if acts(c) && c != '\n' { format!("\\U{:08X}", u32::from(c)) } else { c.to_string() })
        .collect()
}

/// Sizes and durations of plugins' options, which are plain numbers for the plugins, as people write them.
fn with_units(settings: &Settings, value: &mut Value) {
    let options = |plugin: &str, options: &mut Value| {
        for (name, value) in options.as_object_mut().into_iter().flatten() {
            let shown = match settings.kind_of(plugin, name) {
                Some(OptionKind::Size) => value.as_u64().map(|bytes| ByteSize::bytes(bytes).to_string()),
                Some(OptionKind::Duration) => {
                    value.as_f64().and_then(|secs| Duration::from_secs_f64(secs).ok()).map(|span| span.to_string())
                }
                _ => None,
            };
            if let Some(shown) = shown {
                *value = shown.into();
            }
        }
    };
    let members = |value: Option<&mut Value>, take: &mut dyn FnMut(&str, &mut Value)| {
        let members = value.and_then(Value::as_object_mut).into_iter().flatten();
        members.for_each(|(name, value)| take(name, value));
    };
    members(value.get_mut("plugins"), &mut |plugin, value| options(plugin, value));
    for section in ["providers", "connectors", "archivers", "decorators", "queues", "ledgers", "stores"] {
        members(value.get_mut(section), &mut |_, kinds| members(Some(kinds), &mut |kind, value| options(kind, value)));
    }
}

fn table(path: &str, value: &Value, origins: &Origins) -> Table {
    let mut out = Table::new();
    out.set_implicit(true);
    let members = value.as_object().into_iter().flatten();
    let (tables, values): (Vec<_>, Vec<_>) = members.partition(|(_, v)| v.is_object());
    for (key, value) in values {
        let here = join(path, key);
        let Some(mut value) = toml(key, value) else { continue };
        value.decor_mut().set_suffix(format!("  # from {}", visible(&origins.of(&here).to_string())));
        out.insert(key, Item::Value(value));
        out.set_implicit(false);
    }
    for (key, value) in tables {
        let inner = table(&join(path, key), value, origins);
        // A component without options says something; a section or a plugin without any does not.
        if inner.is_empty() && (path.is_empty() || path == "plugins") {
            continue;
        }
        out.insert(key, Item::Table(inner));
    }
    if out.is_empty() && !path.is_empty() {
        out.set_implicit(false);
    }
    out
}

/// A value, masked if its key says so; nothing for `null`, which TOML does not have.
fn toml(key: &str, value: &Value) -> Option<Toml> {
    if is_secret(key) {
        return Some(MASK.into());
    }
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        Value::String(text) => mask_urls(text).into(),
        Value::Array(items) => items.iter().filter_map(|item| toml("", item)).collect::<Array>().into(),
        Value::Object(members) => {
            members.iter().filter_map(|(k, v)| Some((k.clone(), toml(k, v)?))).collect::<InlineTable>().into()
        }
    })
}
