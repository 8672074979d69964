//! The facts found so far, in order, bounded.

use serde_json::{Map, Number, Value};

use crate::bounds;

/// Facts of one payload.
const MAX_FACTS: usize = 1_000;
/// Bytes of all facts together, as JSON.
const MAX_TOTAL: usize = 1 << 20;
/// Bytes of a text, as JSON.
const MAX_TEXT: usize = 8 << 10;
/// Digits of a number that is told as one; longer ones stay text.
const MAX_NUMBER: usize = 16;

/// Names and values. The first value of a name stays, so that a name that the file chose (a version string, a custom
/// property) never replaces a fact.
#[derive(Default)]
pub(super) struct Facts {
    map: Map<String, Value>,
    used: usize,
    limits: Vec<String>,
}

impl Facts {
    /// Adds a fact.
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) {
        if self.map.contains_key(name) {
            return;
        }
        let value = value.into();
        let used = self.used + bounds::json_len(name) + value.to_string().len() + 4;
        if self.map.len() >= MAX_FACTS || used > MAX_TOTAL {
            self.limit(format!("more than {MAX_FACTS} facts, or {MAX_TOTAL} bytes"));
            return;
        }
        self.used = used;
        self.map.insert(name.to_owned(), value);
    }

    /// Adds a text; one that reads as a number becomes one, as in ExifTool's JSON.
    pub(super) fn put_text(&mut self, name: &str, text: &str) {
        let clipped = clip(text);
        if clipped.len() < text.len() {
            self.limit(format!("{} cut to {} bytes", clip(name), clipped.len()));
        }
        self.put(clip(name), scalar(clipped));
    }

    /// Adds what every file has.
    pub(super) fn file_type(&mut self, name: &str, extension: &str, mime: &str) {
        self.put("FileType", name);
        self.put("FileTypeExtension", extension);
        self.put("MIMEType", mime);
    }

    /// Notes that something was left out.
    pub(super) fn limit(&mut self, text: String) {
        if self.limits.last() != Some(&text) && self.limits.len() < MAX_FACTS {
            self.limits.push(text);
        }
    }

    /// What was left out.
    pub(super) fn limits(&self) -> &[String] {
        &self.limits
    }

    /// The facts.
    pub(super) fn into_map(self) -> Map<String, Value> {
        self.map
    }
}

/// The beginning of a text that is not too long for a fact.
pub(super) fn clip(text: &str) -> &str {
    bounds::clip(text, MAX_TEXT)
}

/// A text as ExifTool's JSON has it: a number where it reads as one.
pub(super) fn scalar(text: &str) -> Value {
    number(text).map_or_else(|| text.into(), Value::Number)
}

/// Digits without leading zeros, perhaps a sign and a fraction.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
    let plain = |s: &str| !s.is_empty() && s.len() < MAX_NUMBER && s.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || (whole.len() > 1 && whole.starts_with('0')) || !fraction.is_none_or(plain) {
        return None;
    }
    match fraction {
        None => text.parse::<i64>().ok().map(Number::from),
        Some(_) => text.parse().ok().and_then(Number::from_f64),
    }
}

/// `2026:03:03 10:00:00` of seconds since 1970, UTC; `None` outside of the years 1 to 9999.
pub(super) fn date_time(seconds: i64) -> Option<String> {
    // The civil calendar from days, after H. Hinnant's "chrono-Compatible Low-Level Date Algorithms".
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days.checked_add(719_468)?;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (1..=9_999)
        .contains(&year)
        .then(|| format!("{year:04}:{month:02}:{day:02} {:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_exiftool_tells_them_from_text() {
        for (text, json) in [
            ("0", "0"),
            ("14.0000", "14.0"),
            ("-1", "-1"),
            ("0409", "\"0409\""),
            ("1.2.3", "\"1.2.3\""),
            ("", "\"\""),
            ("-", "\"-\""),
            ("1.", "\"1.\""),
            ("1e9", "\"1e9\""),
            ("12345678901234567890", "\"12345678901234567890\""),
        ] {
            assert_eq!(scalar(text).to_string(), json);
        }
    }

    #[test]
    fn first_value_stays_and_all_is_bounded() {
        let mut facts = Facts::default();
        facts.put("FileType", "DOC");
        facts.put_text("FileType", "EXE");
        facts.put_text("Long", &"ä".repeat(MAX_TEXT));
        for n in 0..2 * MAX_FACTS {
            facts.put(&n.to_string(), n);
        }
        assert_eq!(facts.limits().len(), 2);
        let map = facts.into_map();
        assert_eq!(map["FileType"], "DOC");
        assert_eq!(map["Long"].as_str().unwrap().len(), MAX_TEXT);
        assert_eq!(map.len(), MAX_FACTS);
        let mut facts = Facts::default();
        for n in 0..MAX_FACTS {
            facts.put_text(&n.to_string(), &"\u{1}".repeat(MAX_TEXT));
        }
        let text = Value::from(facts.into_map()).to_string();
        assert!((MAX_TOTAL / 2..=MAX_TOTAL + 2).contains(&text.len()), "{}", text.len());
    }

    #[test]
    fn dates() {
        assert_eq!(date_time(0).unwrap(), "1970:01:01 00:00:00");
        assert_eq!(date_time(951_827_696).unwrap(), "2000:02:29 12:34:56");
        assert_eq!(date_time(-1).unwrap(), "1969:12:31 23:59:59");
        assert_eq!(date_time(i64::MAX), None);
        assert_eq!(date_time(i64::MIN), None);
    }
}
