//! Redis, alone or as a cluster, as Debian packages it.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Authority, Identity, Place, Service};
use crate::wait::until;

/// The ports, by index.
const PLAIN: usize = 0;
const TLS: usize = 1;
const BUS: usize = 2;
const PORTS: usize = 3;
/// Written by the server once it has loaded its data.
const READY: &str = "Ready to accept connections";

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Listens for TLS too, with a certificate of an authority of its own.
    pub tls: bool,
    /// Is a node of a cluster, alone at first.
    pub cluster: bool,
    /// Further lines for its configuration file, as in `redis.conf`.
    pub lines: Vec<String>,
}

/// A server that writes each command to its disk before it answers.
pub struct Redis {
    server: Service,
    tls: Option<(Authority, Identity)>,
}

impl Redis {
    /// Starts one.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start() -> Self {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts one.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start_with(options: RedisOptions) -> Self {
        let tls = options.tls.then(|| {
            let authority = Authority::new();
            let identity = authority.server();
            (authority, identity)
        });
        let server = Service::new(
            "redis",
            PORTS,
            |place| {
                let mut command = Command::new("redis-server");
                command.arg(place.directory.join("redis.conf")).current_dir(&place.directory);
                command
            },
            |place| Box::pin(async move { answers(&place).await }),
        );
        let place = server.place();
        fs::write(place.directory.join("redis.conf"), configuration(place, &options, tls.as_ref())).unwrap();
        let mut this = Self { server, tls };
        this.server.start().await;
        this
    }

    /// The address for clients: `redis://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The address for clients that use TLS, with the authority's certificate.
    ///
    /// # Panics
    /// The server was started without TLS.
    pub fn tls_address(&self) -> (String, &Authority) {
        let (authority, _) = self.tls.as_ref().expect("the server has a TLS listener");
        (format!("rediss://localhost:{}", self.server.port(TLS)), authority)
    }

    /// The port of the plain listener.
    pub fn port(&self) -> u16 {
        self.server.port(PLAIN)
    }

    /// Kills the server as a crash would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops the server in good order.
    ///
    /// # Panics
    /// It does not end within a minute.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Starts it again after [`Redis::kill`] or [`Redis::stop`], on the same data and ports.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn restart(&mut self) {
        self.server.start().await;
    }

    /// The server's process, directory and log.
    pub fn service(&mut self) -> &mut Service {
        &mut self.server
    }

    /// Runs `redis-cli` with these arguments and answers what it says, without the last line break.
    ///
    /// # Panics
    /// It fails, or the server answers with an error.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port(), arguments).await
    }
}

async fn cli(port: u16, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new("redis-cli");
    command.args(["-e", "-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    assert!(output.status.success(), "redis-cli {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Several servers that are one cluster.
pub struct RedisCluster {
    /// Its nodes.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts one of `primaries` (at least three), each followed by `replicas`.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start(primaries: usize, replicas: usize) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..primaries * (replicas + 1) {
            nodes.push(Redis::start_with(RedisOptions { cluster: true, ..RedisOptions::default() }).await);
        }
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let mut arguments = vec!["--cluster", "create"];
        arguments.extend(addresses.iter().map(String::as_str));
        let replicas = replicas.to_string();
        arguments.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
        nodes[0].cli(&arguments).await;
        let this = Self { nodes };
        this.settled().await;
        this
    }

    /// The addresses of all nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::address).collect()
    }

    /// Waits until every node says that the cluster serves all keys.
    ///
    /// # Panics
    /// They do not within a minute.
    pub async fn settled(&self) {
        for node in &self.nodes {
            until("the cluster is up", || async { node.cli(&["cluster", "info"]).await.contains("cluster_state:ok") })
                .await;
        }
    }
}

fn configuration(place: &Place, options: &RedisOptions, tls: Option<&(Authority, Identity)>) -> String {
    let mut lines = vec![
        "bind 127.0.0.1".to_owned(),
        "protected-mode no".to_owned(),
        format!("port {}", place.ports[PLAIN]),
        format!("dir {}", place.directory.display()),
        "save \"\"".to_owned(),
        "appendonly yes".to_owned(),
        "appendfsync always".to_owned(),
        // Tests restart servers at once; nothing of theirs is worth a rewrite.
        "auto-aof-rewrite-percentage 0".to_owned(),
    ];
    if let Some((authority, identity)) = tls {
        lines.extend([
            format!("tls-port {}", place.ports[TLS]),
            format!("tls-ca-cert-file {}", authority.certificate().display()),
            format!("tls-cert-file {}", identity.certificate.display()),
            format!("tls-key-file {}", identity.key.display()),
            "tls-auth-clients no".to_owned(),
        ]);
    }
    if options.cluster {
        lines.extend([
            "cluster-enabled yes".to_owned(),
            format!("cluster-port {}", place.ports[BUS]),
            // A loaded machine may keep a node from answering for a while.
            "cluster-node-timeout 5000".to_owned(),
        ]);
    }
    lines.extend(options.lines.iter().cloned());
    lines.join("\n") + "\n"
}

/// Whether it has loaded its data, and answers, if only that it wants a password.
async fn answers(place: &Place) -> bool {
    let log = fs::read(&place.log).unwrap_or_default();
    if !String::from_utf8_lossy(&log).contains(READY) {
        return false;
    }
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, place.ports[PLAIN])).await else { return false };
    let mut answer = [0; 5];
    stream.write_all(b"PING\r\n").await.is_ok()
        && stream.read_exact(&mut answer).await.is_ok()
        && [b"+PONG", b"-NOAU"].contains(&&answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn starts_again_on_its_data_after_a_crash() {
        let mut server = Redis::start().await;
        server.cli(&["set", "kept", "1"]).await;
        server.kill();
        server.restart().await;
        assert_eq!(server.cli(&["get", "kept"]).await, "1");
    }
}
