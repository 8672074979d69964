//! Google Pub/Sub as far as it can be had: `pstest`, Google's own fake, which keeps everything in memory, with the flow
//! control and the REST interface that it lacks added (xtask/pstest).
//!
//! It is not Pub/Sub. It knows no credentials, permissions, rates or regions; nothing outlives it; it confirms every
//! acknowledgement, even of what has expired; and deadlines below ten seconds do not exist, as with Pub/Sub itself.

use std::process::Command;

use super::{Place, Service, cached};

/// The name under which `cargo xtask test` builds it.
const PSTEST: &str = "pstest-2.8.1-5";
/// Written once it listens.
const READY: &str = "ready at";

/// A server that starts empty each time.
pub struct PubSub {
    server: Service,
}

impl PubSub {
    /// Starts `pstest`.
    ///
    /// # Panics
    /// It cannot be started, for example because it was not built.
    pub async fn start() -> Self {
        Self::start_failing(&[]).await
    }

    /// Starts `pstest` so that every call of each of the methods (`"Publish"`) fails with its gRPC status code.
    ///
    /// # Panics
    /// As for [`PubSub::start`].
    pub async fn start_failing(methods: &[(&str, u32)]) -> Self {
        let program = cached(PSTEST, "pstest");
        let failing: Vec<String> = methods.iter().map(|(method, code)| format!("{method}={code}")).collect();
        let command = move |place: &Place| {
            let mut command = Command::new(&program);
            command.arg(format!("127.0.0.1:{}", place.ports[0])).args(&failing);
            command
        };
        let said = |place: Place| std::fs::read_to_string(place.log).is_ok_and(|log| log.contains(READY));
        let mut server = Service::new("pstest", 1, command, move |place| Box::pin(async move { said(place) }));
        server.start().await;
        Self { server }
    }

    /// Where it is, as `PUBSUB_EMULATOR_HOST` would say it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.port(0)
    }

    /// Kills it, and everything that it kept.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again on the same port, empty.
    ///
    /// # Panics
    /// As for [`PubSub::start`].
    pub async fn restart(&mut self) {
        self.server.start().await;
    }
}
