//! What runs inside a slot.

use stoq_api::scanner::{Remaining, Sink};

/// The work of a slot: built once by the fork server, before any hostile byte is seen, and used by every slot forked from
/// it. A slot is single-threaded; without a jail the same workload is shared by several threads.
pub trait Workload: Send + Sync {
    /// Looks at all items of a batch before the first of them runs, at what costs less for several at once; an item by
    /// itself is never looked at. `starting` is told which plugin is at work, as by [`Wire::starting`]; a death is blamed
    /// on the first item, and all run again by themselves.
    fn ahead(&self, _items: &[Item<'_>], _starting: &mut dyn FnMut(u16)) {}

    /// Runs all plugins that `item` wants and returns the report, opaque to the jail. Children go out by `wire`.
    fn run(&self, item: &Item<'_>, wire: &mut dyn Wire) -> Vec<u8>;
}

/// One item in front of a workload.
pub struct Item<'a> {
    /// Distinct for each time that an item is run in this process.
    pub serial: u64,
    /// What the engine says of it, opaque to the jail.
    pub header: &'a [u8],
    /// The payload's bytes.
    pub content: &'a [u8],
    /// Plugins (by number) that must not run on it any more: they killed slots on it.
    pub excluded: &'a [u16],
}

/// The way out of a slot for one item.
pub trait Wire: Sink {
    /// Plugin number `plugin` starts on this item; whatever is emitted next is its. The supervisor's clock for a plugin
    /// starts here, and a death before the next call is blamed on it.
    fn starting(&mut self, plugin: u16);

    /// As a plain sink.
    fn sink(&mut self) -> &mut dyn Sink;
}

/// A workload that is ready, and what it has to say of itself to the supervisor (rule sets, warnings), opaque to the jail.
pub struct Hello {
    /// The workload.
    pub workload: Box<dyn Workload>,
    /// Its message; at most [`MAX_HELLO`] bytes.
    pub message: Vec<u8>,
}

/// Greatest message of a [`Hello`].
pub const MAX_HELLO: usize = 16 << 20;

/// Builds a workload from its configuration. An error is one sentence for the operator.
pub type Builder = fn(config: &[u8]) -> Result<Hello, String>;

/// What an unlimited sink says.
pub const UNLIMITED: Remaining = Remaining { children: u64::MAX, bytes: u64::MAX };
