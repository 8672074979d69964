//! A template over a response, within limits: the response is hostile, and the template may be careless.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use serde::Deserialize;
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};
use stoq_runtime::escape::visible;

/// The template where none is named.
const SHIPPED: &str = include_str!("../../../../config/templates/stoq.tpl");
/// What the template is called in messages.
const NAME: &str = "template";
/// Most bytes of a template.
const TEMPLATE_MAX: u64 = 1 << 20;
/// Most bytes of what a template gives.
pub(super) const OUTPUT_MAX: usize = 4 << 20;
/// Steps of one rendering; each may make some 64 bytes, so this bounds memory as well.
const FUEL: u64 = 4_000_000;
/// Levels of blocks, loops and macros inside each other; a macro counts several times.
const RECURSION: usize = 100;
/// Bytes that cost one step.
const BYTES_PER_FUEL: u64 = 64;
/// How values are made safe for terminals.
const TERMINAL: &str = "terminal";

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// Options of decorator and connector.
pub(super) const OPTIONS: &[OptionInfo] = &[
    option("template", OptionKind::Text, "", "a file with the template; without it, the one that comes with stoq"),
    option("escape", OptionKind::Text, "\"terminal\"", "how printed values are made safe: terminal, html or none"),
];

/// Those options.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    template: String,
    escape: Escape,
}

impl Default for Config {
    fn default() -> Self {
        Self { template: String::new(), escape: Escape::Terminal }
    }
}

/// What is done to values that a template prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Escape {
    /// Characters that act on a terminal become visible.
    Terminal,
    /// Characters that mean something in HTML become entities.
    Html,
    /// Nothing.
    None,
}

/// A template that was read and understood.
pub(super) struct Renderer(Environment<'static>);

impl Renderer {
    /// Reads the template.
    pub(super) fn new(config: &Config) -> Result<Self, BuildError> {
        let wrong = |why: String| BuildError(format!("`template` {:?}: {why}", config.template));
        let source = match config.template.as_str() {
            "" => SHIPPED.to_owned(),
            path => {
                let path = Path::new(path);
                let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
                if size > TEMPLATE_MAX {
                    return Err(wrong(format!("has {size} bytes, {TEMPLATE_MAX} at most")));
                }
                std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?
            }
        };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| wrong(said(&e)))?);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        let escape = config.escape;
        environment.set_auto_escape_callback(move |_| match escape {
            Escape::Terminal => AutoEscape::Custom(TERMINAL.into()),
            Escape::Html => AutoEscape::Html,
            Escape::None => AutoEscape::None,
        });
        environment.set_formatter(format);
        environment.add_filter("visible", |text: String| visible(&text).into_owned());
        environment.add_template_owned(NAME, source).map_err(|e| wrong(said(&e)))?;
        Ok(Self(environment))
    }

    /// Renders it over a response's JSON text; blocks for as long as its steps last. The same text gives the same.
    ///
    /// # Errors
    /// A sentence for a person.
    pub(super) fn render(&self, json: &[u8]) -> Result<String, String> {
        // Read, not serialised: what is hostile must not be taken for the library's own signs.
        let response: Value = serde_json::from_slice(json).map_err(|e| format!("not a response: {e}"))?;
        let context = Value::from(BTreeMap::from([("response", response)]));
        let mut out = Bounded(Vec::new());
        let template = self.0.get_template(NAME).map_err(|e| said(&e))?;
        template.render_captured_to(context, &mut out).map_err(|e| said(&e))?;
        String::from_utf8(out.0).map_err(|e| e.to_string())
    }
}

/// Prints a value.
fn format(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    if !matches!(state.auto_escape(), AutoEscape::Custom(_)) || value.is_safe() || value.is_undefined() {
        let plain = matches!(state.auto_escape(), AutoEscape::Custom(_));
        return if plain { print(out, state, &value.to_string()) } else { escape_formatter(out, state, value) };
    }
    print(out, state, &visible(&value.to_string()))
}

fn print(out: &mut Output, state: &State, text: &str) -> Result<(), Error> {
    state.consume_fuel(text.len() as u64 / BYTES_PER_FUEL)?;
    out.write_str(text).map_err(Error::from)
}

/// What an error of the library says, with its causes and the line.
fn said(error: &Error) -> String {
    let mut text = match error.kind() {
        ErrorKind::OutOfFuel => format!("the template needs more than {FUEL} steps for this response"),
        _ => error.to_string(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    visible(&text).into_owned()
}

/// Takes so much and no more.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_MAX {
            return Err(io::Error::other(format!("the template gives more than {OUTPUT_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
