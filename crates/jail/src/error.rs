//! Why there is no jail.

use std::io;
use std::path::PathBuf;

/// The pool cannot be started or changed. The text says what is missing and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JailError {
    /// A process, a thread or a socket could not be had.
    #[error("cannot start {what}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The fork server ended or hung instead of building the plugins.
    #[error(
        "the fork server did not build the plugins ({end}): the program must call jail::enter_if_asked first in main, and \
         /proc must be mounted"
    )]
    Server {
        /// How it ended.
        end: String,
        /// What was noticed first.
        #[source]
        source: io::Error,
    },
    /// The plugins cannot be built from this configuration.
    #[error("{0}")]
    Build(String),
    /// This kernel or container does not give what the configuration asks for.
    #[error("a slot cannot be locked in: {0}")]
    Sandbox(String),
    /// A tool's program cannot be read.
    #[error("the tool {} cannot be used", path.display())]
    Tool {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration of the pool makes no sense.
    #[error("jail: {0}")]
    Config(&'static str),
}

impl JailError {
    pub(crate) fn start(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Start { what, source }
    }
}
