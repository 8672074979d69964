//! Connections: made when they are needed, shared by many operations at once, made anew when they fail.
//!
//! Nothing is repeated here for long: whoever asked does that, and knows how long it makes sense.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, Pipeline,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates, Value,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::config::{Config, Password, Server};
use crate::script::Script;

/// How often a cluster's client looks where a key went before it gives up.
const CLUSTER_RETRIES: u32 = 3;
/// Commands that wait for answers at the same time when many are asked of a cluster.
const AT_ONCE: usize = 64;

/// The way to the servers.
pub(crate) struct Link {
    config: Config,
    slots: Vec<Slot>,
    next: AtomicUsize,
}

/// One place for a connection.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Connections made so far: whoever saw one fail throws away that one, not its successor.
    made: u64,
    /// The last attempt failed, then, so.
    failed: Option<(Instant, RedisError)>,
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// What a server, or several, are asked.
#[derive(Clone, Copy)]
enum Ask<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
    Everywhere(&'a Cmd),
}

impl Connection {
    async fn send(&mut self, ask: Ask<'_>) -> RedisResult<Vec<Value>> {
        let answers = match (self, ask) {
            (Self::Single(single), Ask::One(command) | Ask::Everywhere(command)) => {
                vec![single.req_packed_command(command).await?]
            }
            (Self::Single(single), Ask::Many(pipeline)) => {
                single.req_packed_commands(pipeline, 0, pipeline.len()).await?
            }
            (Self::Cluster(cluster), Ask::One(command)) => vec![cluster.req_packed_command(command).await?],
            (Self::Cluster(cluster), Ask::Many(pipeline)) => {
                cluster.req_packed_commands(pipeline, 0, pipeline.len()).await?
            }
            (Self::Cluster(cluster), Ask::Everywhere(command)) => {
                let routing = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                by_node(cluster.route_command(command.clone(), routing).await?)
            }
        };
        answers.into_iter().map(Value::extract_error).collect()
    }
}

impl Link {
    pub(crate) fn new(config: Config) -> Self {
        let slots = (0..config.connections).map(|_| Slot::default()).collect();
        Self { config, slots, next: AtomicUsize::new(0) }
    }

    /// Runs a script.
    pub(crate) async fn eval(&self, script: &Script, keys: &[String], arguments: &[Vec<u8>]) -> RedisResult<Value> {
        match self.run(&script.by_digest(keys, arguments)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.run(&script.whole(keys, arguments)).await
            }
            other => other,
        }
    }

    /// Runs one command.
    pub(crate) async fn run(&self, command: &Cmd) -> RedisResult<Value> {
        self.ask(Ask::One(command)).await.map(|mut answers| answers.pop().unwrap_or(Value::Nil))
    }

    /// Runs commands in any order; answers in theirs.
    pub(crate) async fn many(&self, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        if self.config.cluster {
            let answers = futures::stream::iter(commands).map(async |c| self.run(&c).await).buffered(AT_ONCE);
            return answers.collect::<Vec<_>>().await.into_iter().collect();
        }
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        self.ask(Ask::Many(&pipeline)).await
    }

    /// Runs a command on every server that may be written to.
    pub(crate) async fn everywhere(&self, command: &Cmd) -> RedisResult<Vec<Value>> {
        self.ask(Ask::Everywhere(command)).await
    }

    /// Asks, and asks once more if the connection turns out to have been closed meanwhile: everything is idempotent, and
    /// servers and what lies between close what is idle.
    async fn ask(&self, ask: Ask<'_>) -> RedisResult<Vec<Value>> {
        let slot = self.slot();
        let mut tries = 2;
        loop {
            let (mut connection, made) = slot.get(&self.config).await?;
            let answer = self.in_time(connection.send(ask)).await;
            slot.judge(made, &answer).await;
            tries -= 1;
            match answer {
                Err(error) if error.is_connection_dropped() && tries > 0 => {}
                other => return other,
            }
        }
    }

    fn slot(&self) -> &Slot {
        // Any of them will do; the counter may wrap.
        &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()]
    }

    /// The client has time-outs of its own, for each try; this one bounds all of them.
    async fn in_time<T>(&self, work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let tries = if self.config.cluster { CLUSTER_RETRIES + 1 } else { 1 };
        match timeout(self.config.response_timeout * tries + self.config.connect_timeout, work).await {
            Ok(answer) => answer,
            Err(_) => Err(timed_out()),
        }
    }
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// The answers of a command that went to several nodes.
fn by_node(answer: Value) -> Vec<Value> {
    match answer {
        Value::Map(nodes) => nodes.into_iter().map(|(_, value)| value).collect(),
        Value::Array(nodes) => nodes,
        other => vec![other],
    }
}

impl Slot {
    /// The connection, made now if there is none.
    async fn get(&self, config: &Config) -> RedisResult<(Connection, u64)> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.made));
        }
        // Whoever waited while another tried has its answer; else the last of many would wait for all others' time-outs.
        if let Some((when, error)) = &state.failed
            && *when >= asked
        {
            return Err(error.clone());
        }
        match connect(config).await {
            Ok(connection) => {
                state.made += 1;
                state.failed = None;
                state.connection = Some(connection.clone());
                Ok((connection, state.made))
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Throws the connection away after an answer that says that another one may do better.
    async fn judge<T>(&self, made: u64, answer: &RedisResult<T>) {
        let Err(error) = answer else { return };
        if !is_of_the_connection(error) {
            return;
        }
        let mut state = self.state.lock().await;
        if state.made == made {
            state.connection = None;
        }
    }
}

fn is_of_the_connection(error: &RedisError) -> bool {
    // A server that became a replica keeps its connections; the new primary is found by connecting again. The same goes
    // for one that wants a password since.
    let kinds = [ServerErrorKind::ReadOnly, ServerErrorKind::MasterDown, ServerErrorKind::BusyLoading];
    let server = kinds.iter().any(|kind| error.kind() == ErrorKind::Server(*kind));
    server
        || error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(error.code(), Some("NOAUTH" | "UNBLOCKED"))
}

async fn connect(config: &Config) -> RedisResult<Connection> {
    let settings = Settings::read(config).await?;
    let connecting =
        async { if config.cluster { settings.cluster(config).await } else { settings.single(config).await } };
    // For each server that may be tried, and its greeting.
    let tries = u32::try_from(config.servers.len()).unwrap_or(u32::MAX).saturating_add(1);
    match timeout(config.connect_timeout.saturating_mul(tries), connecting).await {
        Ok(connection) => connection,
        Err(_) => Err(timed_out()),
    }
}

/// What connections are made with. Files are read each time: passwords and certificates change.
struct Settings {
    login: RedisConnectionInfo,
    certificates: TlsCertificates,
}

impl Settings {
    async fn read(config: &Config) -> RedisResult<Self> {
        let mut login = RedisConnectionInfo::default().set_db(config.db).set_skip_set_lib_name();
        if let Some(user) = &config.user {
            login = login.set_username(user);
        }
        match &config.password {
            Password::None => {}
            Password::Given(password) => login = login.set_password(password.expose()),
            Password::File(file) => {
                let text = tokio::fs::read_to_string(file).await.map_err(|e| unreadable("password_file", file, &e))?;
                login = login.set_password(text.trim_end_matches(['\r', '\n']));
            }
        }
        let root_cert = match &config.tls_ca_file {
            None => None,
            Some(file) => Some(tokio::fs::read(file).await.map_err(|e| unreadable("tls_ca_file", file, &e))?),
        };
        Ok(Self { login, certificates: TlsCertificates { client_tls: None, root_cert } })
    }

    fn of(&self, server: &Server) -> RedisResult<ConnectionInfo> {
        let (host, port) = (server.host.clone(), server.port);
        let address = if server.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address.into_connection_info()?.set_redis_settings(self.login.clone());
        Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
    }

    /// The first server that answers and may be written to.
    async fn single(&self, config: &Config) -> RedisResult<Connection> {
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout));
        let mut last = RedisError::from((ErrorKind::InvalidClientConfig, "no server is named"));
        for server in &config.servers {
            match self.try_one(server, &options, config.servers.len() > 1).await {
                Ok(connection) => return Ok(Connection::Single(connection)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn try_one(
        &self,
        server: &Server,
        options: &AsyncConnectionConfig,
        primary: bool,
    ) -> RedisResult<MultiplexedConnection> {
        let info = self.of(server)?;
        let client =
            if server.tls { Client::build_with_tls(info, self.certificates.clone())? } else { Client::open(info)? };
        let mut connection = client.get_multiplexed_async_connection_with_config(options).await?;
        if primary && !is_primary(&mut connection).await? {
            let text = format!("{}:{} is a replica", server.host, server.port);
            return Err((ErrorKind::Server(ServerErrorKind::ReadOnly), "no server may be written to", text).into());
        }
        Ok(connection)
    }

    async fn cluster(&self, config: &Config) -> RedisResult<Connection> {
        let nodes = config.servers.iter().map(|server| self.of(server)).collect::<RedisResult<Vec<_>>>()?;
        let mut builder = ClusterClient::builder(nodes)
            .retries(CLUSTER_RETRIES)
            .connection_timeout(config.connect_timeout)
            .response_timeout(config.response_timeout);
        if config.servers.iter().any(|server| server.tls) {
            builder = builder.certs(self.certificates.clone());
        }
        let client = builder.build()?;
        client.get_async_connection().await.map(Connection::Cluster)
    }
}

async fn is_primary(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let role = redis::cmd("ROLE").query_async::<Vec<Value>>(connection).await?;
    Ok(matches!(role.first(), Some(Value::BulkString(role)) if role == b"master"))
}

fn unreadable(option: &str, file: &std::path::Path, error: &std::io::Error) -> RedisError {
    let text = format!("{option} {}: {error}", file.display());
    (ErrorKind::InvalidClientConfig, "a file cannot be read", text).into()
}

/// A time as the servers want it.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
