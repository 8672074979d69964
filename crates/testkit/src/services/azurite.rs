//! Azure Blob Storage as Microsoft emulates it for developers: azurite, which checks signatures.

use std::process::Command;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stoq_api::Sha256;

use super::cached::cached;
use super::http::ask;
use super::{Place, Service};

/// The cached program, which `cargo xtask test` installs.
const PROGRAM: &str = "azurite-3.35.0";
/// Version of the protocol in requests of this file.
const API: &str = "2021-12-02";

/// The emulator with its one account.
pub struct Azurite {
    /// The server.
    pub service: Service,
}

impl Azurite {
    /// The account, the same in every installation.
    pub const ACCOUNT: &str = "devstoreaccount1";
    /// Its key, which Microsoft has published.
    pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// Starts it without containers.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start() -> Self {
        let command = |place: &Place| {
            let mut command = Command::new("node");
            command
                .current_dir(&place.directory)
                .arg(cached(PROGRAM, "node_modules/azurite/dist/src/blob/main.js"))
                .args(["--blobHost", "127.0.0.1", "--blobPort", &place.ports[0].to_string()])
                .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location"])
                .arg(place.directory.join("blobs"));
            command
        };
        let ready = |place: Place| -> futures::future::BoxFuture<'static, bool> {
            Box::pin(async move { ask(place.ports[0], "GET", "/devstoreaccount1?comp=list", &[]).await.is_ok() })
        };
        let mut service = Service::new("azurite", 1, command, ready);
        service.start().await;
        Self { service }
    }

    /// Where it answers: the account is part of the path.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.service.port(0), Self::ACCOUNT)
    }

    /// Makes a container.
    ///
    /// # Panics
    /// It is refused.
    pub async fn make_container(&self, name: &str) {
        let (status, body) = self.signed("PUT", name, "restype=container").await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    }

    /// A blob, if it is there.
    ///
    /// # Panics
    /// It cannot be asked for.
    pub async fn blob(&self, container: &str, name: &str) -> Option<Vec<u8>> {
        match self.signed("GET", &format!("{container}/{name}"), "").await {
            (200, body) => Some(body),
            (404, _) => None,
            (status, body) => panic!("{status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    /// A request signed with the shared key; `query` holds at most one parameter.
    async fn signed(&self, method: &str, path: &str, query: &str) -> (u16, Vec<u8>) {
        let account = Self::ACCOUNT;
        let date = httpdate::fmt_http_date(SystemTime::now());
        // The method and eleven standard headers, none of which is sent; then ours, then the resource.
        let mut text = format!("{method}{}x-ms-date:{date}\nx-ms-version:{API}\n", "\n".repeat(12));
        text.push_str(&format!("/{account}/{account}/{path}"));
        let mut target = format!("/{account}/{path}");
        if let Some((name, value)) = query.split_once('=') {
            text.push_str(&format!("\n{name}:{value}"));
            target.push_str(&format!("?{query}"));
        }
        let key = STANDARD.decode(Self::KEY).unwrap();
        let signature = STANDARD.encode(hmac(&key, text.as_bytes()).as_bytes());
        let headers = [
            ("x-ms-date", date),
            ("x-ms-version", API.to_owned()),
            ("authorization", format!("SharedKey {account}:{signature}")),
        ];
        ask(self.service.port(0), method, &target, &headers).await.unwrap()
    }
}

/// HMAC-SHA-256 (RFC 2104) with a key of at most a block.
fn hmac(key: &[u8], text: &[u8]) -> Sha256 {
    let padded = |pad: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ pad).collect() };
    let inner = Sha256::of(&[padded(0x36), text.to_vec()].concat());
    Sha256::of(&[padded(0x5c), inner.as_bytes().to_vec()].concat())
}

#[cfg(test)]
mod tests {
    /// Test case 2 of RFC 4231.
    #[test]
    fn authenticates_as_the_standard_says() {
        let digest = super::hmac(b"Jefe", b"what do ya want for nothing?").to_string();
        assert_eq!(digest, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
