//! Hostile archives: bombs, lies, damage and names from hell, built byte by byte and the same every time.
//!
//! Each is small and quick to build, however much it would like to expand to. Readers have to answer on every one of them
//! within their limits; what they answer is their business.

mod cab;
mod lha;
mod mutate;
mod rar;
mod sevenz;
mod stream;
mod tar;
mod zip;

/// One sample: its name, and its bytes.
type Sample = (String, Vec<u8>);

/// Formats that there are samples of.
pub const FORMATS: &[&str] = &["zip", "7z", "rar", "cab", "lha", "tar", "gz", "bz2", "xz", "lzma", "zstd"];

/// Every sample as (format, name, bytes). Names are distinct within a format.
pub fn all() -> impl Iterator<Item = (&'static str, String, Vec<u8>)> {
    FORMATS.iter().flat_map(|format| of(format).into_iter().map(|(name, bytes)| (*format, name, bytes)))
}

/// The samples of one format of [`FORMATS`]; none for any other name.
pub fn of(format: &str) -> Vec<(String, Vec<u8>)> {
    let (good, mut samples) = match format {
        "zip" => (zip::good(), zip::samples()),
        "7z" => (sevenz::good(), sevenz::samples()),
        "rar" => (rar::good(), rar::samples()),
        "cab" => (cab::good(), cab::samples()),
        "lha" => (lha::good(), lha::samples()),
        "tar" => (tar::good(), tar::samples()),
        "gz" => (stream::gz(&text()), stream::gz_samples()),
        "bz2" => (stream::bz2(&text()), stream::bz2_samples()),
        "xz" => (stream::xz(&text()), stream::xz_samples()),
        "lzma" => (stream::lzma(&text()), stream::lzma_samples()),
        "zstd" => (stream::zstd(&text()), stream::zstd_samples()),
        _ => return Vec::new(),
    };
    samples.extend(mutate::all(&good));
    samples
}

/// A few kilobytes that compress, but not to nothing.
fn text() -> Vec<u8> {
    (0..400_u32).flat_map(|i| format!("line {i}: {}\n", i.wrapping_mul(2_654_435_761)).into_bytes()).collect()
}

/// Names that have done harm somewhere.
fn names() -> Vec<Vec<u8>> {
    let texts = [
        "/etc/passwd",
        "../../../../etc/cron.d/x",
        "..\\..\\windows\\system32\\x.dll",
        "C:\\autoexec.bat",
        "\\\\server\\share\\x",
        "a/./b//c",
        "..",
        ".",
        "/",
        "",
        " ",
        "CON",
        "aux.txt",
        "file.txt:stream",
        "invoice\u{202e}fdp.exe",
        "\u{feff}bom",
        "e\u{301}",
        "\u{1b}[31mred",
        "new\nline",
        "nul\0byte.exe",
        "-rf",
        "$(reboot)",
        "`id`",
        "%s%n",
        "<script>alert(1)</script>",
        "\"; DROP TABLE x; --",
        "{\"json\": true}",
    ];
    let mut names: Vec<Vec<u8>> = texts.iter().map(|t| t.as_bytes().to_vec()).collect();
    names.push(b"latin1-\xe9\xe8.txt".to_vec());
    names.push(b"\xff\xfe\xfd".to_vec());
    names.push(b"\xf0\x9f\x92".to_vec());
    names.push("ä".repeat(20_000).into_bytes());
    names.push(b"d/".repeat(10_000));
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_format_has_at_least_thirty_distinct_samples_that_stay_the_same() {
        for format in FORMATS {
            let samples = of(format);
            let names: BTreeSet<_> = samples.iter().map(|(name, _)| name).collect();
            let bytes: BTreeSet<_> = samples.iter().map(|(_, bytes)| bytes).collect();
            assert!(bytes.len() >= 30, "{format}: {}", bytes.len());
            assert_eq!(names.len(), samples.len(), "{format}");
            assert!(samples.iter().all(|(_, b)| b.len() < 2 << 20), "{format}: a sample is too large to be run often");
            assert!(samples == of(format), "{format}");
        }
        assert_eq!(all().count(), FORMATS.iter().map(|f| of(f).len()).sum::<usize>());
        assert!(of("ace").is_empty());
    }
}
