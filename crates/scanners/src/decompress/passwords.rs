//! The passwords that are tried on an encrypted archive.

use serde_json::Value;
use stoq_api::scanner::Payload;

/// Passwords that are tried on one archive; each costs a key derivation per salt.
const MAX_PASSWORDS: usize = 64;
/// Bytes of a password; longer ones are left out.
const MAX_PASSWORD: usize = 512;

/// Candidates, the likeliest first: what the payload's own metadata says (`passwords`, and `password`, which opened the
/// archive that it came from), what its ancestors' plugins found, nearest first, then the configured ones.
pub(super) fn candidates(payload: &Payload<'_>, configured: &[String]) -> Vec<String> {
    let extra = &payload.meta.extra_data;
    let own = ["passwords", "password"].into_iter().filter_map(|key| extra.get(key)).flat_map(texts);
    let above = payload.ancestors.iter().rev().flat_map(|a| a.passwords.iter().map(String::as_str));
    let mut candidates: Vec<String> = Vec::new();
    for password in own.chain(above).chain(configured.iter().map(String::as_str)) {
        let fits = !password.is_empty() && password.len() <= MAX_PASSWORD && candidates.len() < MAX_PASSWORDS;
        if fits && !candidates.iter().any(|c| c == password) {
            candidates.push(password.to_owned());
        }
    }
    candidates
}

/// A text, or the texts of a list.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
