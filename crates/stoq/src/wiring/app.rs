//! What only a worker needs: plugins and the slots that they run in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use stoq_api::Named;
use stoq_api::fetch::Fetcher;
use stoq_api::plugin::{Archiver, Decorator, ExternalWorker};
use stoq_api::response::EngineInfo;
use stoq_api::scanner::{PluginInfo, PluginKind};
use stoq_engine::plan::PlanReport;
use stoq_engine::rules::Rules;
use stoq_engine::{Breaker, BreakerSettings, Lanes, Meters, Plan, Surroundings};
use stoq_jail::{Inline, Limits, Mode, Pool, PoolConfig, Runner, Sharing};
use stoq_runtime::config::{JailMode, Settings};
use stoq_runtime::metrics::Role;

use super::base::Base;
use super::config::shown;
use super::open::Opener;
use super::plan;
use super::spool::Spool;
use crate::exit::UsageError;
use crate::external;

/// A worker's surroundings, and what lives as long as they do.
pub(crate) struct Built {
    pub(crate) around: Arc<Surroundings>,
    /// What was left out while plugins were built: (plugin, sentence).
    pub(crate) warnings: Vec<(String, String)>,
    _spool: Spool,
}

/// Builds plugins and starts slots.
pub(crate) fn build(base: &Base) -> Result<Built> {
    let settings = &base.loaded.settings;
    let own = base.dir.join("spool");
    let spool = Spool::make(settings.scan.spool_dir.as_deref().unwrap_or(&own))?;
    let externals = external::workers(&base.loaded, spool.path())?;
    let names: Vec<&str> = externals.keys().map(String::as_str).collect();
    let plan = plan::plan(&base.loaded, &names).map_err(|problems| UsageError(shown(&problems)))?;
    let rules = Rules::compile(&plan.rules).map_err(|problems| UsageError(problems.join("\n")))?;
    let runner = runner(settings, &plan, spool.path(), sharing(&base.links.lanes))?;
    let report: PlanReport = serde_json::from_slice(&runner.hello()).context("the slots did not say what they hold")?;
    for (plugin, ruleset) in &report.rulesets {
        stoq_runtime::metrics::ruleset(plugin, None, ruleset);
    }
    let meters = Meters::default();
    for provider in settings.active(PluginKind::Provider) {
        meters.expect(&provider.name);
    }
    let plugins: Vec<String> = plan.plugins.iter().map(|plugin| plugin.name.clone()).collect();
    let all = plugins.iter().chain(externals.keys());
    let holds: Vec<_> = all.map(|name| (name.clone(), base.holds.of(Role::Plugin, name))).collect();
    let around = Surroundings {
        meters,
        breaker: Breaker::new(BreakerSettings {
            kills: settings.scan.breaker_kills,
            payloads: settings.scan.breaker_payloads,
            pause: settings.scan.breaker_pause.get(),
        })
        .with_holds(holds),
        links: Arc::clone(&base.links),
        files: Arc::clone(&base.roots),
        fetchers: fetchers(base)?,
        runner,
        plugins,
        externals,
        rules,
        archivers: archivers(base)?,
        decorators: decorators(settings)?,
        spool_dir: spool.path().to_path_buf(),
        engine: Arc::new(EngineInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rulesets: Named(report.rulesets.into_iter().collect()),
        }),
    };
    Ok(Built { around: Arc::new(around), warnings: report.warnings, _spool: spool })
}

/// Slots are shared as the lanes are.
fn sharing(lanes: &Lanes) -> Sharing {
    let mut sharing = Sharing::default();
    for lanes in lanes.tenants() {
        match &lanes.tenant {
            None => sharing.plain = lanes.weight,
            Some(tenant) => sharing.tenants.push((Arc::clone(tenant), lanes.weight)),
        }
    }
    sharing
}

fn runner(settings: &Settings, plan: &Plan, spool_dir: &Path, sharing: Sharing) -> Result<Arc<dyn Runner>> {
    let config = serde_json::to_vec(plan)?;
    let scan = &settings.scan;
    let mode = match scan.jail {
        JailMode::Off => {
            let slots = scan.slot_count();
            let inline = Inline::start(build_workload, &config, slots, spool_dir.to_path_buf(), &sharing)?;
            return Ok(Arc::new(inline));
        }
        JailMode::Require => Mode::Require,
        JailMode::Prefer => Mode::Prefer,
    };
    let pool = Pool::start(
        PoolConfig {
            slots: scan.slot_count(),
            limits: Limits {
                plugin_wall: scan.plugin_wall.get(),
                plugin_cpu: scan.plugin_cpu.get(),
                memory: scan.memory.get(),
                ..Limits::default()
            },
            batch_items: scan.batch_items,
            recycle_after: u32::try_from(scan.recycle_after).unwrap_or(u32::MAX),
            spool_dir: spool_dir.to_path_buf(),
            mode,
            landlock_min: u8::try_from(scan.landlock_min).unwrap_or(u8::MAX),
            sharing,
            ..PoolConfig::default()
        },
        Bytes::from(config),
    );
    let pool = pool.map_err(|e| match e {
        stoq_jail::JailError::Build(text) => anyhow::Error::new(UsageError(text)),
        other => anyhow::Error::new(other).context("the jail cannot be started (scan.jail: require, prefer or off)"),
    })?;
    let applied = pool.applied();
    tracing::debug!(
        landlock = applied.landlock,
        seccomp = applied.seccomp,
        unprivileged = applied.unprivileged,
        "slots are locked in"
    );
    if !applied.seccomp {
        tracing::warn!(
            "slots run without seccomp: this kernel or container refuses it, and scan.jail = \"prefer\" allows that"
        );
    }
    Ok(Arc::new(pool))
}

/// Builds what slots run; also called in the fork server, before anything else.
pub(crate) fn build_workload(config: &[u8]) -> Result<stoq_jail::Hello, String> {
    stoq_engine::rounds::build(config, &stoq_scanners::registry())
}

/// What fetches for the intakes that leave payloads behind a network. Their file roots become known as well.
fn fetchers(base: &Base) -> Result<BTreeMap<String, Arc<dyn Fetcher>>> {
    let registry = stoq_providers::registry();
    let mut all = BTreeMap::new();
    for component in base.loaded.settings.active(PluginKind::Provider) {
        let registered = registry.iter().find(|r| r.info.name == component.kind);
        let Some(build) = registered.and_then(|r| r.fetcher) else { continue };
        let context = base.provider_context(&component.name, "");
        let built = build(&component.options.0, &context)
            .map_err(|e| UsageError(format!("provider {}: {e}", component.name)))?;
        all.insert(component.name, built);
    }
    Ok(all)
}

fn archivers(base: &Base) -> Result<BTreeMap<String, Arc<dyn Archiver>>> {
    let settings = &base.loaded.settings;
    let queues = Opener::for_sinks(&base.brokers, settings);
    let registry = stoq_stores::archivers::registry();
    let mut all = BTreeMap::new();
    for component in settings.active(PluginKind::Archiver) {
        let Some(registration) = registry.iter().find(|r| r.info.name == component.kind) else { continue };
        let built = (registration.build)(&component.options.0, &queues)
            .map_err(|e| UsageError(format!("archiver {}: {e}", component.name)))?;
        all.insert(component.name, built);
    }
    Ok(all)
}

fn decorators(settings: &Settings) -> Result<BTreeMap<String, Arc<dyn Decorator>>> {
    let registry = stoq_connectors::decorators();
    let mut all = BTreeMap::new();
    for component in settings.active(PluginKind::Decorator) {
        let Some(registration) = registry.iter().find(|r| r.info.name == component.kind) else { continue };
        let built = (registration.build)(&component.options.0)
            .map_err(|e| UsageError(format!("decorator {}: {e}", component.name)))?;
        all.insert(component.name, built);
    }
    Ok(all)
}

/// Workers outside of slots, by name.
pub(crate) type Externals = BTreeMap<String, Arc<dyn ExternalWorker>>;

/// What is known of the plugins of all kinds, for lists and checks.
pub(crate) fn infos() -> Vec<PluginInfo> {
    super::registry::all()
}
