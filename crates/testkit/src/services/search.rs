//! Elasticsearch and OpenSearch as one node, from the builds that both projects publish for the tests of plugins.
//!
//! These are the real servers with few of their modules: `_bulk`, templates, data streams and searches are there, lifecycle
//! and state management are not. Elasticsearch's has its security module; OpenSearch's security plugin is published for one
//! release beside them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use tokio::time::{Instant, sleep};

use super::{Authority, Identity, Place, Service, cached, http};

/// Folders in the cache, with the oldest Java that each runs on.
const ELASTICSEARCH: (&str, u32) = ("elasticsearch-8.19.21", 17);
/// The first one for which there is a Java.
const OPENSEARCH: [(&str, u32); 2] = [("opensearch-3.6.0", 21), ("opensearch-2.19.6", 11)];
/// The same with its security plugin.
const SECURE_OPENSEARCH: (&str, u32) = ("opensearch-secure-3.4.0", 21);
/// Where systems keep their Javas.
const JAVAS: &str = "/usr/lib/jvm";
/// The ports, by index.
const HTTP: usize = 0;
const TRANSPORT: usize = 1;
const PORTS: usize = 2;
/// The longest that the shards of an index take to start on a busy machine, and the pause between two looks.
const SHARDS_START: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(50);
/// What a node answers while no shard of an index can be asked.
const UNAVAILABLE: u16 = 503;
/// Of the user `elastic`, who may do anything, and of the user `writer`, who may create documents in `stoq-*`: a hash of
/// [`Search::PASSWORD`] by bcrypt.
const HASH: &str = "$2a$10$/.PP/7pxyX1PYESJG7vKauHL95/fbO2Xz60azj3hwidOV3QcS6LQq";
/// The roles of `elastic` and `writer`, and of `reader`, who may not write.
const ROLES: &str = "writer:\n  cluster: [ monitor ]\n  indices:\n  - names: [ 'stoq-*' ]\n    privileges: [ create_doc, auto_configure ]\n\
     reader:\n  indices:\n  - names: [ 'stoq-*' ]\n    privileges: [ read ]\n";
/// The same for OpenSearch: a file each, with the kind that it says it is.
const OPEN_SECURITY: [(&str, &str, &str); 7] = [
    ("action_groups", "actiongroups", ""),
    ("tenants", "tenants", ""),
    ("nodes_dn", "nodesdn", ""),
    (
        "config",
        "config",
        "config:\n  dynamic:\n    authc:\n      basic:\n        http_enabled: true\n        order: 0\n\
         \x20       http_authenticator: { type: basic, challenge: true }\n        authentication_backend: { type: intern }\n",
    ),
    (
        "roles",
        "roles",
        // What docs/sinks/elasticsearch.md says that delivering needs.
        "writer:\n  cluster_permissions: [ 'indices:data/write/bulk' ]\n  index_permissions:\n  - index_patterns: [ 'stoq-*' ]\n\
         \x20   allowed_actions: [ 'indices:data/write/bulk*', 'indices:data/write/index', 'indices:admin/create', \
         'indices:admin/mapping/put' ]\n\
         reader:\n  index_permissions:\n  - index_patterns: [ 'stoq-*' ]\n    allowed_actions: [ 'read' ]\n",
    ),
    (
        "roles_mapping",
        "rolesmapping",
        "all_access: { users: [ admin ] }\nwriter: { users: [ writer ] }\nreader: { users: [ reader ] }\n",
    ),
    ("internal_users", "internalusers", ""),
];
/// Files that are taken as they come.
const OPEN_SECURITY_SHIPPED: [&str; 2] = ["audit.yml", "allowlist.yml"];
/// Users of both.
const USERS: [&str; 3] = ["admin", "writer", "reader"];

/// What a node is started with.
#[derive(Clone, Debug, Default)]
pub struct SearchOptions {
    /// TLS, users and roles.
    pub security: bool,
    /// Compiles what runs hot for speed instead of for a quick start: for benchmarks.
    pub fast: bool,
}

/// A node.
pub struct Search {
    node: Service,
    tls: Option<(Authority, Identity)>,
}

impl Search {
    /// The password of the users `admin`, `writer` and `reader`.
    pub const PASSWORD: &str = "loopback-only";

    /// Starts an Elasticsearch.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn elasticsearch(options: SearchOptions) -> Self {
        let (folder, java) = ELASTICSEARCH;
        let java = java_home(java).expect("there is a Java for Elasticsearch; `cargo xtask test` installs one");
        Self::start(folder, java, options).await
    }

    /// Starts an OpenSearch with TLS, users and roles; none where there is no Java for it.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn secure_opensearch() -> Option<Self> {
        let (folder, java) = SECURE_OPENSEARCH;
        let options = SearchOptions { security: true, ..SearchOptions::default() };
        Some(Self::start(folder, java_home(java)?, options).await)
    }

    /// Starts an OpenSearch without security.
    ///
    /// # Panics
    /// It cannot be started, or is to have security: that is [`Search::secure_opensearch`].
    pub async fn opensearch(options: SearchOptions) -> Self {
        assert!(!options.security, "this build of OpenSearch has no security");
        let found = OPENSEARCH.iter().find_map(|(folder, java)| Some((*folder, java_home(*java)?)));
        let (folder, java) = found.expect("there is a Java for OpenSearch; `cargo xtask test` installs one");
        Self::start(folder, java, options).await
    }

    async fn start(folder: &'static str, java: PathBuf, options: SearchOptions) -> Self {
        let home = cached(folder, "bin").parent().expect("bin lies in a folder").to_owned();
        let tls = options.security.then(|| {
            let authority = Authority::new();
            // Nodes of OpenSearch show it to one another, too.
            let identity = authority.peer_named(&["127.0.0.1", "localhost"]);
            (authority, identity)
        });
        let from = home.clone();
        let ready = match (options.security, is_elastic(&home)) {
            (false, _) => None,
            (true, true) => Some("] started {"),
            (true, false) => Some("' initialized"),
        };
        let node = Service::new(
            folder.split_once('-').map_or(folder, |(name, _)| name),
            PORTS,
            move |place| command(place, &from, &java, &options),
            move |place| Box::pin(async move { answers(&place, ready).await }),
        );
        configure(node.place(), &home, tls.as_ref()).unwrap();
        let mut search = Self { node, tls };
        search.node.start().await;
        search
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.tls.is_some() { "https" } else { "http" }, self.port())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.node.port(HTTP)
    }

    /// The authority that its certificate comes from, as a PEM file.
    ///
    /// # Panics
    /// It was started without security.
    pub fn authority(&self) -> PathBuf {
        self.tls.as_ref().expect("the node has TLS").0.certificate()
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.node.kill();
    }

    /// Starts it again after [`Search::kill`], on the same data and ports.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn restart(&mut self) {
        self.node.start().await;
    }

    /// One request without security; gives the status and the body. Asked again while the node answers 503, as it does of an
    /// index whose shards have yet to start.
    ///
    /// # Panics
    /// The node is away.
    pub async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let headers = [("content-type", "application/json".to_owned())];
        let end = Instant::now() + SHARDS_START;
        loop {
            let (status, body) = http::ask_with(self.port(), method, target, &headers, body.as_bytes()).await.unwrap();
            if status != UNAVAILABLE || Instant::now() > end {
                return (status, String::from_utf8_lossy(&body).into_owned());
            }
            sleep(AGAIN).await;
        }
    }
}

/// A home of a Java of at least that version: the oldest, which is the likeliest to be known to a server.
fn java_home(least: u32) -> Option<PathBuf> {
    let homes = fs::read_dir(JAVAS).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut javas: Vec<(u32, PathBuf)> = homes
        .filter(|home| home.join("bin/java").exists())
        .filter_map(|home| {
            let release = fs::read_to_string(home.join("release")).ok()?;
            let version = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
            let major = version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
            Some((major, home))
        })
        .filter(|(major, _)| *major >= least)
        .collect();
    javas.sort();
    javas.into_iter().next().map(|(_, home)| home)
}

fn is_elastic(home: &Path) -> bool {
    home.join("bin/elasticsearch").exists()
}

fn configure(place: &Place, home: &Path, tls: Option<&(Authority, Identity)>) -> io::Result<()> {
    let config = place.directory.join("config");
    for folder in ["config", "data", "logs", "tmp"] {
        fs::create_dir(place.directory.join(folder))?;
    }
    for entry in fs::read_dir(home.join("config"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), config.join(entry.file_name()))?;
        }
    }
    if let Some((authority, identity)) = tls {
        fs::copy(&identity.certificate, config.join("node.pem"))?;
        fs::copy(&identity.key, config.join("node.key"))?;
        if !is_elastic(home) {
            fs::copy(authority.certificate(), config.join("ca.pem"))?;
            return open_users(&home.join("config/opensearch-security"), &config.join("opensearch-security"));
        }
        let users: String = USERS.iter().map(|user| format!("{user}:{HASH}\n")).collect();
        fs::write(config.join("users"), users)?;
        fs::write(config.join("users_roles"), "superuser:admin\nwriter:writer\nreader:reader\n")?;
        fs::write(config.join("roles.yml"), ROLES)?;
    }
    Ok(())
}

/// Who may do what on an OpenSearch.
fn open_users(shipped: &Path, into: &Path) -> io::Result<()> {
    fs::create_dir(into)?;
    for name in OPEN_SECURITY_SHIPPED {
        fs::copy(shipped.join(name), into.join(name))?;
    }
    for (name, kind, text) in OPEN_SECURITY {
        let mut text = format!("_meta: {{ type: {kind}, config_version: 2 }}\n{text}");
        if name == "internal_users" {
            USERS.iter().for_each(|user| text.push_str(&format!("{user}: {{ hash: '{HASH}' }}\n")));
        }
        fs::write(into.join(format!("{name}.yml")), text)?;
    }
    Ok(())
}

fn command(place: &Place, home: &Path, java: &Path, options: &SearchOptions) -> Command {
    let elastic = is_elastic(home);
    let program = home.join(if elastic { "bin/elasticsearch" } else { "bin/opensearch" });
    // Both refuse to run as root. In a user namespace of its own, root is somebody else who owns the same files.
    let mut command = if rustix::process::getuid().is_root() {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-user=1000", "--map-group=1000", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let mut flags = "-Xms512m -Xmx512m".to_owned();
    if !options.fast {
        flags.push_str(" -XX:TieredStopAtLevel=1");
    }
    for name in ["ES", "OPENSEARCH"] {
        command.env(format!("{name}_JAVA_HOME"), java).env(format!("{name}_JAVA_OPTS"), &flags);
        command.env(format!("{name}_PATH_CONF"), place.directory.join("config"));
        command.env(format!("{name}_TMPDIR"), place.directory.join("tmp"));
    }
    let mut set = |name: &str, value: &str| {
        command.arg("-E").arg(format!("{name}={value}"));
    };
    set("discovery.type", "single-node");
    set("network.host", "127.0.0.1");
    set("http.port", &place.ports[HTTP].to_string());
    set("transport.port", &place.ports[TRANSPORT].to_string());
    set("path.data", &place.directory.join("data").to_string_lossy());
    set("path.logs", &place.directory.join("logs").to_string_lossy());
    set("cluster.routing.allocation.disk.threshold_enabled", "false");
    if elastic {
        set("xpack.security.enabled", if options.security { "true" } else { "false" });
    }
    if options.security && !elastic {
        for layer in ["transport", "http"] {
            set(&format!("plugins.security.ssl.{layer}.pemcert_filepath"), "node.pem");
            set(&format!("plugins.security.ssl.{layer}.pemkey_filepath"), "node.key");
            set(&format!("plugins.security.ssl.{layer}.pemtrustedcas_filepath"), "ca.pem");
        }
        set("plugins.security.ssl.http.enabled", "true");
        set("plugins.security.allow_default_init_securityindex", "true");
        set("plugins.security.nodes_dn", "CN=127.0.0.1");
        set("plugins.security.audit.type", "noop");
    }
    if options.security && elastic {
        set("xpack.security.transport.ssl.enabled", "false");
        set("xpack.security.http.ssl.enabled", "true");
        set("xpack.security.http.ssl.certificate", "node.pem");
        set("xpack.security.http.ssl.key", "node.key");
        set("xpack.security.authc.realms.file.file1.order", "0");
    }
    command.current_dir(&place.directory);
    command
}

/// Whether its indices can be used; with security, whether it says that it is `ready`.
async fn answers(place: &Place, ready: Option<&str>) -> bool {
    if let Some(ready) = ready {
        let log = fs::read(&place.log).unwrap_or_default();
        return String::from_utf8_lossy(&log).contains(ready);
    }
    let target = "/_cluster/health?wait_for_status=yellow&timeout=10s";
    http::ask(place.ports[HTTP], "GET", target, &[]).await.is_ok_and(|(status, _)| status == 200)
}
