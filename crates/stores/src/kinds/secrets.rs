//! Secrets in options or in files.

use std::path::PathBuf;

use stoq_api::scanner::BuildError;
use stoq_runtime::secret::Secret;

/// Files with secrets are small.
const SECRET_MAX: u64 = 64 << 10;

/// A secret that stands in the configuration or in a file, without the line end there; `None` if in neither.
pub(crate) fn secret(name: &str, value: Option<&Secret>, file: Option<&PathBuf>) -> Result<Option<Secret>, BuildError> {
    let value = value.filter(|v| !v.expose().is_empty());
    let Some(file) = file.filter(|f| !f.as_os_str().is_empty()) else { return Ok(value.cloned()) };
    if value.is_some() {
        return Err(BuildError(format!("`{name}` and `{name}_file` are both set: leave one out")));
    }
    let wrong = |why: String| BuildError(format!("`{name}_file` {}: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|e| wrong(e.to_string()))?.len();
    if size > SECRET_MAX {
        return Err(wrong(format!("has {size} bytes, which is no secret")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(wrong("is empty".to_owned())),
        text => Ok(Some(Secret::new(text))),
    }
}
