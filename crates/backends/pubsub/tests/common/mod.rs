//! What the tests share: a broker at a server, and a lane with one subscription.
#![expect(clippy::unwrap_used, reason = "test code, though it is not marked as such")]

use std::sync::Arc;

use serde_json::{Value, json};
use stoq_api::queue::Broker;

/// A broker with `options` beside what it needs to find the server at `host`.
pub(crate) fn broker(host: &str, options: &Value) -> Arc<dyn Broker> {
    let mut all = json!({"project": "test-project", "emulator_host": host, "ack_deadline": 10.0});
    for (name, value) in options.as_object().unwrap() {
        all[name] = value.clone();
    }
    (stoq_pubsub::registration().open)(all.as_object().unwrap()).unwrap()
}
