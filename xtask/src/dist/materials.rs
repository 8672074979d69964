//! The bill of materials, as CycloneDX 1.5 (<https://cyclonedx.org/docs/1.5/json/>).

use anyhow::Result;
use serde_json::{Value, json};

use super::crates::Crates;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// The document, as JSON. Without a serial number, which would differ each time.
pub(super) fn document(crates: &Crates, epoch: u64) -> Result<Vec<u8>> {
    let program = format!("pkg:cargo/stoq@{}", crates.version);
    let components: Vec<Value> = crates
        .all
        .iter()
        .map(|one| {
            let url = one.url();
            json!({
                "type": "library",
                "bom-ref": url,
                "name": one.name,
                "version": one.version,
                "purl": url,
                "licenses": [{ "expression": one.licence }],
                "hashes": [{ "alg": "SHA-256", "content": one.checksum }],
            })
        })
        .collect();
    let mut dependencies = vec![json!({ "ref": program, "dependsOn": crates.uses })];
    dependencies.extend(crates.all.iter().map(|one| json!({ "ref": one.url(), "dependsOn": one.uses })));
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": utc(epoch),
            "component": {
                "type": "application",
                "bom-ref": program,
                "name": "stoq",
                "version": crates.version,
                "purl": program,
                "licenses": [{ "expression": "Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    Ok((serde_json::to_string_pretty(&document)? + "\n").into_bytes())
}

/// A time as RFC 3339 writes it; civil date from days, after Howard Hinnant's `civil_from_days`.
fn utc(epoch: u64) -> String {
    let (days, second) = (epoch / DAY, epoch % DAY);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::licences;
    use super::*;

    #[test]
    fn the_program_is_accounted_for() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let crates = Crates::of_program(&root).expect("cargo tells");
        let document: Value = serde_json::from_slice(&document(&crates, 0).expect("a document")).expect("JSON");
        let components = document["components"].as_array().expect("components");
        let names: BTreeSet<&str> = components.iter().filter_map(|one| one["name"].as_str()).collect();
        assert!(names.contains("tokio") && names.contains("rdkafka-sys"), "{names:?}");
        assert!(!names.contains("proptest") && !names.contains("divan"), "what only tests use is not in the program");
        let refs: BTreeSet<&str> = components.iter().filter_map(|one| one["bom-ref"].as_str()).collect();
        assert_eq!(refs.len(), components.len(), "each component once");
        for one in components {
            assert!(one["licenses"][0]["expression"].as_str().is_some_and(|text| !text.is_empty()), "{one}");
            assert_eq!(one["hashes"][0]["content"].as_str().map(str::len), Some(64), "{one}");
        }
        for one in document["dependencies"].as_array().expect("dependencies") {
            let used = one["dependsOn"].as_array().expect("a list");
            assert!(
                used.iter().all(|used| used.as_str().is_some_and(|used| refs.contains(used))),
                "{one} names what is not there"
            );
        }
        let text = licences::text(&root, &crates).expect("every crate has a text");
        assert!(crates.all.iter().all(|one| text.contains(&format!("{} {}", one.name, one.version))));
    }

    #[test]
    fn times() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
