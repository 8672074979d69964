//! Which responses a connector takes.
//!
//! The configured conditions are evaluated over the response's JSON text. Where none are configured, no response is read.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::json::{Json, Named};
use stoq_api::plugin::Item;
use stoq_api::{PayloadMeta, Sha256};
use stoq_runtime::config::responses::ResponseWhen;
use stoq_runtime::matcher::{Patterns, Test};

/// The worker that tells media types.
const MIMETYPE: &str = "mimetype";
/// The member of a worker's result that holds what matched.
const MATCHES: &str = "matches";

/// What becomes of one response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The conditions hold, or there are none.
    Passed,
    /// They do not, but it belongs to the sample.
    Sampled,
    /// It is not for this connector.
    Skipped,
}

/// Conditions and sample of one connector.
#[derive(Default)]
pub struct Route {
    when: Option<When>,
    sample: Option<f64>,
}

impl Route {
    /// Takes what `when` holds for, and of the rest the share `sample`. Without `when`, a sample is one of all.
    pub fn new(when: Option<When>, sample: Option<f64>) -> Self {
        Self { when, sample }
    }

    /// It takes everything, so there is nothing to decide.
    pub fn takes_all(&self) -> bool {
        self.when.is_none() && self.sample.is_none()
    }

    /// Decides. A response that cannot be read passes: what is wrong with it is for the sink to say.
    pub fn decide(&self, item: &Item) -> Decision {
        let holds = match &self.when {
            Some(when) => when.holds(&item.json).unwrap_or(true),
            None => self.sample.is_none(),
        };
        if holds {
            return Decision::Passed;
        }
        if self.sample.is_some_and(|share| is_sampled(&item.id, share)) { Decision::Sampled } else { Decision::Skipped }
    }
}

/// Whether a scan belongs to the share: decided by its id alone, so that another try, or another process, says the same.
fn is_sampled(id: &str, share: f64) -> bool {
    let digest = Sha256::of(id.as_bytes());
    let bits = digest.as_bytes().iter().take(6).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    // 48 bits are exact in a float.
    #[expect(clippy::cast_precision_loss, reason = "48 bits fit into its 53")]
    let place = bits as f64 / (1_u64 << 48) as f64;
    place < share
}

/// Conditions, ready to be evaluated.
pub struct When {
    root: Node,
    /// Workers whose results some test looks at.
    workers: BTreeSet<String>,
    /// Some test looks at the response as a whole.
    whole: bool,
}

struct Node {
    matched: Option<bool>,
    complete: Option<bool>,
    errors: Option<bool>,
    findings: Option<bool>,
    replayed: Option<bool>,
    tenant: Patterns,
    source: Patterns,
    failed: Patterns,
    finding: Patterns,
    payload: Option<OfPayload>,
    field: Vec<Test>,
    all: Vec<Node>,
    any: Vec<Node>,
    not: Vec<Node>,
}

struct OfPayload {
    mimetype: Patterns,
    filename: Patterns,
    size_min: Option<u64>,
    size_max: Option<u64>,
    root: Option<bool>,
    result: Vec<Test>,
}

impl When {
    /// Compiles conditions.
    ///
    /// # Errors
    /// A sentence about a pattern or a test that is broken.
    pub fn compile(when: &ResponseWhen) -> Result<Self, String> {
        let mut this = Self { root: Node::compile(when)?, workers: BTreeSet::new(), whole: false };
        note(when, &mut this.workers, &mut this.whole);
        Ok(this)
    }

    /// Whether they hold for a response.
    ///
    /// # Errors
    /// It is none.
    pub fn holds(&self, json: &[u8]) -> Result<bool, serde_json::Error> {
        let mut read: Read = serde_json::from_slice(json)?;
        for payload in &mut read.results {
            payload.found =
                self.workers.iter().filter_map(|w| Some((w.clone(), payload.workers.get(w)?.value()))).collect();
        }
        let whole = if self.whole { serde_json::from_slice(json)? } else { Map::new() };
        Ok(self.root.holds(&read, &whole))
    }
}

/// Notes what conditions look at.
fn note(when: &ResponseWhen, workers: &mut BTreeSet<String>, whole: &mut bool) {
    workers.extend(when.result.iter().map(|test| test.path.worker().to_owned()));
    if !when.mimetype.is_empty() {
        workers.insert(MIMETYPE.to_owned());
    }
    *whole |= !when.field.is_empty();
    when.all.iter().chain(&when.any).chain(&when.not).for_each(|inner| note(inner, workers, whole));
}

/// What conditions look at; a response of another version may lack some of it.
#[derive(Deserialize)]
#[serde(default)]
struct Read {
    results: Vec<Payload>,
    request_meta: Request,
    errors: Vec<ErrorOf>,
    complete: bool,
    findings: Vec<FindingOf>,
    tenant: Option<String>,
    replay_of: Option<serde::de::IgnoredAny>,
}

impl Default for Read {
    fn default() -> Self {
        Self {
            results: Vec::new(),
            request_meta: Request::default(),
            errors: Vec::new(),
            complete: true,
            findings: Vec::new(),
            tenant: None,
            replay_of: None,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    source: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorOf {
    plugin_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FindingOf {
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    size: u64,
    payload_meta: PayloadMeta,
    depth: u16,
    workers: Named<Json>,
    findings: Vec<FindingOf>,
    /// Results of those workers that tests look at.
    #[serde(skip)]
    found: Map<String, Value>,
}

impl Read {
    fn matched(&self) -> bool {
        self.results.iter().flat_map(|payload| payload.workers.iter()).any(|(_, json)| {
            json.get().contains("\"matches\"")
                && json.value().get(MATCHES).and_then(Value::as_array).is_some_and(|matches| !matches.is_empty())
        })
    }

    fn findings(&self) -> impl Iterator<Item = &FindingOf> {
        self.findings.iter().chain(self.results.iter().flat_map(|payload| &payload.findings))
    }
}

impl Node {
    fn compile(when: &ResponseWhen) -> Result<Self, String> {
        let lower: Vec<String> = when.filename.iter().map(|glob| glob.to_lowercase()).collect();
        let tests = |tests: &[_]| tests.iter().map(Test::compile).collect::<Result<Vec<_>, _>>();
        let nodes = |inner: &[ResponseWhen]| inner.iter().map(Self::compile).collect::<Result<Vec<_>, _>>();
        let payload = OfPayload {
            mimetype: Patterns::compile(&when.mimetype)?,
            filename: Patterns::compile(&lower)?,
            size_min: when.size_min.map(|size| size.get()),
            size_max: when.size_max.map(|size| size.get()),
            root: when.root,
            result: tests(&when.result)?,
        };
        Ok(Self {
            matched: when.matched,
            complete: when.complete,
            errors: when.errors,
            findings: when.findings,
            replayed: when.replayed,
            tenant: Patterns::compile(&when.tenant)?,
            source: Patterns::compile(&when.source)?,
            failed: Patterns::compile(&when.failed)?,
            finding: Patterns::compile(&when.finding)?,
            payload: payload.asks().then_some(payload),
            field: tests(&when.field)?,
            all: nodes(&when.all)?,
            any: nodes(&when.any)?,
            not: nodes(&when.not)?,
        })
    }

    fn holds(&self, read: &Read, whole: &Map<String, Value>) -> bool {
        let is = |wanted: Option<bool>, really: &dyn Fn() -> bool| wanted.is_none_or(|wanted| wanted == really());
        is(self.complete, &|| read.complete)
            && is(self.errors, &|| !read.errors.is_empty())
            && is(self.findings, &|| read.findings().next().is_some())
            && is(self.replayed, &|| read.replay_of.is_some())
            && self.tenant.allow(read.tenant.as_deref())
            && self.source.allow(read.request_meta.source.as_deref())
            && (self.failed.is_empty() || read.errors.iter().any(|e| self.failed.fit(e.plugin_name.as_deref())))
            && (self.finding.is_empty() || read.findings().any(|finding| self.finding.fit(Some(&finding.kind))))
            && is(self.matched, &|| read.matched())
            && self.payload.as_ref().is_none_or(|wanted| read.results.iter().any(|payload| wanted.holds(payload)))
            && self.field.iter().all(|test| test.holds(whole))
            && self.all.iter().all(|node| node.holds(read, whole))
            && (self.any.is_empty() || self.any.iter().any(|node| node.holds(read, whole)))
            && !self.not.iter().any(|node| node.holds(read, whole))
    }
}

impl OfPayload {
    fn asks(&self) -> bool {
        !self.mimetype.is_empty()
            || !self.filename.is_empty()
            || self.size_min.or(self.size_max).is_some()
            || self.root.is_some()
            || !self.result.is_empty()
    }

    fn holds(&self, payload: &Payload) -> bool {
        let mimetype = || payload.found.get(MIMETYPE)?.get(MIMETYPE)?.as_str();
        self.size_min.is_none_or(|least| payload.size >= least)
            && self.size_max.is_none_or(|most| payload.size <= most)
            && self.root.is_none_or(|root| root == (payload.depth == 0))
            && self.filename.allow(payload.payload_meta.filename().map(str::to_lowercase).as_deref())
            && self.mimetype.allow(mimetype())
            && self.result.iter().all(|test| test.holds(&payload.found))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn response() -> Value {
        json!({
            "scan_id": "s", "complete": false, "tenant": "acme",
            "request_meta": { "source": "mail-gw", "extra_data": { "sensor": "dmz-1" } },
            "errors": [{ "error": "gone wrong", "plugin_name": "exif", "payload_id": null }],
            "findings": [{ "kind": "time_limit", "detail": "late" }],
            "results": [
                { "size": 5000, "depth": 0, "payload_meta": { "extra_data": { "filename": "Invoice.ZIP" } },
                  "workers": { "mimetype": { "mimetype": "application/zip" }, "yara": { "matches": [] } } },
                { "size": 40, "depth": 1, "payload_meta": {}, "findings": [{ "kind": "plugin_stopped" }],
                  "workers": { "mimetype": { "mimetype": "text/plain" }, "yara": { "matches": [{ "rule": "evil_js" }] } } },
            ],
        })
    }

    fn holds(when: &Value, response: &Value) -> bool {
        let when: ResponseWhen = serde_json::from_value(when.clone()).unwrap();
        assert_eq!(when.problems(), [], "{when:?}");
        When::compile(&when).unwrap().holds(response.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_holds_and_what_does_not() {
        for (when, expected) in [
            (json!({ "matched": true }), true),
            (json!({ "matched": false }), false),
            (json!({ "complete": false }), true),
            (json!({ "errors": true, "findings": true, "replayed": false }), true),
            (json!({ "tenant": ["ac*"] }), true),
            (json!({ "tenant": ["other"] }), false),
            (json!({ "source": ["x", "mail-*"] }), true),
            (json!({ "failed": ["exif"] }), true),
            (json!({ "failed": ["yara"] }), false),
            (json!({ "finding": ["*_stopped"] }), true),
            (json!({ "finding": ["byte_limit"] }), false),
            (json!({ "mimetype": ["application/*"], "root": true }), true),
            (json!({ "mimetype": ["application/*"], "root": false }), false),
            (json!({ "filename": ["*.zip"] }), true),
            (json!({ "size_min": 4000, "size_max": 6000 }), true),
            (json!({ "size_min": 6000 }), false),
            (json!({ "result": [{ "path": "yara.matches[].rule", "matches": ["evil_*"] }] }), true),
            (
                json!({ "mimetype": ["application/*"], "result": [{ "path": "yara.matches[].rule", "matches": ["evil_*"] }] }),
                false,
            ),
            (json!({ "field": [{ "path": "request_meta.extra_data.sensor", "equals": "dmz-1" }] }), true),
            (json!({ "field": [{ "path": "results[].size", "equals": 40 }] }), true),
            (json!({ "any": [{ "tenant": ["x"] }, { "matched": true }] }), true),
            (json!({ "any": [{ "tenant": ["x"] }, { "matched": false }] }), false),
            (json!({ "all": [{ "matched": true }, { "not": [{ "tenant": ["acme"] }] }] }), false),
            (json!({ "not": [{ "complete": true }, { "errors": false }] }), true),
        ] {
            assert_eq!(holds(&when, &response()), expected, "{when}");
        }
    }

    #[test]
    fn what_is_not_there_does_not_hold() {
        for when in [
            json!({ "tenant": ["*"] }),
            json!({ "source": ["*"] }),
            json!({ "mimetype": ["*"] }),
            json!({ "matched": true }),
            json!({ "field": [{ "path": "request_meta.source" }] }),
        ] {
            assert!(!holds(&when, &json!({})), "{when}");
        }
    }

    #[test]
    fn a_sample_is_the_same_every_time_and_of_its_size() {
        let when: ResponseWhen = serde_json::from_value(json!({ "matched": true })).unwrap();
        let route = Route::new(Some(When::compile(&when).unwrap()), Some(0.1));
        let decide = |n: u32| route.decide(&Item { id: format!("scan-{n}"), json: "{}".into() });
        let all: Vec<_> = (0..10_000).map(decide).collect();
        assert_eq!(all, (0..10_000).map(decide).collect::<Vec<_>>());
        let sampled = all.iter().filter(|decision| **decision == Decision::Sampled).count();
        assert!((800..1200).contains(&sampled), "{sampled} of 10000");
        let item = |json: &'static str| Item { id: "a".to_owned(), json: json.into() };
        assert_eq!(Route::default().decide(&item("{}")), Decision::Passed);
        assert_eq!(Route::new(None, Some(0.0)).decide(&item("{}")), Decision::Skipped);
        assert_eq!(Route::new(None, Some(1.0)).decide(&item("{}")), Decision::Sampled);
        assert_eq!(Route::new(Some(When::compile(&when).unwrap()), None).decide(&item("no JSON")), Decision::Passed);
    }
}
