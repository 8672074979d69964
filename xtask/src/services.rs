//! Servers for tests that no package of a distribution brings: built or fetched once for each version, outside the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::golang;

/// A program that is built from Go modules.
struct GoProgram {
    name: &'static str,
    version: &'static str,
    package: &'static str,
}

/// A program of the npm registry.
struct NpmProgram {
    name: &'static str,
    version: &'static str,
}

/// The names and versions that `stoq_testkit::services` asks its cache for, and what `cargo xtask ship` checks with.
const GO: &[GoProgram] = &[
    GoProgram { name: "versitygw", version: "1.8.0", package: "github.com/versity/versitygw/cmd/versitygw" },
    GoProgram { name: "helm", version: "3.22.0", package: "helm.sh/helm/v3/cmd/helm" },
    GoProgram { name: "kubeconform", version: "0.8.0", package: "github.com/yannh/kubeconform/cmd/kubeconform" },
    // Its program is called cmd.
    GoProgram { name: "compose-go", version: "2.9.0", package: "github.com/compose-spec/compose-go/v2/cmd" },
];
const NPM: &[NpmProgram] = &[NpmProgram { name: "azurite", version: "3.35.0" }];

/// Kafka's folder, and the description whose dependencies are put there: the project's own jars.
const KAFKA: &str = "kafka-4.4.0";
const KAFKA_DESCRIPTION: &str = include_str!("kafka.xml");
/// Search engines: the builds that both projects publish for the tests of plugins. OpenSearch 3 needs Java 21.
const ELASTICSEARCH: &str = "org.elasticsearch.distribution.integ-test-zip:elasticsearch:8.19.21:zip";
const OPENSEARCH: [(&str, u32); 2] = [
    ("org.opensearch.distribution.integ-test-zip:opensearch:3.6.0:zip", 21),
    ("org.opensearch.distribution.integ-test-zip:opensearch:2.19.6:zip", 11),
];
/// OpenSearch with TLS, users and roles, in a folder of its own: the newest release of which the security plugin is published
/// there, too, and what that needs and does not bring along. Only where there is a Java 21.
const SECURE: &str = "opensearch-secure-3.4.0";
const SECURE_SEARCH: (&str, &str) =
    ("opensearch-3.4.0", "org.opensearch.distribution.integ-test-zip:opensearch:3.4.0:zip");
const SECURE_PLUGIN: &str = "org.opensearch.plugin:opensearch-security:3.4.0.0:zip";
const SECURE_LIBRARY: &str = "org.apache.commons:commons-collections4:4.4:jar";
const SECURE_JAVA: u32 = 21;
/// A module that the plugin can do without and that these builds lack, as its description names it and as it should.
const LACKS: (&str, &str) = (",rule-framework\n", ",rule-framework;optional=true\n");
/// Where systems keep their Javas.
const JAVAS: &str = "/usr/lib/jvm";
/// Google's in-memory Pub/Sub with what it lacks, in this crate's folder `pstest`. The last number counts our changes.
const PSTEST: &str = "pstest-2.8.1-5";
const PSTEST_FILES: [(&str, &str); 3] = [
    ("main.go", include_str!("../pstest/main.go")),
    ("go.mod", include_str!("../pstest/go.mod")),
    ("go.sum", include_str!("../pstest/go.sum")),
];

/// How to have Maven.
const MAVEN_ADVICE: &str = "the tests need Java 17 or newer and Maven: apt-get install default-jre-headless maven";
/// How to have npm.
const NPM_ADVICE: &str = "the tests need Node.js 18 or newer with npm: apt-get install nodejs npm";

/// Builds and fetches what is not in the cache.
pub(crate) fn install() -> Result<()> {
    let cache = cache()?;
    for program in GO {
        let into = cache.join(format!("{}-{}", program.name, program.version));
        once(&into, |folder| build(program, folder))?;
    }
    once(&cache.join(PSTEST), build_pstest)?;
    for program in NPM {
        let into = cache.join(format!("{}-{}", program.name, program.version));
        once(&into, |folder| fetch(program, folder))?;
    }
    let open = OPENSEARCH.iter().find(|(_, java)| has_java(*java)).map_or(OPENSEARCH[1].0, |(artifact, _)| artifact);
    for artifact in [ELASTICSEARCH, open] {
        // group:name:version:type
        let mut words = artifact.split(':').skip(1);
        let folder = format!("{}-{}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
        once(&cache.join(&folder), |into| fetch_search(artifact, &folder, into))?;
    }
    if has_java(SECURE_JAVA) {
        once(&cache.join(SECURE), fetch_secure)?;
    }
    once(&cache.join(KAFKA), fetch_kafka)
}

/// The program that is built from Go modules under this name; builds it, if need be.
pub(crate) fn go_program(name: &str) -> Result<PathBuf> {
    let program = GO.iter().find(|program| program.name == name).with_context(|| format!("nobody builds {name}"))?;
    let folder = cache()?.join(format!("{}-{}", program.name, program.version));
    once(&folder, |folder| build(program, folder))?;
    Ok(folder.join(program.package.rsplit('/').next().unwrap_or(name)))
}

/// Whether there is a Java of at least that version, as `stoq_testkit::services::Search` looks for it.
fn has_java(least: u32) -> bool {
    let homes = fs::read_dir(JAVAS).into_iter().flatten().flatten();
    let versions = homes.filter_map(|home| {
        let release = fs::read_to_string(home.path().join("release")).ok()?;
        let version = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?.to_owned();
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
    });
    versions.into_iter().any(|version| version >= least)
}

fn fetch_search(artifact: &str, name: &str, folder: &Path) -> Result<()> {
    say(&format!("fetching {name}, once"));
    maven("unpack", artifact, folder)?;
    // What was unpacked is one folder of that name, and is to be the folder itself.
    let inner = folder.join(name);
    for entry in fs::read_dir(&inner).with_context(|| format!("{name} is not in its archive"))? {
        let entry = entry?;
        fs::rename(entry.path(), folder.join(entry.file_name()))?;
    }
    fs::remove_dir(&inner).with_context(|| format!("cannot remove {}", inner.display()))
}

/// Has Maven put an artifact into a folder: unpacked, or as it is.
fn maven(goal: &str, artifact: &str, folder: &Path) -> Result<()> {
    let mut maven = Command::new("mvn");
    maven
        .args(["-B", "-q", &format!("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:{goal}")])
        .args([&format!("-Dartifact={artifact}"), "-DoutputDirectory=."])
        .current_dir(folder);
    run(maven, MAVEN_ADVICE)?;
    // Without a project, this is where Maven notes what it has unpacked.
    let notes = folder.join("${project.basedir}");
    if notes.exists() {
        fs::remove_dir_all(notes).context("cannot remove what Maven left behind")?;
    }
    Ok(())
}

fn fetch_secure(folder: &Path) -> Result<()> {
    fetch_search(SECURE_SEARCH.1, SECURE_SEARCH.0, folder)?;
    let plugin = folder.join("plugins/opensearch-security");
    fs::create_dir_all(&plugin).with_context(|| format!("cannot make {}", plugin.display()))?;
    maven("unpack", SECURE_PLUGIN, &plugin)?;
    maven("copy", SECURE_LIBRARY, &plugin)?;
    let described = plugin.join("plugin-descriptor.properties");
    let description = fs::read_to_string(&described).context("the plugin has no description")?;
    if !description.contains(LACKS.0) {
        bail!("{}: {:?} is not in it", described.display(), LACKS.0);
    }
    fs::write(&described, description.replace(LACKS.0, LACKS.1)).context("cannot change the plugin's description")?;
    // As its own installer does.
    fs::rename(plugin.join("config"), folder.join("config/opensearch-security")).context("the plugin has no config")
}

/// Where programs are kept: `stoq` in the user's cache.
pub(crate) fn cache() -> Result<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").filter(|c| !c.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = named.or_else(home).context("neither XDG_CACHE_HOME nor HOME says where to keep programs")?;
    Ok(cache.join("stoq"))
}

/// Has `make` fill a folder, unless it is there already: whole, because it gets its name last.
pub(crate) fn once(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let unfinished = folder.with_extension(format!("unfinished-{}", std::process::id()));
    fs::create_dir_all(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
    let made = make(&unfinished).and_then(|()| match fs::rename(&unfinished, folder) {
        // Another run was faster.
        Err(_) if folder.exists() => Ok(()),
        renamed => renamed.with_context(|| format!("cannot rename {}", unfinished.display())),
    });
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    made
}

fn build(program: &GoProgram, folder: &Path) -> Result<()> {
    say(&format!("building {} {}, once; this takes a minute or two", program.name, program.version));
    // Modules and objects stay in Go's own caches, so that other programs share them.
    let mut go = golang::go()?;
    go.args(["install", &format!("{}@v{}", program.package, program.version)])
        .env("GOBIN", folder)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .current_dir(folder);
    run(go, golang::ADVICE)
}

fn build_pstest(folder: &Path) -> Result<()> {
    say("building pstest, once; this takes a minute");
    for (name, text) in PSTEST_FILES {
        fs::write(folder.join(name), text).with_context(|| format!("cannot write {name} to {}", folder.display()))?;
    }
    let mut go = golang::go()?;
    go.args(["build", "-buildvcs=false", "-mod=readonly", "-o", "pstest", "."])
        .env("CGO_ENABLED", "0")
        .current_dir(folder);
    run(go, golang::ADVICE)
}

fn fetch(program: &NpmProgram, folder: &Path) -> Result<()> {
    say(&format!("fetching {} {}, once", program.name, program.version));
    let mut npm = Command::new("npm");
    // Errors alone: libraries of azurite ask for a newer Node.js than distributions have, and run without it.
    npm.args(["install", "--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts", "--loglevel=error", "--prefix"])
        .arg(folder)
        .arg(format!("{}@{}", program.name, program.version))
        .current_dir(folder);
    run(npm, NPM_ADVICE)
}

fn fetch_kafka(folder: &Path) -> Result<()> {
    say(&format!("fetching {KAFKA}, once"));
    let description = folder.join("pom.xml");
    fs::write(&description, KAFKA_DESCRIPTION).with_context(|| format!("cannot write {}", description.display()))?;
    let mut maven = Command::new("mvn");
    maven
        .args(["-B", "-q", "-f"])
        .arg(&description)
        .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
        .args(["-DincludeScope=runtime", "-DoutputDirectory=."])
        .current_dir(folder);
    run(maven, MAVEN_ADVICE)
}

/// Runs a command to its end; if that is no good one, says so and how to have what it needs.
pub(crate) fn run(mut command: Command, advice: &str) -> Result<()> {
    let status = command.status().with_context(|| advice.to_owned())?;
    if !status.success() {
        bail!("{command:?} failed; {advice}");
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a command line tool talks to a person")]
pub(crate) fn say(text: &str) {
    eprintln!("xtask: {text}");
}
