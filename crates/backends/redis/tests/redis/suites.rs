//! The conformance suite of the ledger, on a server and on a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use stoq_api::backend::Options;
use stoq_api::ledger::Ledger;
use stoq_api::store::Store;
use stoq_testkit::services::{Redis, RedisCluster};
use stoq_testkit::{LedgerHarness, ledger_suite};

use crate::common::{Objects, ledger_over, options, with};

/// Servers that are killed and started again.
pub(crate) struct Servers {
    servers: Vec<Redis>,
    options: Options,
    store: Arc<Objects>,
}

impl Servers {
    pub(crate) fn new(servers: Vec<Redis>, options: Options) -> Self {
        Self { servers, options, store: Arc::default() }
    }
}

#[async_trait]
impl LedgerHarness for Servers {
    async fn ledger(&mut self) -> Arc<dyn Ledger> {
        ledger_over(&self.options, Arc::clone(&self.store) as Arc<dyn Store>)
    }

    async fn reopen(&mut self) -> bool {
        for server in &mut self.servers {
            server.kill();
            server.restart().await;
        }
        if self.servers.len() > 1 {
            let cluster = RedisCluster { nodes: std::mem::take(&mut self.servers) };
            cluster.settled().await;
            self.servers = cluster.nodes;
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server() {
    let server = Redis::start().await;
    let options = options(&[server.address()]);
    ledger_suite(&mut Servers::new(vec![server], options)).await;
}

#[tokio::test]
async fn everything_large_in_the_store() {
    let server = Redis::start().await;
    let options = with(json!({ "urls": [server.address()], "outcome_inline": 0, "connections": 1, "db": 3 }));
    let mut servers = Servers::new(vec![server], options);
    ledger_suite(&mut servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster() {
    let cluster = RedisCluster::start(3, 0).await;
    let options = with(json!({ "urls": cluster.addresses(), "cluster": true }));
    ledger_suite(&mut Servers::new(cluster.nodes, options)).await;
}
