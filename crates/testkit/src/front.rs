//! A front before an HTTP server that forwards, or misbehaves by script.
//!
//! A client under test is pointed at the front instead of the server. Each request that *counts* takes the next [`Act`] of
//! the script; when the script is empty it is passed on. The front never interprets what passes.

mod script;
mod serve;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use script::{Act, Edit, Seen};

use self::script::Script;
use crate::services::Identity;

/// The front. It ends when it is dropped.
pub struct HttpFront {
    address: SocketAddr,
    tls: bool,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl HttpFront {
    /// A front before the plain HTTP server at `upstream`, such as `127.0.0.1:9200`. Without a server, what is passed on is
    /// answered with 502.
    ///
    /// # Panics
    /// There is no free port.
    pub async fn start(upstream: Option<SocketAddr>) -> Self {
        Self::serve(upstream, None).await
    }

    /// The same, reached by TLS with the certificate of `identity`.
    ///
    /// # Panics
    /// There is no free port, or the identity cannot be used.
    pub async fn start_tls(upstream: Option<SocketAddr>, identity: &Identity) -> Self {
        Self::serve(upstream, Some(serve::acceptor(identity))).await
    }

    async fn serve(upstream: Option<SocketAddr>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let is_tls = tls.is_some();
        let task = tokio::spawn(serve::run(listener, upstream, tls, Arc::clone(&script)));
        Self { address, tls: is_tls, script, task }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL without a path.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }

    /// Only requests of which `counts` says so, by method and path with query, take from the script; all do at first.
    pub fn count_only(&self, counts: impl Fn(&str, &str) -> bool + Send + Sync + 'static) {
        self.script.lock().counts = Some(Arc::new(counts));
    }

    /// What becomes of the next requests that count, in this order, behind what was planned already.
    pub fn plan(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.lock().next.extend(acts);
    }

    /// What becomes of every request that counts once the plan is used up; [`Act::Pass`] at first.
    pub fn always(&self, act: Act) {
        self.script.lock().otherwise = act;
    }

    /// Forgets the plan, and passes everything on from now on.
    pub fn calm(&self) {
        let mut script = self.script.lock();
        script.next.clear();
        script.otherwise = Act::Pass;
    }

    /// Acts of the plan that no request has taken yet.
    pub fn planned(&self) -> usize {
        self.script.lock().next.len()
    }

    /// While it is shut, connections are closed as soon as they are made, and those there are end.
    pub fn shut(&self, shut: bool) {
        self.script.lock().shut.send_replace(shut);
    }

    /// The requests so far, in the order in which their heads came.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.lock().seen.clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.script.lock().seen.clear();
    }
}

impl Drop for HttpFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}
