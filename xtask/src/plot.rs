//! Drawings of curves over time, as SVG: panels below each other that share a time axis, or parts of drawings that are
//! laid out by others.

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

/// Where curves are drawn: the axes are its left and its bottom.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Area {
    pub(crate) fn bottom(self) -> f64 {
        self.top + self.height
    }

    /// The axes.
    pub(crate) fn axes(self) -> String {
        let (bottom, right) = (self.bottom(), self.left + self.width);
        format!("<path d=\"M{} {}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\n", self.left, self.top)
    }

    /// Labels of the time axis, each at its share of it.
    pub(crate) fn labels(self, labels: &[(f64, String)]) -> String {
        let y = self.bottom() + 18.0;
        let one = |(share, label): &(f64, String)| {
            let x = self.left + self.width * share;
            format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>\n")
        };
        labels.iter().map(one).collect()
    }

    /// A curve, where `most` reaches the top.
    pub(crate) fn curve(self, curve: &Curve, most: f64) -> String {
        let (points, colour) = (self.points(&curve.points, most), curve.colour);
        format!("<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\"/>\n")
    }

    /// What lies below a curve, and above the axis or the points of another.
    pub(crate) fn below(self, curve: &Curve, base: &[(f64, f64)], most: f64) -> String {
        let ground: Vec<(f64, f64)> = match (base, &curve.points[..]) {
            ([], [(first, _), .., (last, _)]) => vec![(*last, 0.0), (*first, 0.0)],
            _ => base.iter().rev().copied().collect(),
        };
        let (points, ground) = (self.points(&curve.points, most), self.points(&ground, most));
        format!("<polygon points=\"{points} {ground}\" fill=\"{}\" fill-opacity=\"0.15\"/>\n", curve.colour)
    }

    fn points(self, points: &[(f64, f64)], most: f64) -> String {
        let place = |(share, value): &(f64, f64)| {
            format!("{:.1},{:.1}", self.left + self.width * share, self.bottom() - self.height * value / most)
        };
        points.iter().map(place).collect::<Vec<_>>().join(" ")
    }
}

/// Draws panels over an axis with labels, each at its share of the axis.
pub(crate) fn draw(panels: &[Panel<'_>], labels: &[(f64, String)]) -> String {
    let height: f64 = panels.iter().map(|panel| panel.height + GAP).sum();
    let mut text = String::new();
    let mut top = MARGIN;
    for panel in panels {
        text.push_str(&one(panel, top, labels));
        top += panel.height + GAP;
    }
    page(TOTAL, height + MARGIN, 13, "#fff", &text)
}

/// A drawing of that size, on a ground of that colour.
pub(crate) fn page(width: f64, height: f64, font: u32, ground: &str, content: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"{font}\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"{ground}\"/>\n{content}</svg>\n"
    )
}

/// Text as it may stand in a drawing.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn one(panel: &Panel<'_>, top: f64, labels: &[(f64, String)]) -> String {
    let values = panel.curves.iter().flat_map(|curve| curve.points.iter().map(|(_, value)| *value));
    let most = values.fold(1.0, f64::max);
    let area = Area { left: LEFT, top, width: WIDTH, height: panel.height };
    let mut text = area.axes();
    let marks = [
        (panel.title.to_owned(), LEFT + 8.0, top - 6.0),
        (format!("{most:.0}"), 10.0, top + 10.0),
        ("0".to_owned(), 10.0, area.bottom()),
    ];
    for (mark, x, y) in marks {
        text.push_str(&format!("<text x=\"{x}\" y=\"{y}\">{mark}</text>\n"));
    }
    text.push_str(&area.labels(labels));
    text.extend(panel.curves.iter().map(|curve| area.curve(curve, most)));
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

    #[test]
    fn what_lies_below_a_curve_ends_at_the_axis_or_at_the_curve_below() {
        let area = Area { left: 0.0, top: 0.0, width: 10.0, height: 10.0 };
        let curve = Curve { colour: "#000", points: vec![(0.0, 1.0), (1.0, 2.0)] };
        let alone = area.below(&curve, &[], 2.0);
        assert!(alone.contains("\"0.0,5.0 10.0,0.0 10.0,10.0 0.0,10.0\""), "{alone}");
        let stacked = area.below(&curve, &[(0.0, 0.0), (1.0, 1.0)], 2.0);
        assert!(stacked.contains("\"0.0,5.0 10.0,0.0 10.0,5.0 0.0,10.0\""), "{stacked}");
    }
}
