//! What tests of several connectors need.

use std::sync::Arc;

use stoq_testkit::NoQueues;

use crate::Context;

/// What a connector called `out` is built with where no broker is configured.
pub(crate) fn context() -> Context {
    Context { name: "out".to_owned(), queues: Arc::new(NoQueues) }
}
