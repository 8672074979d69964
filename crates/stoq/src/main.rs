//! The stoq command: scans files with plugins, recursively, alone on one machine or as one role of a fleet.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod exit;
mod external;
mod http;
mod pipeline;
mod trace;
mod view;
mod watch;
mod wiring;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory, Parser};
use stoq_api::{Fault, FaultKind};
use stoq_runtime::config::Settings;
use stoq_runtime::fail::Problem;
use stoq_runtime::shutdown::Shutdown;

use crate::cli::{Cli, Command, ConfigCommand, ConnectorArgs, ConnectorCommand};
use crate::exit::{Exit, UsageError};

fn main() -> ExitCode {
    // A slot's fork server is this program: it must be asked for before anything else is set up.
    stoq_jail::enter_if_asked(wiring::app::build_workload);
    stoq_jail::give_memory_back();
    let cli = Cli::parse();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(error) if is_closed_pipe(&error) => Exit::Clean.into(),
        Err(error) => {
            let exit = if error.is::<UsageError>() { Exit::Usage } else { Exit::Failed };
            say(&format!("stoq: {error:#}"));
            exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit> {
    let out = &mut std::io::stdout();
    match cli.command {
        Command::Scan(args) => with_runtime(async |shutdown| commands::scan::run(args, shutdown).await),
        Command::Run(args) => with_runtime(async |shutdown| commands::run::run(args, shutdown).await),
        Command::Provider(args) => with_runtime(async |shutdown| commands::run::provider(args, shutdown).await),
        Command::Worker(args) => with_runtime(async |shutdown| commands::run::worker(args, shutdown).await),
        Command::Connector(ConnectorArgs { command: Some(ConnectorCommand::Replay(args)), .. }) => {
            with_runtime(async |shutdown| commands::connector::replay(&args, shutdown, &mut std::io::stdout()).await)
        }
        Command::Connector(args) => with_runtime(async |shutdown| commands::run::connector(args, shutdown).await),
        Command::Setup(args) => operate(async || commands::setup::run(&args, &mut std::io::stdout()).await),
        Command::Dead { command } => operate(async || commands::dead::run(command, &mut std::io::stdout()).await),
        Command::Pause(args) => operate(async || commands::pause::pause(&args, &mut std::io::stdout()).await),
        Command::Resume(args) => operate(async || commands::pause::resume(&args, &mut std::io::stdout()).await),
        Command::Cancel(args) => operate(async || commands::cancel::run(&args, &mut std::io::stdout()).await),
        Command::Status(args) => operate(async || commands::status::run(&args, &mut std::io::stdout()).await),
        Command::Gc(args) => operate(async || commands::gc::run(&args, &mut std::io::stdout()).await),
        Command::List(args) => commands::list::run(&args, out),
        Command::Check(args) => commands::check::run(&args, out),
        Command::Config { command: ConfigCommand::Show(args) } => commands::config::show(&args, out),
        Command::Config { command: ConfigCommand::Reference } => commands::config::reference(out),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "stoq", out);
            Ok(Exit::Clean)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(out)?;
            Ok(Exit::Clean)
        }
    }
}

fn with_runtime(command: impl AsyncFnOnce(&Shutdown) -> Result<Exit>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let exit = runtime.block_on(async {
        let shutdown = Shutdown::new();
        let _signals = shutdown.on_signals().context("cannot listen for signals")?;
        command(&shutdown).await
    });
    // Threads that still wait for standard input or a slow disk must not hold up the end.
    runtime.shutdown_background();
    exit
}

/// Runs a command by which a person looks at a fleet or changes it. A service that says that the configuration is wrong, of a
/// password say, says it of what this person wrote.
fn operate(command: impl AsyncFnOnce() -> Result<Exit>) -> Result<Exit> {
    with_runtime(async |_| command().await).map_err(|error| match error.downcast_ref::<Fault>() {
        Some(fault) if fault.kind == FaultKind::Misconfigured => UsageError(format!("{error:#}")).into(),
        _ => error,
    })
}

/// The reader of our output has gone: that is its right, and no failure of ours.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}

/// Starts the logs as configured.
pub(crate) fn start_logs(settings: &Settings) -> Result<()> {
    stoq_runtime::logs::init(&settings.core.log).context("cannot start the log")
}

/// Says what was understood but should be known.
pub(crate) fn warn(problems: &[Problem]) {
    for problem in problems {
        say(&problem.to_string());
    }
}

/// Says which of stoQ's Python plugins were named and are not run.
pub(crate) fn warn_of_python(folders: &[std::path::PathBuf]) {
    for folder in folders {
        let names = commands::list::python_plugins(folder);
        let folder = folder.to_string_lossy();
        let folder = stoq_runtime::escape::visible(&folder);
        match names.as_slice() {
            [] => say(&format!("warning: --plugin-dir {folder}: there are no .stoq files in it")),
            names => say(&format!(
                "warning: --plugin-dir {folder}: this version does not run Python plugins; left out: {}",
                stoq_runtime::escape::visible(&names.join(", "))
            )),
        }
    }
}

/// Says what was left out while plugins were built.
pub(crate) fn warn_of_plugins(warnings: &[(String, String)]) {
    for (plugin, text) in warnings {
        say(&format!("warning: plugin {plugin}: {}", stoq_runtime::escape::visible(text)));
    }
}

fn say(text: &str) {
    // Standard error being gone leaves nobody to tell.
    writeln!(std::io::stderr(), "{text}").ok();
}
