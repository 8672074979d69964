//! A server that the tests of one file share, and clients of it.

use serde_json::{Map, Value, json};
use stoq_api::queue::{Deliveries, Delivery};
use stoq_rabbitmq::RabbitMq;
use stoq_testkit::services::RabbitMq as Server;
use stoq_testkit::wait::must_end;
use tokio::sync::OnceCell;

/// A server that nothing is done to. It ends with the process.
pub(crate) async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(Server::start).await
}

/// Options for a client of `server` whose lanes are nobody else's.
pub(crate) fn options(server: &Server) -> Map<String, Value> {
    let prefix = format!("test-{}", uuid::Uuid::new_v4().simple());
    let options = json!({
        "addresses": [server.address()],
        "user": server.user(),
        "password": server.password(),
        "prefix": prefix,
    });
    options.as_object().unwrap().clone()
}

/// The same with some of them changed.
pub(crate) fn with(mut options: Map<String, Value>, changes: Value) -> Map<String, Value> {
    options.extend(changes.as_object().unwrap().clone());
    options
}

/// A client.
pub(crate) fn client(options: &Map<String, Value>) -> RabbitMq {
    RabbitMq::open(options).unwrap()
}

/// The next delivery, whatever is lost on the way.
pub(crate) async fn next(deliveries: &mut Box<dyn Deliveries>) -> Delivery {
    let found = async {
        loop {
            match deliveries.next().await {
                Ok(delivery) => return delivery.expect("the client is not closed"),
                Err(fault) => assert!(fault.is_transient(), "{fault}"),
            }
        }
    };
    must_end("a delivery", found).await
}
