//! What all connectors share: the frame that runs them, the form of messages on the result lane, and forms of JSON text.

mod collect;
pub mod dead;
pub mod frame;
pub mod lane;
mod settle;
pub mod text;

pub use dead::DeadLetters;
pub use frame::{Frame, Settings};

#[cfg(test)]
mod tests;
