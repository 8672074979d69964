//! `jinja`: a template over each response. The decorator puts what it gives into the response, the connector prints it.

mod render;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoq_api::plugin::{Connector, Decorator, Item, Verdict};
use stoq_api::scanner::{BuildError, PluginInfo, PluginKind};
use stoq_api::{Fault, FaultKind, Response};
use tokio::task::spawn_blocking;

use self::render::{OPTIONS, Renderer};
use crate::{ConnectorRegistration, Context, DecoratorRegistration, config_of, stdout};

/// The decorator's entry in the registry.
pub(crate) fn decorator() -> DecoratorRegistration {
    let description = "Puts what a template makes of a response into it";
    DecoratorRegistration { info: info(description, &[PluginKind::Decorator]), build: build_decorator }
}

/// The connector's entry in the registry.
pub(crate) fn registration() -> ConnectorRegistration {
    let description = "Prints what a template makes of a response";
    ConnectorRegistration { info: info(description, &[PluginKind::Connector]), build: build_connector }
}

fn info(description: &'static str, kinds: &'static [PluginKind]) -> PluginInfo {
    PluginInfo { name: "jinja", description, kinds, options: OPTIONS, required_workers: &[] }
}

fn build_decorator(options: &Map<String, Value>) -> Result<Arc<dyn Decorator>, BuildError> {
    Ok(Arc::new(Report(Arc::new(Renderer::new(&config_of(options)?)?))))
}

fn build_connector(options: &Map<String, Value>, _context: &Context) -> Result<Arc<dyn Connector>, BuildError> {
    let renderer = Arc::new(Renderer::new(&config_of(options)?)?);
    Ok(Arc::new(Printer { renderer, out: Arc::new(Mutex::new(io::stdout())) }))
}

/// The decorator.
struct Report(Arc<Renderer>);

#[async_trait]
impl Decorator for Report {
    async fn decorate(&self, response: &Response) -> Result<Option<Value>, String> {
        let json = serde_json::to_vec(response).map_err(|e| e.to_string())?;
        let renderer = Arc::clone(&self.0);
        let rendered = spawn_blocking(move || renderer.render(&json)).await;
        rendered.map_err(|_| "rendering the template stopped in the middle".to_owned())?.map(|text| Some(text.into()))
    }
}

/// The connector, over any writer.
struct Printer<W> {
    renderer: Arc<Renderer>,
    out: Arc<Mutex<W>>,
}

/// What the decorator of this name made, if it was there.
#[derive(Deserialize)]
struct Decorated {
    #[serde(default)]
    decorators: Made,
}

#[derive(Default, Deserialize)]
struct Made {
    #[serde(default)]
    jinja: Option<String>,
}

fn text(renderer: &Renderer, json: &[u8]) -> Result<String, String> {
    let made: Decorated = serde_json::from_slice(json).map_err(|e| format!("not a response: {e}"))?;
    let mut text = match made.decorators.jinja {
        Some(text) => text,
        None => renderer.render(json)?,
    };
    text.push('\n');
    Ok(text)
}

#[async_trait]
impl<W: io::Write + Send + 'static> Connector for Printer<W> {
    async fn deliver(&self, batch: &[Item]) -> Result<Vec<Verdict>, Fault> {
        let (renderer, out, batch) = (Arc::clone(&self.renderer), Arc::clone(&self.out), batch.to_vec());
        let printed = spawn_blocking(move || {
            let mut verdicts = Vec::with_capacity(batch.len());
            for item in &batch {
                verdicts.push(match text(&renderer, &item.json) {
                    Err(reason) => Verdict::Rejected(reason),
                    Ok(text) => match stdout::write(&mut *out.lock(), text.as_bytes()) {
                        Ok(()) => Verdict::Delivered,
                        // What is out already must not be written again.
                        Err(e) if e.is_transient() && !verdicts.is_empty() => Verdict::Retry(e.to_string()),
                        Err(e) => return Err(e),
                    },
                });
            }
            Ok(verdicts)
        });
        printed.await.map_err(|e| Fault::because(FaultKind::Corrupt, "printing stopped in the middle", e))?
    }
}
