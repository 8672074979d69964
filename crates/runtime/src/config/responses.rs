//! Which responses a connector takes: `[connectors.<name>.<kind>.when]`, written down here and applied by connectors.

use serde::{Deserialize, Serialize};
use stoq_api::scanner::OptionKind;

use super::routes::ResultTest;
use super::schema::{Key, Shape};
use crate::units::ByteSize;

/// The option of connectors that holds a [`ResponseWhen`].
pub const WHEN: &str = "when";

/// Conditions on a response, all of which must hold. A condition on something that is not known does not hold.
///
/// Those on payloads hold if there is one payload in the response for which all of them hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseWhen {
    /// A rule of some worker matched (`true`), or none (`false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<bool>,
    /// Every payload has its outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// There are errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<bool>,
    /// There are findings about the scan, or about one of its payloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<bool>,
    /// It is the scan of a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<bool>,
    /// One of these patterns fits the tenant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenant: Vec<String>,
    /// One of these patterns fits the request's source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// One of these patterns fits a plugin that reported an error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// One of these patterns fits the kind of a finding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finding: Vec<String>,
    /// Of a payload: one of these patterns fits its media type, as the worker `mimetype` found it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mimetype: Vec<String>,
    /// Of a payload: one of these patterns fits `extra_data.filename`, regardless of case; `*` crosses slashes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filename: Vec<String>,
    /// Of a payload: it has at least so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_min: Option<ByteSize>,
    /// Of a payload: it has at most so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_max: Option<ByteSize>,
    /// Of a payload: it is a root (`true`), or was extracted (`false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<bool>,
    /// Of a payload: each of these holds for what its workers found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub result: Vec<ResultTest>,
    /// Each of these holds for the response itself; paths begin with a member of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub field: Vec<ResultTest>,
    /// Each of these holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<ResponseWhen>,
    /// One of these holds, where there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<ResponseWhen>,
    /// None of these holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not: Vec<ResponseWhen>,
}

/// Tables within tables of a condition.
pub const MAX_NESTING: usize = 16;

impl ResponseWhen {
    /// Sentences about what cannot be meant, each with the path of its table below this one.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        self.judge("", 0, &mut problems);
        problems
    }

    fn judge(&self, path: &str, depth: usize, problems: &mut Vec<(String, String)>) {
        let mut say = |text: String| problems.push((path.to_owned(), text));
        if *self == Self::default() && depth > 0 {
            say("no condition is written here, so it would hold for every response".to_owned());
        }
        if let (Some(min), Some(max)) = (self.size_min, self.size_max)
            && min > max
        {
            say(format!("it never holds: size_min {min} is more than size_max {max}"));
        }
        for test in self.result.iter().chain(&self.field).filter(|t| t.equals.is_some() && !t.matches.is_empty()) {
            say(format!("the test of {} has both `equals` and `matches`; write two tests: both must hold", test.path));
        }
        if depth == MAX_NESTING {
            say(format!("more than {MAX_NESTING} tables of conditions within one another"));
            return;
        }
        for (name, inner) in [("all", &self.all), ("any", &self.any), ("not", &self.not)] {
            for (index, when) in inner.iter().enumerate() {
                when.judge(&format!("{path}.{name}[{index}]"), depth + 1, problems);
            }
        }
    }
}

const fn key(name: &'static str, shape: Shape, help: &'static str) -> Key {
    Key { name, shape, default: "", help }
}

const BOOL: Shape = Shape::Value(OptionKind::Bool);
const SIZE: Shape = Shape::Value(OptionKind::Size);

/// The keys of a [`ResponseWhen`].
pub(super) static RESPONSE_WHEN: [Key; 19] = [
    key("matched", BOOL, "a rule of some worker matched"),
    key("complete", BOOL, "every payload has its outcome"),
    key("errors", BOOL, "there are errors"),
    key("findings", BOOL, "there are findings"),
    key("replayed", BOOL, "it is the scan of a dead letter"),
    key("tenant", Shape::Globs, "the tenant"),
    key("source", Shape::Globs, "the request's source"),
    key("failed", Shape::Globs, "a plugin that reported an error"),
    key("finding", Shape::Globs, "the kind of a finding"),
    key("mimetype", Shape::Globs, "of a payload: its media type"),
    key("filename", Shape::Globs, "of a payload: its name, regardless of case"),
    key("size_min", SIZE, "of a payload: at least so many bytes"),
    key("size_max", SIZE, "of a payload: at most so many bytes"),
    key("root", BOOL, "of a payload: a root (true) or an extracted one (false)"),
    key("result", Shape::Many(super::schema::RESULT), "of a payload: what a worker found"),
    key("field", Shape::Many(super::schema::FIELD), "any field of the response"),
    key("all", Shape::Tables(&RESPONSE_WHEN), "each of these holds"),
    key("any", Shape::Tables(&RESPONSE_WHEN), "one of these holds"),
    key("not", Shape::Tables(&RESPONSE_WHEN), "none of these holds"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stoq_api::scanner::{OptionInfo, PluginInfo, PluginKind};

    use super::*;
    use crate::config::flags::Flag;
    use crate::config::{Loaded, Sources, load};
    use crate::fail::Problem;

    const fn plugin(name: &'static str, kinds: &'static [PluginKind], options: &'static [OptionInfo]) -> PluginInfo {
        PluginInfo { name, description: "", kinds, options, required_workers: &[] }
    }

    const SIEM: &[PluginInfo] = &[
        plugin(
            "siem",
            &[PluginKind::Connector],
            &[OptionInfo { name: WHEN, kind: OptionKind::Json, default: "", help: "" }],
        ),
        plugin("yara", &[PluginKind::Worker], &[]),
    ];

    fn read(text: &'static str) -> Result<Loaded, Vec<Problem>> {
        load(&Sources::new().shipped("stoq.toml", text), SIEM)
    }

    #[test]
    fn conditions_are_read_in_every_form() {
        let text = "[connectors.a.siem.when]\nsize_min = \"1 KiB\"\ntenant = \"x\"\nnot = { matched = true }\n\
                    [[connectors.a.siem.when.any]]\nresult = { path = \"yara.matches[].rule\", matches = \"evil*\" }\n\
                    field = { path = \"request_meta.extra_data.sensor\", equals = \"dmz\" }\n";
        let loaded = read(text).unwrap();
        let when: ResponseWhen =
            serde_json::from_value(loaded.settings.connectors["a"]["siem"].0[WHEN].clone()).unwrap();
        assert_eq!((when.size_min, when.tenant), (Some(ByteSize::bytes(1024)), vec!["x".to_owned()]));
        assert!(when.not[0].matched == Some(true) && when.any[0].result.len() == 1 && when.any[0].field.len() == 1);
        let flag = Flag::set("connectors.a.siem.when={\"any\": [{\"complete\": false}]}").unwrap();
        let loaded = load(&Sources::new().flags([flag]), SIEM).unwrap();
        assert_eq!(loaded.settings.connectors["a"]["siem"].0[WHEN], json!({ "any": [{ "complete": false }] }));
    }

    #[test]
    fn mistakes_have_a_place_and_a_remedy() {
        for (text, place, says) in [
            ("[connectors.a.siem.when]\nmatchd = true\n", "stoq.toml:2", "`matched`"),
            ("[connectors.a.siem.when]\nmatched = 1\n", "stoq.toml:2", "true or false"),
            ("[connectors.a.siem.when]\ntenant = \"a[\"\n", "stoq.toml:2", "a pattern"),
            ("[connectors.a.siem.when]\nany = [{ fieldd = 1 }]\n", "stoq.toml:2", "`field`"),
            ("[connectors.a.siem.when]\nnot = {}\n", "stoq.toml:", "no condition"),
            ("[connectors.a.siem.when]\nsize_min = 9\nsize_max = 3\n", "stoq.toml:", "never holds"),
            ("[connectors.a.siem.when]\nresult = { path = \"yarra.matches\" }\n", "stoq.toml:2", "`yara`"),
            ("[connectors.a.siem]\nwhen = \"matched\"\n", "stoq.toml:2", "a table of conditions"),
        ] {
            let shown = crate::fail::render(&read(text).unwrap_err());
            assert!(shown.contains(place) && shown.contains(says), "{text}\n{shown}");
        }
    }
}
