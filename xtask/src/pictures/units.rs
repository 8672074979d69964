//! Numbers as dashboards show them.

/// A number and its unit as Grafana names it.
pub(super) fn shown(value: f64, unit: &str) -> String {
    match unit {
        "s" => seconds(value),
        "bytes" => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
        "percentunit" => format!("{}%", number(value * 100.0)),
        "ops" => format!("{}/s", scaled(value, 1000.0, &["", "K", "M"]).trim_end()),
        _ => scaled(value, 1000.0, &["", "K", "M", "G"]).trim_end().to_owned(),
    }
}

fn seconds(value: f64) -> String {
    let (by, name) = match value.abs() {
        0.0 => (1.0, "s"),
        v if v < 1e-3 => (1e6, "µs"),
        v if v < 1.0 => (1e3, "ms"),
        v if v < 120.0 => (1.0, "s"),
        _ => (1.0 / 60.0, "min"),
    };
    format!("{} {name}", number(value * by))
}

fn scaled(mut value: f64, by: f64, names: &[&str]) -> String {
    let mut name = 0;
    while value.abs() >= by && name + 1 < names.len() {
        value /= by;
        name += 1;
    }
    format!("{} {}", number(value), names[name])
}

/// Three digits that say something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        _ => 5,
    };
    let text = format!("{value:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

/// Where a scale ends that has to show `value`.
pub(super) fn top(value: f64, unit: &str) -> f64 {
    // Round are 1, 2 and 5 of something, which is 1024 of the thing before where bytes are counted.
    let mut thing = 1.0;
    while unit == "bytes" && value >= thing * 1024.0 {
        thing *= 1024.0;
    }
    ceiling(value / thing) * thing
}

/// The least of 1, 2, 5, 10, 20 … that is not below `value`.
pub(super) fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    // What is a hair above a step by its binary form is that step.
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| value <= top * 1.000_001).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_unit() {
        for (value, unit, text) in [
            (0.0, "s", "0 s"),
            (0.000_25, "s", "250 µs"),
            (0.0125, "s", "12.5 ms"),
            (90.0, "s", "90 s"),
            (300.0, "s", "5 min"),
            (1536.0, "bytes", "1.5 KiB"),
            (0.05, "percentunit", "5%"),
            (12.0, "ops", "12/s"),
            (1500.0, "ops", "1.5 K/s"),
            (2_500_000.0, "short", "2.5 M"),
            (100.0, "short", "100"),
            (-3.0, "short", "-3"),
        ] {
            assert_eq!(shown(value, unit), text);
        }
    }

    #[test]
    fn a_scale_ends_at_a_round_number() {
        for (value, top) in [(0.0, 1.0), (0.03, 0.05), (1.0, 1.0), (3.0, 5.0), (51.0, 100.0), (200.0, 200.0)] {
            assert!((ceiling(value) - top).abs() < 1e-9, "{value}: {}", ceiling(value));
        }
        assert_eq!(shown(top(70.0 * 1024.0 * 1024.0, "bytes"), "bytes"), "100 MiB");
        assert_eq!(shown(top(0.007, "short") / 4.0, "short"), "0.0025");
    }
}
