//! What connectors share: the frame that runs them, an HTTP client, verdicts of documents, and forms of JSON text.

mod collect;
pub mod dead;
pub mod frame;
pub mod head;
pub mod http;
mod settle;
pub(crate) mod template;
pub mod text;
pub mod verdicts;

pub use dead::DeadLetters;
pub use frame::{Frame, Settings};
pub use stoq_api::results as lane;

#[cfg(test)]
mod tests;
