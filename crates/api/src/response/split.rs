//! Taking a response apart: one document per worker result, or one response per payload as if it had been the root.

use serde_json::{Value, json};

use super::Response;
use crate::json::Named;

/// stoQ's `split()`: for each payload and each of its workers one copy of the response that holds only that payload and
/// that worker's result. Payloads without results give nothing.
pub fn split(response: &Response) -> Vec<Value> {
    let mut parts = Vec::new();
    for result in &response.results {
        for (worker, json) in &result.workers.0 {
            let mut one = result.clone();
            one.workers = Named(vec![(worker.clone(), json.clone())]);
            let whole = Response { results: vec![one], ..without_results(response) };
            parts.push(json!(whole));
        }
    }
    parts
}

/// stoQ's `reconstruct_all_subresponses()`: for each payload a response in which it is the first result, followed by
/// everything extracted from it, directly or not. Decorators and errors are empty, as there.
pub fn subresponses(response: &Response) -> impl Iterator<Item = Response> + '_ {
    (0..response.results.len()).map(|first| {
        let mut members = vec![response.results[first].payload_id];
        let mut results = vec![response.results[first].clone()];
        for later in &response.results[first + 1..] {
            if later.extracted_from.iter().any(|parent| members.contains(parent)) {
                members.push(later.payload_id);
                results.push(later.clone());
            }
        }
        Response { results, errors: Vec::new(), decorators: Named::default(), ..without_results(response) }
    })
}

fn without_results(response: &Response) -> Response {
    Response {
        results: Vec::new(),
        request_meta: response.request_meta.clone(),
        errors: response.errors.clone(),
        time: response.time.clone(),
        decorators: response.decorators.clone(),
        scan_id: response.scan_id,
        complete: response.complete,
        findings: response.findings.clone(),
        engine: response.engine.clone(),
        tenant: response.tenant.clone(),
        replay_of: response.replay_of,
    }
}
