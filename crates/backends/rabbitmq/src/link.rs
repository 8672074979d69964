//! One connection to the broker: made when it is needed, shared while it lives, made again after it was lost.

use std::io;
use std::net::{Shutdown, TcpStream as Socket};
use std::sync::Arc;
use std::time::Duration;

use async_compat::Compat;
use lapin::tcp::{AsyncTcpStream, RustlsConnector, RustlsConnectorConfig};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties};
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use stoq_api::{Fault, FaultKind};
use stoq_runtime::secret::Secret;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Address, Password, Settings};
use crate::fault::fault;

/// How long what a failed attempt said is told to everybody who asks, without another attempt: many callers wait for
/// one connection, and a broker that comes back should not be greeted by all of them.
const COOL_DOWN: Duration = Duration::from_millis(250);
/// How long a connection may take to say good-bye before its socket is shut.
const FAREWELL: Duration = Duration::from_secs(5);
/// The largest file of certificates or passwords that is read, in bytes.
const FILE_LIMIT: u64 = 4 << 20;

/// A connection for one purpose.
pub(crate) struct Link {
    settings: Arc<Settings>,
    purpose: &'static str,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    live: Option<Arc<Live>>,
    /// The address that is tried first.
    address: usize,
    failed: Option<(Instant, FaultKind, String)>,
}

/// A connection that was made. Its end is the end of all its channels.
pub(crate) struct Live {
    connection: Connection,
    /// The connection's own socket: the library has no other way to give up one whose peer keeps silent.
    socket: Option<Socket>,
    runtime: Handle,
}

impl Link {
    pub(crate) fn new(settings: Arc<Settings>, purpose: &'static str) -> Self {
        Self { settings, purpose, state: tokio::sync::Mutex::default() }
    }

    /// A new channel, with the connection that it belongs to.
    pub(crate) async fn channel(&self) -> Result<(Channel, Arc<Live>), Fault> {
        let live = self.live().await?;
        let opened = timeout(self.settings.connect_timeout, live.connection.create_channel()).await;
        match opened {
            Ok(Ok(channel)) => Ok((channel, live)),
            Ok(Err(e)) => Err(fault("cannot open a channel at rabbitmq", &e)),
            Err(_) => Err(silent("opening a channel", self.settings.connect_timeout)),
        }
    }

    /// The connection; makes one if there is none.
    pub(crate) async fn live(&self) -> Result<Arc<Live>, Fault> {
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(Fault::new(FaultKind::Unavailable, "the connection to rabbitmq was closed"));
        }
        if let Some(live) = state.live.as_ref().filter(|live| live.connection.status().connected()) {
            return Ok(Arc::clone(live));
        }
        state.live = None;
        if let Some((at, kind, text)) = &state.failed
            && at.elapsed() < COOL_DOWN
        {
            return Err(Fault::new(*kind, text.clone()));
        }
        let made = self.connect(&mut state.address).await;
        match made {
            Ok(live) => {
                state.failed = None;
                Ok(Arc::clone(state.live.insert(Arc::new(live))))
            }
            Err(fault) => {
                state.failed = Some((Instant::now(), fault.kind, fault.context.clone()));
                Err(fault)
            }
        }
    }

    /// Closes it for good.
    pub(crate) async fn close(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        let Some(live) = state.live.take() else { return };
        let ended = timeout(FAREWELL, live.connection.close(200, "done".into())).await;
        if !matches!(ended, Ok(Ok(()))) {
            live.shut();
        }
    }

    /// Tries each address once, from the one that worked last. Answers the failure that needs a person most.
    async fn connect(&self, first: &mut usize) -> Result<Live, Fault> {
        let addresses = &self.settings.addresses;
        let mut worst: Option<Fault> = None;
        for step in 0..addresses.len() {
            let at = (*first + step) % addresses.len();
            match self.attempt(&addresses[at]).await {
                Ok(live) => {
                    *first = at;
                    tracing::info!(
                        host = addresses[at].host,
                        port = addresses[at].port,
                        purpose = self.purpose,
                        "connected to rabbitmq"
                    );
                    return Ok(live);
                }
                Err(fault) if worst.as_ref().is_none_or(Fault::is_transient) => worst = Some(fault),
                Err(_) => {}
            }
        }
        Err(worst.unwrap_or_else(|| Fault::new(FaultKind::Misconfigured, "rabbitmq has no addresses")))
    }

    async fn attempt(&self, address: &Address) -> Result<Live, Fault> {
        let at = format!("cannot connect to rabbitmq at {}:{}", address.host, address.port);
        let tls = if address.tls { Some(self.connector().await?) } else { None };
        let uri = self.uri(address).await?;
        let name = format!("stoq {}", self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime().map_err(|e| fault(&at, &e))?;
        let socket = Arc::new(Mutex::new(None));
        let (kept, host, port, limit) =
            (Arc::clone(&socket), address.host.clone(), address.port, self.settings.connect_timeout);
        let open = async move |_: AMQPUri, _| {
            // Runs on a thread of the library, which nobody else would take out of a connect that hangs.
            let opened = timeout(limit, stream(&host, port, tls.as_ref(), &kept)).await;
            Ok(opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?)
        };
        let made = timeout(limit, Connection::connector(uri, runtime, open, properties)).await;
        let live = |connection| Live { connection, socket: socket.lock().take(), runtime: Handle::current() };
        match made {
            Ok(Ok(connection)) => Ok(live(connection)),
            Ok(Err(e)) => Err(fault(at, &e)),
            Err(_) => {
                if let Some(socket) = socket.lock().take() {
                    shut(&socket);
                }
                Err(Fault::new(FaultKind::Unavailable, format!("{at}: no answer within {limit:?}")))
            }
        }
    }

    async fn uri(&self, address: &Address) -> Result<AMQPUri, Fault> {
        let settings = &self.settings;
        let password = match &settings.password {
            Password::Given(password) => password.clone(),
            Password::In(path) => {
                let text = String::from_utf8(file("password_file", path).await?);
                let text = text.map_err(|_| misconfigured(format!("password_file {} is no text", path.display())))?;
                Secret::new(text.trim_end_matches(['\r', '\n']))
            }
        };
        Ok(AMQPUri {
            scheme: if address.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: settings.user.clone(), password: password.expose().to_owned() },
                host: address.host.clone(),
                port: address.port,
            },
            vhost: settings.vhost.clone(),
            query: AMQPQueryString { heartbeat: Some(settings.heartbeat), ..AMQPQueryString::default() },
        })
    }

    /// What makes TLS of a stream. Its files are read at every attempt, since certificates are renewed.
    async fn connector(&self) -> Result<RustlsConnector, Fault> {
        let settings = &self.settings;
        let roots = match &settings.ca {
            Some(path) => {
                let mut roots = RustlsConnectorConfig::default();
                roots.add_parsable_certificates(certificates("tls_ca_file", path).await?);
                roots
            }
            None => RustlsConnectorConfig::new_with_native_certs().map_err(|e| {
                misconfigured(format!("this system has no certificate authorities ({e}); give tls_ca_file"))
            })?,
        };
        let connector = match &settings.client {
            Some(client) => {
                let chain = certificates("tls_client_cert_file", &client.certificate).await?;
                let key = PrivateKeyDer::from_pem_slice(&file("tls_client_key_file", &client.key).await?);
                let key =
                    key.map_err(|e| misconfigured(format!("tls_client_key_file {}: {e}", client.key.display())))?;
                roots.connector_with_single_cert(chain, key)
            }
            None => roots.connector_with_no_client_auth(),
        };
        connector.map_err(|e| misconfigured(format!("the options for TLS to rabbitmq cannot be used: {e}")))
    }
}

impl Live {
    /// Whether the broker has stopped reading from it, short of memory or disk.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Ends it at once, without a word to the peer.
    pub(crate) fn shut(&self) {
        if let Some(socket) = &self.socket {
            shut(socket);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The library says good-bye on its own thread, which ends when the peer has answered, or the socket is gone.
        if let Some(socket) = self.socket.take() {
            self.runtime.spawn(async move {
                sleep(FAREWELL).await;
                shut(&socket);
            });
        }
    }
}

fn shut(socket: &Socket) {
    let _was_closed = socket.shutdown(Shutdown::Both);
}

async fn stream(
    host: &str,
    port: u16,
    tls: Option<&RustlsConnector>,
    kept: &Mutex<Option<Socket>>,
) -> io::Result<AsyncTcpStream<Compat<TcpStream>>> {
    let socket = TcpStream::connect((host, port)).await?;
    socket.set_nodelay(true)?;
    let socket = socket.into_std()?;
    *kept.lock() = Some(socket.try_clone()?);
    let plain = AsyncTcpStream::Plain(Compat::new(TcpStream::from_std(socket)?));
    match tls {
        Some(connector) => plain.into_rustls(connector, host).await,
        None => Ok(plain),
    }
}

async fn certificates(option: &str, path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let text = file(option, path).await?;
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(misconfigured(format!("{option} {}: there is no certificate in it", path.display()))),
        Err(e) => Err(misconfigured(format!("{option} {}: {e}", path.display()))),
    }
}

async fn file(option: &str, path: &std::path::Path) -> Result<Vec<u8>, Fault> {
    let read = async {
        let size = tokio::fs::metadata(path).await?.len();
        if size > FILE_LIMIT {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        tokio::fs::read(path).await
    };
    read.await.map_err(|e| misconfigured(format!("{option} {}: {e}", path.display())))
}

fn misconfigured(text: String) -> Fault {
    Fault::new(FaultKind::Misconfigured, text)
}

/// The broker did not answer in time.
pub(crate) fn silent(doing: &str, limit: Duration) -> Fault {
    Fault::new(FaultKind::Unavailable, format!("{doing}: no answer from rabbitmq within {limit:?}"))
}
