//! What all connectors share: the frame that runs them, and forms of JSON text.

mod collect;
pub mod dead;
pub mod frame;
mod settle;
pub mod text;

pub use dead::DeadLetters;
pub use frame::{Frame, Settings};
pub use stoq_api::results as lane;

#[cfg(test)]
mod tests;
