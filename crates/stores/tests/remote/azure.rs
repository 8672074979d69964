//! Azure Blob Storage, on Microsoft's emulator.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use stoq_api::store::Store;
use stoq_testkit::services::Azurite;
use stoq_testkit::{StoreHarness, store_suite};

use crate::{is_misconfigured, open, race, try_open, with};

fn options(server: &Azurite) -> Value {
    json!({
        "container": "payloads",
        "account": Azurite::ACCOUNT,
        "access_key": Azurite::KEY,
        "endpoint": server.endpoint(),
        "allow_http": true,
    })
}

async fn start() -> Azurite {
    let server = Azurite::start().await;
    server.make_container("payloads").await;
    server
}

struct Azure {
    server: Azurite,
    options: Value,
    below: &'static str,
}

#[async_trait]
impl StoreHarness for Azure {
    async fn store(&mut self) -> Arc<dyn Store> {
        open("azure", self.options.clone())
    }

    async fn kept(&mut self, name: &str) -> Option<Vec<u8>> {
        self.server.blob("payloads", &format!("{}quarantine/{name}", self.below)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_promises() {
    let server = start().await;
    let options = options(&server);
    store_suite(&mut Azure { server, options, below: "" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_its_promises_below_a_prefix() {
    let server = start().await;
    let options = with(options(&server), "prefix", "stoq/");
    store_suite(&mut Azure { server, options, below: "stoq/" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_put_the_same_object_at_once() {
    let server = start().await;
    race(open("azure", options(&server)), open("azure", options(&server))).await;
}

#[tokio::test]
async fn a_wrong_key_is_for_a_person_to_mend() {
    let server = start().await;
    let wrong = Azurite::KEY.replace("Eby8", "aaaa");
    is_misconfigured(&*open("azure", with(options(&server), "access_key", wrong)), "check the credentials").await;
}

#[tokio::test]
async fn a_missing_container_is_for_a_person_to_mend() {
    let server = start().await;
    is_misconfigured(&*open("azure", with(options(&server), "container", "elsewhere")), "is not there").await;
}

#[test]
fn options_that_cannot_work_are_refused() {
    let good = json!({ "container": "c", "account": "a", "access_key": Azurite::KEY });
    try_open("azure", good.clone()).ok().unwrap();
    for (name, value, said) in [
        ("container", "", "`container` is missing"),
        ("account", "", "`account` is missing"),
        ("sas_token", "sv=1&sig=2", "both set"),
    ] {
        let error = try_open("azure", with(good.clone(), name, value)).err().unwrap_or_else(|| panic!("{name}")).0;
        assert!(error.contains(said), "{name}: {error:?} does not say {said:?}");
    }
    let signed = json!({ "container": "c", "account": "a", "sas_token": "?sv=2021-12-02&sig=abc%3D" });
    try_open("azure", signed).ok().unwrap();
}
