//! Options that every connector has beside its kind's own.
//!
//! A kind that wants another default lists the option among its own with that default: the first entry of a name counts.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::scanner::{BuildError, OptionInfo, OptionKind};
use stoq_runtime::config::responses::{ResponseWhen, WHEN};

use super::frame::Settings;
use super::when::{Route, When};

const fn option(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> OptionInfo {
    OptionInfo { name, kind, default, help }
}

/// The options, with the defaults of kinds that state none.
pub const OPTIONS: &[OptionInfo] = &[
    option("batch_items", OptionKind::Int, "100", "responses in one batch"),
    option("batch_bytes", OptionKind::Size, "\"4 MiB\"", "bytes of responses in one batch; one may be larger"),
    option("linger", OptionKind::Duration, "\"50 ms\"", "how long the first response of a batch waits for others"),
    option("concurrency", OptionKind::Int, "2", "batches that are tried at a time"),
    option("prefetch", OptionKind::Int, "256", "messages held at a time; 0: as many"),
    option(
        "retry_first",
        OptionKind::Duration,
        "\"200 ms\"",
        "longest wait before the second try; it doubles with each",
    ),
    option("retry_most", OptionKind::Duration, "\"30 s\"", "longest wait before any try"),
    option(
        "max_backlog",
        OptionKind::Int,
        "",
        "messages that may wait before on_backlog applies; without it, any number",
    ),
    option(
        "max_backlog_age",
        OptionKind::Duration,
        "",
        "how old what waits may be before on_backlog applies; without it, any age",
    ),
    option(
        "on_backlog",
        OptionKind::Text,
        "\"block\"",
        "block: workers take no new roots meanwhile; spill: responses go to the payload store, and come back later",
    ),
    option("unspill", OptionKind::Bool, "true", "deliver what was spilled once nothing else waits"),
    option(WHEN, OptionKind::Json, "", "which responses to take; without it, all"),
    option("sample", OptionKind::Float, "", "share, from 0 to 1, of the other responses that is taken all the same"),
];

/// Messages held at a time where nothing else is said.
const PREFETCH: u32 = 256;

/// What is done about a backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBacklog {
    /// Workers take no new roots while it lasts.
    #[default]
    Block,
    /// Responses are moved to the payload store.
    Spill,
}

/// When a connector falls behind, and what is done then.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// Messages that may wait.
    pub messages: Option<u64>,
    /// How old what waits may be.
    pub age: Option<Duration>,
    /// What is done beyond that.
    pub then: OnBacklog,
    /// What was spilled is delivered once nothing else waits.
    pub unspill: bool,
}

impl Backlog {
    /// Whether there is a limit at all.
    pub fn is_limited(&self) -> bool {
        self.messages.is_some() || self.age.is_some()
    }

    /// Whether so many messages, the oldest so old, are too much. What is not known is not.
    pub fn is_over(&self, waiting: Option<u64>, oldest: Option<Duration>) -> bool {
        self.messages.zip(waiting).is_some_and(|(most, waiting)| waiting > most)
            || self.age.zip(oldest).is_some_and(|(most, oldest)| oldest > most)
    }

    /// Whether it is so far below the limits that they may apply again: half of each, or not known.
    pub fn is_under(&self, waiting: Option<u64>, oldest: Option<Duration>) -> bool {
        self.messages.zip(waiting).is_none_or(|(most, waiting)| waiting <= most / 2)
            && self.age.zip(oldest).is_none_or(|(most, oldest)| oldest <= most / 2)
    }
}

/// What the options of all connectors say.
#[derive(Clone)]
pub struct Common {
    /// How it is fed.
    pub settings: Settings,
    /// Which responses it takes.
    pub route: Arc<Route>,
    /// When it falls behind.
    pub backlog: Backlog,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    batch_items: u64,
    batch_bytes: u64,
    linger: f64,
    concurrency: u64,
    prefetch: u32,
    retry_first: f64,
    retry_most: f64,
    max_backlog: Option<u64>,
    max_backlog_age: Option<f64>,
    on_backlog: OnBacklog,
    unspill: bool,
    when: Option<ResponseWhen>,
    sample: Option<f64>,
}

impl Default for Raw {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            batch_items: settings.batch_items as u64,
            batch_bytes: settings.batch_bytes as u64,
            linger: settings.linger.as_secs_f64(),
            concurrency: settings.concurrency as u64,
            prefetch: settings.prefetch,
            retry_first: settings.retry_first.as_secs_f64(),
            retry_most: settings.retry_most.as_secs_f64(),
            max_backlog: None,
            max_backlog_age: None,
            on_backlog: OnBacklog::default(),
            unspill: true,
            when: None,
            sample: None,
        }
    }
}

/// Takes these options out of those of a connector; the others are left for its kind.
///
/// # Errors
/// A value is outside of its bounds; says which.
pub fn split(options: &Map<String, Value>) -> Result<(Common, Map<String, Value>), BuildError> {
    let is_ours = |name: &str| OPTIONS.iter().any(|option| option.name == name);
    let (ours, own): (Map<_, _>, Map<_, _>) = options.clone().into_iter().partition(|(name, _)| is_ours(name));
    let raw: Raw = serde_json::from_value(Value::Object(ours)).map_err(|e| {
        let text = e.to_string();
        // The one option with words.
        BuildError(if text.contains("variant") { format!("on_backlog: {text}") } else { text })
    })?;
    Ok((raw.check()?, own))
}

impl Raw {
    fn check(self) -> Result<Common, BuildError> {
        let wrong = |text: String| Err(BuildError(text));
        let span = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        for (name, value, most) in [
            ("batch_items", self.batch_items, 100_000),
            ("batch_bytes", self.batch_bytes, 1 << 30),
            ("concurrency", self.concurrency, 1_000),
        ] {
            if !(1..=most).contains(&value) {
                return wrong(format!("{name} = {value} is not from 1 to {most}"));
            }
        }
        if self.retry_most < self.retry_first {
            return wrong("retry_most is less than retry_first".to_owned());
        }
        if let Some(sample) = self.sample
            && !(0.0..=1.0).contains(&sample)
        {
            return wrong(format!("sample = {sample} is not a share from 0 to 1"));
        }
        let backlog = Backlog {
            messages: self.max_backlog,
            age: self.max_backlog_age.map(span),
            then: self.on_backlog,
            unspill: self.unspill,
        };
        if backlog.then == OnBacklog::Spill && !backlog.is_limited() {
            return wrong("on_backlog = \"spill\" needs max_backlog or max_backlog_age".to_owned());
        }
        let when = self.when.as_ref().map(When::compile).transpose().map_err(|e| BuildError(format!("when: {e}")))?;
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let settings = Settings {
            batch_items: size(self.batch_items),
            batch_bytes: size(self.batch_bytes),
            linger: span(self.linger),
            concurrency: size(self.concurrency),
            prefetch: if self.prefetch == 0 { PREFETCH } else { self.prefetch },
            retry_first: span(self.retry_first),
            retry_most: span(self.retry_most),
            ..Settings::default()
        };
        Ok(Common { settings, route: Arc::new(Route::new(when, self.sample)), backlog })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: Value) -> Result<(Common, Map<String, Value>), String> {
        split(options.as_object().unwrap()).map_err(|e| e.0)
    }

    #[test]
    fn own_options_are_left() {
        let given = json!({
            "path": "x", "batch_items": 7, "linger": 0.25, "max_backlog_age": 60, "on_backlog": "spill",
            "prefetch": 0, "when": { "matched": true }, "sample": 0.5
        });
        let (common, own) = read(given).unwrap();
        assert_eq!(own.keys().collect::<Vec<_>>(), ["path"]);
        assert_eq!((common.settings.batch_items, common.settings.linger), (7, Duration::from_millis(250)));
        assert_eq!((common.settings.batch_bytes, common.settings.prefetch), (4 << 20, PREFETCH));
        assert_eq!((common.backlog.age, common.backlog.then), (Some(Duration::from_secs(60)), OnBacklog::Spill));
        assert!(!common.route.takes_all());
        assert!(read(json!({})).unwrap().0.route.takes_all());
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (options, says) in [
            (json!({ "batch_items": 0 }), "batch_items = 0"),
            (json!({ "concurrency": 5000 }), "concurrency = 5000"),
            (json!({ "sample": 1.5 }), "sample = 1.5"),
            (json!({ "on_backlog": "drop" }), "on_backlog"),
            (json!({ "on_backlog": "spill" }), "needs max_backlog"),
            (json!({ "retry_first": 9, "retry_most": 1 }), "retry_most"),
        ] {
            let error = read(options.clone()).err().unwrap_or_else(|| panic!("{options}"));
            assert!(error.contains(says), "{options}: {error}");
        }
    }

    #[test]
    fn a_backlog_ends_well_below_its_limit() {
        let backlog = Backlog { messages: Some(10), age: Some(Duration::from_secs(60)), ..Backlog::default() };
        let age = |seconds| Some(Duration::from_secs(seconds));
        for (waiting, oldest, over, under) in [
            (Some(11), None, true, false),
            (Some(10), None, false, false),
            (Some(5), age(30), false, true),
            (Some(5), age(31), false, false),
            (Some(0), age(61), true, false),
            (None, None, false, true),
        ] {
            assert_eq!((backlog.is_over(waiting, oldest), backlog.is_under(waiting, oldest)), (over, under));
        }
    }
}
