//! Programs that no package of a distribution brings, as `cargo xtask test` has fetched or built them.

use std::path::PathBuf;

/// A file below the folder of one program and version in the cache.
///
/// # Panics
/// It is not there.
pub fn cached(program: &str, file: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME or XDG_CACHE_HOME is set")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|c| !c.is_empty()).map_or_else(home, PathBuf::from);
    let path = cache.join("stoq").join(program).join(file);
    assert!(path.exists(), "{} is not there; `cargo xtask test` installs what tests need", path.display());
    path
}
