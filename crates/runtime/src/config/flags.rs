//! Values given on the command line.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::tree::{Leaf, Node};
use crate::fail::{Origin, Place};

/// One value from the command line, for one key. `Debug` leaves the value out: it may be a secret.
#[derive(Clone)]
pub struct Flag {
    /// The key, such as `["scan", "slots"]`.
    pub path: Vec<String>,
    /// The value: text is read as the key's type; a list of texts for keys that are lists.
    pub value: Value,
    /// The option as the user typed it, for messages: `--slots`.
    pub flag: String,
}

/// Why an argument of the command line cannot be used; the text says how to write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlagError {
    /// Not `PLUGIN:OPT=VALUE`.
    #[error("expected PLUGIN:OPTION=VALUE, such as yara:timeout=30")]
    PluginOption,
    /// Not `KEY=VALUE`.
    #[error("expected KEY=VALUE, such as ticket=4711")]
    RequestExtra,
    /// Not `SECTION.KEY=VALUE`.
    #[error("expected SECTION.KEY=VALUE, such as scan.slots=4")]
    Set,
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flag").field("path", &self.path).field("flag", &self.flag).finish_non_exhaustive()
    }
}

impl Flag {
    /// A value for the dotted `path`, whose parts hold no dots of their own.
    pub fn new(path: &str, value: impl Into<Value>, flag: impl Into<String>) -> Self {
        Self { path: path.split('.').map(str::to_owned).collect(), value: value.into(), flag: flag.into() }
    }

    /// `--plugin-opts PLUGIN:OPTION=VALUE`, split at the first `:` and the first `=` behind it, as in stoQ.
    ///
    /// # Errors
    /// The argument has another form.
    pub fn plugin_option(argument: &str) -> Result<Self, FlagError> {
        let (plugin, rest) = argument.split_once(':').ok_or(FlagError::PluginOption)?;
        let (option, value) = rest.split_once('=').ok_or(FlagError::PluginOption)?;
        let (plugin, option) = (plugin.trim(), option.trim());
        if plugin.is_empty() || option.is_empty() {
            return Err(FlagError::PluginOption);
        }
        Ok(Self {
            path: vec!["plugins".to_owned(), plugin.to_owned(), option.to_owned()],
            value: boolean_or_text(value),
            flag: format!("--plugin-opts {plugin}:{option}"),
        })
    }

    /// `--set SECTION.KEY=VALUE`.
    ///
    /// # Errors
    /// The argument has another form.
    pub fn set(argument: &str) -> Result<Self, FlagError> {
        let (path, value) = argument.split_once('=').ok_or(FlagError::Set)?;
        let path = path.trim();
        if !path.contains('.') || path.split('.').any(str::is_empty) {
            return Err(FlagError::Set);
        }
        Ok(Self::new(path, value, format!("--set {path}")))
    }

    pub(super) fn into_node(self) -> Node {
        let at = Place { origin: Origin::Flag(Arc::from(self.flag)), excerpt: None };
        Node::at_path(&self.path, Leaf { value: self.value, at, text: true })
    }
}

/// `--request-extra KEY=VALUE`: a member of the request's `extra_data`.
///
/// # Errors
/// The argument has another form.
pub fn request_extra(argument: &str) -> Result<(String, Value), FlagError> {
    match argument.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), boolean_or_text(value))),
        _ => Err(FlagError::RequestExtra),
    }
}

fn boolean_or_text(value: &str) -> Value {
    if value.eq_ignore_ascii_case("true") {
        true.into()
    } else if value.eq_ignore_ascii_case("false") {
        false.into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plugin_options() {
        let flag = Flag::plugin_option("yara:dispatch_rules=C:\\a=b:c").unwrap();
        assert_eq!(flag.path, ["plugins", "yara", "dispatch_rules"]);
        assert_eq!((flag.value, flag.flag.as_str()), (json!("C:\\a=b:c"), "--plugin-opts yara:dispatch_rules"));
        assert_eq!(Flag::plugin_option("smtp:omit_body=TRUE").unwrap().value, json!(true));
        assert_eq!(Flag::plugin_option("a:b=").unwrap().value, json!(""));
        for bad in ["", "yara", "yara:timeout", "timeout=5", ":a=b", "a:=b"] {
            assert_eq!(Flag::plugin_option(bad).unwrap_err(), FlagError::PluginOption, "{bad}");
        }
    }

    #[test]
    fn request_extras() {
        assert_eq!(request_extra("ticket=a=b"), Ok(("ticket".to_owned(), json!("a=b"))));
        assert_eq!(request_extra("urgent=False"), Ok(("urgent".to_owned(), json!(false))));
        for bad in ["", "ticket", "=x"] {
            assert_eq!(request_extra(bad), Err(FlagError::RequestExtra), "{bad}");
        }
    }

    #[test]
    fn sets() {
        assert_eq!(Flag::set("scan.slots=4").unwrap().path, ["scan", "slots"]);
        for bad in ["", "slots=4", "scan.slots", "scan.=4", ".slots=4"] {
            assert_eq!(Flag::set(bad).unwrap_err(), FlagError::Set, "{bad}");
        }
    }
}
