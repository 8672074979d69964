//! The provider over a queue in memory.

use std::path::Path;

use serde_json::json;
use stoq_api::plugin::{Reference, Refused, RootBytes};
use stoq_api::queue::Message;
use stoq_api::task::Place;
use stoq_memory::MemoryQueue;

use super::*;
use crate::testing::context;

struct World {
    dir: tempfile::TempDir,
    queue: Arc<MemoryQueue>,
    intake: Intake,
}

/// An intake of `options`, with a root `in` that holds `a` of 20 bytes.
async fn world(options: Value) -> World {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("a"), "twenty bytes of file").unwrap();
    let mut all = json!({ "broker": "b", "queue": "q", "root": root });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let config: Config = serde_json::from_value(all).unwrap();
    let queue = Arc::new(MemoryQueue::new("q"));
    queue.declare(&["stoq"]).await.unwrap();
    let (context, _) = context(dir.path());
    let intake = Intake::new(config.validate().unwrap(), Arc::clone(&queue) as Arc<dyn Queue>, &context).unwrap();
    World { dir, queue, intake }
}

impl World {
    async fn send(&self, id: &str, body: Value) {
        self.queue.publish(vec![Message::new(id, body.to_string())]).await.unwrap();
    }

    async fn reference(&mut self) -> Reference {
        match self.intake.next().await.unwrap().unwrap() {
            Taking::Reference(reference) => reference,
            Taking::Refused(refused) => panic!("{}", refused.reason),
        }
    }

    async fn refused(&mut self) -> Refused {
        match self.intake.next().await.unwrap().unwrap() {
            Taking::Reference(_) => panic!("taken"),
            Taking::Refused(refused) => refused,
        }
    }

    async fn left(&self) -> u64 {
        let depth = self.queue.depth("stoq").await.unwrap();
        depth.ready + depth.held
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join("in").join(Path::new(name)), content).unwrap();
    }
}

#[tokio::test]
async fn a_message_is_acknowledged_when_it_is_taken_and_not_before() {
    let mut world = world(json!({})).await;
    world.send("1", json!({ "payload": { "base64": "aGVsbG8=", "filename": "x" } })).await;
    let reference = world.reference().await;
    assert_eq!(world.left().await, 1);
    let identity = reference.identity.clone();
    drop(reference);
    let again = world.reference().await;
    assert_eq!(again.identity, identity, "what comes again has the same ids");
    again.taken.taken().await.unwrap();
    assert_eq!(world.left().await, 0);

    world.send("1", json!({ "payload": { "base64": "aGVsbG8=", "filename": "y" } })).await;
    assert_ne!(world.reference().await.identity, identity, "producers repeat ids");
    let mut ids = Vec::new();
    for _ in 0..2 {
        world.send("", json!({ "payload": { "base64": "" } })).await;
        let reference = world.reference().await;
        ids.push(reference.identity.clone());
        reference.taken.taken().await.unwrap();
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn what_is_refused_keeps_its_bytes_and_what_names_nothing_is_acknowledged() {
    let mut world = world(json!({ "format": "suricata" })).await;
    world.send("dns", json!({ "event_type": "dns" })).await;
    world.queue.publish(vec![Message::new("bad", "{")]).await.unwrap();
    let refused = world.refused().await;
    assert_eq!((&refused.original.body[..], refused.original.id.as_str()), (&b"{"[..], "bad"));
    assert!(refused.reason.contains("not JSON"), "{}", refused.reason);
    refused.taken.taken().await.unwrap();
    // The other one is settled beside; its work is done once the intake was asked again.
    let asked = tokio::time::timeout(std::time::Duration::from_millis(1), world.intake.next()).await;
    assert!(asked.is_err());
    stoq_testkit::wait::until("the event is acknowledged", async || world.left().await == 0).await;
}

#[tokio::test]
async fn files_stay_where_they_are_or_are_read_here() {
    let mut world_of_workers = world(json!({})).await;
    world_of_workers.send("1", json!({ "payload": { "path": "a", "size": 21 } })).await;
    let reference = world_of_workers.reference().await;
    let RootBytes::File(file) = &reference.roots[0].bytes else { panic!("read") };
    assert_eq!((file.root.as_str(), file.size), ("src", 21), "the size is the reference's, so that a fetch can tell");

    let mut world = world(json!({ "fetch": "provider" })).await;
    world.send("1", json!({ "payload": { "path": "a", "size": 21 } })).await;
    let reference = world.reference().await;
    let RootBytes::Content(content) = &reference.roots[0].bytes else { panic!("left") };
    assert_eq!(&content.to_bytes().unwrap()[..], b"twenty bytes of file");
    let mismatch = &reference.roots[0].meta.extra_data["reference_mismatch"];
    assert_eq!(mismatch, "20 bytes are there instead of 21");
}

#[tokio::test]
async fn a_file_that_comes_after_its_reference_is_waited_for_a_while() {
    let mut late = world(json!({ "file_wait": 60 })).await;
    late.send("1", json!({ "payload": { "path": "late" } })).await;
    let asked = tokio::time::timeout(std::time::Duration::from_millis(20), late.intake.next()).await;
    assert!(asked.is_err(), "it is not there yet");
    late.write("late", "here");
    assert!(matches!(late.reference().await.roots[0].bytes, RootBytes::File(_)));

    let mut never = world(json!({ "file_wait": 0.05 })).await;
    never.send("1", json!({ "payload": { "path": "never" } })).await;
    let reason = never.refused().await.reason;
    assert!(reason.contains("does not exist"), "{reason}");
}

#[tokio::test]
async fn workers_get_places_with_the_name_of_their_rules() {
    let mut world = world(json!({ "allow_buckets": ["carved"], "store": "s" })).await;
    world.send("1", json!({ "payload": { "bucket": "carved", "key": "k", "size": 3 } })).await;
    let reference = world.reference().await;
    let RootBytes::Remote(remote) = &reference.roots[0].bytes else { panic!("not left") };
    assert_eq!((remote.via.as_str(), remote.size), ("src", Some(3)));
    assert!(matches!(&remote.place, Place::Object { bucket, .. } if bucket == "carved"));
}

#[tokio::test]
async fn options_that_cannot_work_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (context, _) = context(dir.path());
    for (options, says) in [
        (json!({}), "broker is not set"),
        (json!({ "broker": "b" }), "queue is not set"),
        (json!({ "broker": "b", "queue": "q", "format": "zeek" }), "root is not set"),
        (json!({ "broker": "b", "queue": "q", "format": "xml" }), "unknown variant `xml`"),
        (json!({ "broker": "b", "queue": "q", "prefetch": -1 }), "prefetch is -1"),
        (json!({ "broker": "b", "queue": "q", "prefetch": 0 }), "prefetch is 0: give 1 to 1000"),
        (json!({ "broker": "b", "queue": "q", "fetch": "nobody" }), "unknown variant `nobody`"),
        (json!({ "broker": "b", "queue": "q" }), "no broker is called \"b\""),
    ] {
        let error = build(options.as_object().unwrap(), &context).err().unwrap().to_string();
        assert!(error.contains(says), "{options}: {error}");
    }
    for (options, says) in [
        (json!({ "root": "/nowhere/at/all" }), "root:"),
        (json!({ "allow_buckets": ["b"] }), "store is not set"),
        (json!({ "allow_archivers": ["x"] }), "no archiver is called \"x\""),
        (json!({ "allow_hosts": ["http://x"] }), "is not a host"),
        (json!({ "allow_private": ["*"] }), "must name hosts"),
    ] {
        let mut all = json!({ "broker": "b", "queue": "q" });
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let error = fetcher(all.as_object().unwrap(), &context).err().unwrap().to_string();
        assert!(error.contains(says), "{options}: {error}");
    }
}
