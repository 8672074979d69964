//! Workers that run beside the slots.

use std::time::Instant;

use stoq_api::plugin::ExternalOutput;
use stoq_api::{Run, RunStatus};

use super::Fetch;
use crate::surroundings::Surroundings;

/// One external worker's run and answer.
pub(super) struct ExternalRun {
    pub(super) run: Run,
    pub(super) output: ExternalOutput,
}

/// Runs all of `pending` at the same time and answers in their order.
pub(super) async fn run_all(
    around: &Surroundings,
    fetch: &Fetch,
    pending: Vec<(String, u32, Vec<String>)>,
) -> Vec<ExternalRun> {
    let runs = pending.into_iter().filter_map(|(plugin, round, why)| {
        let worker = around.externals.get(&plugin)?;
        Some(async move {
            let started = Instant::now();
            let mut output =
                worker.scan(&fetch.content, &fetch.task.payload_meta, fetch.task.scan.tenant.as_deref()).await;
            let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            let status = output.status.unwrap_or(RunStatus::Ok);
            let result = output.results.take();
            ExternalRun { run: Run { plugin, round, why, status, micros, result }, output }
        })
    });
    futures::future::join_all(runs).await
}
