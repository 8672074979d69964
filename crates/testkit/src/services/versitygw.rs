//! An S3 server that checks signatures: versitygw, over a directory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::cached::cached;
use super::http::ask;
use super::{Place, Service};

/// The cached program, which `cargo xtask test` builds.
const PROGRAM: &str = "versitygw-1.8.0";

/// A server with one account. Its objects are files, so that tests can look behind its back.
pub struct VersityGw {
    /// The server.
    pub service: Service,
}

impl VersityGw {
    /// The account's key.
    pub const ACCESS_KEY: &str = "testkey";
    /// The key's secret.
    pub const SECRET_KEY: &str = "testsecret";

    /// Starts a server without buckets.
    ///
    /// # Panics
    /// It cannot be started.
    pub async fn start() -> Self {
        let command = |place: &Place| {
            let (objects, accounts) = (place.directory.join("objects"), place.directory.join("accounts"));
            let (versions, attributes) = (place.directory.join("versions"), place.directory.join("attributes"));
            for folder in [&objects, &accounts, &versions, &attributes] {
                fs::create_dir_all(folder).unwrap();
            }
            let mut command = Command::new(cached(PROGRAM, "versitygw"));
            command
                .current_dir(&place.directory)
                .env("ROOT_ACCESS_KEY", Self::ACCESS_KEY)
                .env("ROOT_SECRET_KEY", Self::SECRET_KEY)
                .args(["--port", &format!("127.0.0.1:{}", place.ports[0])])
                .args(["--keep-alive", "--quiet", "--iam-dir"])
                .arg(accounts)
                .args(["posix", "--versioning-dir"])
                .arg(versions)
                // Not every file system of a temporary directory keeps attributes of files.
                .arg("--sidecar")
                .arg(attributes)
                .arg(objects);
            command
        };
        let ready = |place: Place| -> futures::future::BoxFuture<'static, bool> {
            Box::pin(async move { ask(place.ports[0], "GET", "/", &[]).await.is_ok() })
        };
        let mut service = Service::new("versitygw", 1, command, ready);
        service.start().await;
        Self { service }
    }

    /// Where it answers.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.service.port(0))
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// There is one of that name.
    pub fn make_bucket(&self, name: &str) {
        fs::create_dir(self.bucket(name)).unwrap();
    }

    /// The directory with a bucket's objects, each a file under its key.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.service.place().directory.join("objects").join(name)
    }
}
