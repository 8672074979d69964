//! A dashboard as one drawing: its panels at their places, each with what a Prometheus answers to its expressions.

use anyhow::{Context, Result};
use serde_json::Value;

use super::panel::{self, Span};
use crate::plot::{self, Area};

/// A dashboard has that many columns. How large one is, and a row, in the drawing's units.
const COLUMNS: f64 = 24.0;
const COLUMN: f64 = 46.0;
const ROW: f64 = 27.0;
/// Around a panel.
const GAP: f64 = 4.0;
/// The dashboard's title.
const HEAD: f64 = 34.0;
const GROUND: &str = "#f4f5f5";
const FONT: u32 = 11;

/// Draws it, and says which panels have nothing to show.
pub(super) fn draw(board: &Value, answers: &Value) -> Result<(String, Vec<String>)> {
    let number = |name: &str| answers[name].as_f64().with_context(|| format!("the answers do not say their {name}"));
    let span = Span { start: number("start")?, end: number("end")?, step: number("step")? };
    let mut content = format!(
        "<text x=\"{GAP}\" y=\"22\"><tspan font-size=\"16\" font-weight=\"bold\">{}</tspan> {}</text>\n",
        plot::escaped(board["title"].as_str().unwrap_or_default()),
        plot::escaped(board["description"].as_str().unwrap_or_default()),
    );
    let (mut height, mut silent) = (HEAD, Vec::new());
    for panel in board["panels"].as_array().into_iter().flatten() {
        let title = panel["title"].as_str().unwrap_or_default();
        let place = |name: &str| panel["gridPos"][name].as_f64().with_context(|| format!("{title}: no gridPos.{name}"));
        let area = Area {
            left: place("x")? * COLUMN + GAP,
            top: HEAD + place("y")? * ROW + GAP,
            width: place("w")? * COLUMN - 2.0 * GAP,
            height: place("h")? * ROW - 2.0 * GAP,
        };
        height = height.max(area.bottom() + GAP);
        let series = panel::series(panel, &answers["panels"][panel["id"].to_string()])?;
        if series.is_empty() && panel["type"] != panel::ROW {
            silent.push(title.to_owned());
        }
        content.push_str(&format!("{}{}</g>\n", opening(panel), panel::draw(panel, &series, area, span)));
    }
    Ok((plot::page(COLUMNS * COLUMN, height, FONT, GROUND, &content), silent))
}

/// What a panel's part of the drawing begins with: its number, title and expressions, by which a drawing that is older than
/// the dashboard is told apart.
pub(super) fn opening(panel: &Value) -> String {
    let targets = panel["targets"].as_array().into_iter().flatten();
    let expressions: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    format!(
        "<g id=\"panel-{}\">\n<title>{}</title>\n<desc>{}</desc>\n",
        panel["id"],
        plot::escaped(panel["title"].as_str().unwrap_or_default()),
        plot::escaped(&expressions.join("\n")),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn panels_lie_where_the_dashboard_has_them_and_silent_ones_are_told() {
        let at = |x: u32, y: u32| json!({ "x": x, "y": y, "w": 12, "h": 8 });
        let board = json!({ "title": "a & b", "panels": [
            { "id": 1, "type": "timeseries", "title": "one", "gridPos": at(0, 0), "targets": [{ "expr": "a > 1", "legendFormat": "{{x}}" }] },
            { "id": 2, "type": "timeseries", "title": "two", "gridPos": at(12, 0), "targets": [{ "expr": "b" }] },
        ] });
        let series = json!([{ "metric": { "x": "first" }, "values": [[100, "1"], [110, "2"]] }]);
        let answers = json!({ "start": 100, "end": 110, "step": 10, "panels": { "1": [series], "2": [[]] } });
        let (drawn, silent) = draw(&board, &answers).expect("a drawing");
        assert_eq!(silent, ["two"]);
        assert!(drawn.contains("<title>one</title>\n<desc>a &gt; 1</desc>") && drawn.contains(">first<"), "{drawn}");
        assert!(drawn.contains("<rect x=\"556\" y=\"38\" width=\"544\" height=\"208\""), "{drawn}");
        assert!(draw(&board, &json!({})).is_err());
    }
}
