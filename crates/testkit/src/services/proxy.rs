//! A network that can fail, between a client and a server on the loopback address.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::peer::Ends;

/// What one read takes at most.
const CHUNK: usize = 64 << 10;
/// What an HTTP server says that cannot just now.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The network's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Up,
    /// Nothing passes, nothing is closed.
    Stalled,
    /// New connections are closed as soon as they are there.
    Cut,
    /// Requests on new connections are answered as by an HTTP server that cannot just now.
    Busy,
}

/// The condition, and how many times everything open was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    line: Line,
    resets: u64,
}

/// What must not pass, and who is told of it.
struct Mine {
    needle: Vec<u8>,
    tread: Box<dyn Fn(Ends) + Send + Sync>,
}

/// Forwards TCP connections to a server until told otherwise. Dropping it resets what is open.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Proxy {
    /// Listens on a free port of the loopback address and forwards to `port` there.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start(port: u16) -> Self {
        Self::open(port, None).await
    }

    /// The same, but a client that sends `needle` gets no further: `tread` is told of which
    /// connection, and that is reset.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn mined(port: u16, needle: &[u8], tread: impl Fn(Ends) + Send + Sync + 'static) -> Self {
        Self::open(port, Some(Arc::new(Mine { needle: needle.to_vec(), tread: Box::new(tread) }))).await
    }

    async fn open(port: u16, mine: Option<Arc<Mine>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State { line: Line::Up, resets: 0 });
        tokio::spawn(listen(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), watched, mine));
        Self { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Resets what is open, and every new connection, until [`Proxy::heal`].
    pub fn cut(&self) {
        self.state.send_modify(|s| *s = State { line: Line::Cut, resets: s.resets + 1 });
    }

    /// Resets what is open, and answers requests with 503, until [`Proxy::heal`]. For HTTP.
    pub fn busy(&self) {
        self.state.send_modify(|s| *s = State { line: Line::Busy, resets: s.resets + 1 });
    }

    /// Lets nothing pass, and closes nothing, until [`Proxy::heal`].
    pub fn stall(&self) {
        self.state.send_modify(|s| s.line = Line::Stalled);
    }

    /// Resets what is open, once.
    pub fn reset(&self) {
        self.state.send_modify(|s| s.resets += 1);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.state.send_modify(|s| s.line = Line::Up);
    }
}

async fn listen(listener: TcpListener, target: SocketAddr, mut state: watch::Receiver<State>, mine: Option<Arc<Mine>>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, from)) = accepted else { continue };
                let line = state.borrow().line;
                match line {
                    Line::Cut => reset(&client),
                    Line::Busy => {
                        open.spawn(turn_away(client));
                    }
                    Line::Up | Line::Stalled => {
                        let ends = client.local_addr().map(|own| Ends { client: from, own });
                        let mine = mine.clone().zip(ends.ok());
                        open.spawn(forward(client, target, state.clone(), mine));
                    }
                }
            }
            Some(_ended) = open.join_next() => {}
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}

/// Makes closing `stream` a reset instead of an orderly end.
fn reset(stream: &TcpStream) {
    let _closed_already = stream.set_zero_linger();
}

/// Answers one request. What it sends is read to its end: closing on unread bytes would be a reset that may overtake the
/// answer.
async fn turn_away(mut client: TcpStream) {
    let mut buffer = vec![0; CHUNK];
    if matches!(client.read(&mut buffer).await, Ok(1..)) && client.write_all(BUSY).await.is_ok() {
        let _gone = client.shutdown().await;
        while matches!(client.read(&mut buffer).await, Ok(1..)) {}
    }
}

async fn forward(
    mut client: TcpStream,
    target: SocketAddr,
    mut state: watch::Receiver<State>,
    mine: Option<(Arc<Mine>, Ends)>,
) {
    let resets = state.borrow().resets;
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(&client) };
    for stream in [&client, &server] {
        let _closed_already = stream.set_nodelay(true);
    }
    let (up, down) = (state.clone(), state.clone());
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let was_reset = tokio::select! {
        _ = state.wait_for(|s| s.resets != resets) => true,
        both = async { tokio::try_join!(copy(from_client, to_server, up, mine), copy(from_server, to_client, down, None)) } => {
            both.is_err()
        }
    };
    if was_reset {
        reset(&client);
        reset(&server);
    }
}

/// A client sent what must not pass.
struct Trodden;

/// One direction, to its end; a stalled line is waited for before every write.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<State>,
    mine: Option<(Arc<Mine>, Ends)>,
) -> Result<(), Trodden> {
    let mut buffer = vec![0; CHUNK];
    let mut seen = Vec::new();
    while let Ok(read) = from.read(&mut buffer).await {
        if state.wait_for(|s| s.line == Line::Up).await.is_err() {
            return Ok(());
        }
        if let Some((mine, peer)) = &mine {
            seen.extend_from_slice(&buffer[..read]);
            if seen.windows(mine.needle.len()).any(|window| window == mine.needle) {
                (mine.tread)(*peer);
                return Err(Trodden);
            }
            seen.drain(..seen.len().saturating_sub(mine.needle.len() - 1));
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            let _gone = to.shutdown().await;
            return Ok(());
        }
    }
    Ok(())
}
