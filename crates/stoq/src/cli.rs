//! The command line: stoQ's flags under their old names, and newer ones.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stoq_runtime::config::flags::{self, Flag};

/// Scans files with plugins, recursively: what a plugin extracts is scanned again.
#[derive(Debug, Parser)]
#[command(name = "stoq", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something matched (with --fail-on match)
  2  wrong usage or configuration
  3  some payload could not be scanned, or not in full
  4  stoq itself failed";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Scan files, folders or standard input, and show what was found
    Scan(ScanArgs),
    /// Take payloads from providers and hand responses to connectors, until the providers end or a signal comes
    Run(RunArgs),
    /// One role of a fleet: take references from providers and put tasks on the lanes
    Provider(ProviderArgs),
    /// One role of a fleet: scan what is on the lanes
    Worker(WorkerArgs),
    /// One role of a fleet: hand responses to connectors
    Connector(ConnectorArgs),
    /// Make the lanes of a fleet at its broker; what exists already is never changed
    Setup(SetupArgs),
    /// Look at what no one could process, scan it again, or drop it
    Dead {
        #[command(subcommand)]
        command: DeadCommand,
    },
    /// Keep providers from taking, connectors from delivering and plugins from running, in every process, until they are
    /// resumed; nothing is lost, and responses name plugins that did not run
    Pause(PauseArgs),
    /// Let what was paused go on
    Resume(PausedArgs),
    /// End scans that are open, as partial: what is known by now becomes their response, and nothing more is extracted
    Cancel(CancelArgs),
    /// Show what waits on the lanes, what is open, what went to the dead lane, and what is paused
    Status(StatusArgs),
    /// Drop payloads that are older than the retention from the payload store
    Gc(GcArgs),
    /// List the plugins there are, with their options
    List(ListArgs),
    /// Check configuration, rules and routes without scanning anything
    Check(CommonArgs),
    /// Show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the effective configuration, with where each value comes from; secrets are masked
    Show(CommonArgs),
    /// Print every key there is, with its default and what it means, as a file to start from
    Reference,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List the letters on the dead lane
    List(DeadListArgs),
    /// Show one letter: why it is there, and what it held
    Show(DeadShowArgs),
    /// Do again what letters held: payloads are scanned anew, responses go to the connector that gave them up, references go
    /// back to the queue that they came from
    Replay(DeadPickArgs),
    /// Remove letters for good
    Drop(DeadPickArgs),
}

/// Which letters.
#[derive(Debug, Args)]
pub(crate) struct DeadFilter {
    /// Only letters of this kind: reference, task, result
    #[arg(long, value_name = "KIND", value_parser = ["reference", "task", "result"])]
    pub(crate) kind: Option<String>,
    /// Only letters from this intake, role or connector
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeadListArgs {
    #[command(flatten)]
    pub(crate) filter: DeadFilter,
    /// One line of JSON for each letter
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeadShowArgs {
    /// The letter's name, as `stoq dead list` shows it
    pub(crate) name: String,
    /// Write the original bytes to standard output, and nothing else; they are hostile
    #[arg(long)]
    pub(crate) body: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DeadPickArgs {
    /// The letters' names, as `stoq dead list` shows them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) names: Vec<String>,
    /// All letters, or all that --kind and --from leave
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: DeadFilter,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// What is paused, or to be.
#[derive(Debug, Args)]
pub(crate) struct PausedArgs {
    /// Providers, connectors and plugins of workers, as the configuration calls them
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Which one is meant where several share a name: provider, connector, plugin
    #[arg(long, value_name = "KIND", value_parser = ["provider", "connector", "plugin"])]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Why, for whoever looks at `stoq status`
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) which: PausedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Ids of scans, from `stoq status`, logs or traces
    #[arg(required = true, value_name = "SCAN", value_parser = scan_id)]
    pub(crate) scans: Vec<stoq_api::ScanId>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

fn scan_id(text: &str) -> Result<stoq_api::ScanId, uuid::Error> {
    text.parse().map(stoq_api::ScanId)
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Say what would be dropped, and drop nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Longest time that anything waits on the lanes, for brokers that do not tell
    #[arg(long, value_name = "DURATION")]
    pub(crate) max_wait: Option<stoq_runtime::units::Duration>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// Where lanes, ledger and store are.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// What all commands that read a configuration have in common.
#[derive(Debug, Default, Args)]
pub(crate) struct CommonArgs {
    /// Configuration file: TOML, or stoQ's own where it ends in .cfg; may be given several times, later ones win
    #[arg(long = "config-file", short = 'c', value_name = "PATH")]
    pub(crate) config_files: Vec<PathBuf>,
    /// Set any value of the configuration, such as scan.slots=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Options of plugins, such as decompress:passwords=infected,secret
    #[arg(long, value_name = "PLUGIN:OPT=VALUE", num_args = 1..)]
    pub(crate) plugin_opts: Vec<String>,
    /// Folders with stoQ's Python plugins: they are listed, but this version does not run them
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub(crate) plugin_dir: Vec<PathBuf>,
    /// Least level of log lines: debug, info, warning, error, critical
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// What comes in with a payload, and what it starts with.
#[derive(Debug, Default, Args)]
pub(crate) struct EntryArgs {
    /// Archivers that bring payloads back: references of a provider may name them, and with `scan` the inputs are tasks
    /// for them, such as '{"filedir": {"path": "…"}}'
    #[arg(short = 'S', long, value_name = "NAME", num_args = 1..)]
    pub(crate) source_archivers: Vec<String>,
    /// Workers that run on the payloads that come in, but not on what is extracted from them
    #[arg(short = 's', long, value_name = "NAME", num_args = 1..)]
    pub(crate) start_dispatch: Vec<String>,
    /// Greatest depth of extracted payloads that are still scanned
    #[arg(long, value_name = "N")]
    pub(crate) max_recursion: Option<u16>,
    /// Where the request comes from
    #[arg(long, value_name = "TEXT")]
    pub(crate) request_source: Option<String>,
    /// Anything else to note about the request
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    pub(crate) request_extra: Vec<String>,
}

/// How payloads are scanned.
#[derive(Debug, Default, Args)]
pub(crate) struct ScanningArgs {
    /// Workers that run on every payload, instead of the configured ones
    #[arg(short = 'a', long, value_name = "NAME", num_args = 1..)]
    pub(crate) always_dispatch: Vec<String>,
    /// Dispatchers that choose workers
    #[arg(short = 'R', long, value_name = "NAME", num_args = 1..)]
    pub(crate) dispatchers: Vec<String>,
    /// Archivers that keep payloads
    #[arg(short = 'A', long, value_name = "NAME", num_args = 1..)]
    pub(crate) dest_archivers: Vec<String>,
    /// Decorators of finished responses
    #[arg(short = 'D', long, value_name = "NAME", num_args = 1..)]
    pub(crate) decorators: Vec<String>,
    /// Jailed processes; 0 for one per core
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<usize>,
    /// What to do about the jail: require, prefer, off
    #[arg(long, value_name = "MODE")]
    pub(crate) jail: Option<String>,
}

/// Where responses go.
#[derive(Debug, Default, Args)]
pub(crate) struct SinkArgs {
    /// Connectors that take responses, instead of the configured ones
    #[arg(short = 'C', long, value_name = "NAME", num_args = 1..)]
    pub(crate) connectors: Vec<String>,
}

/// A payload's whole way, for commands that are all roles at once.
#[derive(Debug, Default, Args)]
pub(crate) struct RouteArgs {
    #[command(flatten)]
    pub(crate) entry: EntryArgs,
    #[command(flatten)]
    pub(crate) scanning: ScanningArgs,
    #[command(flatten)]
    pub(crate) sinks: SinkArgs,
}

/// Where payloads come from.
#[derive(Debug, Default, Args)]
pub(crate) struct SourceArgs {
    /// Providers to take payloads from, instead of the configured ones
    #[arg(short = 'P', long, value_name = "NAME", num_args = 1..)]
    pub(crate) providers: Vec<String>,
}

/// What stays on this machine.
#[derive(Debug, Default, Args)]
pub(crate) struct HomeArgs {
    /// Where to keep what outlives the process: without a fleet that is queue, ledger and payloads
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// Files, folders (with everything below them), or - for standard input, which is also the default; with -S tasks for
    /// archivers
    pub(crate) inputs: Vec<OsString>,
    /// How to show responses
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    pub(crate) format: Format,
    /// Shape of JSON responses
    #[arg(long, value_enum, default_value_t = Schema::V3)]
    pub(crate) schema: Schema,
    /// Colours: when writing to a terminal, always, or never
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
    /// End with exit code 1 if something matched
    #[arg(long, value_enum)]
    pub(crate) fail_on: Option<FailOn>,
    #[command(flatten)]
    pub(crate) routes: RouteArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    #[command(flatten)]
    pub(crate) routes: RouteArgs,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProviderArgs {
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    #[command(flatten)]
    pub(crate) entry: EntryArgs,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) scanning: ScanningArgs,
    /// Take only tasks of these tenants; `default` stands for those without one
    #[arg(long = "tenant", value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(crate) tenants: Vec<String>,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectorCommand {
    /// Deliver what a connector that fell behind put aside in the payload store, and end
    Replay(ConnectorReplayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConnectorReplayArgs {
    /// The connector, as the configuration calls it
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ConnectorArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ConnectorCommand>,
    #[command(flatten)]
    pub(crate) sinks: SinkArgs,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Only say what would be made
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only these plugins
    pub(crate) names: Vec<String>,
    /// Folders with stoQ's Python plugins, which are listed too
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub(crate) plugin_dir: Vec<PathBuf>,
    /// Show each plugin's options with their defaults
    #[arg(long)]
    pub(crate) options: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A tree on a terminal, JSON lines elsewhere
    Auto,
    /// A tree of what came out of what
    Tree,
    /// Indented JSON
    Json,
    /// One line of JSON for each response
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Schema {
    /// stoQ v3, with additions under new keys
    V3,
    /// Exactly stoQ v2
    V2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// A rule matched
    Match,
}

/// Colours on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set or the terminal is dumb
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Whether to use colours for output that goes to a `terminal` or not. See <https://no-color.org>.
    pub(crate) fn is_on(self, terminal: bool) -> bool {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !refused && !dumb,
        }
    }
}

impl CommonArgs {
    /// The flags as configuration values.
    ///
    /// # Errors
    /// A value is not of the form that its flag asks for; says which.
    pub(crate) fn flags(&self) -> Result<Vec<Flag>, String> {
        let wrong = |flag: &str, text: &str, error: flags::FlagError| format!("{flag} {text:?}: {error}");
        let mut all = Vec::new();
        for text in &self.set {
            all.push(Flag::set(text).map_err(|e| wrong("--set", text, e))?);
        }
        for text in &self.plugin_opts {
            all.push(Flag::plugin_option(text).map_err(|e| wrong("--plugin-opts", text, e))?);
        }
        if let Some(level) = &self.log_level {
            all.push(Flag::new("core.log.level", level.as_str(), "--log-level"));
        }
        Ok(all)
    }
}

/// Values of the configuration for lists that were named. A list replaces the configured one; an absent one leaves it.
fn lists<const N: usize>(lists: [(&'static str, &Vec<String>, &'static str); N]) -> Vec<Flag> {
    let named = lists.into_iter().filter(|(_, names, _)| !names.is_empty());
    named.map(|(path, names, flag)| Flag::new(path, names.clone(), flag)).collect()
}

impl EntryArgs {
    /// The flags as configuration values. What is said of the request itself is none.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut all = lists([
            ("archive.sources", &self.source_archivers, "--source-archivers"),
            ("routes.start", &self.start_dispatch, "--start-dispatch"),
        ]);
        all.extend(self.max_recursion.map(|depth| Flag::new("budgets.max_depth", depth, "--max-recursion")));
        all
    }
}

impl ScanningArgs {
    /// The flags as configuration values.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut all = lists([
            ("archive.destinations", &self.dest_archivers, "--dest-archivers"),
            ("run.decorators", &self.decorators, "--decorators"),
            ("routes.dispatchers", &self.dispatchers, "--dispatchers"),
            ("routes.always", &self.always_dispatch, "--always-dispatch"),
        ]);
        all.extend(self.slots.map(|slots| Flag::new("scan.slots", slots, "--slots")));
        all.extend(self.jail.as_deref().map(|mode| Flag::new("scan.jail", mode, "--jail")));
        all
    }
}

impl SinkArgs {
    /// The flag as a configuration value.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        lists([("run.connectors", &self.connectors, "--connectors")])
    }
}

impl SourceArgs {
    /// The flag as a configuration value.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        lists([("run.providers", &self.providers, "--providers")])
    }
}

impl HomeArgs {
    /// The flag as a configuration value.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let dir = self.data_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned());
        dir.map(|dir| Flag::new("core.data_dir", dir, "--data-dir")).into_iter().collect()
    }
}

impl RouteArgs {
    /// The flags as configuration values.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        [self.entry.flags(), self.scanning.flags(), self.sinks.flags()].concat()
    }
}
