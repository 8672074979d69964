//! Drawings of curves over time, as SVG: panels below each other that share a time axis.

/// Where a panel begins and how wide it is, in the drawing's units.
const LEFT: f64 = 70.0;
const WIDTH: f64 = 960.0;
const TOTAL: f64 = 1060.0;
/// Above the first panel, and below each: for its axis and the next one's title.
const MARGIN: f64 = 20.0;
const GAP: f64 = 50.0;

/// A curve: its colour, and its points, each a share of the axis and a value.
pub(crate) struct Curve {
    pub(crate) colour: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Curves with one scale.
pub(crate) struct Panel<'a> {
    pub(crate) title: &'a str,
    pub(crate) height: f64,
    pub(crate) curves: Vec<Curve>,
}

/// Draws panels over an axis with labels, each at its share of the axis.
pub(crate) fn draw(panels: &[Panel<'_>], labels: &[(f64, String)]) -> String {
    let height: f64 = panels.iter().map(|panel| panel.height + GAP).sum();
    let height = height + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {TOTAL} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{TOTAL}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    let mut top = MARGIN;
    for panel in panels {
        text.push_str(&one(panel, top, labels));
        top += panel.height + GAP;
    }
    text.push_str("</svg>\n");
    text
}

fn one(panel: &Panel<'_>, top: f64, labels: &[(f64, String)]) -> String {
    let values = panel.curves.iter().flat_map(|curve| curve.points.iter().map(|(_, value)| *value));
    let most = values.fold(1.0, f64::max);
    let bottom = top + panel.height;
    let mut text = format!("<path d=\"M{LEFT} {top}V{bottom}H{}\" fill=\"none\" stroke=\"#888\"/>\n", LEFT + WIDTH);
    let marks = [
        (panel.title.to_owned(), LEFT + 8.0, top - 6.0),
        (format!("{most:.0}"), 10.0, top + 10.0),
        ("0".to_owned(), 10.0, bottom),
    ];
    for (mark, x, y) in marks {
        text.push_str(&format!("<text x=\"{x}\" y=\"{y}\">{mark}</text>\n"));
    }
    for (share, label) in labels {
        let x = LEFT + WIDTH * share;
        text.push_str(&format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>\n", bottom + 18.0));
    }
    for curve in &panel.curves {
        let place = |(share, value): &(f64, f64)| {
            format!("{:.1},{:.1}", LEFT + WIDTH * share, bottom - panel.height * value / most)
        };
        let points: Vec<String> = curve.points.iter().map(place).collect();
        let (points, colour) = (points.join(" "), curve.colour);
        text.push_str(&format!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"/>\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_reaches_from_the_bottom_to_the_top_of_its_panel() {
        let curve = Curve { colour: "#000", points: vec![(0.0, 0.0), (1.0, 8.0)] };
        let panel = |curves| Panel { title: "one", height: 100.0, curves };
        let drawn = draw(&[panel(vec![]), panel(vec![curve])], &[(0.5, "noon".to_owned())]);
        // The second panel lies between 170 and 270.
        assert!(drawn.contains("points=\"70.0,270.0 1030.0,170.0\""), "{drawn}");
        assert!(drawn.contains("viewBox=\"0 0 1060 320\""), "{drawn}");
        assert_eq!(drawn.matches("x=\"550.0\"").count(), 2, "{drawn}");
    }
}
