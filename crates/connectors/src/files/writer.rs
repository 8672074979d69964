//! The files of one connector: which are open, and when they end.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::config::Validated;
use super::unfinished::Unfinished;

/// Files that are open at a time. One more ends the oldest: who makes up tenants and sources makes small files, and no
/// more.
const MAX_OPEN: usize = 64;

/// The open files by family.
pub(super) struct Writer {
    config: Arc<Validated>,
    open: BTreeMap<String, (u64, Unfinished)>,
    begun: u64,
}

impl Writer {
    pub(super) fn new(config: Arc<Validated>) -> Self {
        Self { config, open: BTreeMap::new(), begun: 0 }
    }

    /// Adds lines to the file of a family, durably. Files that end by it come back in `ended`.
    pub(super) fn add<'a>(
        &mut self,
        family: &str,
        lines: impl Iterator<Item = &'a [u8]>,
        ended: &mut Vec<Unfinished>,
    ) -> io::Result<()> {
        if !self.open.contains_key(family) {
            if self.open.len() >= MAX_OPEN
                && let Some(oldest) =
                    self.open.iter().min_by_key(|(_, (begun, _))| *begun).map(|(name, _)| name.clone())
            {
                ended.extend(self.open.remove(&oldest).map(|(_, file)| file));
            }
            let file = Unfinished::begin(&self.config, family)?;
            self.open.insert(family.to_owned(), (self.begun, file));
            self.begun += 1;
        }
        let Some((_, file)) = self.open.get_mut(family) else { return Ok(()) };
        file.add(lines)?;
        if file.is_due(&self.config) {
            ended.extend(self.open.remove(family).map(|(_, file)| file));
        }
        Ok(())
    }

    /// Files whose time has come.
    pub(super) fn due(&mut self) -> Vec<Unfinished> {
        let config = Arc::clone(&self.config);
        self.open.extract_if(.., |_, (_, file)| file.is_due(&config)).map(|(_, (_, file))| file).collect()
    }

    /// All of them.
    pub(super) fn all(&mut self) -> Vec<Unfinished> {
        std::mem::take(&mut self.open).into_values().map(|(_, file)| file).collect()
    }
}
