//! Replies and their codes.

use serde_json::{Map, Value, json};

/// Every code: its HTTP status and its text.
const CODES: [(u16, &str); 28] = [
    (200, "Success"),
    (403, "Token disabled"),
    (401, "Token is required"),
    (401, "Invalid authorization"),
    (403, "Invalid token"),
    (400, "No data"),
    (400, "Invalid data format"),
    (400, "Incorrect index"),
    (500, "Internal server error"),
    (503, "Server is busy"),
    (400, "Data channel is missing"),
    (400, "Invalid data channel"),
    (400, "Event field is required"),
    (400, "Event field cannot be blank"),
    (400, "ACK is disabled"),
    (400, "Error in handling indexed fields"),
    (400, "Query string authorization is not enabled"),
    (200, "HEC is healthy"),
    (503, "HEC is unhealthy, queues are full"),
    (503, "HEC is unhealthy, ack service unavailable"),
    (503, "HEC is unhealthy, queues are full, ack service unavailable"),
    (400, "Invalid token"),
    (400, "Token disabled"),
    (503, "Server is shutting down"),
    (200, "HEC queue is approaching its capacity limit"),
    (200, "HEC ACK is approaching its capacity limit"),
    (429, "HEC queue is at capacity and cannot process any more requests"),
    (429, "HEC ACK channel is at capacity and cannot process any more requests"),
];

/// What the server says.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Which indexer answered, if there are several.
    pub(super) indexer: Option<usize>,
    body: Map<String, Value>,
}

impl Reply {
    /// The reply of a code.
    pub(super) fn code(code: u16) -> Self {
        let (status, text) = CODES[usize::from(code)];
        Self::object(status, json!({ "text": text, "code": code }))
    }

    /// The reply of a code that is the fault of one event, counted from 0.
    pub(super) fn event(code: u16, number: usize) -> Self {
        Self::code(code).with("invalid-event-number", number.into())
    }

    /// Any other reply.
    pub(super) fn object(status: u16, body: Value) -> Self {
        let Value::Object(body) = body else { panic!("a reply is an object") };
        Self { status, indexer: None, body }
    }

    /// The same, with one more key.
    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.body.insert(key.to_owned(), value);
        self
    }

    /// Its body.
    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.body).unwrap()
    }
}
