//! Jailed processes that run scanners over hostile bytes.
//!
//! The jail knows nothing of scanning: it hands *items* (an opaque header and content) to a [`work::Workload`] inside a
//! slot and brings back an opaque report and the children that were emitted. What a slot says is hostile and is bounded,
//! checked and hashed here before anyone else sees it.
//!
//! # How it works
//! [`Pool::start`] runs this same binary again as a *fork server*: an empty environment, the workload built from its
//! configuration, nothing else. Out of it *slots* are forked, each a process with one socket. Before a slot reads its
//! first item it gives up everything else; `sandbox` has the list. A thread per slot in the supervisor takes whatever
//! items wait, sends them in one request, reads the answers, and watches the slot's wall clock and CPU clock.
//!
//! When a slot dies, hangs, or says what makes no sense, everything that it answered for that batch is thrown away and the
//! batch's items are scanned again one by one, each in a fresh slot. A plugin that is running when a slot dies a second
//! time, alone with one payload, is taken off that payload and named in [`Answer::stopped`]; the rest of the plugins run.
//!
//! # What a jail gives
//! - A plugin that loops, crashes, asks for too much memory or is taken over by its payload costs that plugin's answer on
//!   that payload, and nothing of other plugins and payloads.
//! - Code that runs in a slot can open no file, no socket and no process, signal nobody, and run no program.
//!
//! # What it does not give
//! - A slot that a payload has taken over can lie about the payloads that it is handed later, until it is replaced:
//!   [`PoolConfig::recycle_after`] bounds this, and 1 ends it. It can lie about its own payload always.
//! - It can name any plugin as the author of a child or a death on its own payload.
//! - It guards against the scanners' bugs, not the kernel's: the system calls that remain are few, but there are some.
//! - It does not hide the time that things take, nor the rules, which every slot holds.
//!
//! [`tool`] jails programs of other people (exiftool, say), which need files and so get a wider sandbox.
//!
//! [`Inline`] runs the same workload on plain threads and gives none of this but the survival of panics.

#[doc(hidden)]
pub mod fuzzing;
pub mod job;
pub mod memfd;
pub mod tool;
pub mod work;

mod children;
mod error;
mod inline;
mod pool;
mod protocol;
mod sandbox;
mod server;
mod slot;
mod spawn;
mod sys;

pub use children::{MAX_CHILDREN, MAX_IN_MEMORY};
pub use error::JailError;
pub use inline::Inline;
pub use job::{Answer, Child, JobItem, Limits, Runner, Sharing, StopReason, Stopped, Tenant};
pub use pool::{MAX_DEATHS, Pool, PoolConfig};
pub use protocol::{MAX_EXCLUDED, MAX_HEADER, MAX_INLINE, MAX_ITEMS, MAX_META, MAX_META_TOTAL};
pub use sandbox::{Applied, Mode};
pub use server::{MAX_CONFIG, enter_if_asked};
pub use sys::{give_memory_back, trim_memory};
pub use work::{Hello, Item, Wire, Workload};
