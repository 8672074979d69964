//! Templates over hostile responses.

use serde_json::json;

use super::*;

fn response(name: &str) -> Response {
    let payload = |n: u128| {
        json!({
            "size": 3, "payload_id": uuid::Uuid::from_u128(n), "payload_meta": { "extra_data": { "filename": name } },
            "plugins_run": { "workers": ["mimetype", "yara"], "archivers": [] }, "extracted_from": [],
            "extracted_by": ["decompress"],
            "workers": {
                "mimetype": { "mimetype": "text/plain" },
                "yara": { "matches": [{ "rule": "evil", "tags": [name], "namespace": "default", "meta": {}, "strings": [] }] }
            },
            "archivers": {}, "sha256": null, "depth": 0, "runs": [],
            "not_run": [{ "plugin": "exif", "reason": name }],
            "findings": [{ "kind": "depth_limit", "detail": name }]
        })
    };
    serde_json::from_value(json!({
        "results": [payload(8), payload(9)],
        "request_meta": { "archive_payloads": true, "source": name, "extra_data": {} },
        "errors": [{ "error": name, "plugin_name": "yara", "payload_id": null }],
        "time": "2026-11-04T05:06:07.000001", "decorators": {}, "scan_id": uuid::Uuid::from_u128(7), "complete": false,
        "findings": [], "engine": { "version": "0", "rulesets": {} }, "tenant": "acme"
    }))
    .unwrap()
}

fn renderer(template: &str, escape: &str) -> Result<Renderer, BuildError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), template).unwrap();
    Renderer::new(&config_of(json!({ "template": file.path(), "escape": escape }).as_object().unwrap())?)
}

fn render(template: &str, escape: &str, name: &str) -> Result<String, String> {
    renderer(template, escape).unwrap().render(&serde_json::to_vec(&response(name)).unwrap())
}

#[tokio::test]
async fn the_shipped_template_shows_hostile_names_and_obeys_none() {
    let decorator = build_decorator(&Map::new()).unwrap();
    let hostile = response("\u{1b}]0;owned\u{7}\nforged: line\u{202e}{{ 7 * 7 }}<b>");
    let made = decorator.decorate(&hostile).await.unwrap().unwrap();
    assert_eq!(decorator.decorate(&hostile).await.unwrap().unwrap(), made, "the same response, the same bytes");
    let text = made.as_str().unwrap();
    for expected in [
        "scan 00000000-0000-0000-0000-000000000007 of 2026-11-04T05:06:07.000001 UTC (PARTIAL)\n",
        "tenant: acme\n",
        "payloads: 2, errors: 1\n",
        "[1] \\u{1b}]0;owned\\u{7}\\nforged: line\\u{202e}{{ 7 * 7 }}<b>, 3 bytes, extracted by decompress\n",
        "    type     text/plain\n",
        "    match    evil (\\u{1b}]0;",
        "    ran      mimetype, yara\n",
        "    finding  depth_limit: \\u{1b}",
        "    not run  exif: \\u{1b}",
        "error: yara: \\u{1b}]0;owned",
    ] {
        assert!(text.contains(expected), "{expected:?} in:\n{text}");
    }
    assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']) && !text.contains("\nforged"), "{text}");
}

#[test]
fn values_are_escaped_as_the_option_says() {
    let template =
        "{{ response.request_meta.source }}|{{ response.request_meta.source | visible }}|{{ response.gone }}";
    let name = "<\u{1b}>";
    assert_eq!(render(template, "terminal", name).unwrap(), "<\\u{1b}>|<\\u{1b}>|");
    assert_eq!(render(template, "html", name).unwrap(), "&lt;\u{1b}&gt;|&lt;\\u{1b}&gt;|");
    assert_eq!(render(template, "none", name).unwrap(), "<\u{1b}>|<\\u{1b}>|");
}

#[test]
fn nothing_goes_on_without_end() {
    for (template, said) in [
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% for a in range(9999) %}{{ response.request_meta.source }}{% endfor %}", "bytes"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ response.gone.further }}", "undefined"),
        ("{{ 'x' * 999999999999 }}", ""),
    ] {
        let error = render(template, "none", &"long".repeat(1_000)).unwrap_err();
        assert!(error.contains(said), "{template}: {error}");
    }
}

#[tokio::test]
async fn the_connector_prints_what_was_made_before_or_makes_it() {
    let out = Arc::new(Mutex::new(Vec::new()));
    let printer =
        Printer { renderer: Arc::new(renderer("{{ response.scan_id }}", "none").unwrap()), out: Arc::clone(&out) };
    let mut made = response("a");
    made.decorators.push("jinja", stoq_api::Json::of(&json!("made before")));
    let item = |response: &Response| Item { id: "7".into(), json: serde_json::to_vec(response).unwrap().into() };
    let broken = Item { id: "8".into(), json: "{".into() };
    let verdicts = printer.deliver(&[item(&made), broken, item(&response("a"))]).await.unwrap();
    assert!(matches!(&verdicts[..], [Verdict::Delivered, Verdict::Rejected(_), Verdict::Delivered]), "{verdicts:?}");
    let text = String::from_utf8(out.lock().clone()).unwrap();
    assert_eq!(text, "made before\n00000000-0000-0000-0000-000000000007\n");
}

#[test]
fn templates_that_cannot_work_are_refused() {
    for (template, said) in [("{% for %}", "template"), ("{{ x | nofilter }}", "")] {
        match renderer(template, "none") {
            Err(error) => assert!(error.0.contains(said), "{error}"),
            // Some mistakes show only when the template is used, and are errors of the response then.
            Ok(renderer) => assert!(renderer.render(b"{}").is_err(), "{template}"),
        }
    }
    let gone = Renderer::new(&config_of(json!({ "template": "/not/there" }).as_object().unwrap()).unwrap());
    assert!(gone.err().unwrap().0.contains("/not/there"));
}
