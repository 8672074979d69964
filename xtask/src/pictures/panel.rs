//! One panel of a dashboard: curves with a legend, or one number, as its description says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::units;
use crate::plot::{Area, Curve, escaped};

/// The type of what is only a heading.
pub(super) const ROW: &str = "row";
/// Colours of curves, in turn.
const COLOURS: [&str; 12] = [
    "#3274d9", "#56a64b", "#e0b400", "#c4162a", "#8f3bb8", "#1f9e9e", "#ff780a", "#7c7c7c", "#19730e", "#b877d9",
    "#895129", "#0b3c8c",
];
/// Above the curves, for the title; at their left, for the scale; below them, for the axis.
const TITLE: f64 = 28.0;
const SCALE: f64 = 52.0;
const AXIS: f64 = 24.0;
/// The legend: height of a line, width of a letter, the mark before a name, the longest name and most lines.
const LINE: f64 = 14.0;
const LETTER: f64 = 6.2;
const MARK: f64 = 22.0;
const NAME: usize = 34;
const LINES: f64 = 3.0;
/// Steps of the scale.
const STEPS: u32 = 4;
/// A curve is broken where nothing was told for more than so many steps.
const BROKEN: f64 = 1.5;
const MINUTE: f64 = 60.0;

/// The time that is shown, in seconds.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: f64,
    pub(super) end: f64,
    /// Between two points.
    pub(super) step: f64,
}

impl Span {
    fn share(self, at: u32) -> f64 {
        (f64::from(at) - self.start) / (self.end - self.start).max(1.0)
    }

    /// Labels of the axis, for a panel so wide: minutes since the start.
    fn labels(self, width: f64) -> Vec<(f64, String)> {
        let minutes = (self.end - self.start) / MINUTE;
        let every = units::ceiling(minutes / (width / 70.0).floor().max(1.0)).max(1.0);
        let all = (0_u32..).map(|n| f64::from(n) * every).take_while(|at| *at <= minutes);
        all.map(|at| (at / minutes.max(1.0), if at == 0.0 { "0".to_owned() } else { format!("{at} min") })).collect()
    }
}

/// What a line of the legend stands for.
pub(super) struct Series {
    name: String,
    /// Values by their second.
    points: BTreeMap<u32, f64>,
}

/// The series that Prometheus told for each expression of a panel.
pub(super) fn series(panel: &Value, answers: &Value) -> Result<Vec<Series>> {
    let mut all = Vec::new();
    let targets = panel["targets"].as_array().into_iter().flatten();
    for (at, target) in targets.enumerate() {
        let answer = answers[at].as_array().with_context(|| format!("{}: was not asked for", target["expr"]))?;
        for told in answer {
            let mut points = BTreeMap::new();
            for point in told["values"].as_array().into_iter().flatten() {
                let at = point[0].as_u64().and_then(|at| u32::try_from(at).ok()).context("a time is no second")?;
                let value: f64 = point[1].as_str().unwrap_or_default().parse().context("a value is no number")?;
                // Nothing by nothing is not drawn.
                if value.is_finite() {
                    points.insert(at, value);
                }
            }
            let name = legend(target["legendFormat"].as_str().unwrap_or_default(), &told["metric"]);
            if !points.is_empty() {
                all.push(Series { name, points });
            }
        }
    }
    Ok(all)
}

/// A series' name in the legend: `{{label}}` stands for that label's value.
fn legend(format: &str, labels: &Value) -> String {
    let mut parts = format.split("{{");
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (label, rest) = part.split_once("}}").unwrap_or((part, ""));
        name.push_str(labels[label.trim()].as_str().unwrap_or_default());
        name.push_str(rest);
    }
    name.trim().to_owned()
}

/// Draws a panel into its area.
pub(super) fn draw(panel: &Value, series: &[Series], area: Area, span: Span) -> String {
    let title = escaped(panel["title"].as_str().unwrap_or_default());
    let Area { left, top, width, height } = area;
    if panel["type"] == ROW {
        let y = top + height / 2.0 + 5.0;
        return format!("<text x=\"{left}\" y=\"{y}\" font-size=\"13\" font-weight=\"bold\">{title}</text>\n");
    }
    let mut text = format!(
        "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"2\" fill=\"#fff\" stroke=\"#d8d9da\"/>\n\
         <text x=\"{}\" y=\"{}\" font-weight=\"bold\">{title}</text>\n",
        left + 8.0,
        top + 17.0,
    );
    if series.is_empty() {
        let (x, y) = (left + width / 2.0, top + height / 2.0 + 8.0);
        text.push_str(&format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#888\">No data</text>\n"));
    } else if panel["type"] == "stat" {
        text.push_str(&number(panel, &series[0], area, span));
    } else {
        text.push_str(&graph(panel, series, area, span));
    }
    text
}

fn unit(panel: &Value) -> &str {
    panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or("short")
}

/// The last value in the colour of the threshold that it has reached, above its curve.
fn number(panel: &Value, series: &Series, area: Area, span: Span) -> String {
    let last = series.points.last_key_value().map_or(0.0, |(_, value)| *value);
    let mut steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"].as_array().into_iter().flatten();
    let reached = steps.rfind(|step| step["value"].as_f64().is_none_or(|from| last >= from));
    let colour = match reached.and_then(|step| step["color"].as_str()) {
        Some("red") => "#c4162a",
        Some("orange" | "yellow") => "#e0b400",
        _ => "#37872d",
    };
    let half = area.height / 2.0;
    let low = Area { left: area.left + 1.0, top: area.top + half + 6.0, width: area.width - 2.0, height: half - 7.0 };
    let points: Vec<(f64, f64)> = series.points.iter().map(|(at, value)| (span.share(*at), value.max(0.0))).collect();
    let most = points.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let curve = Curve { colour, points };
    format!(
        "{}{}<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-size=\"32\" fill=\"{colour}\">{}</text>\n",
        low.below(&curve, &[], most),
        low.curve(&curve, most),
        area.left + area.width / 2.0,
        area.top + half,
        units::shown(last, unit(panel)),
    )
}

/// Curves over scale and axis, with the legend below.
fn graph(panel: &Value, series: &[Series], area: Area, span: Span) -> String {
    let (names, lines) = names(series, area);
    let inner = Area {
        left: area.left + SCALE,
        top: area.top + TITLE,
        width: area.width - SCALE - 12.0,
        height: area.height - TITLE - AXIS - LINE * lines - 6.0,
    };
    let stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal";
    let shapes = if stacked { stack(series, span) } else { apart(series, span) };
    let values = shapes.iter().flat_map(|(curve, _)| curve.points.iter().map(|(_, value)| *value));
    let most = units::top(values.fold(0.0, f64::max), unit(panel));
    let mut text = String::new();
    for step in 0..=STEPS {
        let value = most * f64::from(step) / f64::from(STEPS);
        let y = inner.bottom() - inner.height * f64::from(step) / f64::from(STEPS);
        let (right, mark) = (inner.left + inner.width, units::shown(value, unit(panel)));
        text.push_str(&format!("<path d=\"M{} {y:.1}H{right:.1}\" stroke=\"#e9edf2\"/>\n", inner.left));
        text.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{mark}</text>\n",
            inner.left - 5.0,
            y + 4.0
        ));
    }
    for (curve, base) in &shapes {
        text.push_str(&inner.below(curve, base, most));
        text.push_str(&inner.curve(curve, most));
    }
    text + &inner.axes() + &inner.labels(&span.labels(inner.width)) + &names
}

/// A curve, and the one below it, if it stands on one.
type Shape = (Curve, Vec<(f64, f64)>);

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

/// Each curve on the axis, in pieces where something is missing.
fn apart(series: &[Series], span: Span) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for (n, series) in series.iter().enumerate() {
        let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut before = None;
        for (at, value) in &series.points {
            let point = (span.share(*at), value.max(0.0));
            let broken = before.replace(*at).is_none_or(|before| f64::from(at - before) > span.step * BROKEN);
            match pieces.last_mut() {
                Some(piece) if !broken => piece.push(point),
                _ => pieces.push(vec![point]),
            }
        }
        shapes.extend(pieces.into_iter().map(|points| (Curve { colour: colour(n), points }, Vec::new())));
    }
    shapes
}

/// Each curve on the sum of those before it.
fn stack(series: &[Series], span: Span) -> Vec<Shape> {
    let times: BTreeSet<u32> = series.iter().flat_map(|series| series.points.keys().copied()).collect();
    let mut base: Vec<(f64, f64)> = times.iter().map(|at| (span.share(*at), 0.0)).collect();
    let mut shapes = Vec::new();
    for (n, series) in series.iter().enumerate() {
        let sums = times.iter().zip(&base);
        let points: Vec<(f64, f64)> = sums
            .map(|(at, (share, sum))| (*share, sum + series.points.get(at).copied().unwrap_or_default().max(0.0)))
            .collect();
        shapes.push((Curve { colour: colour(n), points: points.clone() }, std::mem::replace(&mut base, points)));
    }
    shapes
}

/// The legend at the bottom of a panel, and how many lines it takes.
fn names(series: &[Series], area: Area) -> (String, f64) {
    let (mut x, mut line) = (0.0, 0.0);
    let mut placed = Vec::new();
    for (n, series) in series.iter().enumerate() {
        let name = fitted(&series.name);
        let wide = MARK + name.chars().map(|_| LETTER).sum::<f64>();
        if x > 0.0 && x + wide > area.width - 16.0 {
            (x, line) = (0.0, line + 1.0);
        }
        placed.push((n, name, x, line));
        x += wide;
    }
    let lines = f64::min(line + 1.0, LINES);
    let mut shown = placed.iter().filter(|(_, _, _, line)| *line < LINES).count();
    if shown < placed.len() {
        shown -= 1;
    }
    let top = area.bottom() - LINE * lines + 6.0;
    let mut text = String::new();
    for (n, name, x, line) in &placed[..shown] {
        let (x, y) = (area.left + 10.0 + x, top + LINE * line);
        text.push_str(&format!(
            "<path d=\"M{x:.1} {:.1}h12\" stroke=\"{}\" stroke-width=\"3\"/>\n<text x=\"{:.1}\" y=\"{y:.1}\">{}</text>\n",
            y - 4.0,
            colour(*n),
            x + 16.0,
            escaped(name)
        ));
    }
    if let Some((_, _, x, line)) = placed.get(shown) {
        let (x, y, more) = (area.left + 10.0 + x, top + LINE * line, placed.len() - shown);
        text.push_str(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#555\">and {more} more</text>\n"));
    }
    (text, lines)
}

/// A name that is not too long for a legend.
fn fitted(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AREA: Area = Area { left: 0.0, top: 0.0, width: 400.0, height: 200.0 };
    const SPAN: Span = Span { start: 0.0, end: 600.0, step: 10.0 };

    fn told(names: &[&str], values: &Value) -> Vec<Series> {
        let answer: Vec<Value> =
            names.iter().map(|name| json!({ "metric": { "name": name }, "values": values })).collect();
        series(&json!({ "targets": [{ "expr": "x", "legendFormat": "{{name}} of {{none}}" }] }), &json!([answer]))
            .expect("series")
    }

    #[test]
    fn curves_are_broken_where_nothing_is_told() {
        let all = told(&["a"], &json!([[0, "1"], [10, "2"], [20, "NaN"], [30, "3"], [40, "4"]]));
        assert_eq!(all[0].name, "a of");
        let pieces: Vec<usize> = apart(&all, SPAN).iter().map(|(curve, _)| curve.points.len()).collect();
        assert_eq!(pieces, [2, 2]);
        assert!(told(&["a"], &json!([[0, "NaN"]])).is_empty());
    }

    #[test]
    fn stacked_curves_stand_on_each_other() {
        let all = told(&["a", "b"], &json!([[0, "1"], [600, "2"]]));
        let shapes = stack(&all, SPAN);
        assert_eq!(shapes[1].0.points, [(0.0, 2.0), (1.0, 4.0)]);
        assert_eq!(shapes[1].1, shapes[0].0.points);
    }

    #[test]
    fn a_legend_counts_what_has_no_room() {
        let many: Vec<String> = (0..40).map(|n| format!("series number {n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (drawn, lines) = names(&told(&many, &json!([[0, "1"]])), AREA);
        assert!((lines - LINES).abs() < f64::EPSILON);
        let shown = drawn.matches("<path").count();
        assert!(drawn.contains(&format!("and {} more", 40 - shown)), "{drawn}");
        assert_eq!(fitted(&"x".repeat(50)).chars().count(), NAME + 1);
    }

    #[test]
    fn a_number_has_the_colour_of_its_threshold() {
        let panel = json!({ "title": "t", "type": "stat", "targets": [{ "expr": "x" }], "fieldConfig": { "defaults": {
            "unit": "short", "thresholds": { "steps": [{ "color": "green", "value": null }, { "color": "red", "value": 2 }] } } } });
        let drawn = |value: &str| draw(&panel, &told(&["a"], &json!([[0, value]])), AREA, SPAN);
        assert!(drawn("1").contains("#37872d") && drawn("2").contains("#c4162a"), "{}", drawn("2"));
        assert!(draw(&panel, &[], AREA, SPAN).contains("No data"));
    }
}
