//! Credentials: given, or in a file that may change.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use stoq_api::scanner::BuildError;
use stoq_api::{Fault, FaultKind};
use stoq_runtime::secret::Secret;
use tokio::sync::Mutex;

/// Most bytes of a file with a secret.
const MAX_SECRET: u64 = 64 << 10;

/// Who we are.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Nobody.
    #[default]
    None,
    /// A user (RFC 7617).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: SecretValue,
    },
    /// `Authorization: SCHEME SECRET`.
    Scheme {
        /// `ApiKey`, `Bearer`, `Splunk`.
        scheme: &'static str,
        /// What follows.
        secret: SecretValue,
    },
}

/// A secret, or where it stands.
#[derive(Clone, Debug)]
pub enum SecretValue {
    /// It was given.
    Given(Secret),
    /// It is the first line of a file.
    File(PathBuf),
}

impl SecretValue {
    /// From the options `name` and `name_file`; an empty one counts as not given.
    ///
    /// # Errors
    /// Both are given.
    pub fn of(name: &str, given: &Secret, file: &Path) -> Result<Option<Self>, BuildError> {
        match (given.expose().is_empty(), file.as_os_str().is_empty()) {
            (true, true) => Ok(None),
            (false, true) => Ok(Some(Self::Given(given.clone()))),
            (true, false) => Ok(Some(Self::File(file.to_owned()))),
            (false, false) => Err(BuildError(format!("give {name} or {name}_file, not both"))),
        }
    }

    fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    async fn read(&self) -> Result<Secret, Fault> {
        let file = match self {
            Self::Given(secret) => return Ok(secret.clone()),
            Self::File(file) => file,
        };
        let wrong =
            |why: String| Fault::new(FaultKind::Misconfigured, format!("secret file {}: {why}", file.display()));
        let meta = tokio::fs::metadata(file).await.map_err(|e| wrong(e.to_string()))?;
        if meta.len() > MAX_SECRET {
            return Err(wrong(format!("it has more than {MAX_SECRET} bytes")));
        }
        let text = tokio::fs::read_to_string(file).await.map_err(|e| wrong(e.to_string()))?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(wrong("it is empty".to_owned())),
            secret => Ok(Secret::new(secret)),
        }
    }
}

/// The header that says who we are, as last made.
pub(super) struct Current {
    auth: Auth,
    header: Mutex<Option<HeaderValue>>,
}

impl Current {
    pub(super) fn new(auth: Auth) -> Self {
        Self { auth, header: Mutex::new(None) }
    }

    /// The value of `Authorization`, if there is one. A file is read at the first call.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, Fault> {
        if matches!(self.auth, Auth::None) {
            return Ok(None);
        }
        let mut header = self.header.lock().await;
        if header.is_none() {
            *header = Some(self.make().await?);
        }
        Ok(header.clone())
    }

    /// Reads a file again, and says whether there is something new in it.
    pub(super) async fn changed(&self) -> Result<bool, Fault> {
        let in_file = match &self.auth {
            Auth::None => false,
            Auth::Basic { password: secret, .. } | Auth::Scheme { secret, .. } => secret.is_file(),
        };
        if !in_file {
            return Ok(false);
        }
        let mut header = self.header.lock().await;
        let made = self.make().await?;
        let changed = header.as_ref() != Some(&made);
        *header = Some(made);
        Ok(changed)
    }

    async fn make(&self) -> Result<HeaderValue, Fault> {
        let text = match &self.auth {
            Auth::None => String::new(),
            Auth::Basic { user, password } => {
                let pair = format!("{user}:{}", password.read().await?.expose());
                format!("Basic {}", STANDARD.encode(pair))
            }
            Auth::Scheme { scheme, secret } => format!("{scheme} {}", secret.read().await?.expose()),
        };
        let wrong = |_| Fault::new(FaultKind::Misconfigured, "the secret has characters that no header can carry");
        let mut value = HeaderValue::from_str(&text).map_err(wrong)?;
        value.set_sensitive(true);
        Ok(value)
    }
}
