//! Checks against a sink that works.

use std::sync::Arc;

use futures::future::join_all;
use stoq_api::plugin::{Item, Verdict};

use super::{ConnectorHarness, Promise, drive, offer, response, response_with, responses};

/// Texts that must not break a document, a line or a request apart.
const HOSTILE: [&str; 8] = [
    "\"}]}\n{\"index\":{}}\n",
    "line one\r\nline two\n\n",
    "\u{0}\u{1b}[31mred\u{7f}",
    "\u{202e}txt.exe\u{2066}",
    "<script>alert(1)</script>&amp;%0a%00",
    "🦀 ünïcödé \u{fffd}\u{10ffff}",
    "${jndi:ldap://x/}{{7*7}}%(message)s",
    "\\u0000\\\"\\\\'; drop table results; --",
];
/// Bytes of text in a large response.
const LARGE: usize = 1 << 20;

pub(super) async fn run(harness: &mut dyn ConnectorHarness) {
    takes_nothing_and_batches(harness).await;
    takes_hostile_text(harness).await;
    delivers_again(harness).await;
    goes_on_after_a_restart(harness).await;
    takes_batches_at_once(harness).await;
    rejects_only_what_is_refused(harness).await;
}

/// Fails unless each of `items` is in the sink as often as promised.
pub(super) async fn expect(harness: &mut dyn ConnectorHarness, items: &[Item], what: &str) {
    let documents = harness.documents().await;
    for item in items {
        let copies = documents.get(&item.id).copied().unwrap_or_default();
        match harness.promise() {
            Promise::Once => assert_eq!(copies, 1, "{what}: response {} of {}", item.id, items.len()),
            Promise::AtLeastOnce => assert!(copies >= 1, "{what}: response {} is missing", item.id),
        }
    }
}

/// The same, and there are no further copies even where some may be: nothing went wrong that would explain them.
async fn expect_once(harness: &mut dyn ConnectorHarness, items: &[Item], what: &str) {
    let documents = harness.documents().await;
    for item in items {
        assert_eq!(documents.get(&item.id), Some(&1), "{what}: response {}", item.id);
    }
}

async fn takes_nothing_and_batches(harness: &mut dyn ConnectorHarness) {
    let connector = harness.connector().await;
    connector.check().await.unwrap();
    assert_eq!(offer(&*connector, &[]).await.unwrap(), []);
    let items = [responses(7), vec![response_with(&"x".repeat(LARGE))]].concat();
    let driven = drive(&*connector, &items).await;
    assert!(driven.rejected.is_empty(), "{driven:?}");
    expect_once(harness, &items, "a batch").await;
}

async fn takes_hostile_text(harness: &mut dyn ConnectorHarness) {
    let connector = harness.connector().await;
    let items: Vec<Item> = HOSTILE.iter().map(|text| response_with(text)).collect();
    let before: usize = harness.documents().await.values().sum();
    let driven = drive(&*connector, &items).await;
    assert!(driven.rejected.is_empty(), "{driven:?}");
    expect_once(harness, &items, "hostile text").await;
    let after: usize = harness.documents().await.values().sum();
    assert_eq!(after - before, items.len(), "nothing else came into being");
}

async fn delivers_again(harness: &mut dyn ConnectorHarness) {
    let connector = harness.connector().await;
    let items = responses(3);
    let twice = [&items[..], &items[..1]].concat();
    for _ in 0..2 {
        let driven = drive(&*connector, &twice).await;
        assert!(driven.rejected.is_empty(), "what is there already is delivered: {driven:?}");
    }
    expect(harness, &items, "delivered again").await;
}

async fn goes_on_after_a_restart(harness: &mut dyn ConnectorHarness) {
    let items = responses(6);
    drive(&*harness.connector().await, &items[..3]).await;
    let driven = drive(&*harness.connector().await, &items).await;
    assert!(driven.rejected.is_empty(), "{driven:?}");
    expect(harness, &items, "a restart in the middle").await;
    // An answer that nobody waited for leaves the connector usable, and the sink in order.
    let connector = harness.connector().await;
    let cut = responses(4);
    {
        let mut early = Box::pin(connector.deliver(&cut));
        tokio::select! {
            biased;
            _ = &mut early => {}
            () = tokio::task::yield_now() => {}
        }
    }
    drive(&*connector, &cut).await;
    expect(harness, &cut, "after an abandoned try").await;
}

async fn takes_batches_at_once(harness: &mut dyn ConnectorHarness) {
    let connector = harness.connector().await;
    let batches: Vec<Vec<Item>> = (0..4).map(|_| responses(5)).collect();
    join_all(batches.iter().map(async |batch| drive(&*Arc::clone(&connector), batch).await)).await;
    expect_once(harness, &batches.concat(), "batches at once").await;
}

async fn rejects_only_what_is_refused(harness: &mut dyn ConnectorHarness) {
    let Some(refused) = harness.refused() else { return };
    let connector = harness.connector().await;
    let good = responses(4);
    let mut items = good.clone();
    items.insert(2, refused.clone());
    let driven = drive(&*connector, &items).await;
    assert_eq!(driven.rejected.keys().collect::<Vec<_>>(), [&refused.id], "{driven:?}");
    assert!(!driven.rejected[&refused.id].is_empty(), "with a reason");
    expect_once(harness, &good, "beside what was refused").await;
    assert_eq!(harness.documents().await.get(&refused.id), None);
    let alone = offer(&*connector, &[refused]).await.unwrap();
    assert!(matches!(alone[..], [Verdict::Rejected(_)]), "{alone:?}");
    drive(&*connector, &[response()]).await;
}
