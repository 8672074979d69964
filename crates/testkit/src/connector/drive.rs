//! The frame's part, played by the suite.

use std::collections::BTreeMap;

use stoq_api::plugin::{Connector, Item, Verdict};
use stoq_api::{Fault, fault};

use crate::wait::must_end;

/// Rounds after which a sink that has recovered must have taken everything.
const MAX_ROUNDS: u32 = 60;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Driven {
    /// Why each item that was refused was, by id.
    pub rejected: BTreeMap<String, String>,
    /// How often something was offered.
    pub rounds: u32,
    /// What was said of rounds that did not deliver everything.
    pub troubles: Vec<String>,
}

/// Offers `items` until each is delivered or rejected, as the frame does.
///
/// # Panics
/// They are not after many rounds.
pub async fn drive(connector: &dyn Connector, items: &[Item]) -> Driven {
    let mut driven = Driven::default();
    let mut open = items.to_vec();
    while !open.is_empty() {
        driven.rounds += 1;
        assert!(driven.rounds <= MAX_ROUNDS, "{} items have no verdict: {:?}", open.len(), driven.troubles);
        match offer(connector, &open).await {
            Ok(verdicts) => {
                let mut left = Vec::new();
                for (item, verdict) in open.into_iter().zip(verdicts) {
                    match verdict {
                        Verdict::Delivered => {}
                        Verdict::Rejected(reason) => drop(driven.rejected.insert(item.id, reason)),
                        Verdict::Retry(reason) => {
                            driven.troubles.push(reason);
                            left.push(item);
                        }
                    }
                }
                open = left;
            }
            Err(e) => driven.troubles.push(fault::chain(&e)),
        }
        if !open.is_empty() {
            // A sink that asks for a pause gets one; the frame waits longer.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    driven
}

/// One try.
///
/// # Errors
/// Those of the connector.
///
/// # Panics
/// There is not one verdict for each item, or no answer at all.
pub async fn offer(connector: &dyn Connector, items: &[Item]) -> Result<Vec<Verdict>, Fault> {
    let verdicts = must_end("an answer of the connector", connector.deliver(items)).await?;
    assert_eq!(verdicts.len(), items.len(), "one verdict for each item, in order");
    Ok(verdicts)
}
