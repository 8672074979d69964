//! `exif` by ExifTool, in a tool slot.
//!
//! One process answers many payloads (`-stay_open`): starting perl costs far more than reading one file. It has a working
//! directory with the payload in it, its own libraries, and nothing else; a process that failed over a payload is not used
//! again.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use serde_json::Value;
use stoq_api::plugin::{ExternalOutput, ExternalWorker};
use stoq_api::{Content, Finding, FindingKind, Json, PayloadMeta, RunStatus, fault};
use stoq_jail::tool::{Conversation, INPUT, LIBRARIES, PERL, Tool, ToolLimits, ToolProfile, ToolStop};
use stoq_jail::{Mode, StopReason};
use stoq_runtime::config::{JailMode, Loaded};
use stoq_scanners::exif::parse_exiftool;

/// The worker's name, the same as the built-in reader's.
pub(crate) const NAME: &str = "exif";

/// Payloads after which the process is replaced.
const PAYLOADS: u32 = 500;
/// Memory of one ExifTool, in bytes: perl and its tables take about a tenth of it.
const MEMORY: u64 = 512 << 20;

/// Runs ExifTool over payloads.
pub(crate) struct ExifTool(Tool);

/// The worker, if the program that option `bin` names is installed. Its sandbox stays as good as the kernel allows even
/// where slots have none: switching the jail off is for looking into our own plugins, not into perl.
pub(crate) fn worker(loaded: &Loaded, scratch_dir: &Path) -> Result<Option<ExifTool>> {
    let settings = &loaded.settings;
    let bin = settings.plugins.get(NAME).and_then(|options| options.0.get("bin")).and_then(Value::as_str);
    let mode = match settings.scan.jail {
        JailMode::Require => Mode::Require,
        JailMode::Prefer | JailMode::Off => Mode::Prefer,
    };
    if mode == Mode::Require && !Tool::is_supported() {
        tracing::warn!(
            "this kernel has no Landlock, without which ExifTool is not run; the built-in reader of exif is used"
        );
        return Ok(None);
    }
    let Some(program) = find(bin.unwrap_or("exiftool")) else { return Ok(None) };
    let lines = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let profile = ToolProfile {
        program: program.clone(),
        // An empty configuration file: the one of the user's home would be run as a program.
        arguments: lines(&["-config", "", "-stay_open", "True", "-@", "-"]),
        environment: Vec::new(),
        read: LIBRARIES.iter().chain(PERL).map(PathBuf::from).collect(),
        slots: settings.scan.slot_count(),
        scratch_dir: scratch_dir.to_path_buf(),
        limits: ToolLimits {
            wall: settings.scan.plugin_wall.get(),
            cpu: settings.scan.plugin_cpu.get(),
            memory: MEMORY,
            ..ToolLimits::default()
        },
        conversation: Some(Conversation {
            request: lines(&["-j", "-n", INPUT, "-execute{nonce}"]),
            ready: "{ready{nonce}}".to_owned(),
            payloads: PAYLOADS,
        }),
        mode,
        landlock_min: u8::try_from(settings.scan.landlock_min).unwrap_or(u8::MAX),
    };
    let tool = Tool::new(profile).with_context(|| format!("cannot use {} for exif", program.display()))?;
    Ok(Some(ExifTool(tool)))
}

/// A program by its path, or by its name on PATH.
fn find(bin: &str) -> Option<PathBuf> {
    let named = Path::new(bin);
    if named.is_absolute() {
        return named.is_file().then(|| named.to_path_buf());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(bin)).find(|path| path.is_absolute() && path.is_file())
}

#[async_trait]
impl ExternalWorker for ExifTool {
    async fn scan(&self, content: &Content, _meta: &PayloadMeta, tenant: Option<&str>) -> ExternalOutput {
        match self.0.run(content, tenant).await {
            Ok(output) => match parse_exiftool(&output.stdout) {
                Ok(facts) => ExternalOutput { results: Some(Json::of(&facts)), ..ExternalOutput::default() },
                Err(text) => failed(text),
            },
            Err(ToolStop::Stopped(stopped)) => ExternalOutput {
                errors: vec![format!("worker:failed to scan: stopped: {}", stopped.detail)],
                findings: vec![Finding::new(FindingKind::PluginStopped, stopped.detail).of_plugin(NAME)],
                status: Some(if stopped.reason == StopReason::Time { RunStatus::TimedOut } else { RunStatus::Killed }),
                ..ExternalOutput::default()
            },
            Err(error) => failed(fault::chain(&error)),
        }
    }
}

fn failed(text: String) -> ExternalOutput {
    ExternalOutput {
        errors: vec![format!("worker:failed to scan: {text}")],
        status: Some(RunStatus::Failed),
        ..ExternalOutput::default()
    }
}
