//! `elasticsearch`: documents into Elasticsearch 8 and 9, and OpenSearch 2 and 3.
//!
//! Documents go out by `_bulk` under ids that are made of the scan's and the payload's, with `create`: whatever is sent
//! again is there already, so each document is in its index once. Every document of a reply has its own verdict.
//! <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>,
//! <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>

mod bulk;
mod config;
mod deliver;
mod mapping;
mod names;
mod server;
mod setup;

use std::sync::Arc;

use serde_json::{Map, Value};
use stoq_api::plugin::Connector;
use stoq_api::scanner::BuildError;

use crate::{ConnectorRegistration, Context};

/// The connector's entry in the registry.
pub(crate) fn registration() -> ConnectorRegistration {
    ConnectorRegistration { info: config::info(), build }
}

fn build(options: &Map<String, Value>, _context: &Context) -> Result<Arc<dyn Connector>, BuildError> {
    Ok(Arc::new(deliver::Elasticsearch::new(config::Validated::read(options)?)?))
}

#[cfg(test)]
mod tests;
