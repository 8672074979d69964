//! Small scans, heads and outcomes that suites and tests are made of.

use stoq_api::json::{Json, Named};
use stoq_api::ledger::ChildRecord;
use stoq_api::response::{EngineInfo, PayloadResults, PluginsRun, Response};
use stoq_api::task::ScanHead;
use stoq_api::{Budgets, Location, Outcome, PayloadId, PayloadMeta, RequestMeta, RootRef, ScanId, Sha256, Timestamp};
use uuid::Uuid;

/// A scan that nobody has used before.
pub fn fresh_scan() -> ScanId {
    ScanId(Uuid::new_v4())
}

/// A head with one root per entry of `root_sizes`, whose contents lie in a store.
pub fn head(scan: ScanId, root_sizes: &[u64], budgets: Budgets) -> ScanHead {
    let first_seen = Timestamp(1_767_323_045_678_901);
    let root = |(ordinal, size): (u32, &u64)| {
        let sha256 = Sha256::of(format!("root {ordinal} of {scan}").as_bytes());
        RootRef {
            id: PayloadId::root(scan, ordinal),
            sha256: Some(sha256),
            size: *size,
            location: Location::Store { day: first_seen.day(), sha256 },
            payload_meta: PayloadMeta::default(),
        }
    };
    ScanHead {
        source: "suite".to_owned(),
        first_seen,
        roots: (0_u32..).zip(root_sizes).map(root).collect(),
        budgets,
        request_meta: RequestMeta::default(),
        start_dispatch: vec!["yara".to_owned()],
        tenant: None,
        allowed_plugins: None,
        replay_of: None,
        trace: None,
    }
}

/// The child of a scan that `tag` stands for.
pub fn child(scan: ScanId, tag: &str, size: u64) -> ChildRecord {
    let sha256 = Sha256::of(tag.as_bytes());
    ChildRecord { id: PayloadId::child(scan, &sha256, true, &[]), sha256, size, depth: 1 }
}

/// An outcome that can be told from others of the same payload by `mark`.
pub fn outcome(payload: PayloadId, mark: u64) -> Outcome {
    Outcome::empty(payload, Some(Sha256::of(&mark.to_le_bytes())), mark)
}

/// The JSON text of a response of `scan`: a root called `text`, and what came out of it, with a match that quotes it.
pub fn response(scan: ScanId, text: &str) -> Vec<u8> {
    let root = PayloadId::root(scan, 0);
    let sha256 = Sha256::of(text.as_bytes());
    let child = PayloadId::child(scan, &sha256, true, &[]);
    let matches = serde_json::json!({ "matches": [{ "rule": "sample", "meta": { "text": text } }] });
    let payload = |payload_id, depth, extracted_from: Vec<PayloadId>| PayloadResults {
        size: text.len() as u64,
        payload_id,
        payload_meta: PayloadMeta::with("filename", text),
        plugins_run: PluginsRun { workers: vec!["yara".to_owned()], archivers: Vec::new() },
        extracted_by: extracted_from.iter().map(|_| "decompress".to_owned()).collect(),
        extracted_from,
        workers: Named(vec![("yara".to_owned(), Json::parse(matches.to_string()).unwrap())]),
        archivers: Named::default(),
        sha256: Some(sha256),
        depth,
        names: Vec::new(),
        runs: Vec::new(),
        not_run: Vec::new(),
        findings: Vec::new(),
    };
    let response: Response = Response {
        results: vec![payload(root, 0, Vec::new()), payload(child, 1, vec![root])],
        request_meta: RequestMeta { source: Some("suite".to_owned()), ..RequestMeta::default() },
        errors: Vec::new(),
        time: "2026-01-02T03:04:05.678901".to_owned(),
        decorators: Named::default(),
        scan_id: scan,
        complete: true,
        findings: Vec::new(),
        engine: EngineInfo { version: "0.0.0".to_owned(), rulesets: Named::default() }.into(),
        tenant: None,
        replay_of: None,
    };
    serde_json::to_vec(&response).unwrap()
}
