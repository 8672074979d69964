//! What connectors share: the frame that runs them, an HTTP client, verdicts of documents, and forms of JSON text.

mod ages;
mod backlog;
mod collect;
pub mod dead;
pub mod frame;
pub mod head;
pub mod http;
pub mod options;
pub(crate) mod path;
mod pause;
mod settle;
pub mod spill;
pub(crate) mod template;
pub mod text;
pub mod verdicts;
pub mod when;

pub use dead::DeadLetters;
pub use frame::{Frame, Settings};
pub use stoq_api::results as lane;

#[cfg(test)]
mod tests;
