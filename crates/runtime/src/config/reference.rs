//! `stoq config reference`: every key there is, with its default and what it means, as a TOML file to start from.

use stoq_api::scanner::{OptionInfo, OptionKind, PluginInfo, PluginKind};

use super::registry::Registry;
use super::schema::{Key, ROOT, Shape};
use super::tree::join;

/// All keys of this program and of the plugins in `registry`. Keys without a default are commented out, with what kind of
/// value they take. The text is a valid configuration that changes nothing.
pub fn reference(registry: &[PluginInfo]) -> String {
    let mut out = String::new();
    keys("", ROOT, &mut out);
    let registry = Registry(registry);
    for name in registry.names(None) {
        let options = registry.options(name, None);
        if options.is_empty() {
            continue;
        }
        out.push_str(&format!("\n[{}]\n", join("plugins", name)));
        for OptionInfo { name, kind, default, help } in options {
            line(name, default, help, described(kind), &mut out);
        }
    }
    out
}

fn keys(path: &str, all: &'static [Key], out: &mut String) {
    let is_table = |key: &&Key| matches!(key.shape, Shape::Table(_) | Shape::Each(_) | Shape::Many(_));
    let is_open = |key: &&Key| matches!(key.shape, Shape::PluginOptions | Shape::Components(_));
    for key in all.iter().filter(|k| !is_table(k) && !is_open(k)) {
        line(key.name, key.default, key.help, &shape(&key.shape), out);
    }
    for key in all.iter().filter(|k| !is_open(k)) {
        let here = join(path, key.name);
        match &key.shape {
            Shape::Table(inner) => {
                out.push_str(&format!("\n# {}\n[{here}]\n", key.help));
                keys(&here, inner, out);
            }
            Shape::Each(inner) => {
                // Names are the operator's, so there is nothing to set; what may stand there is told in comments.
                let mut told = String::new();
                keys(&format!("{here}.NAME"), inner, &mut told);
                out.push_str(&format!("\n# {}\n# [{here}.NAME]\n", key.help));
                commented(&told, out);
            }
            Shape::Many(inner) => {
                let mut told = String::new();
                keys(&here, inner, &mut told);
                out.push_str(&format!("\n# {}\n# [[{here}]]\n", key.help));
                commented(&told, out);
            }
            _ => {}
        }
    }
}

fn commented(told: &str, out: &mut String) {
    for line in told.lines() {
        let hash = if line.is_empty() || line.starts_with('#') { "" } else { "# " };
        out.push_str(&format!("{hash}{line}\n"));
    }
}

fn line(name: &str, default: &str, help: &str, kind: &str, out: &mut String) {
    match default {
        "" => out.push_str(&format!("# {name} =    # {help} ({kind})\n")),
        default => out.push_str(&format!("{name} = {default}    # {help} ({kind})\n")),
    }
}

fn shape(shape: &Shape) -> String {
    let role = |kind: &PluginKind| format!("list of {}s", kind.name().to_ascii_lowercase());
    match shape {
        Shape::Value(kind) => described(*kind).to_owned(),
        Shape::Count { min, max: i64::MAX } => format!("number from {min}"),
        Shape::Count { min, max } => format!("number from {min} to {max}"),
        Shape::Choice(words) => words.join(", "),
        Shape::Path => "path".to_owned(),
        Shape::Globs => "pattern or list of patterns".to_owned(),
        Shape::ResultPath => "path in results".to_owned(),
        Shape::FieldPath => "path in the response".to_owned(),
        Shape::Plugins(kind) | Shape::Active(kind) => role(kind),
        Shape::One(kind) => format!("name of a {}", kind.name().to_ascii_lowercase()),
        Shape::Table(_)
        | Shape::Each(_)
        | Shape::Many(_)
        | Shape::Tables(_)
        | Shape::PluginOptions
        | Shape::Components(_) => "table".to_owned(),
    }
}

const fn described(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Bool => "true or false",
        OptionKind::Int => "whole number",
        OptionKind::Float => "number",
        OptionKind::Text => "text",
        OptionKind::List => "list of texts",
        OptionKind::Size => "size",
        OptionKind::Duration => "duration",
        OptionKind::Files => "files or folders",
        OptionKind::Json => "any value",
    }
}
