//! Just enough of a client of Kubernetes' API: objects in, objects out.

use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};

/// Known to the API server as a member of `system:masters`.
pub(crate) const TOKEN: &str = "loopback-only";
/// What is written is JSON or YAML; the second is read as the first, too.
const OBJECT: &str = "application/yaml";
/// Fields that are given replace those that are there.
const MERGE: &str = "application/merge-patch+json";
/// A server that is not ready for that yet says so, and is asked again.
const LATER: u16 = 429;
const TRIES: usize = 60;
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
/// How long an answer may take.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A client of one API server.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    address: String,
}

impl Api {
    /// A client of the server on that port of the loopback address, whose certificate is of this authority.
    pub(crate) fn new(port: u16, authority: &std::path::Path) -> Self {
        let authority = Certificate::from_pem(&std::fs::read(authority).unwrap()).unwrap();
        let client = Client::builder().tls_certs_only([authority]).no_proxy().timeout(LIMIT).build().unwrap();
        Self { client, address: format!("https://localhost:{port}") }
    }

    /// Where the server is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Whether something answers there, or on that address, with 200.
    pub(crate) async fn is_well(&self, url: &str) -> bool {
        let url = if url.starts_with('/') { format!("{}{url}", self.address) } else { url.to_owned() };
        let answer = self.client.get(url).bearer_auth(TOKEN).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// An object, if it is there.
    pub(crate) async fn find(&self, path: &str) -> Option<Value> {
        let (status, answer) = self.send(Method::GET, path, OBJECT, String::new()).await;
        (status != 404).then(|| expect(path, status, &answer))
    }

    /// An object or a list that is there.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.find(path).await.unwrap_or_else(|| panic!("{path} is not there"))
    }

    /// The items of a list.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let Value::Array(items) = self.get(path).await["items"].take() else { panic!("{path} is no list") };
        items
    }

    /// Makes an object in the list `path`.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Value {
        self.create_text(path, object.to_string()).await
    }

    /// The same with the text of an object.
    pub(crate) async fn create_text(&self, path: &str, object: String) -> Value {
        let (status, answer) = self.send(Method::POST, path, OBJECT, object).await;
        expect(path, status, &answer)
    }

    /// Changes an object, if it is still there.
    pub(crate) async fn patch(&self, path: &str, change: &Value) {
        let (status, answer) = self.send(Method::PATCH, path, MERGE, change.to_string()).await;
        if status != 404 {
            expect(path, status, &answer);
        }
    }

    /// Removes an object at once, if it is still there.
    pub(crate) async fn remove(&self, path: &str) {
        let now = json!({ "gracePeriodSeconds": 0 });
        let (status, answer) = self.send(Method::DELETE, path, OBJECT, now.to_string()).await;
        if status != 404 {
            expect(path, status, &answer);
        }
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: String) -> (u16, Value) {
        for _ in 0..TRIES {
            let request = self.client.request(method.clone(), format!("{}{path}", self.address)).bearer_auth(TOKEN);
            let request = request.header("content-type", kind).header("accept", "application/json").body(body.clone());
            let answer = request.send().await.unwrap_or_else(|e| panic!("{path}: {e}"));
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap_or_else(|e| panic!("{path}: {e}"));
            if status != LATER {
                return (status, serde_json::from_str(&text).unwrap_or(Value::String(text)));
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{path}: the server puts everybody off");
    }
}

fn expect(path: &str, status: u16, answer: &Value) -> Value {
    assert!((200..300).contains(&status), "{path}: {status}: {answer:#}");
    answer.clone()
}
