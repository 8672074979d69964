//! A network that can fail, between a client and a server on the loopback address.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What one read takes at most.
const CHUNK: usize = 64 << 10;

/// The network's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Up,
    /// Nothing passes, nothing is closed.
    Stalled,
    /// New connections are closed as soon as they are there.
    Cut,
}

/// The condition, and how many times everything open was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    line: Line,
    resets: u64,
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State { line: Line::Up, resets: 0 });
        tokio::spawn(listen(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), watched));
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

async fn listen(listener: TcpListener, target: SocketAddr, mut state: watch::Receiver<State>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if state.borrow().line == Line::Cut {
                    reset(&client);
                } else {
                    open.spawn(forward(client, target, state.clone()));
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

async fn forward(mut client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
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
        _ = async { tokio::join!(copy(from_client, to_server, up), copy(from_server, to_client, down)) } => false,
    };
    if was_reset {
        reset(&client);
        reset(&server);
    }
}

/// One direction, to its end; a stalled line is waited for before every write.
async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(read) = from.read(&mut buffer).await {
        if state.wait_for(|s| s.line == Line::Up).await.is_err() {
            return;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            let _gone = to.shutdown().await;
            return;
        }
    }
}
